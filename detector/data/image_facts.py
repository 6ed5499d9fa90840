"""What the doctor knows of image files: their content, how they look from afar, and how they are stored.

Two images are alike if their thumbnails correlate: encoding again, a change of brightness or contrast, another size and
a shift by a px or two leave more than `ALIKE`; other scenes stay far below. Grey values without their mean and
norm make the correlation a product of matrices, so that all pairs of two splits can be compared.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from detector.data.images import read_image
from detector.data.label_cache import file_stats, label_cache_path, read_label_cache, write_label_cache
from detector.errors import DataError

MAX_THREADS = 16
SIDE = 16  # px of a thumbnail
PER_CELL = 4  # px of what the decoder gives, at least, along a thumbnail's px: fewer show another size as another image
ALIKE = 0.97  # correlation of the thumbnails from which images look nearly equal
COARSE = 0.975  # likewise, of thumbnails of half the side: what is below is not looked at closer
MIN_CONTRAST = 2.0  # standard deviation, grey levels: below there is nothing to compare
BLOCK = 4096  # images at once: bounds the memory
UNREAD = np.uint64(2**64 - 1)  # in place of the hash of a file that can't be read
TURNED, GREY, DEEP, ALPHA, CMYK = (1 << n for n in range(5))
_REDUCED = (
    (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
)


@dataclass(frozen=True)
class ImageFacts:
    """What is known of n image files.

    Attributes:
        contents: (n,) uint64, the beginning of SHA-256 of the file, `UNREAD` if it can't be decoded.
        looks: (n, SIDE * SIDE) uint8, grey thumbnails.
        kinds: (n,) uint8, sum of `TURNED` (by EXIF), `GREY`, `DEEP` (over 8 bits), `ALPHA` and `CMYK`.
    """

    contents: NDArray[np.uint64]
    looks: NDArray[np.uint8]
    kinds: NDArray[np.uint8]


def look_at(paths: Sequence[str], sizes: NDArray[np.int64]) -> ImageFacts:
    """Read image files; later calls read only those that are new or changed.

    Args:
        paths: n image files.
        sizes: (n, 2) height and width, px; (0, 0) where they are known not to decode.
    """
    stats, place = file_stats(paths), label_cache_path("facts", paths)
    count = len(paths)
    shapes = {"stats": (count, 3), "contents": (count,), "looks": (count, SIDE * SIDE), "kinds": (count,)}
    known = read_label_cache(place, shapes)
    contents = np.full(count, UNREAD)
    looks, kinds = np.zeros((count, SIDE * SIDE), np.uint8), np.zeros(count, np.uint8)
    todo = np.ones(count, bool)
    if known is not None:
        todo = (known["stats"] != stats).any(1)
        contents[~todo] = known["contents"].view(np.uint64)[~todo]
        looks[~todo], kinds[~todo] = known["looks"][~todo], known["kinds"][~todo]
    if todo.any():
        rows = np.flatnonzero(todo).tolist()
        with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
            for part in _blocks(rows):
                found = pool.map(_look_at_one, [paths[i] for i in part], sizes[part].tolist())
                for index, (content, thumbnail, kind) in zip(part, found, strict=True):
                    contents[index], kinds[index] = content, kind
                    looks[index] = 0 if thumbnail is None else thumbnail.ravel()
        write_label_cache(place, stats=stats, contents=contents, looks=looks, kinds=kinds)
    return ImageFacts(contents, looks, kinds)


def known_contents(paths: Sequence[str]) -> NDArray[np.uint64] | None:
    """Return `ImageFacts.contents` of images if an earlier call has read them, without reading them now."""
    known = read_label_cache(
        label_cache_path("facts", paths), {"stats": (len(paths), 3), "contents": (len(paths),)}
    )
    if known is None:
        return None
    changed = (known["stats"] != file_stats(paths)).any(1)
    return np.where(changed, UNREAD, known["contents"].view(np.uint64))


def _blocks(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    from tqdm import tqdm

    is_short = len(rows) < 2000  # done before a bar would help
    with tqdm(total=len(rows), desc="comparing images", unit="", disable=True if is_short else None) as bar:
        for start in range(0, len(rows), BLOCK):
            yield rows[start : start + BLOCK]
            bar.update(len(rows[start : start + BLOCK]))


def _look_at_one(path: str, size: tuple[int, int]) -> tuple[np.uint64, NDArray[np.uint8] | None, int]:
    """Return content, thumbnail and kind of an image; one that is known not to decode is not tried again."""
    if min(size) == 0:
        return UNREAD, None, 0
    fitting = (flag for factor, flag in _REDUCED if min(size) >= factor * SIDE * PER_CELL)
    try:
        grey = read_image(path, next(fitting, cv2.IMREAD_GRAYSCALE), quiet=True)
        content = int.from_bytes(hashlib.sha256(Path(path).read_bytes()).digest()[:8], "big")
    except (OSError, DataError):
        return UNREAD, None, 0
    thumbnail = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return min(np.uint64(content), UNREAD - np.uint64(1)), thumbnail, _kind_of(path)


def _kind_of(path: str) -> int:
    try:
        with Image.open(path) as image:
            mode, turned = image.mode, image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises what it likes of headers that OpenCV forgives
        return 0
    is_deep = mode.startswith("I") or mode == "F"
    found = {
        TURNED: turned in range(2, 9),
        DEEP: is_deep,
        GREY: is_deep or mode in ("1", "L", "LA"),
        ALPHA: mode in ("LA", "RGBA", "PA"),
        CMYK: mode == "CMYK",
    }
    return sum(bit for bit, is_there in found.items() if is_there)


# ---- comparing ----------------------------------------------------------------------------------------


def find_alike(looks: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return for each image one of other images that looks nearly equal.

    All pairs are compared, at the cost of a product of matrices of 64 columns, in blocks; of each image the likeliest
    pair is looked at closer.

    Args:
        looks: (n, SIDE * SIDE) uint8, thumbnails.
        others: (m, SIDE * SIDE) uint8.

    Returns:
        (n,) int64, index in `others`, -1 for none.
    """
    found = np.full(len(looks), -1, np.int64)
    coarse, targets = _directions(_halved(looks)), _directions(_halved(others))
    for start in range(0, len(looks), BLOCK):
        part = coarse[start : start + BLOCK]
        best, which = np.full(len(part), COARSE, np.float32), np.full(len(part), -1, np.int64)
        for first in range(0, len(targets), BLOCK):
            alike = part @ targets[first : first + BLOCK].T
            better = np.flatnonzero(alike.max(1) > best)
            nearest = alike[better].argmax(1)
            best[better], which[better] = alike[better, nearest], nearest + first
        rows = np.flatnonzero(which >= 0)
        closer = (_directions(looks[start + rows]) * _directions(others[which[rows]])).sum(1) > ALIKE
        found[start + rows[closer]] = which[rows[closer]]
    return found


def _halved(looks: NDArray[np.uint8]) -> NDArray[np.float32]:
    half = SIDE // 2
    means: NDArray[np.float32] = looks.reshape(-1, half, 2, half, 2).mean((2, 4), dtype=np.float32)
    return means.reshape(-1, half * half)


def _directions(looks: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Return thumbnails (n, P) without mean and norm; all zeros where there is no contrast."""
    values = looks.astype(np.float32)
    values -= values.mean(1, keepdims=True)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    values /= np.maximum(norms, 1e-6)
    values[norms[:, 0] < MIN_CONTRAST * values.shape[1] ** 0.5] = 0
    return values
