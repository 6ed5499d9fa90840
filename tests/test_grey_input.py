"""Grey images, channels: 1, and images of 16 bits, from the data YAML to the exported file."""

import csv
import logging

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support.models import assert_same_boxes, drawn_inputs, make_finder, write_tiny
from support.training import quick_settings

from detector import YOLO
from detector.checkpoints.checkpoint import load_checkpoint
from detector.checkpoints.transfer import transfer_weights
from detector.data.annotations import build_annotations
from detector.data.augment import Augmentation
from detector.data.config import load_data_config
from detector.data.convert import convert
from detector.data.dataset import DetectionDataset, TrainKey
from detector.data.drawn import FORMS, make_drawn_dataset
from detector.data.images import PixelFormat, read_image
from detector.data.letterbox import letterbox_batch
from detector.data.loader import TrainLoader
from detector.data.sources import open_source
from detector.data.warp import shift_hsv
from detector.errors import CheckpointError, DataError, ExportError, ModelError
from detector.nn.model import DetectionModel, load_model_config
from detector.runtimes.contract import contract_of

GREY = PixelFormat(1)
NAMES = list(FORMS[:6])


def write_yaml(folder, **more):
    path = folder / "grey.yaml"
    keys = {"train": "images/train", "val": "images/val", "names": NAMES, "channels": 1, **more}
    path.write_text(yaml.safe_dump(keys))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight training and four validation scenes in colour."""
    folder = tmp_path_factory.mktemp("grey") / "data"
    make_drawn_dataset(folder, {"train": 8, "val": 4}, NAMES, seed=0, size=96)
    return folder


@pytest.fixture(scope="module")
def grey_data(folder):
    return write_yaml(folder)


@pytest.fixture(scope="module")
def deep_data(folder, tmp_path_factory):
    """The same scenes as grey PNG files of 12 bits in 16."""
    deep = tmp_path_factory.mktemp("deep")
    for path in sorted(folder.rglob("*.*")):
        place = deep / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            place.write_bytes(path.read_bytes())
        elif path.suffix != ".yaml":
            pixels = read_image(path, form=GREY).astype(np.uint16)
            cv2.imwrite(str(place.with_suffix(".png")), pixels * 16)
    return write_yaml(deep, value_range=[0, 4080])


@pytest.fixture(scope="module")
def grey_weights(tmp_path_factory):
    """Path of untrained weights of one channel that find different things."""
    folder = tmp_path_factory.mktemp("grey_finder")
    colour = YOLO(make_finder(folder))
    (folder / "grey.yaml").write_text(
        f"channels: 1\nnames: [{', '.join(NAMES)}]\n" + write_tiny(folder / "t.yaml").read_text()
    )
    grey = YOLO(folder / "grey.yaml")
    transfer_weights(grey.model, colour.model.state_dict(), {})
    return grey.save(folder / "grey.pt")


@pytest.fixture
def grey(grey_weights, tmp_path):
    path = tmp_path / "grey.pt"
    path.write_bytes(grey_weights.read_bytes())
    return YOLO(path)


@pytest.fixture
def scene():
    """A colour image, (H, W, 3) BGR."""
    return read_scene(1)


def read_scene(number):
    return np.ascontiguousarray(drawn_inputs(96, 128)[number].numpy()[::-1].transpose(1, 2, 0))


def annotations_of(data):
    config = load_data_config(data)
    return build_annotations(config.read_labels("train"), config.names)


# ---- reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_a_file_is_read_as_its_array_is_converted(tmp_path, scene, suffix, kind):
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), scene if kind == "colour" else scene[..., 1])
    found = read_image(path, form=GREY)
    assert found.shape == scene.shape[:2] and found.dtype == np.uint8
    assert np.array_equal(found, cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2GRAY))
    small = read_image(path, cv2.IMREAD_REDUCED_COLOR_2, form=GREY)
    assert small.shape == (48, 64)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK", "1"])
def test_other_kinds_of_pixels_become_grey(tmp_path, scene, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.fromarray(scene).convert("L" if mode == "LA" else "RGB").convert(mode).save(path)
    found, colour = read_image(path, form=GREY), read_image(path)
    assert found.shape == scene.shape[:2] and colour.shape == scene.shape
    assert np.array_equal(found, cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 3)])
def test_16_bits_are_scaled_by_the_stated_rule(tmp_path, suffix, shape):
    deep = np.random.default_rng(0).integers(0, 65536, shape, np.uint16)
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), deep)
    upper = np.broadcast_to((deep >> 8).reshape(40, 60, -1), (40, 60, 3))
    assert np.abs(read_image(path).astype(int) - upper).max() <= (suffix == "tiff" and len(shape) == 3)
    ranged = read_image(path, form=PixelFormat(3, (1000, 5095)))
    expected = np.clip(np.round((deep.astype(float) - 1000) / 4095 * 255), 0, 255).reshape(40, 60, -1)
    assert np.abs(ranged - np.broadcast_to(expected, (40, 60, 3))).max() <= 1e-9
    one = read_image(path, form=PixelFormat(1, (1000, 5095)))
    assert np.array_equal(one, cv2.cvtColor(ranged, cv2.COLOR_BGR2GRAY))


def test_a_range_leaves_images_of_8_bits_as_they_are(tmp_path, scene):
    cv2.imwrite(str(tmp_path / "a.png"), scene)
    assert np.array_equal(read_image(tmp_path / "a.png", form=PixelFormat(3, (0, 4095))), scene)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"channels": 2}, "channels: 2; expected 1 (grey) or 3 (colour); convert images that have others"),
        ({"channels": True}, "channels: True; expected 1 (grey) or 3 (colour)"),
        ({"channels": "grey"}, "channels: 'grey'; expected 1 (grey) or 3 (colour)"),
        ({"channels": [1]}, "channels: [1]; expected 1 (grey) or 3 (colour)"),
        ({"value_range": 4095}, "value_range: 4095; expected two numbers, the values of images of 16 bits"),
        ({"value_range": [9, 9]}, "value_range: [9, 9]; expected two numbers"),
        ({"value_range": [0, 10**12]}, "; expected two numbers"),
        ({"value_range": [0, float("nan")]}, "value_range: [0, nan]; expected two numbers"),
    ],
)
def test_wrong_keys_of_the_data_are_refused(folder, tmp_path, keys, message):
    with pytest.raises(DataError) as caught:
        load_data_config(write_yaml(tmp_path, **keys))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("channels: 2\n", "channels=2; expected 1 (grey) or 3 (colour)."),
        ("ch: 4\n", "ch=4; expected 1 (grey) or 3 (colour)."),
        ("channels: 1\nch: 3\n", "channels and ch differ; keep channels."),
        ("value_range: [4, 1]\n", "value_range=[4, 1]; expected two numbers"),
        ("value_range: [0, .inf]\n", "value_range=[0, inf]; expected two numbers"),
    ],
)
def test_wrong_keys_of_a_model_are_refused(tmp_path, first, message):
    with pytest.raises(ModelError) as caught:
        load_model_config(write_tiny(tmp_path / "tiny.yaml", first=first))
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["channels", "ch"])
def test_a_model_of_one_channel_takes_one(tmp_path, key):
    config = load_model_config(write_tiny(tmp_path / "tiny.yaml", first=f"{key}: 1\n"))
    model = DetectionModel(config)
    assert model.model[0].conv.weight.shape[1] == model.channels == 1
    assert type(config).from_dict(config.to_dict()) == config and config.to_dict()["channels"] == 1
    assert (
        model.info(64).gflops
        < DetectionModel(load_model_config(write_tiny(tmp_path / "c.yaml"))).info(64).gflops
    )


def test_joined_sets_that_contradict_each_other_are_refused(grey_data, deep_data, folder, tmp_path):
    colour = tmp_path / "colour.yaml"
    colour.write_text(grey_data.read_text().replace("channels: 1", "channels: 3") + f"path: {folder}\n")
    with pytest.raises(DataError, match="the sets have channels: 1 and 3; expected one for all"):
        load_data_config([str(grey_data), str(colour)])
    joined = load_data_config([str(grey_data), str(deep_data)])
    assert (joined.channels, joined.value_range) == (1, (0, 4080)) and ", read as grey" in joined.describe()


def test_data_in_a_dict_says_it_too(folder):
    keys = {"path": str(folder), "train": "images/train", "val": "images/val", "names": NAMES, "channels": 1}
    assert load_data_config(keys).channels == 1


def test_the_description_of_a_colour_model_is_as_before(tiny_model):
    assert not {"channels", "value_range"} & load_model_config(tiny_model).to_dict().keys()


# ---- samples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"mixup": 0.5, "degrees": 5.0}, {"copy_paste": 1.0}, {"cutmix": 1.0}])
def test_augmented_grey_samples_have_the_boxes_of_colour_ones(grey_data, given):
    annotations = annotations_of(grey_data)
    extra = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0} | given
    colour = DetectionDataset(annotations, 64, Augmentation(**extra))
    one = DetectionDataset(annotations, 64, Augmentation(**extra), form=GREY)
    for k in range(8):
        mine, theirs = one[TrainKey(0, k)], colour[TrainKey(0, k)]
        assert mine.image.shape == (1, 64, 64) and np.array_equal(mine.target.boxes, theirs.target.boxes)
        bgr = np.ascontiguousarray(theirs.image.numpy()[::-1].transpose(1, 2, 0))
        gap = mine.image[0].numpy().astype(int) - cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
        assert np.abs(gap).max() <= 4  # roundings, once before and once after


@pytest.mark.parametrize("augmentation", [Augmentation(hsv_v=0.0), Augmentation(hsv_v=0.0, bgr=1.0)])
def test_colours_do_nothing_to_grey_and_brightness_does(grey_data, augmentation):
    annotations = annotations_of(grey_data)
    plain = DetectionDataset(annotations, 64, Augmentation(hsv_h=0, hsv_s=0, hsv_v=0), form=GREY)
    same = DetectionDataset(annotations, 64, augmentation, form=GREY)
    other = DetectionDataset(annotations, 64, Augmentation(), form=GREY)
    images = [[dataset[TrainKey(0, k)].image for k in range(4)] for dataset in (plain, same, other)]
    assert all(map(torch.equal, images[0], images[1])) and not any(map(torch.equal, images[0], images[2]))


def test_the_value_of_grey_is_that_of_equal_channels():
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    for value in (0.6, 1.0, 1.4):
        three = shift_hsv(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), 7.0, 1.3, value)
        assert np.array_equal(three, cv2.cvtColor(shift_hsv(grey, 7.0, 1.3, value), cv2.COLOR_GRAY2BGR))


@pytest.mark.parametrize("cache", ["ram", False])
@pytest.mark.parametrize("data", ["grey_data", "deep_data"])
def test_workers_and_caches_change_nothing(data, cache, request):
    path = request.getfixturevalue(data)
    annotations, form = annotations_of(path), PixelFormat(1, load_data_config(path).value_range)
    here = TrainLoader(DetectionDataset(annotations, 64, Augmentation(), cache="auto", form=form), 4)
    there = TrainLoader(
        DetectionDataset(annotations, 64, Augmentation(), cache=cache, form=form, workers=2), 4, 2
    )
    for epoch in range(2):
        for a, b in zip(here.batches(epoch), there.batches(epoch), strict=True):
            assert a.images.shape == (4, 1, 64, 64) and torch.equal(a.images, b.images)
    there.close()


def test_12_bits_with_their_range_are_the_8_bits_they_were_made_of(grey_data, deep_data):
    sets = [
        DetectionDataset(annotations_of(data), 64, form=PixelFormat(1, load_data_config(data).value_range))
        for data in (grey_data, deep_data)
    ]
    assert all(torch.equal(sets[0][k].image, sets[1][k].image) for k in range(8))


def test_transforms_see_one_channel(train_tiny, grey_data):
    shapes = set()

    def flat(image, boxes, labels):
        shapes.add(image.shape)
        return cv2.GaussianBlur(image, (3, 3), 0), boxes, labels  # OpenCV drops the axis

    train_tiny(data=grey_data, epochs=1, transforms=[flat])
    assert shapes == {(64, 64, 1)}


# ---- training, val, predict ---------------------------------------------------------------------------


def test_training_on_grey_learns_and_its_file_finds_the_same(train_tiny, grey_data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    shapes = set()

    def note(trainer):
        shapes.add(tuple(trainer.batch.images.shape))

    plain = {"mosaic": 0.0, "scale": 0.0, "translate": 0.0}
    yolo = train_tiny(
        ("on_train_batch_end", note),
        data=grey_data,
        epochs=24,
        plots=True,
        optimizer="AdamW",
        lr0=0.005,
        **plain,
    )
    assert shapes == {(4, 1, 64, 64)} and ", read as grey" in caplog.text
    with (tmp_path / "train/results.csv").open() as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.9 * losses[0]
    drawn = cv2.imread(str(tmp_path / "train/train_batch0.jpg"))
    assert drawn is not None and np.ptp(drawn.astype(int), axis=2).max() > 60  # boxes in colour on grey

    content = load_checkpoint(yolo.source)
    assert content["model"]["channels"] == 1 and content["weights"]["model.0.conv.weight"].shape[1] == 1
    again = YOLO(yolo.source)
    metrics = again.val(data=grey_data, plots=False, verbose=False, rect=False, amp=False, project=tmp_path)
    opened = YOLO(again.export(format="onnx", verbose=False, data=grey_data))
    assert opened.exported.contract.channels == 1 and opened.exported.metadata["input"]["shape"] == [
        1,
        1,
        64,
        64,
    ]
    theirs = opened.val(data=grey_data, plots=False, verbose=False, project=tmp_path)
    assert theirs.results_dict == pytest.approx(metrics.results_dict, abs=1e-3)


def test_a_run_is_resumed_to_the_same_losses_and_not_in_other_channels(
    train_tiny, folder, grey_data, tmp_path
):
    train_tiny(data=grey_data, project=tmp_path / "whole")

    def end(trainer):
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    own = tmp_path / "own.yaml"
    own.write_text(grey_data.read_text() + f"path: {folder}\n")
    with pytest.raises(KeyboardInterrupt):
        train_tiny(("on_train_epoch_start", end), data=own, project=tmp_path / "part")
    own.write_text(own.read_text().replace("channels: 1", "channels: 3"))
    with pytest.raises(CheckpointError, match="has channels: 1, data= has channels: 3 now; restore it"):
        YOLO("yolo11n.yaml").train(resume=tmp_path / "part/train", verbose=False)
    own.write_text(own.read_text().replace("channels: 3", "channels: 1"))
    YOLO("yolo11n.yaml").train(resume=tmp_path / "part/train", verbose=False)
    losses = []
    for name in ("whole", "part"):
        with (tmp_path / name / "train/results.csv").open() as file:
            losses.append([row["train/box_loss"] for row in csv.DictReader(file)])
    assert len(losses[0]) == 2 and losses[0] == losses[1]


def test_every_source_is_converted_for_a_grey_model(grey, scene, tmp_path):
    one = cv2.cvtColor(scene, cv2.COLOR_BGR2GRAY)
    cv2.imwrite(str(tmp_path / "colour.png"), scene)
    cv2.imwrite(str(tmp_path / "grey.png"), one)
    cv2.imwrite(str(tmp_path / "deep.png"), one.astype(np.uint16) * 256)
    tensor = torch.from_numpy(one.copy())[None]
    sources = [
        scene, one, one[..., None], cv2.cvtColor(one, cv2.COLOR_GRAY2BGR), one.astype(np.uint16) * 256 + 7,
        *(tmp_path / f"{name}.png" for name in ("colour", "grey", "deep")),
        Image.fromarray(one), Image.fromarray(scene[..., ::-1]), Image.open(tmp_path / "deep.png"),
        tensor, tensor[None], tensor / 255,
    ]  # fmt: skip
    first, *others = (grey.predict(source, verbose=False, conf=0.02, imgsz=128)[0] for source in sources)
    assert len(first.boxes) > 3
    for result in others:
        assert torch.equal(result.boxes.data, first.boxes.data)
        assert result.orig_img.shape == (96, 128, 3) == result.plot().shape
    batch = grey.predict(sources, verbose=False, conf=0.02, imgsz=128, batch=5)
    assert all(len(result.boxes) == len(first.boxes) for result in batch)


def test_a_colour_model_takes_grey_tensors_as_equal_channels(trained, scene):
    tensor = torch.from_numpy(scene[..., 1].copy())[None]
    (a,), (b,) = (trained.predict(source, verbose=False) for source in (tensor, tensor.expand(3, -1, -1)))
    assert torch.equal(a.boxes.data, b.boxes.data)


def test_a_model_remembers_its_range(train_tiny, deep_data, grey_data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    yolo = train_tiny(data=deep_data, epochs=1)
    assert "images of 16 bits: 0 to 4080 become 0 to 255" in caplog.text
    content = load_checkpoint(yolo.source)["model"]
    assert content["value_range"] == [0, 4080] and YOLO(yolo.source).model.value_range == (0, 4080)
    deep, plain = (sorted((data.parent / "images/val").iterdir())[0] for data in (deep_data, grey_data))
    opened = YOLO(yolo.export(format="torchscript", verbose=False))
    assert opened.exported.contract.value_range == (0, 4080)
    for model in (yolo, opened):
        (a,), (b,) = (model.predict(path, verbose=False, conf=0.0, max_det=20) for path in (deep, plain))
        assert len(a.boxes) > 0 and torch.equal(a.boxes.data, b.boxes.data)
        c = model.predict(cv2.imread(str(deep), cv2.IMREAD_UNCHANGED), verbose=False, conf=0.0, max_det=20)[0]
        assert torch.equal(a.boxes.data, c.boxes.data)


def test_dark_16_bits_are_warned_of(deep_data, train_tiny, tmp_path, caplog):
    bare = tmp_path / "bare.yaml"
    keys = yaml.safe_load(deep_data.read_text())
    del keys["value_range"]
    bare.write_text(yaml.safe_dump(keys | {"path": str(deep_data.parent)}))
    train_tiny(data=bare, epochs=1)
    assert "so it is nearly black; give the range that your images use" in caplog.text


def test_data_that_contradicts_the_model_is_said(grey, drawn_dataset, tmp_path, caplog):
    stated = tmp_path / "stated.yaml"
    stated.write_text(
        drawn_dataset.read_text().replace("path: data", f"path: {drawn_dataset.parent / 'data'}")
    )
    grey.val(data=stated, plots=False, verbose=False, imgsz=64, project=tmp_path)
    assert "was trained with" not in caplog.text
    stated.write_text(stated.read_text() + "channels: 3\n")
    grey.val(data=stated, plots=False, verbose=False, imgsz=64, project=tmp_path)
    assert "stated.yaml has channels: 3, but the model was trained with 1: images are read for" in caplog.text


def test_a_range_in_the_data_reaches_a_model_without(trained, deep_data, tmp_path):
    assert open_source(deep_data.parent / "images/val", (0, 4080)).__iter__().__next__().image.max() > 100
    metrics = trained.val(data=deep_data, plots=False, verbose=False, imgsz=64, project=tmp_path)
    assert metrics.num_images == 4 and trained.validator.dataloader is None


# ---- weights ------------------------------------------------------------------------------------------


def test_colour_weights_give_a_grey_network_that_computes_the_same(trained, tmp_path):
    grey = DetectionModel(
        load_model_config(write_tiny(tmp_path / "g.yaml", first="channels: 1\n"), names=NAMES)
    )
    transfer = transfer_weights(grey, trained.model.state_dict(), trained.names)
    assert str(transfer).endswith("loaded; those that read the image are summed over its 3 channels")
    images = torch.rand(2, 1, 64, 96)
    with torch.no_grad():
        mine = grey.eval()(images)["one2many"]
        theirs = trained.model(images.expand(-1, 3, -1, -1))["one2many"]
    assert torch.allclose(mine.scores, theirs.scores, atol=1e-4)

    back = DetectionModel(load_model_config(write_tiny(tmp_path / "c.yaml"), names=NAMES))
    transfer = transfer_weights(back, grey.state_dict(), trained.names)
    assert str(transfer).endswith(
        "loaded; those that read the image are spread over 3 channels, a third each"
    )
    with torch.no_grad():
        assert torch.allclose(
            back.eval()(images.expand(-1, 3, -1, -1))["one2many"].scores, mine.scores, atol=1e-4
        )


def test_the_data_decides_and_what_it_does_not_say_the_model_does(
    train_tiny, trained, grey_weights, grey_data, drawn_dataset
):
    yolo = train_tiny(model=trained, data=grey_data, epochs=1)
    assert yolo.model.channels == 1 and "summed over its 3 channels" in str(yolo.trainer.transfer)
    yolo = train_tiny(model=YOLO(grey_weights), data=drawn_dataset, epochs=1)
    assert yolo.model.channels == 1 and yolo.trainer.transfer.converted == ""


def test_safetensors_keep_the_channels(grey, tmp_path):
    assert YOLO(grey.save(tmp_path / "grey.safetensors")).model.channels == 1
    with pytest.raises(DataError, match="data= is missing"):
        grey.train(**quick_settings(data=None))


# ---- files --------------------------------------------------------------------------------------------


def slowly(**options):
    return pytest.param(options, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "options",
    [
        {"format": "onnx"}, {"format": "openvino"}, {"format": "torchscript", "preprocess": True}, {"format": "pt2"},
        {"format": "safetensors"}, {"format": "ncnn"}, slowly(format="executorch"),
        slowly(format="onnx", preprocess=True, nms=True, dynamic=True), slowly(format="openvino", preprocess=True),
        slowly(format="pt2", dynamic=True),
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)  # fmt: skip
def test_every_format_takes_one_channel(grey, scene, options):
    pytest.importorskip({"executorch": "executorch", "ncnn": "pnnx"}.get(options["format"], "torch"))
    conf = {"conf": 0.02} if options.get("nms") else {}
    opened = YOLO(grey.export(imgsz=[96, 128], verbose=False, **options, **conf))
    if opened.exported is not None:
        contract = contract_of(opened.exported.metadata, opened.exported.path)
        sides = [None, None] if contract.dynamic else [96, 128]
        shape = [*sides, 1] if contract.preprocess else [1, *sides]
        assert contract.channels == 1 and opened.exported.metadata["input"]["shape"][1:] == shape
        assert "grey" in opened.exported.metadata["input"]["layout"]
    (mine,) = grey.predict(scene, imgsz=[96, 128], verbose=False, amp=False, conf=0.02)
    (theirs,) = opened.predict(scene, imgsz=[96, 128], verbose=False, amp=False, conf=0.02)
    assert_same_boxes(mine, theirs)


@pytest.mark.slow
def test_int8_is_calibrated_on_grey(grey, any_int8, grey_data, scene):
    pytest.importorskip("nncf")
    opened = YOLO(grey.export(format="openvino", int8=True, imgsz=96, data=grey_data, verbose=False))
    assert opened.exported.contract.channels == 1
    assert opened.predict(scene, verbose=False)[0].orig_img.shape == scene.shape


@pytest.mark.parametrize("given", [[9, 1], [0, float("inf")], [1, 2, 3], "all"])
def test_a_range_that_is_none_is_damage(given, tmp_path):
    metadata = {
        "schema": 1, "names": {"0": "a"}, "stride": 32, "imgsz": [64, 64], "batch": 1, "dynamic": False,
        "preprocess": False, "output": {"kind": "raw"}, "suppression": None, "head": "one2many", "precision": "fp32",
    }  # fmt: skip
    assert contract_of(metadata, tmp_path).channels == 3
    with pytest.raises(ExportError, match="value_range"):
        contract_of(metadata | {"value_range": given}, tmp_path)
    with pytest.raises(ExportError, match="channels=2"):
        contract_of(metadata | {"channels": 2}, tmp_path)


def test_conversion_keeps_what_is_said_of_the_images(deep_data, tmp_path):
    convert(deep_data, "yolo", tmp_path / "out")
    config = load_data_config(tmp_path / "out")
    assert (config.channels, config.value_range) == (1, (0, 4080))


def test_an_input_of_one_channel_is_grey(scene):
    one, places = letterbox_batch([scene, scene[:50]], (64, 96), channels=1)
    assert one.shape == (2, 1, 64, 96) and len(places) == 2
    again, _ = letterbox_batch([cv2.cvtColor(scene, cv2.COLOR_BGR2GRAY)] * 2, (64, 96), channels=1)
    assert torch.equal(one[0], again[0])


def test_a_benchmark_runs_on_grey(grey, grey_data, tmp_path):
    rows = grey.benchmark(
        data=grey_data,
        imgsz=[64, 96],
        formats="torchscript",
        repeats=2,
        project=tmp_path,
        plots=False,
        verbose=False,
    )
    assert rows[0]["format"] == "pt" and "torchscript" in {row["format"] for row in rows}
