import logging
from pathlib import Path

import pytest
from support.exports import EXPORTS, SCENES

from detector.data.annotations import build_annotations
from detector.data.config import load_data_config
from detector.data.convert import convert
from detector.data.doctor import check
from detector.data.holdout import Fold
from detector.engine.loaders import TrainingData
from detector.errors import DataError
from detector.settings import TrainSettings


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def sets(tmp_path):
    """Two data sets of the same images: YOLO with cat and dog, and VOC whose files call the dog a wolf."""
    EXPORTS["roboflow_yolo"](tmp_path / "one")
    EXPORTS["roboflow_voc"](tmp_path / "two")
    for file in (tmp_path / "two").rglob("*.xml"):
        file.write_text(file.read_text().replace("dog", "wolf").replace("cat", "dog"))
    return [tmp_path / "one", tmp_path / "two"]


def objects_of(config, split, **settings):
    """Image -> names of its objects."""
    found = build_annotations(config.read_labels(split), config.names, config.yaml_path.name, **settings)
    return {
        Path(path).relative_to(config.root.parent).as_posix(): [
            found.names[n] for n in found.rows(i)[1].tolist()
        ]
        for i, path in enumerate(found.paths)
    }


def test_sets_are_joined_by_class_name(sets):
    config = load_data_config(sets)
    assert config.names == {0: "cat", 1: "dog", 2: "wolf"}
    assert load_data_config(sets[::-1]).names == {0: "dog", 1: "wolf", 2: "cat"}
    assert objects_of(config, "train") == {
        "one/train/images/a.jpg": ["dog", "cat"],
        "one/train/images/b.jpg": ["cat"],
        "two/train/a.jpg": ["wolf", "dog"],
        "two/train/b.jpg": ["dog"],
    }
    assert sorted(objects_of(config, "val")) == [
        *("one/valid/images/c.jpg", "one/valid/images/d.jpg", "two/valid/c.jpg", "two/valid/d.jpg"),
    ]
    assert config.describe() == f"[data,two]: 3 classes, {sets[0]}, {sets[1]}"


def test_classes_that_a_set_lacks_are_said_in_one_line(sets, caplog):
    load_data_config(sets)
    (line,) = [record.message for record in caplog.records if "differ" in record.message]
    assert line == (
        f"data=[data,two]: the sets differ in their classes: {sets[0]} lacks wolf; {sets[1]} lacks cat. Objects of "
        "these classes in the images of that set are not labelled, so they are trained as background"
    )
    assert "capitals" not in caplog.text
    caplog.clear()
    EXPORTS["coco"](sets[0].parent / "three")
    load_data_config([sets[0], sets[0].parent / "three"])
    assert "differ" not in caplog.text


def test_classes_that_differ_in_capitals_are_named(sets, caplog):
    (sets[0] / "data.yaml").write_text("train: train/images\nval: valid/images\nnames: [Cat, dog, cat]\n")
    assert list(load_data_config(sets).names.values()) == ["Cat", "dog", "cat", "wolf"]
    assert "data=[data,two]: classes differ only in capitals, and are not joined: Cat, cat" in caplog.text


def test_images_that_one_set_trains_on_and_another_validates_on_are_warned_of(sets, caplog):
    other = {"path": str(sets[0]), "train": "valid/images", "val": "train/images", "names": ["cat", "dog"]}
    TrainingData(TrainSettings.parse({"data": [sets[0], other], "workers": 0}))
    assert "4 images are trained and validated on, in different sets: " in caplog.text


def test_a_list_of_one_set_is_that_set(sets):
    assert load_data_config(sets[:1]) == load_data_config(sets[0])


def test_a_set_without_a_validation_split_contributes_what_is_held_out(sets, tmp_path, caplog):
    EXPORTS["labelimg_voc"](tmp_path / "flat")
    caplog.set_level(logging.INFO)
    config = load_data_config([sets[0], tmp_path / "flat"])
    images = {
        split: [path for path in config.split_images(split) if "flat" in path.parts]
        for split in ("train", "val")
    }
    assert images["train"] and images["val"]
    assert sorted(path.stem for split in images.values() for path in split) == sorted(SCENES)
    assert caplog.text.count("there is no validation split") == 1


def test_wrong_ids_are_named_with_the_classes_of_their_own_set(sets):
    label = sets[0] / "train/labels/a.txt"
    label.write_text("2 .5 .5 .2 .2\n")  # wolf in the joined set, but nothing in its own
    config = load_data_config(sets)
    with pytest.raises(DataError, match=rf"{label} line 1: class 2, but {sets[0]} names 2 classes \(0-1\)"):
        objects_of(config, "train")
    assert len(objects_of(config, "train", skip=True)) == 3
    assert objects_of(config, "train", single_cls=True)["one/train/images/a.jpg"] == ["item"]


def test_classes_are_those_of_the_joined_set(sets):
    config = load_data_config(sets)
    assert objects_of(config, "train", classes=[2])["two/train/a.jpg"] == ["wolf"]
    assert objects_of(config, "train", classes=[2])["one/train/images/a.jpg"] == []


def test_a_fraction_is_one_of_every_set(sets):
    config = load_data_config(sets)
    found = config.split_images("train", 0.5)
    assert [path.relative_to(sets[0].parent).as_posix() for path in found] == [
        "one/train/images/a.jpg",
        "two/train/a.jpg",
    ]
    assert [part.paths for part in config.read_labels("train", 0.5)] == [[str(path)] for path in found]


@pytest.mark.parametrize("joined", [False, True])
def test_every_image_is_validated_on_in_one_fold(sets, joined):
    data = sets if joined else sets[1]
    whole = load_data_config(data)
    every = sorted([*whole.split_images("train"), *whole.split_images("val")])
    folds = [load_data_config(data, Fold(number, 4)) for number in (1, 2, 3, 4)]
    assert sorted(path for fold in folds for path in fold.split_images("val")) == every
    for fold in folds:
        train, val = fold.split_images("train"), fold.split_images("val")
        assert sorted([*train, *val]) == every
        read = {
            split: sorted(p for part in fold.read_labels(split) for p in part.paths)
            for split in ("train", "val")
        }
        assert read == {"train": sorted(map(str, train)), "val": sorted(map(str, val))}
    if joined:  # copies in two sets are in one fold
        assert all(
            [path.stem for path in fold.split_images("val")].count(stem) in (0, 2)
            for fold in folds
            for stem in SCENES
        )


def test_a_part_of_the_training_images_replaces_the_validation_split(sets, caplog):
    caplog.set_level(logging.INFO)
    config = load_data_config(sets[0], 0.5)
    train, val = config.split_images("train"), config.split_images("val")
    assert sorted([*train, *val]) == load_data_config(sets[0]).split_images("train")
    assert len(train) == len(val) == 1
    assert caplog.text.count("50 % of the training images are validated on, in place of a val split") == 1


@pytest.mark.parametrize("to", ["yolo", "coco", "voc"])
def test_joined_sets_are_converted_to_one(sets, to, tmp_path):
    new = load_data_config(convert(sets, to, tmp_path / "new"))
    before = load_data_config(sets)
    for split in ("train", "val"):
        labels = [sorted(map(tuple, objects_of(config, split).values())) for config in (before, new)]
        assert labels[0] == labels[1]


def test_joined_sets_are_checked(sets):
    report = check(sets)
    assert report.splits["train"] == {"images": 4, "boxes": 6, "classes": {"cat": 2, "dog": 3, "wolf": 1}}
    assert "image-twice" in {finding.kind for finding in report.findings}
