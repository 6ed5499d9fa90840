import cv2
import numpy as np
import pytest

from detector.boxes import DIFFICULT, OBJECT
from detector.data.annotations import build_annotations
from detector.data.formats.voc import label_paths, parse_voc, read_voc
from detector.errors import DataError

NAMES = {0: "cat", 1: "dog"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))


def item(name="dog", box=(6, 4, 36, 24), extra=""):
    corners = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def annotation(*objects, size="<width>60</width><height>40</height><depth>3</depth>"):
    return f"<annotation><filename>x.jpg</filename><size>{size}</size>{''.join(objects)}</annotation>"


@pytest.fixture
def make(tmp_path):
    """Write an image of 60 x 40 px and its label file; returns the image's path."""

    def write(name, text, images="JPEGImages", labels="Annotations"):
        image, label = (
            tmp_path / "set" / folder / f"{name}{end}" for folder, end in ((images, ".jpg"), (labels, ".xml"))
        )
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), np.full((40, 60, 3), 90, np.uint8))
        if text is not None:
            label.write_text(text)
        return image

    return write


def test_boxes_names_and_images_without_labels_are_read(make):
    images = [
        make("a", annotation(item(), item("cat", (0, 0, 60, 40)))),
        make("b", None),
        make("c", annotation()),
    ]
    labels = read_voc(images)
    assert (labels.names, labels.missing) == (["cat", "dog"], [1])
    found = build_annotations(labels, NAMES)
    assert found.offsets.tolist() == [0, 2, 2, 2]
    assert found.labels.tolist() == [1, 0]
    np.testing.assert_allclose(found.boxes, [[21 / 60, 14 / 40, 0.5, 0.5], [0.5, 0.5, 1, 1]], rtol=1e-6)


def test_a_second_reading_gives_the_same_without_parsing(make, monkeypatch):
    images = [make("a", annotation(item(extra="<difficult>1</difficult>"))), make("b", None)]
    first = read_voc(images)
    monkeypatch.setattr("detector.data.formats.voc.parse_voc", None)
    second = read_voc(images)
    for key, value in vars(first).items():
        np.testing.assert_array_equal(value, getattr(second, key))


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("JPEGImages", "Annotations"),
        ("images", "annotations"),
        ("images/train", "annotations/train"),
        ("train", "train"),
        ("images", "images"),
        ("images", "labels"),
        ("JPEGImages/day", "Annotations/day"),
    ],
)
def test_label_files_are_found_where_tools_put_them(make, images, labels):
    assert len(read_voc([make("a", annotation(item()), images, labels)]).image) == 1


def test_a_suffix_of_capitals_or_dots_in_a_name_change_nothing():
    assert label_paths("/d/JPEGImages/a.b.JPG")[0] == "/d/Annotations/a.b.xml"
    assert label_paths("/d/x/a.png") == ["/d/x/a.xml"]


def test_difficult_objects_are_known_and_the_parts_of_objects_are_not_read():
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    found = parse_voc(
        annotation(
            item(extra=f"<difficult> 1 </difficult>{part}"), item(extra="<difficult>0</difficult>")
        ).encode()
    )
    assert [(row.label, row.kind) for row in found.rows] == [
        ("dog", DIFFICULT)
    ]  # the second repeats the first
    assert found.stated_hw == (40, 60)
    assert parse_voc(annotation(item()).encode()).rows[0].kind == OBJECT


def test_difficult_objects_are_trained_on_and_marked(make):
    image = make("a", annotation(item(extra="<difficult>1</difficult>"), item("cat")))
    found = build_annotations(read_voc([image]), NAMES)
    assert found.ignored is not None
    assert found.ignored.difficult.tolist() == [True, False]


def test_a_file_without_a_size_takes_that_of_its_image(make):
    for size in ("", "<width>0</width><height>0</height>"):
        found = build_annotations(
            read_voc([make("a" + str(len(size)), annotation(item(), size=size))]), NAMES
        )
        np.testing.assert_allclose(found.boxes, [[21 / 60, 14 / 40, 0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not an XML file: no element found"),
        ("<annotation>", "is not an XML file"),
        ('<?xml version="1.0" encoding="none"?><annotation></annotation>', "not an XML file: unknown encoding: none"),
        ('<?xml version="1.0" encoding="hex"?><annotation></annotation>', "not an XML file: 'hex' is not a text"),
        (annotation(item(box=(1, "<a>2</a>", 3, 4))), "object 1: ymin is ''; expected a number of px"),
        ("<html></html>", "is not a label file of Pascal VOC: it is a <html>, not an <annotation>"),
        (annotation("<object><name>dog</name></object>"), "object 1: it has no <bndbox>"),
        (annotation(item(), item(name=" ")), "object 2: it has no <name>"),
        (annotation(item(box=(1, 2, "x", 4))), "object 1: xmax is 'x'; expected a number of px"),
        (annotation(item(box=(1, 2, "nan", 4))), "object 1: xmax is 'nan'; expected a number of px"),
        (annotation(item(box=(1, 2, 1e300, 4))), "object 1: xmax is '1e+300'; expected a number of px"),
        (annotation(size="<width>wide</width>"), "size: width is 'wide'; expected a number of px"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "declares entities or a document type"),
        ("<annotation>" + "<a>" * 40 + "</a>" * 40 + "</annotation>", "levels"),
        (annotation(item(name="x" * 20_000)), "a text in it has over 10,000 characters"),
        (annotation(item("bird")), "object 1: class 'bird', but the data file names cat, dog"),
        (annotation(item(box=(1, 2, 300, 4))), "object 1: corners 1, 2, 300, 4 are not those of a box in 60 x 40 px"),
        (annotation(item(box=(9, 2, 3, 4))), "object 1: corners 9, 2, 3, 4 are not those of a box"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named(make, text, message):
    image = make("a", text)
    if text == "":  # an empty file is an image without objects
        with pytest.raises(ValueError, match=message):
            parse_voc(b"")
        return
    with pytest.raises(DataError) as caught:
        build_annotations(read_voc([image]), NAMES)
    assert str(caught.value).startswith(f"{image.parent.parent}/Annotations/a.xml ")
    assert message in str(caught.value)
