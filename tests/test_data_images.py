from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detector.data import sources
from detector.data.annotations import measure_files, usable_images
from detector.data.images import MAX_PIXELS, image_size, is_too_large, measure_image, read_image
from detector.errors import DataError


@pytest.mark.parametrize(
    "suffix", [*(suffix for suffix in sources.IMAGE_SUFFIXES if suffix != ".mpo"), ".gif"]
)
def test_the_size_in_the_header_is_that_of_the_decoder(suffix: str) -> None:
    image = np.random.default_rng(0).integers(0, 255, (37, 53, 3), np.uint8)
    content = cv2.imencode(suffix, image)[1].tobytes()
    assert image_size(content) == (37, 53)


def test_of_several_images_in_a_file_the_first_is_measured(tmp_path: Path) -> None:
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
    assert read_image(path).shape == (37, 53, 3)


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
        read_image(bomb)
    assert measure_image(str(bomb)) == (30_000, 30_000, False)
    paths = [str(bomb), str(good)]
    assert usable_images(paths, measure_files(paths)[0]).tolist() == [False, True]
    assert f"{bomb} (30000x30000 px, over 268,435,456 pixels)" in caplog.text


def test_the_limit_lets_the_largest_cameras_through() -> None:
    assert not is_too_large((12_240, 16_320))
    assert is_too_large((MAX_PIXELS, 2))


SMOOTH = cv2.resize(np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8), (60, 40))
WRITTEN = {
    suffix: cv2.imencode(suffix, SMOOTH)[1].tobytes() for suffix in sources.IMAGE_SUFFIXES if suffix != ".mpo"
}


@pytest.fixture
def put(tmp_path: Path):
    """Write a file and return its path."""

    def write(content: bytes, suffix: str) -> str:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        return str(path)

    return write


def exif(orientation: int, order: str = ">") -> bytes:
    start = b"MM\0*\0\0\0\x08" if order == ">" else b"II*\0\x08\0\0\0"
    return start + struct.pack(f"{order}HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)


def with_exif(jpeg: bytes, orientation: int, order: str = ">") -> bytes:
    body = b"Exif\0\0" + exif(orientation, order)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png[:33] + chunk + png[33:]  # after IHDR


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_whole_files_are_measured_without_decoding(put, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", None)
    assert measure_image(put(WRITTEN[suffix], suffix)) == (40, 60, False)


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize("orientation", range(10))
def test_turned_images_measure_as_they_decode(put, orientation: int, order: str) -> None:
    path = put(with_exif(WRITTEN[".jpg"], orientation, order), ".jpg")
    assert measure_image(path) == (*read_image(path).shape[:2], False)
    assert measure_image(path)[0] == (60 if 5 <= orientation <= 8 else 40)
    path = put(with_chunk(WRITTEN[".png"], b"eXIf", exif(orientation, order)), ".png")
    assert measure_image(path) == (*read_image(path).shape[:2], False)


def test_an_orientation_in_xmp_only_is_not_applied(put) -> None:
    body = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="6"/>'
    jpeg = WRITTEN[".jpg"]
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]
    path = put(jpeg, ".jpg")
    assert measure_image(path) == (*read_image(path).shape[:2], False) == (40, 60, False)


@pytest.mark.parametrize("damage", ["half", "last byte", "inside", "zeros"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif", ".jp2", ".avif"])
def test_a_broken_file_is_found_when_it_is_measured(put, suffix: str, damage: str, capfd) -> None:
    content = bytearray(WRITTEN[suffix])
    middle = len(content) // 2
    if damage == "half":
        del content[middle:]
    elif damage == "last byte":
        del content[-1:]
    elif damage == "inside":
        content[middle] ^= 0xFF
    else:
        content[middle:] = bytes(len(content) - middle)
    path = put(bytes(content), suffix)
    height, width, _ = measure_image(path)
    try:
        assert read_image(path).shape[:2] == (height, width) == (40, 60)
    except DataError:
        assert (height, width) == (0, 0)
    capfd.readouterr()


def test_a_jpeg_whose_header_is_longer_than_usual_is_decoded(put) -> None:
    comment = b"\xff\xfe\xff\xff" + bytes(65533)
    jpeg = WRITTEN[".jpg"]
    assert measure_image(put(jpeg[:2] + comment * 3 + jpeg[2:], ".jpg")) == (40, 60, False)


def test_damaged_exif_does_not_decide(put, recwarn) -> None:
    """The tag says how to turn, and the directory around it ends early."""
    jpeg = with_exif(WRITTEN[".jpg"], 6).replace(exif(6), b"MM\0*\0\0\0\x08\0\x09" + exif(6)[10:])
    path = put(jpeg, ".jpg")
    sizes = measure_files([path])[0]
    assert sizes.tolist() == [list(read_image(path).shape[:2])]
    assert not recwarn.list


def test_a_jpeg_2000_is_as_large_as_its_codestream(put) -> None:
    content = WRITTEN[".jp2"]
    place = content.index(b"\xff\x4f\xff\x51")
    large = content[: place + 8] + struct.pack(">II", 60_000, 60_000) + content[place + 16 :]
    with pytest.raises(DataError, match="60000 x 60000 pixels; at most"):
        read_image(put(large, ".jp2"))


def test_pixels_of_a_kind_pillow_does_not_know_are_measured(put) -> None:
    for kind in (np.float32, np.uint16):
        content = cv2.imencode(".tif", SMOOTH.astype(kind))[1].tobytes()
        assert image_size(content) == (40, 60)


def test_a_cut_jpeg_is_decoded_as_far_as_it_goes_with_a_warning(put, caplog, capfd) -> None:
    jpeg = WRITTEN[".jpg"]
    path = put(jpeg[: len(jpeg) * 3 // 4], ".jpg")
    assert measure_image(path) == (40, 60, True)
    assert read_image(path, quiet=True).shape == (40, 60, 3)
    assert not caplog.messages
    found = read_image(path)
    assert caplog.messages == [f"{path} ends early; what could be decoded is used"]
    with Image.open(path) as opened:
        (item,) = sources.open_source(opened)
    np.testing.assert_array_equal(item.image, found)
    capfd.readouterr()


@pytest.mark.parametrize("progressive", [False, True])
def test_what_cameras_append_to_a_jpeg_is_not_a_cut(put, caplog, progressive: bool) -> None:
    jpeg = cv2.imencode(".jpg", SMOOTH, [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)])[1].tobytes()
    video = b"\0\0\0\x18ftypmp42" + b"\xff\xd8\0" * 10_000
    path = put(jpeg + video, ".jpg")
    assert measure_image(path) == (40, 60, False)
    np.testing.assert_array_equal(
        read_image(path), cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    )
    assert not caplog.messages
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(jpeg) + 2) + jpeg
    cut = jpeg[:2] + thumbnail + jpeg[2 : len(jpeg) // 2] + b"\0" * 10_000
    assert measure_image(put(cut, ".jpg"))[2]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_named_like_an_image_is_refused_at_once(tmp_path: Path, caplog) -> None:
    pipe = tmp_path / "a.jpg"
    os.mkfifo(pipe)
    assert measure_image(str(pipe)) == (0, 0, False)
    with pytest.raises(DataError, match="it is a folder, a pipe or a device; expected a file"):
        read_image(pipe)
    with pytest.raises(DataError, match="is a pipe or a device; expected"):
        sources.open_source(pipe)
    (tmp_path / "b.png").write_bytes(WRITTEN[".png"])
    assert [Path(item.path).name for item in sources.open_source(tmp_path)] == ["b.png"]
    assert "a.jpg can't be read: it is a folder, a pipe or a device" in caplog.text


def test_a_jpeg_whose_tables_are_damaged_is_found_when_it_is_measured(put, capfd) -> None:
    jpeg = bytearray(WRITTEN[".jpg"])
    jpeg[jpeg.index(b"\xff\xc4") + 4] = 0x55  # there are four Huffman tables at most
    path = put(bytes(jpeg), ".jpg")
    assert measure_image(path) == (0, 0, False)
    with pytest.raises(DataError, match="can't be decoded"):
        read_image(path)
    capfd.readouterr()
