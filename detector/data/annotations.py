"""The index of a data set: images, their sizes and their boxes, whatever format they came in.

Reading the files once is slow, so what was found is kept in small ``.npz`` files in the user's cache
(`detector.files.folders.cache_dir`). A file's size and times decide whether what is kept still holds; the
folder of the data set is never written to.
"""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from detector.data.images import MAX_PIXELS, measure_image
from detector.data.label_cache import file_stats, label_cache_path, read_label_cache, write_label_cache
from detector.errors import DataError

log = logging.getLogger(__name__)

MIN_SIDE = 10  # image px; smaller images are skipped: enlarged, they show nothing but blur
MAX_THREADS = 16  # that read images; more wait for each other
NAMED = 10  # files named in one message; the others are counted
_T = TypeVar("_T")


@dataclass(frozen=True)
class Annotations:
    """Images and boxes of one split in flat arrays, cheap to hand to worker processes.

    Attributes:
        paths: n image files.
        sizes: (n, 2) int64, height and width as displayed (EXIF orientation applied), image px.
        offsets: (n + 1,) int64; rows ``offsets[i]:offsets[i + 1]`` belong to image i.
        boxes: (N, 4) float32, cxcywh, normalised.
        labels: (N,) int64.
        names: class names by id.
        skipped: images left out because they can't be read or are too small.
    """

    paths: list[str]
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: dict[int, str]
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    def rows(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Boxes (N, 4) cxcywh normalised and labels (N,) of one image, as views."""
        start, stop = self.offsets[index], self.offsets[index + 1]
        return self.boxes[start:stop], self.labels[start:stop]

    def most_objects(self) -> int:
        """Boxes of the image that has the most."""
        return int(np.diff(self.offsets).max(initial=0))

    def class_counts(self) -> NDArray[np.int64]:
        """(C,) boxes of each class."""
        return np.bincount(self.labels, minlength=len(self.names))

    def fingerprint(self) -> dict[str, int | str]:
        """Return the numbers of images and boxes, and SHA-256 of all names, sizes and labels.

        File names are taken relative to their common folder, so that a data set may move; images count by
        their sizes in px and bytes.
        """
        folder = os.path.commonpath([Path(path).parent for path in self.paths]) if self.paths else ""
        total = hashlib.sha256("\0".join(os.path.relpath(path, folder) for path in self.paths).encode())
        for part in (self.sizes, self.offsets, self.boxes, self.labels, file_stats(self.paths)[:, 0]):
            total.update(np.ascontiguousarray(part).tobytes())
        return {"images": len(self), "boxes": len(self.labels), "sha256": total.hexdigest()}


def measure_images(paths: Sequence[str]) -> NDArray[np.int64]:
    """Read the size of every image once; later calls read only files that are new or changed.

    Usually the header is enough. Files that may be damaged, such as a PNG with a wrong checksum or a JPEG
    without an end, are decoded, so that broken files are known before training.

    Args:
        paths: image files.

    Returns:
        (n, 2) int64, height and width with EXIF orientation applied, image px; (0, 0) where the file
        can't be decoded. Images of more than `MAX_PIXELS` are not decoded; theirs are as stored.
    """
    stats = file_stats(paths)
    place = label_cache_path("images", paths)
    known = read_label_cache(
        place, {"stats": (len(paths), 3), "sizes": (len(paths), 2), "cut": (len(paths),)}
    )
    sizes, cut = np.zeros((len(paths), 2), np.int64), np.zeros(len(paths), bool)
    todo = np.ones(len(paths), bool)
    if known is not None:
        todo = (known["stats"] != stats).any(1)
        sizes[~todo], cut[~todo] = known["sizes"][~todo], known["cut"][~todo]
    if todo.any():
        indices = np.flatnonzero(todo).tolist()
        with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
            warnings.filterwarnings("error", module=r"PIL\.")  # on damaged EXIF: then the image is decoded
            found = _progress(pool.map(measure_image, [paths[i] for i in indices]), len(indices))
            for index, (height, width, is_cut) in zip(indices, found, strict=True):
                sizes[index], cut[index] = (height, width), is_cut
        write_label_cache(place, stats=stats, sizes=sizes, cut=cut)
    if cut.any():
        names = [paths[i] for i in np.flatnonzero(cut).tolist()]
        log.warning("%d JPEG files end early; what could be decoded is used: %s", len(names), listed(names))
    return sizes


def usable_images(paths: Sequence[str], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the images to use, with one warning that names those that can't be.

    Args:
        paths: n image files.
        sizes: (n, 2) int64 from `measure_images`.

    Returns:
        (n,) bool.

    Raises:
        DataError: no image is left.
    """
    keep: NDArray[np.bool_] = (sizes.min(1, initial=2**31) >= MIN_SIDE) & (sizes.prod(1) <= MAX_PIXELS)
    if not keep.all():
        skipped = np.flatnonzero(~keep).tolist()
        named = listed([f"{paths[i]} ({_why_unusable(paths[i], *sizes[i].tolist())})" for i in skipped])
        if not keep.any():
            raise DataError(f"no image can be used, of {len(paths)} not one: {named}.")
        log.warning("%d of %d images are skipped: %s", len(skipped), len(paths), named)
    elif not len(paths):
        raise DataError("no images were given; the data set needs at least one.")
    return keep


def _why_unusable(path: str, height: int, width: int) -> str:
    if height == 0:
        return "can not be decoded" if Path(path).exists() else "does not exist"
    return f"{width}x{height} px, " + (
        f"over {MAX_PIXELS:,} pixels" if height * width > MAX_PIXELS else f"a side below {MIN_SIDE} px"
    )


def _progress(items: Iterable[_T], total: int) -> Iterable[_T]:
    if total < 2000:  # done before a bar would help
        return items
    from tqdm import tqdm

    return tqdm(items, total=total, desc="checking images", unit="", disable=None)


def listed(names: Sequence[str]) -> str:
    """Join the first names of a long list and count the others."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
