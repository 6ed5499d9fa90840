"""YOLO text labels: ``images/<split>/x.jpg`` has its boxes in ``labels/<split>/x.txt``.

One row per box: ``class cx cy w h``, normalised. A file whose rows are longer holds polygons,
``class x1 y1 x2 y2 x3 y3 ...``; the box of a polygon is its extent. A missing or empty file means
that the image shows no object.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.data.annotations import NAMED, Annotations, listed, measure_images, usable_images
from detector.data.formats.unread import find_unread
from detector.data.label_cache import file_stats, label_cache_path, read_label_cache, write_label_cache
from detector.errors import DataError
from detector.files.text import read_text

log = logging.getLogger(__name__)

_MAX_CLASS = 2**31  # far above any list of names; larger ones are coordinates in a wrong column
_SLACK = 0.01  # how far a rounded coordinate may lie outside 0..1


def scan_yolo(
    images: Sequence[Path | str],
    names: dict[int, str],
    source: str = "the data file",
    single_cls: bool = False,
    classes: Collection[int] | None = None,
) -> Annotations:
    """Read and check the labels of these images.

    Images that can't be decoded or have a side below 10 px are skipped with a warning. Labels are
    not forgiven: every file with a wrong row is reported, because training on the rest would be
    training on another data set. Rows that repeat another row of their file, and boxes without
    area, are left out, the latter with a warning. Images without a label file are counted, and label files
    that no image finds are warned of.

    Args:
        images: image files; the last folder ``images`` of a path is replaced by ``labels``.
        names: class names by id, 0 to C - 1.
        source: what named the classes, for messages (``coco8.yaml``).
        single_cls: every class becomes class 0, called "item"; ids are not compared with ``names``.
        classes: keep only boxes of these ids.

    Raises:
        DataError: a label file has a wrong row, or no image can be used.
    """
    paths = [str(Path(image).absolute()) for image in images]
    label_paths = [label_path(path) for path in paths]
    stats = file_stats(label_paths)
    rows, problems = _read_labels(label_paths, stats)
    if not single_cls:
        problems |= _class_problems(rows, names, source)
    if problems:
        raise DataError(_report(problems, label_paths))
    _say_what_is_unread(paths, label_paths, np.flatnonzero(stats[:, 0] < 0).tolist())
    sizes = measure_images(paths)
    keep_image = usable_images(paths, sizes)

    keep = keep_image[rows.image]
    flat = keep & (rows.boxes[:, 2:].min(1, initial=1) <= 0)
    if flat.any():
        pairs = zip(rows.image[flat], rows.lines[flat], strict=True)
        where = [f"{label_paths[i]} line {line}" for i, line in pairs]
        log.warning("%d boxes without area are left out: %s", len(where), listed(where))
        keep &= ~flat
    if classes is not None:
        keep &= np.isin(rows.labels, list(classes))
    counts = np.bincount(rows.image[keep], minlength=len(paths))[keep_image]
    labels = rows.labels[keep]
    return Annotations(
        paths=[path for path, kept in zip(paths, keep_image, strict=True) if kept],
        sizes=sizes[keep_image],
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes=rows.boxes[keep],
        labels=np.zeros_like(labels) if single_cls else labels,
        names={0: "item"} if single_cls else dict(names),
        skipped=int((~keep_image).sum()),
    )


def label_path(image: str) -> str:
    """The label file of an image: last folder ``images`` to ``labels``, suffix to ``.txt``."""
    head, found, tail = image.rpartition(f"{os.sep}images{os.sep}")
    path = f"{head}{os.sep}labels{os.sep}{tail}" if found else image
    return str(Path(path).with_suffix(".txt"))


@dataclass(frozen=True)
class _Rows:
    """All rows of all label files: image (N,), lines (N,), labels (N,) int64; boxes (N, 4) float32 cxcywh."""

    image: NDArray[np.int64]
    lines: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float32]


def _say_what_is_unread(images: Sequence[str], label_paths: Sequence[str], missing: Sequence[int]) -> None:
    """Count the images without a label file, and the label files that no image finds."""
    if missing:
        named = listed([images[index] for index in missing])
        log.info(
            "%d of %d images have no label file, so they show no object: %s", len(missing), len(images), named
        )
    if unread := find_unread(images, label_paths, missing):
        named = listed([f"{path} ({why})" for path, why in unread])
        log.warning("%d label files are not read: %s", len(unread), named)


def _read_labels(paths: Sequence[str], stats: NDArray[np.int64]) -> tuple[_Rows, dict[int, str]]:
    """Parse all label files, or take the rows from the index if no file has changed since."""
    place = label_cache_path("yolo", paths)
    shapes = {"stats": (len(paths), 3), "image": (-1,), "lines": (-1,), "labels": (-1,), "boxes": (-1, 4)}
    known = read_label_cache(place, shapes)
    if known is not None and np.array_equal(known["stats"], stats):
        return _Rows(known["image"], known["lines"], known["labels"], known["boxes"].astype(np.float32)), {}
    image: list[int] = []
    lines: list[int] = []
    values: list[tuple[float, ...]] = []
    problems: dict[int, str] = {}
    for index in np.flatnonzero(stats[:, 0] > 0).tolist():
        try:
            found = parse_labels(read_text(paths[index]))
        except UnicodeDecodeError:
            problems[index] = " is not a text file."
            continue
        except (OSError, ValueError) as error:
            problems[index] = f" {error}"
            continue
        image.extend([index] * len(found))
        values.extend(found)
        lines.extend(found.values())
    table = np.array(values, np.float64).reshape(-1, 5)
    rows = _Rows(
        np.array(image, np.int64),
        np.array(lines, np.int64),
        table[:, 0].astype(np.int64),
        table[:, 1:].astype(np.float32),
    )
    if not problems:
        write_label_cache(place, stats=stats, **vars(rows))
    return rows, problems


def parse_labels(text: str) -> dict[tuple[float, ...], int]:
    """Rows (class, cx, cy, w, h) of one label file, each with the number of its first line.

    Raises:
        ValueError: a row is wrong; the message starts with its line.
    """
    rows: dict[tuple[float, ...], int] = {}
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
        rows.setdefault(_extent(values) if is_polygon else tuple(values), number)
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


def _extent(values: Sequence[float]) -> tuple[float, ...]:
    xs, ys = values[1::2], values[2::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return values[0], (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _class_problems(rows: _Rows, names: dict[int, str], source: str) -> dict[int, str]:
    problems: dict[int, str] = {}
    for row in np.flatnonzero(rows.labels >= len(names)):
        problems.setdefault(
            int(rows.image[row]),
            f" line {rows.lines[row]}: class {rows.labels[row]}, "
            f"but {source} names {len(names)} classes (0-{len(names) - 1}).",
        )
    return problems


def _report(problems: dict[int, str], label_paths: Sequence[str]) -> str:
    messages = [label_paths[index] + problems[index] for index in sorted(problems)]
    if len(messages) == 1:
        return messages[0]
    more = [f"... and {len(messages) - NAMED} more."] if len(messages) > NAMED else []
    return "\n  ".join([f"{len(messages)} label files can't be used:", *messages[:NAMED], *more])
