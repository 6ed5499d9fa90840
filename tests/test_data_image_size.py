from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.data import images, sources
from detector.data.annotations import measure_images, usable_images
from detector.data.image_size import MAX_PIXELS, image_size, is_too_large
from detector.errors import DataError


@pytest.mark.parametrize(
    "suffix", [*(suffix for suffix in sources.IMAGE_SUFFIXES if suffix != ".mpo"), ".gif"]
)
def test_the_header_tells_what_the_decoder_gives(suffix: str) -> None:
    image = np.random.default_rng(0).integers(0, 255, (37, 53, 3), np.uint8)
    content = cv2.imencode(suffix, image)[1].tobytes()
    assert image_size(content) == (37, 53)


def test_of_several_pictures_in_a_file_the_first_is_measured(tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    first, second = (
        pil.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8))
        for size in ((37, 53), (20, 30))
    )
    path = tmp_path / "two.mpo"
    first.save(path, "MPO", save_all=True, append_images=[second])
    with pil.open(path) as file:
        assert file.n_frames == 2
    assert image_size(path.read_bytes()) == (37, 53)
    assert sources.read_image(path).shape == (37, 53, 3)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"progressive": True, "comment": "x" * 3000}),
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("TIFF", {"big_tiff": True}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"lossless": False}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),
        ("JPEG2000", {}),
        ("JPEG2000", {"no_jp2": True}),
        ("AVIF", {}),
    ],
)
def test_files_of_another_writer_are_measured(
    tmp_path: Path, format: str, options: dict[str, object]
) -> None:
    pil = pytest.importorskip("PIL.Image")
    image = pil.fromarray(np.random.default_rng(0).integers(0, 255, (40, 72, 3), np.uint8))
    try:
        image.save(tmp_path / "a", format, **options)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {format}")
    assert image_size((tmp_path / "a").read_bytes()) == (40, 72)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\x00\x00" * 100,
        b"\xff\xd8\xff" + b"\x00" * 100_000,
        b"\x89PNG\r\n\x1a\n\0\0\0\rIDAT",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 8,
        b"II*\0\xff\xff\xff\xff",
        b"II+\0\x08\0\0\0" + b"\xff" * 8,
        b"RIFF1234WAVEfmt ",
        b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\1jp2c" + b"\0" * 7,
        b"\0\0\0\x14ftypavif" + b"\0" * 20,
        b"P6 3 3 255 " + b"a" * 27,
        b"GIF89a",
    ],
)
def test_damaged_headers_have_no_size(content: bytes) -> None:
    assert image_size(content) is None


def png_bomb(path: Path, width: int = 30_000, height: int = 30_000) -> Path:
    """Write a whole PNG of one bit a pixel, all black: 900 million pixels in about a hundred kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    rows = b"".join([packer.compress(row * 100) for _ in range(height // 100)]) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return path


def test_a_bomb_is_named_and_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    bomb = png_bomb(tmp_path / "bomb.png")
    good = tmp_path / "good.png"
    cv2.imwrite(str(good), np.zeros((40, 40, 3), np.uint8))
    assert bomb.stat().st_size < 2_000_000
    decode = cv2.imdecode
    monkeypatch.setattr(
        cv2, "imdecode", lambda data, flags: decode(data, flags) if data.size < 10_000 else 1 / 0
    )
    with pytest.raises(
        DataError, match=r"bomb.png has 30000 x 30000 pixels; at most 268,435,456 are decoded"
    ):
        sources.read_image(bomb)
    assert images.read_image(str(bomb)) == (None, False)
    paths = [str(bomb), str(good)]
    assert usable_images(paths, measure_images(paths)).tolist() == [False, True]
    assert f"{bomb} (30000x30000 px)" in caplog.text


def test_the_limit_lets_the_largest_cameras_through() -> None:
    assert not is_too_large((12_240, 16_320))
    assert is_too_large((MAX_PIXELS, 2))
