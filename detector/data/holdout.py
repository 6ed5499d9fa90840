"""Cut a validation split, or n folds, from images: by their content, so that they are the same everywhere.

Whether an image is held out, and which fold it is in, follows from its bytes, not from its name or place; copies and
nearly equal images stay on one side. Nearly equal are images whose difference hashes differ in up to 3 of 64 bits:
whether each pixel of a 9 x 8 grey thumbnail is darker than its right neighbour (Krawetz, "Kind of Like That", 2013).
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.data.images import read_image
from detector.data.label_cache import file_stats, label_cache_path, read_label_cache, write_label_cache
from detector.errors import DataError

log = logging.getLogger(__name__)

FRACTION = 0.2  # of the images that are held out
NEAR = 3  # bits that may differ
_BANDS = 4  # of 16 bits: of hashes that differ in up to 3 bits one is equal
MAX_THREADS = 16


class Fold(NamedTuple):
    """One of n parts of the images, which is validated on while the others are trained on.

    Attributes:
        number: which one, from 1.
        total: how many there are, n.
    """

    number: int
    total: int


def is_validated(paths: Sequence[str], cut: float | Fold) -> NDArray[np.bool_]:
    """Mark the images to validate on, (n,) bool: those of a fold, or a part of all, see `held_out`.

    Raises:
        DataError: if there are more folds than groups of nearly equal images.
    """
    if not isinstance(cut, Fold):
        return held_out(paths, cut)
    marked: NDArray[np.bool_] = folds_of(paths, cut.total) == cut.number
    return marked


def folds_of(paths: Sequence[str], count: int) -> NDArray[np.int64]:
    """Share images out to folds of nearly equal size; nearly equal images are in one fold.

    The largest groups of nearly equal images come first, of equals the one with the lowest hash; each goes to the fold
    that has the fewest images, of equals the first.

    Args:
        paths: n image files.
        count: of folds.

    Returns:
        (n,) int64, the fold of each image, from 1; 0 for images that can't be read.

    Raises:
        DataError: if there are more folds than groups.
    """
    contents, looks = image_hashes(paths)
    readable = np.flatnonzero(contents < np.iinfo(np.uint64).max)
    group, copies = np.unique(near_groups(looks[readable]), return_inverse=True)
    if len(group) < count:
        raise DataError(
            f"split=k/{count}: the {len(readable)} images are only {len(group)} groups of nearly equal ones, and a "
            f"group stays in one fold; expected at most that many folds."
        )
    lowest = np.full(len(group), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(lowest, copies, contents[readable])
    sizes = np.bincount(copies, minlength=len(group))
    filled, fold_of_group = np.zeros(count, np.int64), np.zeros(len(group), np.int64)
    for number in np.lexsort((lowest, -sizes)).tolist():
        fold = int(filled.argmin())
        fold_of_group[number] = fold + 1
        filled[fold] += sizes[number]
    folds = np.zeros(len(paths), np.int64)
    folds[readable] = fold_of_group[copies]
    return folds


def held_out(paths: Sequence[str], fraction: float = FRACTION) -> NDArray[np.bool_]:
    """Mark the images to validate on.

    Args:
        paths: n image files.
        fraction: how many of them, about, in 0..1.

    Returns:
        (n,) bool. At least one image is held out and one is not, even if all are nearly equal. Images that can't be
        read are not held out.
    """
    contents, looks = image_hashes(paths)
    group = near_groups(looks)
    lowest = np.full(len(paths), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(lowest, group, contents)
    readable = contents < np.iinfo(np.uint64).max
    draw = lowest[group] if len(np.unique(group)) > 1 else contents
    limit = min(max(np.uint64(fraction * 2.0**63) * np.uint64(2), draw.min() + np.uint64(1)), draw.max())
    marked: NDArray[np.bool_] = (draw < limit) & readable
    return marked


def image_hashes(paths: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return (n,) the beginning of SHA-256 of each file and (n,) its difference hash; all ones if it can't be read."""
    stats, place = file_stats(paths), label_cache_path("holdout", paths)
    shapes = {"stats": (len(paths), 3), "contents": (len(paths),), "looks": (len(paths),)}
    known = read_label_cache(place, shapes)
    if known is not None and np.array_equal(known["stats"], stats):
        return known["contents"].view(np.uint64), known["looks"].view(np.uint64)
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        found = list(pool.map(_hash, paths))
    contents, looks = (np.array([pair[n] for pair in found], np.uint64) for n in (0, 1))
    write_label_cache(place, stats=stats, contents=contents, looks=looks)
    return contents, looks


def _hash(path: str) -> tuple[int, int]:
    try:
        content = hashlib.sha256(Path(path).read_bytes()).digest()
        grey = read_image(path, cv2.IMREAD_GRAYSCALE, quiet=True)
    except (OSError, DataError):
        return 2**64 - 1, 2**64 - 1
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return min(int.from_bytes(content[:8], "big"), 2**64 - 2), int.from_bytes(bits.tobytes(), "big")


def near_groups(looks: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return (n,) the first image of each image's group of nearly equal ones."""
    parent = np.arange(len(looks))

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = int(parent[index])
        return index

    def unite(first: int, second: int) -> None:
        a, b = find(first), find(second)
        parent[max(a, b)] = min(a, b)

    distinct, first_of, place = np.unique(looks, return_index=True, return_inverse=True)
    for index in np.flatnonzero(first_of[place] != np.arange(len(looks))).tolist():
        unite(int(first_of[place[index]]), index)
    for band in range(_BANDS):
        buckets: dict[int, list[int]] = defaultdict(list)
        for number, bits in enumerate(((distinct >> np.uint64(16 * band)) & np.uint64(0xFFFF)).tolist()):
            buckets[bits].append(number)
        for numbers in buckets.values():
            if len(numbers) > 1:
                hashes = distinct[numbers]
                for row, number in enumerate(numbers[:-1]):
                    differing = (hashes[row + 1 :] ^ hashes[row]).view(np.uint8).reshape(-1, 8)
                    near = np.unpackbits(differing, axis=1).sum(1) <= NEAR
                    for other in np.flatnonzero(near).tolist():
                        unite(int(first_of[number]), int(first_of[numbers[row + 1 + other]]))
    return np.array([find(index) for index in range(len(looks))], np.int64)
