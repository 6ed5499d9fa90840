import shutil
from pathlib import Path

import numpy as np
import pytest
from support.exports import EXPORTS, NAMES, SCENES, SIZE, SPLITS

from detector.data.annotations import build_annotations
from detector.data.config import load_data_config
from detector.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))


def scenes_of(data):
    """What is read of a data set: split -> image -> class and corners, px."""
    config = load_data_config(data)
    assert config.names == dict(enumerate(NAMES))
    found = {}
    for split in ("train", "val"):
        annotations = build_annotations(config.read_labels(split), config.names)
        for index, path in enumerate(annotations.paths):
            boxes, labels = annotations.rows(index)
            corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
            corners = (corners * np.tile([SIZE[1], SIZE[0]], 2)).round(3)
            objects = [
                (NAMES[label], tuple(box)) for label, box in zip(labels, corners.tolist(), strict=True)
            ]
            found.setdefault(split, {})[Path(path).stem] = sorted(objects)
    return found


WITHOUT_VAL = (
    *("cvat_yolo", "cvat_coco", "cvat_voc", "labelimg_yolo", "labelimg_voc"),
    *("label_studio_yolo", "label_studio_coco", "label_studio_voc"),
)


@pytest.mark.parametrize("packed", ["folder", "zip", "tar.gz"])
@pytest.mark.parametrize("name", EXPORTS)
def test_the_export_of_a_tool_is_read_as_it_is(name, packed, tmp_path):
    data = tmp_path / "set"
    EXPORTS[name](data)
    if packed != "folder":
        kind = {"zip": "zip", "tar.gz": "gztar"}[packed]
        data = Path(shutil.make_archive(str(tmp_path / "packed"), kind, data))
    found = scenes_of(data)
    together = {stem: objects for scenes in found.values() for stem, objects in scenes.items()}
    assert together == {stem: sorted(objects) for stem, objects in SCENES.items()}
    if name not in WITHOUT_VAL:
        assert {split: tuple(scenes) for split, scenes in found.items()} == SPLITS
    else:
        assert all(found.values())


def test_a_folder_without_images_says_what_was_looked_for(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(
        DataError, match=rf"{tmp_path}/set: no images are found in it \(it is empty\)\. Expected"
    ):
        load_data_config(tmp_path / "set")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", EXPORTS)
def test_the_export_of_a_tool_trains(name, packed, tmp_path, train_tiny):
    data = tmp_path / "set"
    EXPORTS[name](data)
    if packed:
        data = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", data))
    model = train_tiny(data=data, epochs=1, classes=None)
    assert list(model.names.values()) == list(NAMES)
