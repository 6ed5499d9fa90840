"""The size of a compressed image, told from its header: known before a single pixel is unpacked.

A file of a few kilobytes can hold an image of billions of equal pixels. What is larger than `MAX_PIXELS` is
not decoded, and neither is a file whose kind or size is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import error as StructError  # noqa: N812 - struct's own name for it is "error"
from struct import unpack_from

MAX_PIXELS = 1 << 28  # 16384 x 16384; telephones take 200 million
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers that start with the size
_GARBAGE = 4096  # bytes skipped between two JPEG segments
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # JPEG markers without a length

Size = tuple[int, int]


def image_size(data: bytes | memoryview) -> Size | None:
    """Return the height and width that a decoder would make room for, before EXIF turns the image.

    Args:
        data: content of a JPEG, PNG, BMP, TIFF, WebP, JPEG 2000, AVIF or GIF file.

    Returns:
        (height, width), px, both above 0; None for other and for damaged files.
    """
    head = bytes(data[:16])
    reader = next((read for start, read in _READERS if head.startswith(start)), None)
    if reader is None and head[4:8] == b"ftyp":
        reader = _avif
    if reader is None:
        return None
    try:
        height, width = reader(memoryview(data))
    except (StructError, ValueError, IndexError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def is_too_large(size: Size) -> bool:
    """Tell whether an image (height, width) has more pixels than are decoded."""
    return size[0] * size[1] > MAX_PIXELS


def _png(data: memoryview) -> Size:
    kind, width, height = unpack_from(">4sII", data, 12)
    return (height, width) if kind == b"IHDR" else (0, 0)


def _jpeg(data: memoryview) -> Size:
    place = 2
    while True:
        for _ in range(_GARBAGE):
            if data[place] == 0xFF:
                break
            place += 1
        while data[place] == 0xFF:
            place += 1
        marker = data[place]
        if marker in _FRAMES:
            height, width = unpack_from(">HH", data, place + 4)
            return height, width
        place += 1 if marker in _BARE or marker == 0 else 1 + unpack_from(">H", data, place + 1)[0]


def _bmp(data: memoryview) -> Size:
    if unpack_from("<I", data, 14)[0] == 12:
        width, height = unpack_from("<HH", data, 18)
    else:
        width, height = unpack_from("<ii", data, 18)
    return abs(height), width


def _gif(data: memoryview) -> Size:
    width, height = unpack_from("<HH", data, 6)
    return height, width


def _webp(data: memoryview) -> Size:
    form, kind = unpack_from("4s4s", data, 8)
    if form != b"WEBP":
        return 0, 0
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = unpack_from("<HBHB", data, 24)
        return (high_height << 16 | low_height) + 1, (high_width << 16 | low_width) + 1
    if kind == b"VP8L":
        bits = unpack_from("<I", data, 21)[0]
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    width, height = unpack_from("<HH", data, 26)
    return height & 0x3FFF, width & 0x3FFF


def _tiff(data: memoryview) -> Size:
    order = "<" if data[0] == ord("I") else ">"
    big = unpack_from(f"{order}H", data, 2)[0] == 43
    place = unpack_from(f"{order}Q", data, 8)[0] if big else unpack_from(f"{order}I", data, 4)[0]
    count = unpack_from(f"{order}Q" if big else f"{order}H", data, place)[0]
    place, step = (place + 8, 20) if big else (place + 2, 12)
    found = {}
    for entry in range(place, place + min(count, 4096) * step, step):
        tag, kind = unpack_from(f"{order}HH", data, entry)
        if tag in (256, 257):
            found[tag] = unpack_from(
                order + {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind, "I"), data, entry + (12 if big else 8)
            )[0]
        if len(found) == 2:
            break
    return found.get(257, 0), found.get(256, 0)


def _jpeg2000(data: memoryview) -> Size:
    for kind, start, _ in _boxes(data, 0, len(data)):
        if kind == b"jp2c":
            return _codestream(data[start:])
    return 0, 0


def _codestream(data: memoryview) -> Size:
    right, bottom, left, top = unpack_from(">IIII", data, 8)
    return bottom - top, right - left


def _avif(data: memoryview) -> Size:
    """The largest of all images and tiles in the file."""
    sizes = [(0, 0)]
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            places = _inside(data, b"iprp", start + 4, end)
            places = [inner for place in places for inner in _inside(data, b"ipco", *place)]
            places = [inner for place in places for inner in _inside(data, b"ispe", *place)]
            sizes += [unpack_from(">II", data, place + 4)[::-1] for place, _ in places]
    return max(sizes, key=lambda size: size[0] * size[1])


def _inside(data: memoryview, wanted: bytes, start: int, end: int) -> list[tuple[int, int]]:
    return [(first, last) for kind, first, last in _boxes(data, start, end) if kind == wanted]


def _boxes(data: memoryview, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the contents of each box between two places (ISO/IEC 14496-12, 4.2)."""
    while place + 8 <= end:
        length, kind = unpack_from(">I4s", data, place)
        header = 8
        if length == 1:
            length, header = unpack_from(">Q", data, place + 8)[0], 16
        last = end if length == 0 else min(place + length, end)
        if last < place + header:
            return
        yield kind, place + header, last
        place = last


_READERS: tuple[tuple[bytes, Callable[[memoryview], Size]], ...] = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"BM", _bmp),
    (b"GIF8", _gif),
    (b"RIFF", _webp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"MM\0+", _tiff),
    (b"\0\0\0\x0cjP", _jpeg2000),
    (b"\xff\x4f\xff\x51", _codestream),
)
