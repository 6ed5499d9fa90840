import errno
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detector import YOLO, drawing
from detector.errors import DataError, SettingsError

LOOSE = {"conf": 0.0, "imgsz": 96, "device": "cpu", "verbose": False, "max_det": 5}


@pytest.fixture
def model(tiny_model):
    torch.manual_seed(0)
    yolo = YOLO(tiny_model)
    for level in yolo.model.head.cv3:  # scores that differ, so that the order of boxes is certain
        torch.nn.init.normal_(level[-1].weight)
        torch.nn.init.normal_(level[-1].bias)
    return yolo


@pytest.fixture
def scenes(drawn_dataset):
    return drawn_dataset.parent / "data" / "images" / "val"


def test_predict_returns_one_result_per_image(model, scenes):
    results = model.predict(scenes, **LOOSE)
    assert len(results) == 4
    first = results[0]
    assert first.path.startswith(str(scenes))
    assert first.boxes.data.shape == (5, 6)
    height, width = first.orig_shape
    assert (first.boxes.xyxy >= 0).all()
    assert (first.boxes.xyxy[:, [0, 2]] <= width).all()
    assert (first.boxes.xyxy[:, [1, 3]] <= height).all()
    assert set(first.speed) == {"preprocess", "inference", "postprocess"}


def test_calling_the_model_predicts(model, scenes):
    assert len(model(str(next(scenes.iterdir())), **LOOSE)) == 1


def test_every_kind_of_source_gives_the_same_boxes(model, scenes):
    path = sorted(scenes.iterdir())[0]
    image = cv2.imread(str(path))
    from PIL import Image

    rgb = np.ascontiguousarray(image[:, :, ::-1])
    sources = [
        path, str(path), [path], image, Image.fromarray(rgb),
        torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255, str(path.with_name(f"{path.stem}*")),
    ]  # fmt: skip
    boxes = [model.predict(source, **LOOSE)[0].boxes.data for source in sources]
    for other in boxes[1:]:
        assert torch.allclose(boxes[0], other, atol=1e-4)


def test_a_batch_predicts_what_single_images_do(model, scenes):
    single = model.predict(scenes, **LOOSE, amp=False, rect=False)
    batched = model.predict(scenes, **LOOSE, amp=False, rect=False, batch=4)
    for a, b in zip(single, batched, strict=True):
        assert torch.allclose(a.boxes.data, b.boxes.data, atol=1e-3)


def test_stream_is_lazy_and_closing_it_ends_the_prediction(model, scenes):
    events = []
    for event in ("on_predict_start", "on_predict_batch_end", "on_predict_end"):
        model.add_callback(event, lambda predictor, event=event: events.append(event))
    stream = model.predict(scenes, stream=True, **LOOSE)
    assert events == []
    next(stream)
    stream.close()
    assert events == ["on_predict_start", "on_predict_batch_end", "on_predict_end"]


def test_results_that_a_callback_replaced_are_returned(model, scenes):
    @model.add_callback("on_predict_postprocess_end")
    def keep_one(predictor):
        predictor.results = [result[:1] for result in predictor.results]

    assert [len(result) for result in model.predict(scenes, **LOOSE)] == [1] * 4


def test_written_files_have_different_names(model, scenes, tmp_path):
    path = sorted(scenes.iterdir())[0]
    model.predict(
        [path, path], **LOOSE, save=True, save_txt=True, save_conf=True, save_crop=True, project=tmp_path
    )
    folder = tmp_path / "predict"
    twin = f"{path.stem}-2"
    assert (folder / path.name).exists()
    assert (folder / f"{twin}{path.suffix}").exists()
    rows = (folder / "labels" / f"{twin}.txt").read_text().splitlines()
    assert len(rows) == 5
    assert len(rows[0].split()) == 6
    assert any((folder / "crops").rglob("*.jpg"))


@pytest.mark.parametrize("way", ["images", "linked", "labels"])
def test_results_never_replace_the_source_or_its_labels(way, model, scenes, tmp_path):
    data = tmp_path / "street"
    shutil.copytree(scenes, data / "images")
    shutil.copytree(scenes.parent.parent / "labels/val", data / "labels")
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    place = {"project": data, "name": "images", "save": True}
    if way == "linked":
        (tmp_path / "link").symlink_to(data)
        place["project"] = tmp_path / "link"
    if way == "labels":
        place = {"project": tmp_path, "name": "street", "save_txt": True}
    with pytest.raises(
        SettingsError, match=r"holds images of source= or their labels, .*choose another project="
    ):
        model.predict(data / "images", exist_ok=True, **place, **LOOSE)
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before
    model.predict(data / "images", exist_ok=True, project=data, name="found", save=True, **LOOSE)


def test_images_that_differ_by_suffix_only_have_their_own_label_files_and_crops(model, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    (tmp_path / "shots/sub").mkdir(parents=True)
    for name, pixels in (
        ("a.jpg", noise[0]),
        ("a.png", noise[1]),
        ("A.bmp", noise[1]),
        ("sub/a.jpg", noise[0]),
    ):
        cv2.imwrite(str(tmp_path / "shots" / name), pixels)
    wanted = {"save": True, "save_txt": True, "save_crop": True}
    results = model.predict(tmp_path / "shots", **LOOSE, **wanted, project=tmp_path)
    folder = tmp_path / "predict"
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "A.bmp",
        "a-2.jpg",
        "a.jpg",
        "a.png",
    ]
    assert sorted(path.name for path in (folder / "labels").iterdir()) == [
        "A.txt",
        "a-2.txt",
        "a-3.txt",
        "a-4.txt",
    ]
    rows = sum(len(path.read_text().splitlines()) for path in (folder / "labels").iterdir())
    assert rows == sum(map(len, results))


def test_an_image_of_a_format_opencv_only_reads_is_saved_as_jpeg(model, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    (tmp_path / "shots").mkdir()
    for stem in ("b", "c"):
        pixels.save(tmp_path / f"shots/{stem}.mpo", format="MPO", save_all=True, append_images=[pixels])
    pixels.save(tmp_path / "shots/b.jpg")
    results = model.predict(tmp_path / "shots", **LOOSE, save=True, project=tmp_path)
    assert len(results) == 3
    assert sorted(path.name for path in (tmp_path / "predict").iterdir()) == ["b-2.jpg", "b.jpg", "c.jpg"]
    assert caplog.messages.count("OpenCV can't write .mpo images; annotated ones are saved as .jpg") == 1
    assert results[1].save().name == "results_b.jpg"


def test_an_image_that_can_not_be_written_does_not_end_the_prediction(
    model, scenes, tmp_path, monkeypatch, caplog
):
    write, full = drawing.replace_file, []

    def fail_on_the_second(path, data):
        if path.stem.endswith(sorted(scenes.iterdir())[1].stem):
            raise OSError(full[0] if full else errno.ENAMETOOLONG, "File name too long")
        return write(path, data)

    monkeypatch.setattr(drawing, "replace_file", fail_on_the_second)
    results = model.predict(scenes, **LOOSE, save=True, project=tmp_path)
    assert len(results) == 4
    assert len(list((tmp_path / "predict").iterdir())) == 3
    assert "files of 1 images could not be written" in caplog.messages
    full.append(errno.ENOSPC)
    with pytest.raises(DataError, match="can't write the image"):
        model.predict(scenes, **LOOSE, save=True, project=tmp_path)


def test_nothing_is_written_unless_asked(model, scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.predict(scenes, **LOOSE)
    assert not any(tmp_path.glob("runs"))


def test_a_corrupt_image_is_named_skipped_and_counted(model, scenes, tmp_path, caplog):
    (tmp_path / "b.jpg").write_bytes(b"not an image")
    (tmp_path / "a.jpg").write_bytes(sorted(scenes.iterdir())[0].read_bytes())
    with caplog.at_level("WARNING", logger="detector"):
        assert len(model.predict(tmp_path, **LOOSE)) == 1
    assert "b.jpg" in caplog.text
    assert "1 of 2 images could not be read" in caplog.text


def test_errors_of_sources_are_ours(model, tmp_path):
    with pytest.raises(DataError, match="source= is missing"):
        model.predict(**LOOSE)
    with pytest.raises(DataError, match="nowhere"):
        model.predict(tmp_path / "nowhere.jpg", **LOOSE)
    with pytest.raises(SettingsError, match="unknown setting 'confidence'"):
        model.predict(tmp_path, confidence=0.5)


def test_the_network_is_fused_once(model, scenes):
    path = next(scenes.iterdir())
    model.predict(path, **LOOSE)
    backend = model.predictor.backend
    model.predict(path, **LOOSE)
    assert model.predictor.backend is backend
    with torch.no_grad():
        next(model.model.parameters()).add_(1)
    model.predict(path, **LOOSE)
    assert model.predictor.backend is not backend


def test_the_nms_free_head_can_be_chosen(tiny_dual_model, scenes):
    dual = YOLO(tiny_dual_model)
    for nms in (True, False):
        dual.predict(scenes, **LOOSE, nms=nms)
        assert dual.predictor.backend.nms is nms
