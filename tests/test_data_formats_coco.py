import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from support.exports import EXPORTS

from detector.data.annotations import build_annotations
from detector.data.config import load_data_config
from detector.data.formats.coco import is_coco, parse_coco, read_coco
from detector.errors import DataError

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
NAMES = {0: "cat", 1: "dog"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))


def content(*objects, **image):
    """A file of one image of 60 x 40 px (and one without objects) with these objects."""
    images = [
        {"id": 90, "file_name": "b.jpg", "height": 40, "width": 60} | image,
        {"id": 4, "file_name": "a.jpg"},
    ]
    annotations = [{"id": 100 + n, "image_id": 90, "category_id": 7} | item for n, item in enumerate(objects)]
    return {"images": images, "categories": CATEGORIES, "annotations": annotations}


@pytest.fixture
def write(tmp_path):
    """Write a COCO file next to its images, 60 x 40 px; returns its path."""

    def writer(data, folder="", name="instances.json"):
        place = tmp_path / "set" / folder
        place.mkdir(parents=True, exist_ok=True)
        for image in data["images"]:
            path = place / image["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((40, 60, 3), 90, np.uint8))
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_text(json.dumps(data))
        return tmp_path / "set" / name

    return writer


def test_ids_with_gaps_become_classes_by_name_and_images_are_sorted(write):
    path = write(content({"bbox": [6, 4, 30, 20]}, {"bbox": [0, 0, 60, 40], "category_id": 3, "image_id": 4}))
    labels = read_coco(path)
    assert [p.rsplit("/", 1)[1] for p in labels.paths] == ["a.jpg", "b.jpg"]
    assert labels.names == ["cat", "dog"]
    found = build_annotations(labels, NAMES)
    assert found.offsets.tolist() == [0, 1, 2]
    assert found.labels.tolist() == [0, 1]
    np.testing.assert_allclose(found.boxes, [[0.5, 0.5, 1, 1], [21 / 60, 14 / 40, 0.5, 0.5]], rtol=1e-6)
    assert found.ignored is None


def test_a_second_reading_gives_the_same_without_parsing(write, monkeypatch):
    path = write(content({"bbox": [6, 4, 30, 20], "iscrowd": 1}))
    first = read_coco(path)
    monkeypatch.setattr("detector.data.formats.coco.parse_coco", None)
    second = read_coco(path)
    for key, value in vars(first).items():
        np.testing.assert_array_equal(value, getattr(second, key))


def test_groups_of_objects_are_for_evaluation_alone(write):
    labels = read_coco(write(content({"bbox": [6, 4, 30, 20], "iscrowd": 1}, {"bbox": [1, 2, 3, 4]})))
    found = build_annotations(labels, NAMES)
    assert len(found.labels) == 1
    assert found.ignored is not None
    assert found.ignored.offsets.tolist() == [0, 0, 1]
    assert found.ignored.labels.tolist() == [1]
    assert found.ignored.difficult.tolist() == [False]


def test_an_object_without_a_box_has_the_extent_of_its_polygons():
    found = parse_coco(content({"segmentation": [[10, 5, 20, 5, 15, 25], [30, 8, 31, 8, 31, 9]]}))
    assert found.boxes.tolist() == [[10, 5, 31, 25]]


@pytest.mark.parametrize("density", [0.02, 0.3, 0.95])
@pytest.mark.parametrize("as_text", [True, False])
def test_the_extent_of_a_mask_is_that_of_pycocotools(density, as_text):
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = np.asfortranarray(rng.random((17, 23)) < density, np.uint8)
        coded = coco_mask.encode(mask)
        counts = coded["counts"].decode()
        if not as_text:
            changes = np.flatnonzero(np.diff(mask.T.ravel(), prepend=0))
            counts = np.diff([0, *changes, mask.size]).tolist()
        found = parse_coco(
            content({"segmentation": {"size": [17, 23], "counts": counts}}, height=17, width=23)
        )
        x, y, width, height = coco_mask.toBbox(coded)
        assert found.boxes.tolist() == [[x, y, x + width, y + height]]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"bbox": [1, 2, 3]}, "annotations[1]: bbox is [1, 2, 3]; expected 4 numbers, px"),
        ({"bbox": [1, 2, float("nan"), 3]}, "expected 4 numbers, px"),
        ({"bbox": [1, 2, -3, 3]}, "expected x, y, width and height, px"),
        ({"bbox": [True, 2, 3, 3]}, "expected 4 numbers, px"),
        ({}, "annotations[1]: bbox is None and segmentation is None; expected one of them"),
        ({"segmentation": [[1, 2, 3]]}, "expected x, y of 3 points or more, px"),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, "expected height and width of the image"),
        ({"segmentation": {"size": [40, 60], "counts": [81]}}, "expected runs that fill its size"),
        ({"segmentation": {"size": [40, 60], "counts": "\x7f" * 99}}, "expected runs that fill its size"),
        ({"segmentation": {"size": [40, 60], "counts": "o" * 99}}, "expected runs that fill its size"),
        ({"segmentation": {"size": [40, 60], "counts": [2400]}}, "segmentation is empty"),
        (
            {"bbox": [1, 2, 3, 4], "image_id": 5},
            "annotations[1]: image_id is 5, which the file does not define",
        ),
        ({"bbox": [1, 2, 3, 4], "category_id": [7]}, "category_id is [7], which the file does not define"),
    ],
)
def test_a_wrong_object_is_named(item, message, write):
    path = write(content({"bbox": [1, 2, 3, 4]}, item))
    with pytest.raises(DataError) as caught:
        build_annotations(read_coco(path), NAMES)
    assert str(caught.value).startswith((f"{path} annotations[1]: ", f"{path}: annotations[1]: "))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "my.json is not a label file of COCO: images is nothing; expected a list of objects."),
        ({"annotations": {}}, "annotations is dict; expected a list of objects"),
        ({"categories": [{"id": 3}]}, "categories[0]: name is None; expected a name of its own"),
        ({"categories": [CATEGORIES[0]] * 2}, "categories[1]: id is 7; expected a number of its own"),
        ({"images": [{"id": 1, "file_name": ".."}]}, "images[0]: file_name is '..'; expected the name of an image"),
        ({"images": [{"id": 1, "file_name": ["a"]}]}, "images[0]: file_name is ['a']; expected the name of an image"),
        ({"images": [{"id": 1, "file_name": "a\0"}]}, r"images[0]: file_name is 'a\x00'; expected the name"),
        ({"images": [{"id": 1, "file_name": "\ud800"}]}, r"images[0]: file_name is '\ud800'; expected the name"),
        ({"categories": [{"id": 3, "name": "\ud800"}]}, r"categories[0]: name is '\ud800'; expected a name"),
        ({"images": [{"id": 1.5, "file_name": "a"}]}, "images[0]: id is 1.5; expected a number of its own"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named(change, message):
    with pytest.raises(DataError) as caught:
        parse_coco(content() | change, "my.json")
    assert message in str(caught.value)


def test_everything_wrong_is_counted_and_the_first_are_named():
    with pytest.raises(DataError) as caught:
        parse_coco(content(*[{"bbox": [1, 2, 3, 4], "image_id": 8}] * 30), "my.json")
    lines = str(caught.value).splitlines()
    assert lines[0] == "my.json: 30 entries are wrong:"
    assert (len(lines), lines[-1].strip()) == (12, "... and 20 more.")


def test_images_with_wrong_labels_are_left_out_if_that_is_asked_for(write, caplog):
    path = write(content({"bbox": [1, 2, 3]}, {"bbox": [1, 2, 3, 4], "image_id": 4}))
    found = build_annotations(read_coco(path), NAMES, skip=True)
    assert [image.rsplit("/", 1)[1] for image in found.paths] == ["a.jpg"]
    assert len(found.labels) == 1
    assert f"1 images are left out, as their labels are wrong: {path} annotations[0]: bbox is" in caplog.text


@pytest.mark.parametrize("text", ["", "[", "[1]", '{"a": 1}', "[" * 100_000, "\x00", '"images"'])
def test_what_is_not_a_coco_file_is_one_sentence(text, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"x\.json is not a (JSON file|label file of COCO)"):
        read_coco(path)
    assert not is_coco(path)


@pytest.mark.parametrize("number", ["9" * 5000, "[" * 900 + "1" + "]" * 900])
@pytest.mark.parametrize("key", ["id", "file_name", "supercategory", "bbox"])
def test_numbers_of_any_length_and_lists_of_any_depth_are_one_error(key, number, tmp_path):
    data = json.dumps({
        "images": [{"id": 90, "file_name": "a.jpg"}],
        "categories": [{"id": 7, "name": "dog", "supercategory": "pet"}],
        "annotations": [{"id": 1, "image_id": 90, "category_id": 7, "bbox": [1, 2, 3, 4]}],
    })  # fmt: skip
    given = {"id": "90", "file_name": '"a.jpg"', "supercategory": '"pet"', "bbox": "[1, 2, 3, 4]"}[key]
    path = tmp_path / "x.json"
    path.write_text(data.replace(f'"{key}": {given}', f'"{key}": {number}', 1))
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((40, 60, 3), 90, np.uint8))
    try:
        build_annotations(read_coco(path), {0: "dog"})
    except DataError as error:
        assert str(error).startswith(str(path))
    else:
        assert key == "supercategory"


def test_an_image_whose_name_is_too_long_for_the_system_does_not_exist(write, caplog):
    path = write(content({"bbox": [1, 2, 3, 4]}))
    data = json.loads(path.read_text())
    data["images"].append({"id": 5, "file_name": "x" * 300 + ".jpg"})
    path.write_text(json.dumps(data))
    assert len(build_annotations(read_coco(path), NAMES)) == 2
    assert "x.jpg (does not exist)" in caplog.text
    data["images"] = [data["images"][-1] | {"id": 90}]
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match="no image of it is found"):
        read_coco(path)


def test_a_box_far_outside_its_image_is_refused_and_one_a_little_outside_is_kept(write):
    path = write(content({"bbox": [-0.4, 0, 61, 40.3]}))
    found = build_annotations(read_coco(path), NAMES)
    np.testing.assert_allclose(found.boxes, [[30.1 / 60, 20.15 / 40, 61 / 60, 40.3 / 40]], rtol=1e-6)
    path = write(content({"bbox": [100, 0, 61, 40]}), name="far.json")
    with pytest.raises(
        DataError, match=r"far\.json annotation 100: corners 100, 0, 161, 40 are not .* 60 x 40 px"
    ):
        build_annotations(read_coco(path), NAMES)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("instances.json", ""),
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_train.json", "images/train"),
        ("annotations/instances_default.json", "images"),
        ("result.json", "images"),
    ],
)
def test_images_are_found_where_tools_put_them(write, name, folder):
    path = write(content({"bbox": [1, 2, 3, 4]}), folder, name)
    assert all(cv2.imread(image) is not None for image in read_coco(path).paths)


@pytest.mark.parametrize(
    "name", ["C:\\work\\b.jpg", "/label-studio/data/media/b.jpg", "..\\..\\x\\b.jpg", "images/b.jpg"]
)
def test_images_named_in_other_folders_are_found_by_what_their_names_share(write, name):
    data = content({"bbox": [1, 2, 3, 4]})
    data["images"].pop()
    path = write(data)
    data["images"][0]["file_name"] = name
    path.write_text(json.dumps(data))
    assert read_coco(path).paths == [str(path.parent / "b.jpg")]


def test_a_file_without_its_images_says_where_they_were_looked_for(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(content({"bbox": [1, 2, 3, 4]})))
    with pytest.raises(DataError, match=rf"no image of it is found, such as 'b.jpg'; looked in {tmp_path}"):
        read_coco(tmp_path / "x.json")


def test_classes_have_the_order_of_their_ids(tmp_path):
    EXPORTS["coco"](tmp_path)
    for path in tmp_path.rglob("*.json"):
        content = json.loads(path.read_text())
        new = {old["id"]: 90 - old["id"] for old in content["categories"]}
        for category in content["categories"]:
            category["id"] = new[category["id"]]
        for annotation in content["annotations"]:
            annotation["category_id"] = new[annotation["category_id"]]
        path.write_text(json.dumps(content))
    assert load_data_config(tmp_path).names == {0: "dog", 1: "cat"}


def test_what_is_wrong_is_kept_for_the_next_start(write, monkeypatch):
    path = write(content({"bbox": [1, 2, -3, 4]}))
    first = read_coco(path)
    monkeypatch.setattr(
        "detector.data.formats.coco.parse_coco", lambda *_: pytest.fail("the file is read again")
    )
    assert first.problems == read_coco(path).problems != {}
