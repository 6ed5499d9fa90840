"""What a split's entries hold, in whatever formats: images and labels, or only the images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

import numpy as np

from detector.data.formats import FileFormat, ImageFormat, all_formats, file_format
from detector.data.formats.voc import images_of_list
from detector.data.labels import Labels
from detector.data.sources import list_images

LOOKED_AT = 200  # images, spread over a split, to recognise its format

_Read = dict[tuple[str, Path, Path | None], Labels]
_READ: ContextVar[_Read | None] = ContextVar("label files that were read", default=None)


@contextmanager
def reading_once() -> Iterator[None]:
    """Read each label file of a whole split at most once within this block, however often it is asked for."""
    token = _READ.set({} if (known := _READ.get()) is None else known)
    try:
        yield
    finally:
        _READ.reset(token)


def _read_file(found: FileFormat, entry: Path, images: Path | None) -> Labels:
    known = _READ.get()
    if known is None:
        return found.read(entry, images)
    key = found.name, entry, images
    if key not in known:
        known[key] = found.read(entry, images)
    return known[key]


def split_images(
    entries: Iterable[Path], places: Sequence[Path] = (), images: Path | None = None
) -> list[Path]:
    """Return the images of a split.

    Args:
        entries: folders, .txt lists, images, label files of a whole split.
        places: further folders that the lines of .txt files may start from.
        images: folder of the images of label files of a whole split.

    Returns:
        Absolute paths, sorted, maybe several times the same.

    Raises:
        DataError: If an entry does not exist, is of another kind, or its images are not found.
    """
    found: list[Path] = []
    for entry in entries:
        if (known := file_format(entry)) is not None:
            found += map(Path, _read_file(known, entry, images).paths)
        elif (named := images_of_list(entry)) is not None:
            found += named
        else:
            found += list_images([entry], places)
    return sorted(found)


def read_labels(entries: Sequence[Path], paths: Sequence[Path], images: Path | None = None) -> list[Labels]:
    """Read the labels of a split.

    Args:
        entries: as of `split_images`; likewise `images`.
        paths: the images whose labels are wanted, from `split_images`.

    Returns:
        The labels by source; at least one.

    Raises:
        DataError: If a label file of a whole split is wrong.
    """
    parts: list[Labels] = []
    left = dict.fromkeys(map(str, paths))
    for entry in entries:
        if (known := file_format(entry)) is not None:
            found = _read_file(known, entry, images)
            chosen = np.array([path in left for path in found.paths], bool)
            parts.append(replace(found if chosen.all() else found.subset(chosen), format=known.name))
            for path in found.paths:
                left.pop(path, None)
    if left or not parts:
        chosen_format = recognise(list(left))
        parts.append(replace(chosen_format.read(list(left)), format=chosen_format.name))
    return parts


def recognise(paths: Sequence[str]) -> ImageFormat:
    """Return the format whose label files some of these images have; of equals, and if there is none, the first."""
    formats = [found for found in all_formats().values() if isinstance(found, ImageFormat)]
    sample = paths[:: max(len(paths) // LOOKED_AT, 1)]

    def count(found: ImageFormat) -> int:
        return sum(any(map(os.path.exists, found.label_paths(path))) for path in sample)

    return max(formats, key=count)
