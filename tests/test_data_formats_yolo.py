from __future__ import annotations

import os
import unicodedata

import cv2
import numpy as np
import pytest

from detector.data.annotations import build_annotations
from detector.data.formats.yolo import label_path, parse_labels, read_yolo
from detector.errors import DataError

NAMES = {0: "cat", 1: "dog"}


def scan_yolo(images, *args, **kwargs):
    return build_annotations(read_yolo(images), *args, **kwargs)


@pytest.fixture(autouse=True)
def _own_index(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "index"))


@pytest.fixture
def make(tmp_path):
    """Write one image and its label text (None: no file); returns the image's path."""

    def write(name, text, size=(20, 30)):
        image = tmp_path / "data" / "images" / "train" / f"{name}.png"
        label = tmp_path / "data" / "labels" / "train" / f"{name}.txt"
        image.parent.mkdir(parents=True, exist_ok=True)
        label.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), np.full((*size, 3), 90, np.uint8))
        if text is not None:
            label.write_text(text)
        return image

    return write


def test_boxes_backgrounds_and_sizes_are_read(make):
    images = [
        make("a", "1 0.5 0.5 0.2 0.4\n0 0.25 0.25 0.5 0.5\n"),
        make("b", None),
        make("c", ""),
        make("d", "\n0\t0.5  0.5 1 1\n\n", size=(40, 50)),
    ]

    found = scan_yolo(images, NAMES)

    assert found.offsets.tolist() == [0, 2, 2, 2, 3]
    assert found.labels.tolist() == [1, 0, 0]
    assert found.boxes.dtype == np.float32
    assert np.allclose(found.rows(0)[0], [[0.5, 0.5, 0.2, 0.4], [0.25, 0.25, 0.5, 0.5]])
    assert found.sizes.tolist() == [[20, 30], [20, 30], [20, 30], [40, 50]]
    assert found.class_counts().tolist() == [2, 1]
    assert found.names == NAMES and found.skipped == 0


def test_polygons_become_their_extent(make):
    found = scan_yolo([make("a", "1 0.1 0.2 0.5 0.2 0.3 0.8")], NAMES)

    assert np.allclose(found.boxes, [[0.3, 0.5, 0.4, 0.6]])


def test_repeated_rows_are_taken_once(make):
    found = scan_yolo([make("a", "0 0.5 0.5 0.2 0.2\n0 0.50 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n")], NAMES)

    assert found.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0 .5 .5 .1 .1\n1 .5 .5 .1", "line 2: 4 columns; expected 5"),
        ("0 .5 .5 .1 .1 .9", "line 1: 6 columns"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "line 1: 8 columns"),
        ("0 .5 .5 .1 .1\n0 .1 .1 .2 .2 .3 .3", "line 2: boxes and polygons in one file"),
        ("cat .5 .5 .1 .1", "line 1: 'cat .5 .5 .1 .1' is not a row of numbers"),
        ("0.5 .5 .5 .1 .1", "line 1: class 0.5; expected a whole number"),
        ("-1 .5 .5 .1 .1", "line 1: class -1; expected a whole number"),
        ("0 .5 1.02 .1 .1", "line 1: coordinate 1.02; expected 0 to 1"),
        ("0 .5 -0.02 .1 .1", "line 1: coordinate -0.02; expected 0 to 1"),
        ("0 .5 .5 -0.001 .1", "line 1: coordinate -0.001; expected 0 to 1"),
        ("0 .5 .5 nan .1", "line 1: coordinate nan; expected 0 to 1"),
        ("0 320 240 100 100", "line 1: coordinate 320; expected 0 to 1"),
    ],
)
def test_wrong_rows_are_refused(text, problem):
    with pytest.raises(ValueError, match=f"^{problem}"):
        parse_labels(text)


def test_rounding_errors_are_tolerated():
    assert list(parse_labels("0 -0.005 1.009 0.1 0.1")) == [(0.0, -0.005, 1.009, 0.1, 0.1)]


def test_an_unknown_class_is_reported_with_its_place(make):
    image = make("a", "0 .5 .5 .1 .1\n\n7 .5 .5 .1 .1")

    with pytest.raises(DataError) as caught:
        scan_yolo([image], NAMES, "pets.yaml")

    assert str(caught.value).endswith(
        "labels/train/a.txt line 3: class 7, but pets.yaml names 2 classes (0-1)."
    )


def test_every_bad_file_is_reported_at_once(make):
    images = [make(f"{i:02}", "9 .5 .5 .1 .1" if i % 2 else "0 1 2") for i in range(13)] + [make("x", None)]

    with pytest.raises(DataError) as caught:
        scan_yolo(images, NAMES)

    lines = str(caught.value).splitlines()
    assert lines[0] == "13 label files can't be used:"
    assert len(lines) == 12 and lines[-1].strip() == "... and 3 more."
    assert "00.txt line 1: 3 columns" in lines[1] and "01.txt line 1: class 9" in lines[2]


def test_a_label_file_that_is_no_text_is_reported(make, tmp_path):
    image = make("a", "")
    (tmp_path / "data/labels/train/a.txt").write_bytes(b"\xff\x00\x01")

    with pytest.raises(DataError, match=r"a\.txt is not a text file"):
        scan_yolo([image], NAMES)


def test_single_cls_joins_the_classes(make):
    found = scan_yolo([make("a", "1 .5 .5 .1 .1\n90 .5 .5 .2 .2")], NAMES, single_cls=True)

    assert found.labels.tolist() == [0, 0] and found.names == {0: "item"}


def test_classes_keeps_only_those(make):
    found = scan_yolo(
        [make("a", "1 .5 .5 .1 .1\n0 .5 .5 .2 .2"), make("b", "0 .5 .5 .2 .2")], NAMES, classes=[1]
    )

    assert found.labels.tolist() == [1] and found.offsets.tolist() == [0, 1, 1]


def test_boxes_without_area_are_left_out_and_named(make, caplog):
    found = scan_yolo([make("a", "1 .5 .5 0 .1\n0 .5 .5 .2 .2")], NAMES)

    assert found.labels.tolist() == [0]
    assert "1 boxes without area" in caplog.text and "a.txt line 1" in caplog.text


def test_skipped_images_take_their_boxes_along(make, caplog):
    images = [make("a", "0 .5 .5 .1 .1"), make("b", "1 .5 .5 .1 .1"), make("c", "1 .5 .5 .3 .3")]
    images[1].write_bytes(b"broken")

    found = scan_yolo(images, NAMES)

    assert found.paths == [str(images[0]), str(images[2])]
    assert found.skipped == 1 and found.offsets.tolist() == [0, 1, 2]
    assert np.allclose(found.boxes[:, 2], [0.1, 0.3])


def test_a_second_scan_gives_the_same_without_parsing(make, monkeypatch):
    images = [make("a", "1 .5 .5 .1 .1\n0 .5 .5 .2 .2"), make("b", None)]
    first = scan_yolo(images, NAMES)
    monkeypatch.setattr("detector.data.formats.yolo.parse_labels", None)

    second = scan_yolo(images, NAMES)

    assert all(
        np.array_equal(getattr(first, k), getattr(second, k)) for k in ("offsets", "boxes", "labels", "sizes")
    )


def test_a_changed_label_file_is_read_again(make):
    image = make("a", "1 .5 .5 .1 .1")
    scan_yolo([image], NAMES)
    make("a", "0 .5 .5 .25 .25")

    assert scan_yolo([image], NAMES).labels.tolist() == [0]


def test_the_data_set_is_not_written_to(make, tmp_path):
    image = make("a", "1 .5 .5 .1 .1")
    before = sorted((tmp_path / "data").rglob("*"))
    scan_yolo([image], NAMES)

    assert sorted((tmp_path / "data").rglob("*")) == before


def test_the_last_images_folder_becomes_labels():
    assert label_path("/images/x/images/train/a.b.jpg") == "/images/x/labels/train/a.b.txt"
    assert label_path("/flat/a.jpg") == "/flat/a.txt"


def test_a_label_file_changed_to_equal_size_and_time_is_read_again(make, tmp_path):
    image = make("a", "0 0.5 0.5 0.2 0.2")
    label = tmp_path / "data/labels/train/a.txt"
    before = label.stat()
    assert scan_yolo([image], NAMES).labels.tolist() == [0]
    label.write_text("1 0.5 0.5 0.2 0.2")
    os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scan_yolo([image], NAMES).labels.tolist() == [1]


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbf1 0.5 0.5 0.2 0.2\r\n", "1 0.5 0.5 0.2 0.2\n".encode("utf-16")]
)
def test_a_label_file_may_begin_with_a_byte_order_mark(make, tmp_path, content):
    image = make("a", "")
    (tmp_path / "data/labels/train/a.txt").write_bytes(content)
    assert scan_yolo([image], NAMES).labels.tolist() == [1]
    (tmp_path / "data/labels/train/a.txt").write_bytes(b"\xef\xbb\xbf")
    assert len(scan_yolo([image], NAMES).labels) == 0


@pytest.fixture
def heard(caplog):
    caplog.set_level("INFO")
    return caplog


def test_images_without_a_label_file_are_counted(make, heard):
    images = [make("a", "0 0.5 0.5 0.2 0.2"), make("b", None), make("c", "")]
    scan_yolo(images, NAMES)
    assert f"1 of 3 images have no label file, so they show no object: {images[1]}" in heard.messages


@pytest.mark.parametrize(
    "place",
    [
        "labels/train/a.TXT",
        "labels/train/a.png.txt",
        "labels/train/A.txt",
        "images/train/a.txt",
        "Labels/train/a.txt",
    ],
)
def test_a_label_file_in_the_wrong_place_is_named(make, tmp_path, heard, place):
    image = make("a", None)
    (tmp_path / "data" / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "data" / place).write_text("0 0.5 0.5 0.2 0.2")
    if (tmp_path / "data/labels/train/a.txt").exists():
        pytest.skip("this file system does not tell cases apart")
    scan_yolo([image, make("b", "0 0.5 0.5 0.2 0.2")], NAMES)
    expected = tmp_path / "data/labels/train/a.txt"
    assert (
        f"1 label files are not read: {tmp_path / 'data' / place} (looked for is {expected})"
        in heard.messages
    )


def test_a_label_file_whose_letters_are_composed_in_another_way_is_named(make, tmp_path, heard):
    image = make(unicodedata.normalize("NFC", "b\u00e4r"), None)
    label = tmp_path / "data/labels/train" / (unicodedata.normalize("NFD", "b\u00e4r") + ".txt")
    label.write_text("0 0.5 0.5 0.2 0.2")
    scan_yolo([image], NAMES)
    assert "1 label files are not read" in heard.text


def test_a_label_file_without_an_image_is_named_but_not_that_of_another_split(make, tmp_path, heard):
    images = [make(name, "0 0.5 0.5 0.2 0.2") for name in "ab"]
    labels = tmp_path / "data/labels/train"
    (labels / "classes.txt").write_text("cat")
    scan_yolo(images[:1], NAMES)
    assert not heard.messages
    (labels / "gone.txt").write_text("0 0.5 0.5 0.2 0.2")
    scan_yolo(images[:1], NAMES)
    assert heard.messages == [
        f"1 label files are not read: {labels}/gone.txt ({tmp_path}/data/images/train has no image of this name)"
    ]


def test_images_with_wrong_labels_are_left_out_if_that_is_asked_for(make, caplog):
    images = [make("a", "0 5 5 5 5"), make("b", "7 .5 .5 .1 .1"), make("c", "1 .5 .5 .1 .1")]
    found = build_annotations(read_yolo(images), NAMES, skip=True)
    assert found.paths == [str(images[2])]
    assert found.labels.tolist() == [1]
    assert "2 images are left out, as their labels are wrong: " in caplog.text
    with pytest.raises(
        DataError, match=r"no image is left without wrong labels; 2 label files can't be used"
    ):
        build_annotations(read_yolo(images[:2]), NAMES, skip=True)
