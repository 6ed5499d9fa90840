"""convert fix=true: what is mended is mended in the copy only, and said."""

import logging
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image
from support.exports import EXPORTS
from support.spoiled import FAULTS, image_of, label_of, make_healthy

from detector.cli import main
from detector.data.convert import convert
from detector.data.doctor import check
from detector.data.images import read_image
from detector.errors import DataError

MENDED = {
    "box_over_the_edge": "1  boxes were cut at the edge of their image",
    "row_twice": "1  rows that repeat another one of their image were left out",
    "box_without_area": "1  boxes without area were left out",
    "random_bytes": "1  images that can't be used were left out",
    "columns_missing": "1  images with wrong labels were left out",
    "image_turned": "1  images were turned as EXIF says, and encoded again (JPEG quality 98)",
    "image_twice_in_train": "1  images of train were left out, copies of others",
    "image_in_both_splits": "1  images of train were left out, copies of images of val, which stay there",
    "voc_box_outside": "1  boxes were cut at the edge of their image",
}


@pytest.fixture
def healthy(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))
    return make_healthy(tmp_path / "set")


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize("to", ["yolo", "coco", "voc"])
@pytest.mark.parametrize("name", MENDED)
def test_what_was_planted_is_mended_and_said(name, to, healthy, tmp_path, caplog):
    planted = FAULTS[name](healthy, np.random.default_rng(0))
    data = planted.data or healthy
    before = files_of(data)
    caplog.clear()
    with caplog.at_level(logging.INFO, "detector"):
        out = convert(data, to, tmp_path / "out", fix=True)
    (said,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("mended:")]
    assert MENDED[name] in said
    assert len(said.splitlines()) == 2
    assert check(out).findings == []
    assert files_of(data) == before


@pytest.mark.parametrize("to", ["yolo", "coco", "voc"])
def test_a_healthy_set_is_converted_to_the_same_bytes(to, healthy, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "detector"):
        fixed = convert(healthy, to, tmp_path / "fixed", fix=True)
    assert "nothing had to be mended" in caplog.text
    plain = convert(healthy, to, tmp_path / "plain")
    assert files_of(fixed) == files_of(plain)


def test_without_fix_nothing_is_mended(healthy, tmp_path):
    FAULTS["image_twice_in_train"](healthy, np.random.default_rng(0))
    FAULTS["image_turned"](healthy, np.random.default_rng(1))
    out = convert(healthy, "yolo", tmp_path / "out")
    assert {finding.kind for finding in check(out).findings} == {"image-twice", "image-turned"}
    FAULTS["columns_missing"](healthy, np.random.default_rng(0))
    with pytest.raises(DataError, match="columns; expected 5"):
        convert(healthy, "yolo", tmp_path / "other")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_image_shows_the_same_as_before(suffix, orientation, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))
    EXPORTS["roboflow_yolo"](tmp_path / "set")
    path = (tmp_path / "set/train/images/a.jpg").with_suffix(suffix)
    image = np.full((60, 80, 3), 90, np.uint8)
    image[:20, :30] = 200
    exif = Image.Exif()
    exif[274] = orientation
    (tmp_path / "set/train/images/a.jpg").unlink()
    Image.fromarray(image).save(
        path, exif=exif, **({"lossless": True} if suffix == ".webp" else {"quality": 95})
    )
    before = read_image(path)
    out = convert(tmp_path / "set", "yolo", tmp_path / "out", fix=True)
    after = out / "images/train" / path.name
    with Image.open(after) as opened:
        assert opened.getexif().get(274, 1) == 1
        assert opened.format == {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}[suffix]
    shown = read_image(after)
    assert shown.shape == before.shape
    assert np.abs(shown.astype(int) - before).mean() < 1
    assert path.read_bytes() != after.read_bytes()


def test_the_copy_in_the_test_split_stays(healthy, tmp_path):
    (healthy / "images/test").mkdir()
    (healthy / "labels/test").mkdir()
    with (healthy / "data.yaml").open("a") as file:
        file.write("test: images/test\n")
    image = image_of(healthy, np.random.default_rng(0))
    for split in ("val", "test"):
        place = healthy / "images" / split / "copy.jpg"
        shutil.copy(image, place)
        shutil.copy(label_of(image), label_of(place))
    out = convert(healthy, "yolo", tmp_path / "out", fix=True)
    assert [path.name for path in out.rglob("copy.jpg")] == ["copy.jpg"]
    assert (out / "images/test/copy.jpg").exists()
    assert not (out / "images/train" / image.name).exists()


def test_copies_of_other_labels_are_counted(healthy, tmp_path, caplog):
    planted = FAULTS["image_in_both_splits"](healthy, np.random.default_rng(0))
    label_of(healthy / "images/val" / planted.where).write_text("0 .5 .5 .2 .2\n")
    with caplog.at_level(logging.INFO, "detector"):
        convert(healthy, "yolo", tmp_path / "out", fix=True)
    assert "1  copies had other labels than the image that stays" in caplog.text


def test_a_split_that_is_all_copies_is_an_error(healthy, tmp_path):
    shutil.rmtree(healthy / "images/train")
    shutil.copytree(healthy / "images/val", healthy / "images/train")
    with pytest.raises(DataError, match="fix=true: no image is left in train, as all are copies of others"):
        convert(healthy, "yolo", tmp_path / "out", fix=True)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_was_mended(healthy, tmp_path, capsys):
    FAULTS["box_over_the_edge"](healthy, np.random.default_rng(0))
    assert main(["convert", f"data={healthy}", "to=coco", f"out={tmp_path}/out", "fix=true"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/out\n"


def test_a_box_within_the_rounding_of_six_decimals_keeps_its_bits(healthy, tmp_path):
    label = label_of(image_of(healthy, np.random.default_rng(0)))
    label.write_text("0 0.0833335 0.5 0.166667 0.4\n")
    fixed, plain = (
        convert(healthy, "yolo", tmp_path / name, fix=name == "fixed") for name in ("fixed", "plain")
    )
    assert (fixed / "labels/train" / label.name).read_text() == (
        plain / "labels/train" / label.name
    ).read_text()


def test_pixels_stay_where_nothing_is_turned(healthy, tmp_path):
    out = convert(healthy, "yolo", tmp_path / "out", fix=True)
    image = image_of(healthy, np.random.default_rng(0))
    assert (out / "images/train" / image.name).samefile(image)
    assert cv2.imread(str(image)) is not None
