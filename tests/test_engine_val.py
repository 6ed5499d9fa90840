import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.models import make_finder

from detector import YOLO
from detector.data.convert import convert
from detector.data.drawn import FORMS, make_drawn_dataset
from detector.errors import CheckpointError, DataError, SettingsError

QUICK = {"imgsz": 96, "device": "cpu", "verbose": False, "plots": False, "workers": 0}


@pytest.fixture
def trained(train_tiny, tmp_path):
    """A model with some weights, whose six classes are those of the data."""
    return train_tiny(project=tmp_path / "trained", epochs=1, imgsz=96)


@pytest.mark.parametrize("model", ["tiny_model", "tiny_dual_model"])
def test_the_metrics_do_not_depend_on_the_batch(model, train_tiny, tmp_path, request):
    yolo = train_tiny(model=request.getfixturevalue(model), epochs=1, imgsz=96)
    one, many = (yolo.val(batch=batch, project=tmp_path, **QUICK).results_dict for batch in (1, 32))
    assert one == pytest.approx(many, abs=1e-4)


def test_the_figure_is_what_pycocotools_finds_in_the_exported_detections(trained, tmp_path):
    metrics = trained.val(save_json=True, project=tmp_path, **QUICK)
    folder = trained.validator.save_dir
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "ground_truth.json"))
        evaluation = COCOeval(
            truth, truth.loadRes(json.loads((folder / "predictions.json").read_text())), "bbox"
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert metrics.box.map == pytest.approx(evaluation.stats[0], abs=1e-9)
    assert metrics.box.map50 == pytest.approx(evaluation.stats[1], abs=1e-9)


def test_a_coco_set_with_groups_and_gaps_in_its_ids_has_the_metrics_of_pycocotools(tmp_path, monkeypatch):
    """By the user's own file: its ids and groups, and the detections by name of file and class."""
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))
    names = list(FORMS[:6])
    make_drawn_dataset(tmp_path / "data", {"train": 1, "val": 24}, names, seed=0, size=160)
    (tmp_path / "data/data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {names}\n")
    yaml = convert(tmp_path / "data", "coco", tmp_path / "set")
    (path,) = (tmp_path / "set").rglob("*val*.json")
    content = json.loads(path.read_text())
    new_category = {old["id"]: 90 - 7 * old["id"] for old in content["categories"]}
    for category in content["categories"]:
        category["id"] = new_category[category["id"]]
    for image in content["images"]:
        image["id"] = 1000 * image["id"] + 3
    for number, annotation in enumerate(content["annotations"]):
        annotation |= {
            "id": 50 + 9 * number,
            "image_id": 1000 * annotation["image_id"] + 3,
            "category_id": new_category[annotation["category_id"]],
            "iscrowd": int(number % 4 == 1),
        }
    path.write_text(json.dumps(content))

    yolo = YOLO(make_finder(tmp_path))
    metrics = yolo.val(data=yaml, save_json=True, project=tmp_path, **(QUICK | {"imgsz": 192}))
    folder = yolo.validator.save_dir
    exported = json.loads((folder / "ground_truth.json").read_text())
    assert sum(a["iscrowd"] for a in exported["annotations"]) > 10
    image_ids = {image["file_name"]: image["id"] for image in content["images"]}
    own_image = {image["id"]: image_ids[Path(image["file_name"]).name] for image in exported["images"]}
    category_ids = {category["name"]: category["id"] for category in content["categories"]}
    own_category = {category["id"]: category_ids[category["name"]] for category in exported["categories"]}
    detections = json.loads((folder / "predictions.json").read_text())
    own = [
        d | {"image_id": own_image[d["image_id"]], "category_id": own_category[d["category_id"]]}
        for d in detections
    ]
    for truth, found in ((folder / "ground_truth.json", detections), (path, own)):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(truth))
            evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        assert metrics.box.map == pytest.approx(evaluation.stats[0], abs=1e-9)
        assert metrics.box.map50 == pytest.approx(evaluation.stats[1], abs=1e-9)
    assert metrics.box.map50 > 0.001


def test_val_fires_its_events_with_what_they_promise(trained, tmp_path):
    events = []
    trained.add_callback("on_val_start", lambda v: events.append("start"))
    trained.add_callback("on_val_batch_end", lambda v: events.append((len(v.preds), v.batch.images.shape[0])))
    trained.add_callback("on_val_end", lambda v: events.append(v.metrics.num_images))
    trained.val(project=tmp_path, batch=4, **QUICK)
    assert events[0] == "start"
    assert events[-1] == 4
    assert all(preds == images for preds, images in events[1:-1])
    assert sum(preds for preds, _ in events[1:-1]) == 4
    assert trained.validator.batch is None


def test_data_and_image_size_come_from_the_training(trained, tmp_path):
    without_size = {key: value for key, value in QUICK.items() if key != "imgsz"}
    trained.val(project=tmp_path, **without_size)
    assert trained.validator.names == trained.names


def test_other_classes_than_the_datas_are_refused(tiny_model, drawn_dataset, tmp_path):
    with pytest.raises(CheckpointError, match=r"the model knows 80 classes, but drawn\.yaml names 6"):
        YOLO(tiny_model).val(data=drawn_dataset, project=tmp_path, **QUICK)


def test_data_is_needed(tiny_model):
    with pytest.raises(DataError, match="data= is missing"):
        YOLO(tiny_model).val(**QUICK)


def test_a_perfect_detector_scores_one(trained, tmp_path, monkeypatch):
    """Feed the ground truth back as detections: every metric must be 1, through letterbox and back."""
    from detector.inference.torch_backend import TorchBackend

    validator = {}
    trained.add_callback("on_val_start", lambda v: validator.update(it=v))

    def detect(self, preds, params):
        batch = validator["it"].batch
        rows = []
        for boxes, labels in zip(batch.boxes, batch.labels, strict=True):
            real = labels >= 0
            scores = torch.ones(int(real.sum()), 1)
            rows.append(torch.cat([boxes[real], scores, labels[real, None].float()], 1))
        return rows

    monkeypatch.setattr(TorchBackend, "detect", detect)
    metrics = trained.val(project=tmp_path, **QUICK)
    assert metrics.box.map == pytest.approx(1.0, abs=0.01)
    assert metrics.box.map50 == pytest.approx(1.0)


@pytest.mark.parametrize("batch", [-1, 0.5])
def test_validation_does_not_choose_a_batch(batch, trained, tmp_path):
    with pytest.raises(SettingsError, match=rf"batch={batch}: expected int >= 1; the default is batch=16"):
        trained.val(project=tmp_path, batch=batch, **QUICK)


def test_as_a_single_class_every_detection_counts_for_every_box(trained, tmp_path):
    classes = set()
    trained.add_callback("on_val_batch_end", lambda v: classes.update(torch.cat(v.preds)[:, 5].tolist()))
    metrics = trained.val(project=tmp_path, single_cls=True, conf=0.0, **QUICK)
    assert classes == {0.0}
    assert len(metrics.names) == 1


def test_weights_are_validated_as_in_their_training_unless_something_else_is_given(train_tiny, tmp_path):
    own = {"conf": 0.01, "iou": 0.45, "max_det": 7, "agnostic_nms": True}
    train_tiny(epochs=1, **own)
    model = YOLO(tmp_path / "train/weights/best.pt")
    model.val(project=tmp_path, **QUICK)
    suppression = model.validator.suppression
    assert (suppression.conf, suppression.iou, suppression.max_det, suppression.agnostic) == tuple(
        own.values()
    )
    model.val(project=tmp_path, conf=0.5, **QUICK)
    assert (model.validator.suppression.conf, model.validator.suppression.max_det) == (0.5, 7)
    model.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64)
    assert model.predictor.settings.conf == 0.25, "prediction keeps its own"
