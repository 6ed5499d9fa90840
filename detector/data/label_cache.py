"""What reading the labels of a data set found, kept for the next start."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.files.folders import cache_dir

log = logging.getLogger(__name__)


_VERSION = 5  # of the index files


def file_stats(paths: Sequence[str]) -> NDArray[np.int64]:
    """(n, 3) int64, size in bytes, times of modification and of change in ns; -1 for a missing file.

    The time of modification is the writer's to set: copies and unpacked archives bring an old one. The time of
    change is the system's own.
    """
    stats = np.full((len(paths), 3), -1, np.int64)
    for row, path in enumerate(paths):
        try:
            found = os.stat(path)  # noqa: PTH116 - twice as fast as Path.stat on 100 000 files
        except OSError:
            continue
        stats[row] = found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return stats


def label_cache_path(kind: str, paths: Sequence[str]) -> Path:
    """Where what is known about these files is kept."""
    digest = hashlib.sha256("\n".join([f"{kind} {_VERSION}", *paths]).encode("utf-8", "surrogateescape"))
    return cache_dir("labels") / f"{kind}-{digest.hexdigest()[:32]}.npz"


def read_label_cache(place: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, NDArray[np.int64]] | None:
    """Read arrays back; None if there is no such file or it is not what was written.

    Args:
        place: from `label_cache_path`.
        shapes: names of the arrays and their shapes, -1 for any length.
    """
    try:
        with place.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in shapes}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s can't be read (%s); it is built again", place, error)
        return None
    for name, shape in shapes.items():
        actual = arrays[name].shape
        if len(actual) != len(shape) or any(s not in (-1, a) for s, a in zip(shape, actual, strict=True)):
            log.warning("%s does not fit its data set; it is built again", place)
            return None
    return arrays


def write_label_cache(place: Path, /, **arrays: NDArray[np.generic]) -> None:
    """Write arrays in one step: readers see the old file or the new one, never half of it."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".tmp", delete=False) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        Path(file.name).replace(place)
    except OSError as error:
        log.warning(
            "the index can't be kept in %s (%s); the next start reads all files again", place.parent, error
        )
