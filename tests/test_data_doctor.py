import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.exports import EXPORTS

from detector.cli import main
from detector.data.doctor import check

SIDE = 96  # px


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))


def draw(seed, size=(SIDE, SIDE, 3)):
    """An image that looks like no other: noise of 8 x 8 fields."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), np.uint8)
    return cv2.resize(coarse, size[1::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def healthy(tmp_path):
    """A YOLO data set of 24 images with two objects each, without a fault; returns its folder."""
    root = tmp_path / "set"
    for number in range(24):
        split = "train" if number < 16 else "val"
        (root / "images" / split).mkdir(parents=True, exist_ok=True)
        (root / "labels" / split).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / f"images/{split}/{number}.png"), draw(number))
        (root / f"labels/{split}/{number}.txt").write_text("0 0.3 0.3 0.2 0.2\n1 0.7 0.6 0.3 0.4\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return root


def found_in(data):
    return {finding.kind: finding for finding in check(data).findings}


def save(path, image):
    Image.fromarray(image).save(path)


def label(root, number, text):
    (root / f"labels/train/{number}.txt").write_text(text)


def near(root):
    image = draw(0)
    image[40:44, 40:44] += 9
    cv2.imwrite(str(root / "images/val/16.png"), image)


def turned(root):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(draw(0)).save(root / "images/train/0.jpg", exif=exif)
    (root / "images/train/0.png").unlink()


def twice_as(text):
    return lambda root: label(root, 0, text)


FAULTS = {
    "image-unreadable": lambda root: (root / "images/train/0.png").write_bytes(b"no image"),
    "image-missing": lambda root: (
        (root / "train.txt").write_text("images/train/0.png\nimages/train/gone.png\n"),
        (root / "data.yaml").write_text("train: train.txt\nval: images/val\nnames: [cat, dog]\n"),
    ),
    "image-small": lambda root: save(root / "images/train/0.png", draw(0, (8, 8, 3))),
    "image-long": lambda root: save(root / "images/train/0.png", draw(0, (40, 400, 3))),
    "image-turned": turned,
    "image-grey": lambda root: save(root / "images/train/0.png", draw(0)[..., 0]),
    "image-deep": lambda root: save(root / "images/train/0.png", draw(0)[..., 0].astype(np.uint16) * 256),
    "image-alpha": lambda root: Image.fromarray(draw(0)).convert("RGBA").save(root / "images/train/0.png"),
    "image-cmyk": lambda root: (
        Image.fromarray(draw(0)).convert("CMYK").save(root / "images/train/0.jpg"),
        (root / "images/train/0.png").unlink(),
    ),
    "image-twice": lambda root: shutil.copy(root / "images/train/0.png", root / "images/train/1.png"),
    "image-in-two-splits": lambda root: shutil.copy(root / "images/train/0.png", root / "images/val/16.png"),
    "image-alike-in-two-splits": near,
    "label-wrong": twice_as("0 0.5 0.5 0.2"),
    "label-missing": lambda root: (root / "labels/train/0.txt").unlink(),
    "label-unread": lambda root: (root / "labels/train/ghost.txt").write_text("0 .5 .5 .1 .1"),
    "box-repeated": twice_as("0 .3 .3 .2 .2\n0 .3 .3 .2 .2\n1 .7 .6 .3 .4"),
    "box-flat": twice_as("0 .3 .3 0 .2\n0 .3 .3 .2 .2\n1 .7 .6 .3 .4"),
    "box-outside": twice_as("0 .05 .3 .2 .2\n1 .7 .6 .3 .4"),
    "box-tiny": twice_as("0 .3 .3 .002 .003\n1 .7 .6 .3 .4"),
    "box-twice": twice_as("0 .3 .3 .2 .2\n0 .301 .3 .2 .2\n1 .7 .6 .3 .4"),
    "box-two-classes": twice_as("0 .3 .3 .2 .2\n1 .301 .3 .2 .2\n1 .7 .6 .3 .4"),
    "class-unused": lambda root: (root / "data.yaml").write_text(
        "train: images/train\nval: images/val\nnames: [cat, dog, bird]\n"
    ),
    "class-untrained": lambda root: (
        (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog, bird]\n"),
        (root / "labels/val/16.txt").write_text("2 .5 .5 .2 .2"),
    ),
    "class-few": lambda root: [label(root, number, "0 .3 .3 .2 .2") for number in range(9)],
    "class-unbalanced": lambda root: (
        [
            label(
                root, number, "".join(f"0 {0.05 + 0.04 * n} .3 .03 .2\n" for n in range(20)) + "1 .7 .8 .2 .2"
            )
            for number in range(11)
        ]
        and [label(root, number, "0 .3 .3 .2 .2") for number in range(11, 16)]
    ),
}


def test_a_healthy_set_raises_no_alarm(healthy):
    assert found_in(healthy) == {}
    assert check(healthy).table().endswith("nothing was found that is wrong")


@pytest.mark.parametrize("kind", FAULTS)
def test_every_planted_fault_is_found_and_nothing_else(kind, healthy):
    FAULTS[kind](healthy)
    found = found_in(healthy)
    also = {
        "image-deep": {"image-grey"},
        "image-missing": {"class-few"},
    }.get(kind, set())
    assert set(found) - also == {kind}


def test_findings_name_file_and_line(healthy):
    label(healthy, 3, "0 .3 .3 .2 .2\n1 .7 .6 0 .4")
    finding = found_in(healthy)["box-flat"]
    assert (finding.split, finding.count) == ("train", 1)
    assert finding.examples == [f"{healthy}/labels/train/3.txt line 2"]


def test_sizes_that_labels_state_are_compared(tmp_path):
    EXPORTS["pascal_voc"](tmp_path / "set")
    path = next((tmp_path / "set").rglob("a.xml"))
    path.write_text(path.read_text().replace("<width>64</width>", "<width>640</width>"))
    finding = found_in(tmp_path / "set")["size-differs"]
    assert finding.examples[0].endswith("JPEGImages/a.jpg: 64 x 48 px, its labels say 640 x 48")


def test_many_cases_are_counted_and_the_first_are_named(healthy):
    for number in range(9):
        label(healthy, number, "x")
    finding = found_in(healthy)["label-wrong"]
    assert (finding.count, len(finding.examples)) == (9, 5)


@pytest.mark.parametrize("export", EXPORTS)
def test_the_exports_of_tools_have_no_errors(export, tmp_path):
    EXPORTS[export](tmp_path / "set")
    assert not check(tmp_path / "set").has_errors


def test_the_command_prints_a_table_or_json_and_ends_with_3_on_errors(healthy, capsys):
    assert main(["check", f"data={healthy}"]) == 0
    assert "nothing was found that is wrong" in capsys.readouterr().out
    label(healthy, 0, "0 0.5 0.5 0.2")
    assert main(["check", f"data={healthy}"]) == 3
    assert "error          1  train: label files have a wrong row" in capsys.readouterr().out
    assert main(["check", f"data={healthy}", "--json"]) == 3
    printed = json.loads(capsys.readouterr().out)
    assert printed["splits"]["train"]["images"] == 16
    assert [finding["kind"] for finding in printed["findings"]] == ["label-wrong"]
    assert Path(healthy).exists()
