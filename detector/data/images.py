"""Image files: their size from the header, whether they are whole, and their pixels.

A file of a few kilobytes can hold an image of billions of equal pixels. What is larger than `MAX_PIXELS` is
not decoded, and neither is a file whose header does not give its kind or size. Pillow reads the headers, one
reader a kind and only those that OpenCV decodes; its own limit, which is lower and only warns, is not asked.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from struct import error as StructError  # noqa: N812 - struct's own name for it is "error"
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngStream
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from PIL.WebPImagePlugin import WebPImageFile

from detector.errors import DataError

log = logging.getLogger(__name__)

DEEP = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
MAX_PIXELS = 1 << 28  # 16384 x 16384; telephones take 200 million
TAIL = 4096  # bytes: cameras append data after a JPEG's end marker, so it may come shortly before the end of the file
HEAD = 1 << 16  # bytes: of a JPEG these hold all up to the pixels, mostly
MAX_HEAD = 1 << 24  # bytes searched for a JPEG's size; cameras embed whole images before it
JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_MARKER = re.compile(
    rb"\xff+[\x02-\xcf\xd9-\xfe]"
)  # but those within the pixels: restarts, and 0 for a plain 0xff
PNG_START = b"\x89PNG\r\n\x1a\n"
CODESTREAM_START = b"\xff\x4f\xff\x51"  # of JPEG 2000: its first two markers
DAMAGE = (
    *(OSError, EOFError, SyntaxError, StructError, ValueError, TypeError, LookupError, OverflowError),
    *(RuntimeError, MemoryError, AttributeError, Image.DecompressionBombError, Warning),
)  # what Pillow's readers let through on damaged headers; warnings where they are made errors

DEEP_SUFFIXES = (".png", ".tif", ".tiff", ".jp2")  # kinds that can hold 16 bits per channel
DARK = 1 << 14  # values of 16 bits below this are less than 64 of 8 bits

Pixels = NDArray[np.uint8]
Size = tuple[int, int]


class PixelFormat(NamedTuple):
    """What of an image a network takes.

    Attributes:
        channels: 1 is grey, 3 colour.
        value_range: values of 16 bits that become 0 and 255, those between in proportion; None takes the upper 8 bits.
    """

    channels: int = 3
    value_range: tuple[float, float] | None = None


COLOUR = PixelFormat()


# ---- pixels -------------------------------------------------------------------------------------------


def read_image(
    path: str | Path, flags: int = cv2.IMREAD_COLOR, quiet: bool = False, form: PixelFormat = COLOUR
) -> Pixels:
    """Decode an image file: the one way for training, validation, prediction and export.

    Its EXIF orientation is applied. A JPEG that ends early is decoded as far as it goes, with every version of OpenCV.

    Args:
        path: The file.
        flags: OpenCV's `IMREAD_` flags.
        quiet: Don't warn of a JPEG that ends early.
        form: Of the result; with one channel, flags in colour give grey.

    Returns:
        (H, W, 3) uint8 BGR; (H, W) for grey flags, and for one channel.

    Raises:
        DataError: If the file can't be read or decoded, or has more than `MAX_PIXELS`.
    """
    try:
        if not is_file(path):
            raise DataError(f"{path} can't be read: it is a folder, a pipe or a device; expected a file.")
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}.") from error
    if not content:
        raise DataError(f"{path} can't be read: it is empty or damaged.")
    size = image_size(content)
    if size is not None and is_too_large(size):
        raise DataError(
            f"{path} has {size[1]} x {size[0]} pixels; at most {MAX_PIXELS:,} are decoded: scale it down or "
            f"cut it into tiles."
        )
    if (
        form.channels == 1
    ):  # what is colour is converted here, as arrays are: decoders weigh colours in other ways
        flags = (flags & ~cv2.IMREAD_COLOR) | cv2.IMREAD_ANYCOLOR
    if form.value_range is not None:
        flags |= cv2.IMREAD_ANYDEPTH
    image = None if size is None else _decode(content, flags)
    if image is None:
        raise DataError(f"{path} can't be decoded: it is damaged or no image.")
    if not quiet and _is_cut(content):
        log.warning("%s ends early; what could be decoded is used", path)
    image = to_eight_bits(image, form.value_range)
    return to_grey(image) if form.channels == 1 else image


def to_grey(image: NDArray[Any]) -> Pixels:
    """Return an (H, W, 3) BGR or (H, W) image as (H, W) grey; three equal channels give just these."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)  # type: ignore[return-value]


def to_eight_bits(image: NDArray[Any], value_range: tuple[float, float] | None) -> Pixels:
    """Return pixels of 16 bits as 8 bits: see `PixelFormat`; those of 8 bits stay as they are."""
    if image.dtype == np.uint8:
        return image
    if value_range is None:
        return (image >> 8).astype(np.uint8)
    low, high = value_range
    scaled = (image.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    pixels: Pixels = scaled.round().clip(0, 255).astype(np.uint8)
    return pixels


def describe_depth(paths: Sequence[str], value_range: tuple[float, float] | None) -> None:
    """Say how images of 16 bits are scaled, if the first one is of 16 bits; warn if that leaves it nearly black."""
    path = paths[0] if paths else ""
    if not path.lower().endswith(DEEP_SUFFIXES):
        return
    size = image_size(content := Path(path).read_bytes())
    image = None if size is None or is_too_large(size) else _decode(content, DEEP)
    if image is None or image.dtype != np.uint16:
        return
    if value_range is not None:
        log.info("images of 16 bits: %g to %g become 0 to 255 (value_range)", *value_range)
        return
    log.info("images of 16 bits: their upper 8 bits are used")
    if image.max(initial=0) < DARK:
        log.warning(
            "%s has values up to %d of 65535, so it is nearly black; give the range that your images use, such as "
            "value_range: [0, 4095], in the data YAML", path, image.max(initial=0),
        )  # fmt: skip


def is_file(path: str | Path) -> bool:
    """Return whether a path is a regular file: opening a pipe would wait for ever.

    Raises:
        OSError: If it can't be looked up.
    """
    return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - twice as fast as Path.stat


def measure_image(path: str) -> tuple[int, int, bool]:
    """Measure an image as it is displayed, from its header where that is enough, else by decoding it.

    Returns:
        Height and width, px, and whether it is a JPEG that ends early; (0, 0) if the file can't be decoded.
        An image of more than `MAX_PIXELS` is not decoded; its size is as stored.
    """
    try:
        if not is_file(path):
            return 0, 0, False
        with Path(path).open("rb") as file:
            displayed = _displayed_size(file)
            if displayed is not None and _opens(path):
                return *displayed, False
            file.seek(0)
            content = file.read()
    except OSError:
        return 0, 0, False
    size = image_size(content)
    if size is None or is_too_large(size):
        return *(size or (0, 0)), False
    image = _decode(content, cv2.IMREAD_GRAYSCALE)
    return (0, 0, False) if image is None else (image.shape[0], image.shape[1], _is_cut(content))


def _decode(content: bytes, flags: int) -> Pixels | None:
    if _is_cut(content):
        content += JPEG_END
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)  # type: ignore[return-value]
    except cv2.error:
        return None


def _is_cut(content: bytes) -> bool:
    """Return whether a JPEG has no end; videos and second images that cameras append are not its own."""
    if not content.startswith(JPEG_START[:2]) or JPEG_END in content[-TAIL:]:
        return False
    place = len(JPEG_START[:2])
    while found := _MARKER.search(content, place):
        place = found.end()
        if found[0].endswith(JPEG_END[1:]):
            return False
        place += int.from_bytes(
            content[place : place + 2], "big"
        )  # of the segment: a thumbnail in it has an end too
    return True


# ---- headers ------------------------------------------------------------------------------------------


def is_too_large(size: Size) -> bool:
    """Return whether an image (height, width) has more pixels than are decoded."""
    return size[0] * size[1] > MAX_PIXELS


def image_size(content: bytes) -> Size | None:
    """Return the height and width that a decoder would make room for, before EXIF turns the image.

    Args:
        content: A JPEG, PNG, BMP, TIFF, WebP, JPEG 2000, AVIF or GIF file.

    Returns:
        (height, width), px, both above 0; None for other and for damaged files.
    """
    reader = next((read for start, read in _READERS if content.startswith(start)), None)
    if reader is None and content[4:8] == b"ftyp":
        reader = _avif
    try:
        width, height = reader(content) if reader is not None else (0, 0)
    except DAMAGE:
        return None
    return (height, width) if height > 0 and width > 0 else None


class _JpegHeader(JpegImageFile):
    def _read_dpi_from_exif(self) -> None:
        """Leave EXIF unread: it costs more than all else, and Pillow warns where it is damaged."""


def _jpeg(content: bytes) -> Size:
    return _JpegHeader(BytesIO(content[:MAX_HEAD])).size


def _png(content: bytes) -> Size:
    stream = PngStream(BytesIO(content[len(PNG_START) : HEAD]))
    kind, place, length = stream.read()
    if kind != b"IHDR":
        return 0, 0
    stream.chunk_IHDR(place, length)
    return stream.im_size


def _tiff(content: bytes) -> Size:
    """Read the first directory alone: OpenCV decodes kinds of pixels that Pillow does not know."""
    header = content[: 16 if content[2] == 43 else 8]  # 43: BigTIFF
    tags = ImageFileDirectory_v2(header)
    file = BytesIO(content)
    file.seek(tags.next)
    tags.load(file)
    return int(tags[ExifTags.Base.ImageWidth]), int(tags[ExifTags.Base.ImageLength])


def _jpeg2000(content: bytes) -> Size:
    """Return the largest size of a codestream: what the boxes around it say is not what is decoded."""
    sizes, place = [(0, 0)], content.find(CODESTREAM_START)
    while place >= 0:
        sizes.append(Jpeg2KImageFile(BytesIO(content[place : place + HEAD])).size)
        place = content.find(CODESTREAM_START, place + 1)
    return max(sizes, key=lambda size: size[0] * size[1])


def _avif(content: bytes) -> Size:
    return AvifImageFile(BytesIO(content)).size


_READERS: tuple[tuple[bytes, Callable[[bytes], Size]], ...] = (
    (JPEG_START, _jpeg),
    (PNG_START, _png),
    (b"BM", lambda content: BmpImageFile(BytesIO(content)).size),
    (b"GIF8", lambda content: GifImageFile(BytesIO(content)).size),
    (b"RIFF", lambda content: WebPImageFile(BytesIO(content)).size),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"\0\0\0\x0cjP", _jpeg2000),
    (CODESTREAM_START, _jpeg2000),
)


# ---- without decoding ---------------------------------------------------------------------------------


def _displayed_size(file: BinaryIO) -> Size | None:
    """Return height and width as displayed; None where the file may be damaged or has to be decoded.

    A JPEG is whole if it has an end, as decoders continue after damage inside; a PNG if its checksums are
    right. Other kinds have to be decoded.
    """
    head = file.read(HEAD)
    try:
        if head.startswith(JPEG_START):
            return _displayed_jpeg(file, head)
        if head.startswith(PNG_START):
            return _displayed_png(file, head)
    except DAMAGE:
        pass  # decoding decides
    return None


def _opens(path: str) -> bool:
    """Return whether OpenCV reads the file's header too; it is stricter with a JPEG's tables than Pillow."""
    try:
        return cv2.imcount(path) > 0
    except cv2.error:
        return False


def _displayed_jpeg(file: BinaryIO, head: bytes) -> Size | None:
    image = _JpegHeader(BytesIO(head))
    length = file.seek(0, os.SEEK_END)
    file.seek(max(length - TAIL, 0))
    if not image.tile or JPEG_END not in file.read():  # no tile: the pixels begin after `head`
        return None
    width, height = image.size
    return (width, height) if _orientation(image.info.get("exif")) >= 5 else (height, width)


def _displayed_png(file: BinaryIO, head: bytes) -> Size | None:
    file.seek(len(PNG_START))
    stream, kind = PngStream(file), b""
    while kind != b"IEND":
        kind, _, length = stream.read()
        body = file.read(length)
        stream.crc(kind, body)
        if kind == b"eXIf" and _orientation(body) != 1:
            return None  # not every version of OpenCV turns it
    return image_size(head)


def _orientation(exif: bytes | None) -> int:
    """Return how EXIF says the image is turned, 1 to 8: 1 is not at all, from 5 on the sides are swapped."""
    if not exif:
        return 1
    tags = Image.Exif()
    tags.load(exif)
    found = tags.get(ExifTags.Base.Orientation, 1)
    return found if found in range(1, 9) else 1
