import json
from pathlib import Path

import numpy as np
import pytest
from support.exports import EXPORTS

from detector.data.annotations import build_annotations
from detector.data.config import load_data_config
from detector.data.convert import convert, corners_px
from detector.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))


def labels_of(data):
    """Split -> image -> class and box, all bits of it, and what it stands for."""
    config = load_data_config(data)
    found = {}
    for split in config.present_splits():
        annotations = build_annotations(config.read_labels(split), config.names)
        for index, path in enumerate(annotations.paths):
            boxes, labels, kinds = annotations.truth(index)
            rows = zip(labels.tolist(), boxes.tolist(), kinds.tolist(), strict=True)
            found[split, Path(path).stem] = sorted(
                (config.names[label], box, kind) for label, box, kind in rows
            )
    return found


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize("to", ["yolo", "coco", "voc"])
@pytest.mark.parametrize("export", ["roboflow_yolo", "coco", "pascal_voc"])
def test_all_boxes_keep_all_their_bits(export, to, tmp_path):
    EXPORTS[export](tmp_path / "set")
    found = convert(tmp_path / "set", to, tmp_path / "out")
    assert labels_of(found) == labels_of(tmp_path / "set")


@pytest.mark.parametrize("first", ["yolo", "coco", "voc"])
@pytest.mark.parametrize("second", ["yolo", "coco", "voc"])
def test_there_and_back_gives_the_same_bytes(first, second, tmp_path):
    EXPORTS["roboflow_yolo"](tmp_path / "set")
    start = convert(tmp_path / "set", first, tmp_path / "start")
    back = convert(convert(start, second, tmp_path / "there"), first, tmp_path / "back")
    assert files_of(back) == files_of(start)


@pytest.mark.parametrize("size", [(480, 640), (333, 501), (1, 1), (4000, 6000)])
def test_corners_in_px_are_the_same_box_again(size):
    rng = np.random.default_rng(0)
    height, width = size
    corners = np.sort(rng.random((500, 2, 2)), 1).reshape(-1, 4)
    boxes = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
    boxes = boxes.astype(np.float32)
    again = np.array(corners_px(boxes, height, width)) / [width, height, width, height]
    again = again.clip(0, 1)
    again = np.concatenate([(again[:, :2] + again[:, 2:]) / 2, again[:, 2:] - again[:, :2]], 1)
    assert (again.astype(np.float32) == boxes).all()


def test_whole_px_stay_whole():
    box = np.array([[(8 + 40) / 2 / 640, (6 + 30) / 2 / 480, 32 / 640, 24 / 480]], np.float32)
    assert corners_px(box, 480, 640) == [[8, 6, 40, 30]]


def test_nothing_is_overwritten(tmp_path):
    EXPORTS["coco"](tmp_path / "set")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(
        DataError, match=r"/out is there already; nothing is overwritten, name another folder"
    ):
        convert(tmp_path / "set", "yolo", tmp_path / "out")
    assert files_of(tmp_path / "out") == {Path("mine.txt"): b"mine"}


def test_a_set_that_cant_be_used_leaves_nothing(tmp_path):
    EXPORTS["roboflow_yolo"](tmp_path / "set")
    (tmp_path / "set/train/labels/a.txt").write_text("0 5 5 5")
    with pytest.raises(DataError, match=r"a\.txt line 1: 4 columns"):
        convert(tmp_path / "set", "coco", tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if path.name not in ("cache", "set")]


def test_images_of_one_name_are_numbered(tmp_path):
    EXPORTS["roboflow_yolo"](tmp_path / "set")
    for split, other in (("train", "a"), ("valid", "c")):
        folder = tmp_path / "set" / split
        (folder / "images/b.png").write_bytes((folder / f"images/{other}.jpg").read_bytes())
    out = convert(tmp_path / "set", "voc", tmp_path / "out")
    assert sorted(path.name for path in (out / "JPEGImages").iterdir()) == [
        *("a.jpg", "b-2.png", "b-3.png", "b.jpg", "c.jpg", "d.jpg")
    ]


def test_what_a_format_cant_hold_is_said(tmp_path, caplog):
    EXPORTS["coco"](tmp_path / "set")
    path = tmp_path / "set/annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"][1]["difficult"] = 1
    path.write_text(json.dumps(content))
    assert labels_of(convert(tmp_path / "set", "coco", tmp_path / "coco")) == labels_of(tmp_path / "set")
    assert not caplog.records
    convert(tmp_path / "set", "voc", tmp_path / "voc")
    assert (
        "Pascal VOC can't mark what evaluation ignores: 1 groups of objects are left out, 0 difficult"
        in caplog.text
    )
    convert(tmp_path / "set", "yolo", tmp_path / "yolo")
    assert (
        "YOLO can't mark what evaluation ignores: 1 groups of objects are left out, 1 difficult"
        in caplog.text
    )


@pytest.mark.parametrize("images", ["link", "copy"])
def test_images_are_linked_or_copied(images, tmp_path):
    EXPORTS["coco"](tmp_path / "set")
    out = convert(tmp_path / "set", "yolo", tmp_path / "out", images)
    same = (out / "images/train/a.jpg").samefile(tmp_path / "set/train2017/a.jpg")
    assert same == (images == "link")
    assert (out / "images/train/a.jpg").read_bytes() == (tmp_path / "set/train2017/a.jpg").read_bytes()


def test_a_training_ends_the_same_from_each_format(drawn_dataset, train_tiny, tmp_path):
    ends = []
    for to in ("yolo", "coco", "voc"):
        found = convert(str(drawn_dataset), to, tmp_path / to)
        metrics = train_tiny(data=found, epochs=2, name=f"train-{to}").trainer.metrics
        ends.append({key: value for key, value in metrics.items() if not key.startswith("speed")})
    assert ends[0] == ends[1] == ends[2]
