"""YOLO text labels: ``images/<split>/x.jpg`` has its boxes in ``labels/<split>/x.txt``.

One row per box: ``class cx cy w h``, normalised. A file whose rows are longer holds polygons,
``class x1 y1 x2 y2 x3 y3 ...``; the box of a polygon is its extent. A missing or empty file means
that the image shows no object.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from detector.data.formats import ImageFormat
from detector.data.formats.unread import find_unread
from detector.data.label_cache import file_stats
from detector.data.labels import Labels, ParsedFile, Row, read_label_files
from detector.errors import listed
from detector.files.text import read_text

log = logging.getLogger(__name__)

_MAX_CLASS = 2**31  # far above any list of names; larger ones are coordinates in a wrong column
YoloRow = tuple[float, float, float, float, float]  # class cx cy w h
_SLACK = 0.01  # how far a rounded coordinate may lie outside 0..1


def read_yolo(images: Sequence[Path | str]) -> Labels:
    """Read the labels of these images.

    Images without a label file are counted, and label files that no image finds are warned of.

    Args:
        images: image files; the last folder ``images`` of a path is replaced by ``labels``.
    """
    paths = [str(Path(image).absolute()) for image in images]
    files = [label_path(path) for path in paths]
    labels = read_label_files("yolo", paths, files, file_stats(files), _parse_file, "line", in_pixels=False)
    if not labels.problems:
        _say_what_is_unread(paths, files, labels.missing)
    return labels


def label_path(image: str) -> str:
    """The label file of an image: last folder ``images`` to ``labels``, suffix to ``.txt``."""
    head, found, tail = image.rpartition(f"{os.sep}images{os.sep}")
    path = f"{head}{os.sep}labels{os.sep}{tail}" if found else image
    return str(Path(path).with_suffix(".txt"))


def _say_what_is_unread(images: Sequence[str], files: Sequence[str], missing: Sequence[int]) -> None:
    """Count the images without a label file, and the label files that no image finds."""
    if missing:
        named = listed([images[index] for index in missing])
        log.info(
            "%d of %d images have no label file, so they show no object: %s", len(missing), len(images), named
        )
    if unread := find_unread(images, files, missing):
        named = listed([f"{path} ({why})" for path, why in unread])
        log.warning("%d label files are not read: %s", len(unread), named)


def _parse_file(path: str) -> ParsedFile:
    text = read_text(path)
    rows = parse_labels(text)
    repeated = sum(not line.isspace() for line in text.splitlines() if line) - len(rows)
    return ParsedFile([Row(line, int(row[0]), row[1:]) for row, line in rows.items()], repeated=repeated)


def parse_labels(text: str) -> dict[YoloRow, int]:
    """Rows (class, cx, cy, w, h) of one label file, each with the number of its first line.

    Raises:
        ValueError: a row is wrong; the message starts with its line.
    """
    rows: dict[YoloRow, int] = {}
    columns = 0
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError:
            raise ValueError(f"line {number}: {line.strip()[:60]!r} is not a row of numbers.") from None
        is_polygon = len(values) > 6
        if not (len(values) == 5 or (is_polygon and len(values) % 2)):
            raise ValueError(
                f"line {number}: {len(values)} columns; expected 5 (class cx cy w h), "
                "or a class and at least 3 points of a polygon (class x1 y1 x2 y2 x3 y3 ...)."
            )
        if columns and (columns > 6) != is_polygon:
            raise ValueError(f"line {number}: boxes and polygons in one file; expected one or the other.")
        columns = len(values)
        _check_values(values, number, is_polygon)
        rows.setdefault(_extent(values) if is_polygon else cast(YoloRow, tuple(values)), number)
    return rows


def _check_values(values: Sequence[float], number: int, is_polygon: bool) -> None:
    if not values[0].is_integer() or not 0 <= values[0] < _MAX_CLASS:
        raise ValueError(f"line {number}: class {values[0]:g}; expected a whole number from 0.")
    low = [-_SLACK] * (len(values) - 1) if is_polygon else [-_SLACK, -_SLACK, 0.0, 0.0]
    for value, minimum in zip(values[1:], low, strict=True):
        if not minimum <= value <= 1 + _SLACK:  # also refuses nan
            raise ValueError(
                f"line {number}: coordinate {value:g}; expected 0 to 1, parts of the image's width or height."
            )


def _extent(values: Sequence[float]) -> YoloRow:
    xs, ys = values[1::2], values[2::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return values[0], (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


FORMAT = ImageFormat("YOLO", lambda image: [label_path(image)], read_yolo)
