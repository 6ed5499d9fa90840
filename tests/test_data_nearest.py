import json
from pathlib import Path

import pytest
from support.exports import EXPORTS, SCENES, write_image

from detector.data.config import load_data_config
from detector.engine.loaders import TrainingData
from detector.errors import DataError
from detector.settings import TrainSettings


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))


def yolo(root, image="images/{}.jpg", label="labels/{}.txt"):
    """Write images and labels in these places, and classes.txt."""
    for stem in SCENES:
        write_image(root / image.format(stem))
        path = root / label.format(stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1 .5 .5 .2 .2\n")
    (root / "classes.txt").write_text("cat\ndog\n")


def voc(root, images, labels):
    EXPORTS["label_studio_voc"](root)
    (root / "images").rename(root / images)
    (root / "Annotations").rename(root / labels)


def error_of(root):
    with pytest.raises(DataError) as caught:
        load_data_config(root)
    assert str(caught.value).startswith(str(root))
    return str(caught.value)[len(str(root)) :].removeprefix(": ")


@pytest.mark.parametrize(
    ("make", "both_sides", "renamed"),
    [
        (
            lambda root: yolo(root, label="boxes/{}.txt"),
            "4 images in images/ (images/a.jpg), label files looked for in labels/ (labels/a.txt): none; 4 label files "
            "found in boxes/ (boxes/a.txt, YOLO).",
            {"boxes": "labels"},
        ),
        (
            lambda root: yolo(root, image="jpgs/{}.jpg"),
            "4 images in jpgs/ (jpgs/a.jpg), label files looked for in jpgs/ (jpgs/a.txt): none; 4 label files "
            "found in labels/ (labels/a.txt, YOLO).",
            {"jpgs": "images"},
        ),
        (
            lambda root: yolo(root, image="Images/{}.jpg", label="Labels/{}.txt"),
            "4 images in Images/ (Images/a.jpg), label files looked for in Images/ (Images/a.txt): none; 4 label files "
            "found in Labels/ (Labels/a.txt, YOLO).",
            {"Images": "images", "Labels": "labels"},
        ),
        (
            lambda root: yolo(root, image="train/images/{}.jpg", label="train/boxes/{}.txt"),
            "4 images in train/images/ (train/images/a.jpg), label files looked for in train/labels/ "
            "(train/labels/a.txt): none; 4 label files found in train/boxes/ (train/boxes/a.txt, YOLO).",
            {"train/boxes": "train/labels"},
        ),
        (
            lambda root: voc(root, "pics", "xml"),
            "4 images in pics/ (pics/a.jpg), label files looked for in pics/ (pics/a.xml): none; 4 label files found "
            "in xml/ (xml/a.xml, Pascal VOC).",
            {"pics": "JPEGImages", "xml": "Annotations"},
        ),
        (
            lambda root: voc(root, "JPEGImages", "Annots"),
            "4 images in JPEGImages/ (JPEGImages/a.jpg), label files looked for in Annotations/ (Annotations/a.xml): "
            "none; 4 label files found in Annots/ (Annots/a.xml, Pascal VOC).",
            {"Annots": "Annotations"},
        ),
    ],
)
def test_folders_of_other_names_are_shown_and_renaming_them_as_said_helps(
    make, both_sides, renamed, tmp_path
):
    root = tmp_path / "set"
    make(root)
    named = " and ".join(f"{old}/ to {new}/" for old, new in renamed.items())
    assert error_of(root) == f"no labels are found. {both_sides} Rename {named}."
    for old, new in renamed.items():
        (root / old).rename(root / new)
    assert load_data_config(root).split_images("train")


@pytest.mark.parametrize(
    ("image", "label", "wanted"),
    [
        ("images/{}.jpeg", "labels/{}.jpg.txt", "labels/{}.txt"),
        ("images/{} 1.jpg", "labels/{}_1.txt", "labels/{} 1.txt"),
        ("images/train/{}.jpg", "labels/{}.txt", "labels/train/{}.txt"),
        ("{}.jpg", "boxes/{}.txt", "{}.txt"),
    ],
)
def test_an_example_of_what_to_move_is_shown_and_moving_all_helps(image, label, wanted, tmp_path):
    yolo(tmp_path / "set", image, label)
    move = f"{label.format('a')} to {wanted.format('a')}"
    assert error_of(tmp_path / "set").endswith(f"Move or rename {move}, and the others likewise.")
    for stem in SCENES:
        there = tmp_path / "set" / wanted.format(stem)
        there.parent.mkdir(exist_ok=True)
        (tmp_path / "set" / label.format(stem)).rename(there)
    assert load_data_config(tmp_path / "set").split_images("train")


def test_label_files_of_other_names_than_the_images_are_shown(tmp_path):
    yolo(tmp_path / "set", image="images/{}_img.jpg")
    assert error_of(tmp_path / "set") == (
        "no labels are found. 4 images in images/ (images/a_img.jpg), label files looked for in labels/ "
        "(labels/a_img.txt): none; 4 label files found in labels/ (labels/a.txt, YOLO). A label file has the name of "
        "its image: rename one side."
    )


def test_images_alone_are_said_to_have_no_labels(tmp_path):
    for stem in SCENES:
        write_image(tmp_path / "set/images" / f"{stem}.jpg")
    assert error_of(tmp_path / "set").startswith(
        "no labels are found. 4 images in images/ (images/a.jpg), label files looked for in labels/ (labels/a.txt): "
        "none; label files found elsewhere: none. Expected folders train/ and val/, images/ and labels/"
    )


def test_files_of_labelme_are_named(tmp_path):
    for stem in SCENES:
        write_image(tmp_path / "set" / f"{stem}.jpg")
        (tmp_path / "set" / f"{stem}.json").write_text(json.dumps({"shapes": [], "imagePath": f"{stem}.jpg"}))
    assert "none (4 JSON files such as a.json, LabelMe's: export them as COCO or YOLO)." in error_of(
        tmp_path / "set"
    )


def test_labels_alone_say_where_their_images_are_looked_for(tmp_path):
    yolo(tmp_path / "set")
    for path in (tmp_path / "set/images").iterdir():
        path.unlink()
    assert error_of(tmp_path / "set") == (
        "4 label files in labels/ (labels/a.txt), but no images; looked for in images/ (images/a.jpg): none. Put the "
        "images there, or give the folder above both."
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "images/a.heic",
            "no images that can be read; HEIC files are not (images/a.heic, and 0 more): save them as .jpg",
        ),
        (
            "clip.mp4",
            "no images that can be read; video files are not (clip.mp4, and 0 more): extract their frames.",
        ),
        ("train.tfrecord", "no images are found in it (train.tfrecord). Expected folders train/ and val/,"),
    ],
)
def test_files_that_are_not_images_are_named(name, message, tmp_path):
    (tmp_path / "set" / name).parent.mkdir(parents=True)
    (tmp_path / "set" / name).write_text("x")
    assert error_of(tmp_path / "set").startswith(message)


def test_a_set_some_folders_too_deep_is_found_with_its_data_yaml(tmp_path):
    EXPORTS["roboflow_yolo"](tmp_path / "set/export/v1")
    (tmp_path / "set/readme.txt").write_text("thank you")
    config = load_data_config(tmp_path / "set")
    assert config.yaml_path == tmp_path / "set/export/v1/data.yaml"
    assert config.names == {0: "cat", 1: "dog"}


def test_several_sets_in_a_folder_are_said_to_be_joined_by_a_list(tmp_path):
    yolo(tmp_path / "set/one")
    yolo(tmp_path / "set/two")
    root = tmp_path / "set"
    assert error_of(root).endswith(f" It has several data sets: join them as data=[{root}/one,{root}/two].")
    assert load_data_config([root / "one", root / "two"]).names == {0: "cat", 1: "dog"}


@pytest.mark.parametrize(
    ("suffix", "name", "hint"),
    [
        (
            ".png",
            "{}.jpg",
            "there is images/a.png: its suffix or folder differs from that in the file. Correct the names",
        ),
        (
            ".jpg",
            "frame_{}.jpg",
            "there are 4 images of other names, such as images/a.jpg. Correct the names",
        ),
        (None, "{}.jpg", "there are no images. Correct the names"),
    ],
)
def test_images_that_a_coco_file_does_not_name_are_shown(suffix, name, hint, tmp_path):
    EXPORTS["cvat_coco"](tmp_path / "set")
    (file,) = (tmp_path / "set").rglob("*.json")
    content = json.loads(file.read_text())
    for image in content["images"]:
        image["file_name"] = name.format(Path(image["file_name"]).stem)
    file.write_text(json.dumps(content))
    for image in (tmp_path / "set").rglob("*.jpg"):
        image.unlink()
    for stem in SCENES if suffix else ():
        write_image(tmp_path / "set/images" / f"{stem}{suffix}")
    with pytest.raises(DataError, match=r"no image of it is found, such as ") as caught:
        load_data_config(tmp_path / "set")
    assert f"; {hint}" in str(caught.value)


def test_training_images_of_a_data_yaml_without_labels_are_shown_with_the_nearest_layout(tmp_path):
    yolo(tmp_path / "set", image="jpgs/{}.jpg")
    (tmp_path / "set/my.yaml").write_text("train: jpgs\nval: jpgs\nnames: [cat, dog]\n")
    with pytest.raises(
        DataError, match=r"found in labels/ \(labels/a\.txt, YOLO\)\. Rename jpgs/ to images/\.$"
    ):
        TrainingData(TrainSettings.parse({"data": str(tmp_path / "set"), "workers": 0}))
