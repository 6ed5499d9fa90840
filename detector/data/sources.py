"""Images to predict on: from files, folders, lists, arrays, PIL images and tensors, one after the other as BGR.

Also `list_images`, which turns the entries of a data set's split into image files.
"""

from __future__ import annotations

import glob
import logging
import math
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageOps

from detector.data.images import PixelFormat, Pixels, read_image, to_eight_bits
from detector.data.places import find_move, is_file_name, native, path_exists
from detector.errors import DataError, excerpt
from detector.files.folders import cache_dir, expand_home
from detector.files.text import read_text

LOGGER = logging.getLogger(__name__)

# What OpenCV's wheels decode. No dng, heic, heif: they hold no decoder for them (seen with OpenCV 5.0).
IMAGE_SUFFIXES = (".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")
UNREADABLE_SUFFIXES = (".dng", ".heic", ".heif")
VIDEO_SUFFIXES = (".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
PREFETCH = 4  # images decoded ahead
HALF_STEP = 0.5 / 255  # of a pixel value: what is off by less becomes the same pixel
MAX_DOWNLOAD = 1 << 30  # bytes of one image


@dataclass(frozen=True)
class SourceItem:
    """One image.

    Attributes:
        path: Absolute path of the file; for images from memory `image0.jpg`, `image1.jpg` ...
        image: (H, W, 3) uint8 BGR.
    """

    path: str
    image: Pixels


class Source:
    """Images of any origin, decoded a few ahead in a background thread.

    Args:
        entries: (name, image yet to be decoded).
        strict: raise if an image can't be decoded.
        value_range: of images of 16 bits, see `PixelFormat`.

    Iterating again starts again. A file that can't be decoded is named in a warning and skipped, unless it
    was given by itself.

    Attributes:
        skipped: Files that the latest iteration could not decode.
    """

    def __init__(
        self,
        entries: Sequence[tuple[str, Any]],
        strict: bool,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        self._entries = entries
        self._decode = partial(_to_bgr, value_range=value_range)
        self._strict = strict
        self.skipped = 0

    @property
    def files(self) -> list[Path]:
        """The images that are files, those that can't be decoded included."""
        return [image for _, image in self._entries if isinstance(image, Path)]

    def __len__(self) -> int:
        """Return the number of images, those that can't be decoded included."""
        return len(self._entries)

    def __iter__(self) -> Iterator[SourceItem]:
        """Yield the images in order.

        Raises:
            DataError: If a file given by itself can't be decoded, or an image from memory is not an image.
        """
        self.skipped = 0
        for name, image, decode in self._decoders():
            try:
                item = SourceItem(name, decode())
            except DataError as error:
                if self._strict or not isinstance(image, Path):
                    raise
                self.skipped += 1
                LOGGER.warning("%s Skipped.", error)
                continue
            yield item

    def _decoders(self) -> Iterator[tuple[str, Any, Callable[[], Pixels]]]:
        """Yield each entry with a function that waits for its pixels; a few entries are decoded ahead."""
        if len(self._entries) == 1:  # a thread would cost more than it hides
            name, image = self._entries[0]
            yield name, image, partial(self._decode, image)
            return
        pool = ThreadPoolExecutor(1, thread_name_prefix="decode")
        entries = iter(self._entries)
        ahead: deque[tuple[str, Any, Future[Pixels]]] = deque()
        try:
            while True:
                for name, image in islice(entries, 1 + PREFETCH - len(ahead)):
                    ahead.append((name, image, pool.submit(self._decode, image)))
                if not ahead:
                    return
                name, image, future = ahead.popleft()
                yield name, image, future.result
        finally:
            pool.shutdown(cancel_futures=True)


def open_source(source: Any, value_range: tuple[float, float] | None = None) -> Source:
    """Open anything that holds images.

    Args:
        source: One of

            * a path (str or Path) of an image, of a folder (searched with its subfolders, sorted), or of a
              .txt file with one path a line; a glob pattern; an https address of an image;
            * an array (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA, uint8 or uint16;
            * a PIL image; its EXIF orientation is applied;
            * a tensor (3, H, W) or (B, 3, H, W), RGB, or with 1 in place of 3, grey; uint8 or float in 0-1;
            * a list or tuple of these, mixed as you like.
        value_range: Values of images of 16 bits that become 0 and 255; None takes their upper 8 bits.

    Returns:
        The images; nothing is decoded yet.

    Raises:
        DataError: If a path does not exist, no image is found, or the source is of another kind (video
            files and cameras are not supported).
    """
    entries: list[tuple[str, Any]] = []
    alone = not isinstance(source, list | tuple)
    for item in [source] if alone else source:
        entries += _entries(item, first=len(entries))
    if not entries:
        raise DataError("source is an empty list; expected at least one image.")
    named = alone and len(entries) == 1 and isinstance(source, str | Path) and Path(source).is_file()
    return Source(entries, named and Path(source).suffix.lower() != ".txt", value_range)


def list_images(entries: Iterable[str | Path], places: Sequence[Path] = ()) -> list[Path]:
    """Return the images of folders (with their subfolders), .txt lists and image files.

    Args:
        entries: Paths. In a .txt file, one path a line, relative to the text file's folder. Only if the first of
            these does not exist, are they looked for elsewhere, see `find_move`. Hidden files are left out.
        places: Further folders that the lines of .txt files may start from.

    Returns:
        Absolute paths, sorted.

    Raises:
        DataError: If an entry does not exist, or is a file of another kind.
    """
    images: list[Path] = []
    for entry in entries:
        try:
            path = Path(os.path.normpath(expand_home(entry).absolute()))
            is_folder = path.is_dir()
        except (OSError, RuntimeError) as error:  # too long, or of no such user
            raise DataError(f"{entry} can't be looked up: {error}.") from error
        if is_folder:
            images += _walk(path)
        elif not path.is_file():
            missing = "is a pipe or a device" if path.exists() else "does not exist"
            raise DataError(f"{path} {missing}; expected a folder, a .txt list or an image.")
        elif path.suffix.lower() == ".txt":
            images += _read_list(path, places)
        else:
            _check_suffix(path)
            images.append(path)
    return sorted(images)


# ---- files --------------------------------------------------------------------------------------------


def _walk(folder: Path) -> list[Path]:
    """Return the images under a folder; links to folders are followed, each folder is visited once."""
    images: list[Path] = []
    unreadable: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    for place, subfolders, files in os.walk(folder, followlinks=True):
        status = os.stat(place)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
            if suffix in IMAGE_SUFFIXES and not name.startswith("."):
                images.append(Path(place, name))
            elif suffix in UNREADABLE_SUFFIXES:
                unreadable[suffix] += 1
    if unreadable:
        LOGGER.warning("%s: %s left out: OpenCV can't decode them", folder, _counted(unreadable))
    return images


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix} files" for suffix, count in sorted(counts.items()))


def _read_list(path: Path, places: Sequence[Path]) -> list[Path]:
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read as a text file of paths: {error}.") from error
    for number, line in enumerate(lines, 1):
        if line and not is_file_name(line):
            raise DataError(f"{path} line {number}: {line[:60]!r} is not the name of an image.")
    lines = [native(line, path.parent) for line in lines if line]
    images = [Path(os.path.normpath(path.parent / line)) for line in lines]
    if images and not path_exists(images[0]):
        move = find_move(lines, (path.parent, *places), all_exist=False)
        moved = [Path(os.path.normpath(move.apply(line))) for line in lines] if move else images
        if moved != images:
            LOGGER.warning("%s: %s does not exist; using %s", path, images[0], moved[0])
            images = moved
    for image in images:
        if os.path.isdir(image):  # noqa: PTH112 - Path.is_dir raises on a name that is too long
            raise DataError(
                f"{path}: {image} is a folder; list its images, or give the folder in place of the list."
            )
        _check_suffix(image)
    return images


def _check_suffix(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        raise DataError(f"{path}: video files are not supported; extract frames and give their folder.")
    if suffix not in IMAGE_SUFFIXES:
        raise DataError(f"{path} is not an image; expected one of {' '.join(IMAGE_SUFFIXES)}.")


def _files(source: str | Path) -> list[Path]:
    """Return the images that a path, pattern or address stands for, at least one."""
    text = str(source)
    if "://" in text:
        return [_downloaded(text)]
    if re.match(r"https?:/[^/]", text):  # Path takes the second slash for one too many
        address = text.replace(":/", "://", 1)
        raise DataError(f"source={text}: an address in a Path loses a slash; give it as text: {address!r}.")
    path = expand_home(source)
    try:
        exists = path.exists()
    except OSError as error:  # too long for a path
        raise DataError(f"source={excerpt(text)}: can't be looked up ({error.strerror}).") from None
    if exists:
        images = list_images([path])
    elif glob.has_magic(text):
        matches = [Path(match) for match in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        images = list_images([match for match in matches if match.suffix.lower() in IMAGE_SUFFIXES])
    else:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            _check_suffix(path.absolute())
        raise DataError(
            f"source={text}: {path.absolute()} does not exist; expected an image, folder or pattern."
        )
    if not images:
        raise DataError(
            f"source={text}: no images in {path.absolute()}; expected files ending in "
            f"{' '.join(IMAGE_SUFFIXES)}."
        )
    return images


def _downloaded(url: str) -> Path:
    """Fetch one image into the user's cache."""
    import hashlib
    from urllib.parse import unquote, urlsplit

    from detector.files.download import check_url, download

    check_url(url)
    name = Path(unquote(urlsplit(url).path)).name
    _check_suffix(Path(name))
    folder = hashlib.sha256(url.encode()).hexdigest()[:12]  # several addresses may end in one name
    return download(url, cache_dir("downloads") / folder / name, max_bytes=MAX_DOWNLOAD)


# ---- memory -------------------------------------------------------------------------------------------


def _entries(source: Any, first: int) -> list[tuple[str, Any]]:
    """Return (name, image yet to be decoded) of one source; images from memory are numbered from `first`."""
    if isinstance(source, str | Path):
        return [(str(path), path) for path in _files(source)]
    if isinstance(source, torch.Tensor):
        images = source if source.ndim == 4 else source[None]
        return [(f"image{first + number}.jpg", image) for number, image in enumerate(images)]
    if isinstance(source, PilImage.Image):
        filename = getattr(source, "filename", "")
        return [(str(Path(filename).absolute()) if filename else f"image{first}.jpg", source)]
    if isinstance(source, np.ndarray):
        return [(f"image{first}.jpg", source)]
    if isinstance(source, (bytes, bytearray, memoryview)) or hasattr(source, "read"):
        raise DataError(
            f"source={excerpt(source)}: encoded images are not decoded here; give the image that "
            f"PIL.Image.open(io.BytesIO(data)) or cv2.imdecode returns."
        )
    raise DataError(
        f"source={excerpt(source)}: expected a path, a pattern, an https address, an array, a PIL image, a tensor "
        f"or a list of these; cameras and streams are not supported."
    )


def _to_bgr(image: Any, value_range: tuple[float, float] | None = None) -> Pixels:
    if isinstance(image, Path):
        return read_image(image, form=PixelFormat(3, value_range))
    if isinstance(image, torch.Tensor):
        return _from_tensor(image)
    if isinstance(image, np.ndarray):
        return _from_array(image, value_range)
    return _from_pil(image, value_range)


def _from_array(image: NDArray[Any], value_range: tuple[float, float] | None) -> Pixels:
    channels = {2: 1, 3: image.shape[-1]}.get(image.ndim, 0) if image.size else 0
    if image.dtype not in (np.uint8, np.uint16) or channels not in (1, 3, 4):
        raise DataError(
            f"array of shape {image.shape}, {image.dtype}: expected uint8 or uint16 (H, W, 3) BGR, (H, W, 4) BGRA "
            f"or (H, W); give several images as a list."
        )
    image = to_eight_bits(image, value_range)
    if channels == 3:
        return np.ascontiguousarray(image)
    code = cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), code), np.uint8)


def _from_tensor(image: torch.Tensor) -> Pixels:
    shape = tuple(image.shape)
    fits = image.ndim == 3 and shape[0] in (1, 3) and image.numel() > 0
    if not fits or not (image.dtype == torch.uint8 or image.is_floating_point()):
        raise DataError(
            f"tensor of shape {shape}, {image.dtype}: expected (3, H, W) or (B, 3, H, W) RGB, or 1 in place "
            f"of 3 for grey; uint8 or float in 0-1."
        )
    image = image.detach().cpu()
    if image.is_floating_point():
        low, high = image.min().item(), image.max().item()
        if not (low > -HALF_STEP and high < 1 + HALF_STEP):
            raise DataError(
                f"tensor with values {low:g} to {high:g}: expected 0-1; {_range_advice(low, high)}."
            )
        image = (image.float() * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(image.flip(0).expand(3, -1, -1).permute(1, 2, 0).numpy())


def _range_advice(low: float, high: float) -> str:
    """Return what to do with a tensor whose values are not those of an image in 0-1."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "find out where the values that are not finite come from"
    if low > -0.5 and high < 1.5:
        return "resizing may overshoot: clamp(0, 1) first"
    if low >= 0 and high <= 255:
        return "divide by 255 first"
    return "give the image before it is normalised by mean and standard deviation"


def _from_pil(image: Any, value_range: tuple[float, float] | None) -> Pixels:
    name = getattr(image, "filename", "")
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16") or image.mode in ("I", "F"):
            deep, is_deep = np.asarray(image), image.mode.startswith("I")
            image = PilImage.fromarray(
                to_eight_bits(deep, value_range)
                if value_range is not None and is_deep
                else _eight_bits(deep, image.mode)
            )
        rgb = np.asarray(image.convert("RGB"), np.uint8)
    except (OSError, ValueError) as error:
        if (
            name and Path(name).is_file()
        ):  # Pillow refuses some damaged files that are decoded from their path
            return read_image(name, form=PixelFormat(3, value_range))
        raise DataError(f"PIL image {name or image} can't be decoded: {error}.") from error
    return np.ascontiguousarray(rgb[..., ::-1])


def _eight_bits(pixels: NDArray[Any], mode: str) -> Pixels:
    """Return grey pixels of 16 bits, of whole numbers (I) or of floats (F) as the 8 bits that their file would give.

    Raises:
        DataError: If they are neither in 0-255 nor, as whole numbers, in 0-65535.
    """
    low, high = pixels.min(initial=0), pixels.max(initial=0)
    top = 255 if mode == "F" else 65535
    if not 0 <= low <= high <= top or (mode == "F" and 0 < high <= 1):
        raise DataError(
            f"PIL image of mode {mode} with values {low:g} to {high:g}: expected 0-{top}; scale it, or convert it to L."
        )
    return (pixels >> 8 if mode.startswith("I;16") or high > 255 else pixels).astype(np.uint8)
