from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.data import annotations
from detector.data.annotations import build_annotations, measure_files, usable_images
from detector.data.formats.yolo import read_yolo
from detector.data.label_cache import label_cache_path, read_label_cache, write_label_cache
from detector.errors import DataError


@pytest.fixture(autouse=True)
def _own_index(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "index"))


def save(path, height=20, width=30):
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))
    return str(path)


def rotated(path):
    """A JPEG of 20 x 30 px that is shown as 30 x 20, by EXIF orientation 6."""
    data = cv2.imencode(".jpg", np.full((20, 30, 3), 90, np.uint8))[1].tobytes()
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    exif = b"Exif\x00\x00" + tiff
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    return str(path)


def test_sizes_are_those_shown(tmp_path):
    paths = [save(tmp_path / "a.png"), save(tmp_path / "b.jpg", 40, 12), rotated(tmp_path / "c.jpg")]

    assert measure_files(paths)[0].tolist() == [[20, 30], [40, 12], [30, 20]]


def test_only_changed_images_are_read_again(tmp_path, monkeypatch):
    paths = [save(tmp_path / "a.png"), save(tmp_path / "b.png")]
    measure_files(paths)
    save(tmp_path / "b.png", 50, 60)
    read = []
    measure = annotations.measure_image
    monkeypatch.setattr(annotations, "measure_image", lambda path: read.append(path) or measure(path))

    assert measure_files(paths)[0].tolist() == [[20, 30], [50, 60]]
    assert read == [paths[1]]


def test_an_image_changed_to_equal_size_and_time_is_read_again(tmp_path):
    paths = [save(tmp_path / "a.bmp", 20, 30)]
    before = (tmp_path / "a.bmp").stat()
    measure_files(paths)
    save(tmp_path / "b.bmp", 30, 20)
    (tmp_path / "b.bmp").write_bytes(
        (tmp_path / "b.bmp").read_bytes()[: before.st_size].ljust(before.st_size, b"\0")
    )
    (tmp_path / "b.bmp").replace(tmp_path / "a.bmp")
    os.utime(paths[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (tmp_path / "a.bmp").stat().st_size == before.st_size
    assert measure_files(paths)[0].tolist() == [[30, 20]]


def test_unusable_images_are_named_and_skipped(tmp_path, caplog):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").touch()
    paths = [save(tmp_path / "a.png"), str(tmp_path / "text.jpg"), str(tmp_path / "empty.png")]
    paths += [save(tmp_path / "tiny.png", 9, 30), str(tmp_path / "gone.png")]

    keep = usable_images(paths, measure_files(paths)[0])

    assert keep.tolist() == [True, False, False, False, False]
    assert "4 of 5 images are skipped" in caplog.text
    assert "tiny.png (30x9 px, a side below 10 px)" in caplog.text
    assert "text.jpg (can not be decoded)" in caplog.text
    assert "gone.png (does not exist)" in caplog.text


def test_no_usable_image_is_an_error(tmp_path):
    path = save(tmp_path / "tiny.png", 5, 5)

    with pytest.raises(DataError, match=r"no image can be used.*tiny\.png"):
        usable_images([path], measure_files([path])[0])
    with pytest.raises(DataError, match="no images were given"):
        usable_images([], measure_files([])[0])


def test_a_jpeg_without_end_is_used_and_named(tmp_path, caplog, capfd):
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    cut = str(tmp_path / "cut.jpg")
    Path(cut).write_bytes(data[: len(data) * 3 // 4])

    assert build_annotations(read_yolo([cut]), {0: "item"}).sizes.tolist() == [[60, 60]]
    assert "1 JPEG files end early; what could be decoded is used: " + cut in caplog.text
    capfd.readouterr()  # the decoder prints its own complaint


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 half"])
def test_a_broken_index_is_rebuilt(tmp_path, caplog, content):
    paths = [save(tmp_path / "a.png")]
    measure_files(paths)
    label_cache_path("images", paths).write_bytes(content)

    assert measure_files(paths)[0].tolist() == [[20, 30]]
    assert "built again" in caplog.text

    caplog.clear()
    assert measure_files(paths)[0].tolist() == [[20, 30]]
    assert not caplog.text


def test_an_index_of_other_shape_is_rebuilt(tmp_path, caplog):
    place = label_cache_path("images", ["a"])
    write_label_cache(place, sizes=np.zeros((3, 2), np.int64))

    assert read_label_cache(place, {"sizes": (1, 2)}) is None
    assert read_label_cache(place, {"sizes": (-1, 2)}) is not None


def test_an_index_that_runs_code_is_refused(tmp_path, caplog):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    place = label_cache_path("images", ["a"])
    place.parent.mkdir(parents=True)
    np.savez(place, sizes=np.array([Evil()], object))

    assert read_label_cache(place, {"sizes": (1, 2)}) is None
    assert not (tmp_path / "owned").exists()


def test_a_folder_that_can_not_be_written_is_no_error(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "file"))

    with caplog.at_level(logging.WARNING):
        assert measure_files([save(tmp_path / "a.png")])[0].tolist() == [[20, 30]]
    assert "can't be kept" in caplog.text
