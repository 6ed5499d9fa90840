import logging
import shutil
from time import process_time

import numpy as np
import pytest

from detector.data.annotations import Annotations
from detector.data.doctor import check
from detector.data.first_look import first_look

NAMES = {0: "cat", 1: "dog", 2: "bird"}
WELL = [0.5, 0.5, 0.2, 0.2]


def split(name, labels, boxes=None, per_image=1, **rest):
    """A split of 640 x 480 images with as many boxes in each."""
    count = len(labels) // per_image
    boxes = np.tile(WELL, (len(labels), 1)) if boxes is None else np.array(boxes)
    return Annotations(
        [f"/{name}/{n}.jpg" for n in range(count)],
        np.tile([480, 640], (count, 1)),
        np.arange(count + 1) * per_image,
        boxes.astype(np.float32),
        np.array(labels),
        NAMES,
        **rest,
    )


LABELS = [0, 1, 2] * 10
VAL = split("val", LABELS)


def test_nothing_is_said_where_all_is_well():
    assert first_look(split("train", LABELS), split("val", LABELS), 640) == []


@pytest.mark.parametrize(
    ("train", "val", "line"),
    [
        (split("train", [0, 1] * 10), VAL, "1 classes with objects to validate on, but none to train on: bird"),
        (split("train", LABELS), split("train", LABELS[:6]), "6 images to validate on that are trained on, too"),
        (
            split("train", LABELS, [[0.5, 0.5, 0.005, 0.005]] * 2 + [WELL] * 28), VAL,
            "2 boxes to train on that are smaller than 4 px at imgsz=640",
        ),
        (
            split("train", LABELS * 2, np.tile([WELL, [0.501, 0.5, 0.2, 0.2]], (30, 1)), per_image=2), VAL,
            "30 boxes to train on that are nearly equal to another one",
        ),
        (
            split("train", LABELS, [[0.05, 0.5, 0.2, 0.2]] + [WELL] * 29), VAL,
            "1 boxes to train on that reach over the edge of their image",
        ),
        (
            split("train", LABELS, repeated=7), VAL,
            "7 rows of labels to train on that repeat another one, and are left out",
        ),
        (
            split("train", [*LABELS, 0][1:-1]), VAL,
            "1 classes with fewer than 10 objects to train on: cat",
        ),
        (
            split("train", [0] * 250 + [1] * 100 + [2] * 12), VAL,
            "1 classes with less than a 20th of the objects of the most frequent: bird",
        ),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_its_number(train, val, line):
    assert first_look(train, val, 640) == [line]


def test_no_more_than_five_lines_the_worst_first():
    train = split("train", [1] * 30 + [2], np.tile([0.05, 0.5, 0.2, 0.001], (31, 1)), repeated=1)
    lines = first_look(train, split("train", [0, 1, 2]), 64)
    assert len(lines) == 5
    assert lines[0].startswith("1 classes with objects to validate on")
    assert lines[1].startswith("3 images to validate on")


def test_copies_are_known_from_an_earlier_check(drawn_dataset, train_tiny, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))
    shutil.copytree(drawn_dataset.parent, tmp_path / "set")
    folder = tmp_path / "set/data"
    shutil.copy(folder / "images/train/000000.jpg", folder / "images/val/000000.jpg")

    def lines():
        caplog.clear()
        with caplog.at_level(logging.WARNING, "detector"):
            train_tiny(data=tmp_path / "set/drawn.yaml", epochs=1)
        return next(
            (r.getMessage() for r in caplog.records if r.getMessage().startswith("the data set has")), ""
        )

    assert "copies of" not in lines()
    check(tmp_path / "set/drawn.yaml")
    assert "\n  1 copies of training images among those to validate on\n" in lines()
    assert lines().endswith(f"detector check data={tmp_path}/set/drawn.yaml shows them")


def test_a_hundred_thousand_images_take_no_time():
    """No file is read and no Python loop goes over boxes: 0.4 s of an idle core."""
    rng = np.random.default_rng(0)
    count = 700_000
    boxes = np.concatenate([rng.uniform(0.2, 0.8, (count, 2)), rng.uniform(0.01, 0.3, (count, 2))], 1)
    train = split("train", rng.integers(0, 3, count), boxes, per_image=7)
    began = process_time()
    assert first_look(train, split("val", LABELS), 640) == []
    assert process_time() - began < 5
