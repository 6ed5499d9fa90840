from __future__ import annotations

import io
import logging
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detector.data.images import read_image
from detector.data.sources import IMAGE_SUFFIXES, PREFETCH, list_images, open_source
from detector.errors import DataError

COLOUR = (10, 100, 200)  # BGR


def plain_image(height: int = 20, width: int = 30) -> np.ndarray:
    return np.full((height, width, 3), COLOUR, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, one more in a subfolder, and files that are none."""
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "a.PNG", "sub/c.bmp"):
        tmp_path.joinpath(name).write_bytes(
            cv2.imencode(".png" if "." in name[-4:] else ".bmp", plain_image())[1]
        )
    for name in ("notes.md", ".hidden.png", "sub/clip.mp4"):
        (tmp_path / name).write_bytes(b"?")
    return tmp_path


def names(source: Any) -> list[str]:
    return [Path(item.path).name for item in open_source(source)]


def test_a_folder_is_searched_with_its_subfolders_in_order(folder: Path) -> None:
    source = open_source(folder)
    items = list(source)
    assert len(source) == 3
    assert [item.path for item in items] == [str(folder / name) for name in ("a.PNG", "b.png", "sub/c.bmp")]
    assert all(item.image.shape == (20, 30, 3) and item.image.dtype == np.uint8 for item in items)
    np.testing.assert_array_equal(items[1].image, plain_image())


def test_paths_patterns_and_lists_of_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert names("b.png") == ["b.png"]
    assert [item.path for item in open_source("b.png")] == [str(folder / "b.png")]
    assert names(Path("sub")) == ["c.bmp"]
    assert names("*.png") == ["b.png"]
    assert names("**/*.bmp") == ["c.bmp"]
    assert names(["sub", "b.png", folder / "a.PNG"]) == ["c.bmp", "b.png", "a.PNG"]


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x[1].png"), plain_image())
    assert names(str(tmp_path / "x[1].png")) == ["x[1].png"]


def test_a_text_file_lists_paths_relative_to_itself(folder: Path) -> None:
    (folder / "sub" / "list.txt").write_text(f"./c.bmp\n../b.png\n\n{folder}/a.PNG\n")
    assert names(folder / "sub" / "list.txt") == ["a.PNG", "b.png", "c.bmp"]


@pytest.mark.parametrize(
    "array",
    [
        plain_image(),
        np.dstack([plain_image(), np.full((20, 30), 128, np.uint8)]),
        plain_image()[:, ::-1],
        np.asfortranarray(plain_image()),
    ],
    ids=["BGR", "BGRA", "view", "fortran"],
)
def test_colour_arrays(array: np.ndarray) -> None:
    (item,) = open_source(array)
    assert item.path == "image0.jpg"
    assert item.image.flags.c_contiguous
    np.testing.assert_array_equal(item.image, plain_image())


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1)])
def test_grey_arrays_become_three_equal_channels(shape: tuple[int, ...]) -> None:
    (item,) = open_source(np.full(shape, 7, np.uint8))
    np.testing.assert_array_equal(item.image, np.full((20, 30, 3), 7, np.uint8))


def test_pil_images_are_rgb_and_turned_as_exif_says(tmp_path: Path) -> None:
    rgb = np.zeros((20, 30, 3), np.uint8)
    rgb[:5] = (255, 0, 0)  # red at the top
    image = Image.fromarray(rgb)
    (item,) = open_source(image)
    assert item.path == "image0.jpg"
    assert item.image[0, 0].tolist() == [0, 0, 255]
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        (item,) = open_source(opened)
    assert item.path == str(tmp_path / "turned.png")
    assert item.image.shape == (30, 20, 3)
    assert item.image[0, -1].tolist() == [0, 0, 255]
    image.convert("L").save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (30, 20, 3)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_pil_image_of_16_bits_is_what_its_path_gives(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 65536, (20, 30), np.uint16))
    expected = read_image(path)
    with Image.open(path) as opened:
        for image in (opened, opened.convert("I")):
            (item,) = open_source(image)
            np.testing.assert_array_equal(item.image, expected)


def test_pil_images_of_whole_numbers_and_floats_need_a_known_range() -> None:
    grey = np.tile(np.arange(256, dtype=np.uint8), (20, 1))
    for kind in (np.int32, np.float32):
        (item,) = open_source(Image.fromarray(grey.astype(kind)))
        np.testing.assert_array_equal(item.image[..., 0], grey)
    for wrong, message in (
        (grey.astype(np.float32) / 255, "mode F with values 0 to 1: expected 0-255"),
        (grey.astype(np.int32) * 1000, "mode I with values 0 to 255000: expected 0-65535"),
        (grey.astype(np.int32) - 1, "mode I with values -1 to 254: expected 0-65535"),
    ):
        with pytest.raises(DataError, match=message):
            list(open_source(Image.fromarray(wrong)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_pil_image_of_any_mode_is_what_its_path_gives(tmp_path: Path, mode: str) -> None:
    Image.fromarray(plain_image()).convert(mode).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        (item,) = open_source(opened)
    np.testing.assert_array_equal(item.image, read_image(tmp_path / "a.png"))


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.float16])
def test_tensors_are_rgb_batches(kind: torch.dtype) -> None:
    rgb = torch.tensor(COLOUR[::-1], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 20, 30)
    batch = rgb if kind == torch.uint8 else (rgb / 255).to(kind)
    items = list(open_source(batch))
    assert [item.path for item in items] == ["image0.jpg", "image1.jpg"]
    for item in [*items, *open_source(batch[0])]:
        np.testing.assert_allclose(item.image.astype(int), plain_image(), atol=int(kind == torch.float16))


def test_a_list_mixes_what_you_like_and_numbers_what_has_no_name(folder: Path) -> None:
    mixed = [folder / "b.png", plain_image(), torch.zeros(2, 3, 8, 8), Image.new("RGB", (8, 8))]
    source = open_source(mixed)
    assert len(source) == 5
    assert names(mixed) == ["b.png", "image1.jpg", "image2.jpg", "image3.jpg", "image4.jpg"]


def test_a_damaged_file_in_a_folder_is_named_skipped_and_counted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "bad.jpg").write_bytes(b"not an image")
    (folder / "empty.jpg").write_bytes(b"")
    source = open_source(folder)
    assert len(source) == 5
    for _ in range(2):  # counted from 0 each time
        assert [Path(item.path).name for item in source] == ["a.PNG", "b.png", "c.bmp"]
        assert source.skipped == 2
    assert f"{folder}/bad.jpg can't be decoded: it is damaged or no image. Skipped." in caplog.messages
    assert f"{folder}/empty.jpg can't be read: it is empty or damaged. Skipped." in caplog.messages


def test_a_missing_line_of_a_text_file_is_skipped(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "list.txt").write_text("gone.png\nb.png\n")
    source = open_source(folder / "list.txt")
    assert [Path(item.path).name for item in source] == ["b.png"]
    assert source.skipped == 1
    assert f"{folder}/gone.png can't be read: No such file or directory. Skipped." in caplog.messages


def test_a_name_in_a_list_that_is_too_long_for_the_system_is_one_that_does_not_exist(folder: Path) -> None:
    long = "x" * 300 + ".png"
    (folder / "list.txt").write_text(f"{long}\nb.png\n")
    assert [path.name for path in list_images([folder / "list.txt"])] == ["b.png", long]


def test_a_damaged_file_given_by_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    source = open_source(tmp_path / "bad.jpg")
    with pytest.raises(DataError, match=r"bad.jpg can't be decoded"):
        list(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone", "/gone does not exist; expected an image, folder or pattern"),
        ("gone/*.jpg", "source=gone/*.jpg: no images in "),
        ("none", "/none; expected files ending in .avif .bmp .jp2 .jpeg .jpg"),
        ("notes.md", "/notes.md is not an image; expected one of .avif"),
        ("clip.mp4", "/clip.mp4: video files are not supported; extract frames"),
        ("gone.avi", "/gone.avi: video files are not supported; extract frames"),
        (["b.png", "gone"], "/gone does not exist"),
        ([], "source is an empty list; expected at least one image"),
        (0, "source=0: expected a path, a pattern"),
        (None, "cameras and streams are not supported"),
        ("rtsp://camera/1", "download 'rtsp://camera/1': only https:// addresses are fetched"),
        ("https://host/page.html", "page.html is not an image"),
        ("https://host/x.jpg", "but DETECTOR_OFFLINE is set"),
        (
            Path("https://host/x.jpg"),
            "an address in a Path loses a slash; give it as text: 'https://host/x.jpg'",
        ),
        ("folders.txt", "/none is a folder; list its images, or give the folder in place of"),
        ("wrong.txt", r"/wrong.txt line 3: 'a\x00.png' is not the name of an image"),
        ("x" * 5000, "can't be looked up (File name too long)"),
        (
            b"\xff" * 100_000,
            "source=100,000 bytes: encoded images are not decoded here; give the image that PIL",
        ),
        ([io.BytesIO(b"")], "encoded images are not decoded here"),
        ({"a": "b" * 1000}, "source={'a': 'bbbbb"),
    ],
)
def test_sources_that_hold_no_image_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    cv2.imwrite(str(tmp_path / "b.png"), plain_image())
    (tmp_path / "folders.txt").write_text("b.png\nnone\n")
    (tmp_path / "wrong.txt").write_text("b.png\n\na\0.png\n")
    for name in ("notes.md", "clip.mp4"):
        (tmp_path / name).write_bytes(b"?")
    with pytest.raises(DataError) as caught:
        open_source(source)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600
    if "gone" in str(source) and isinstance(source, str):
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((8, 8, 3), np.float32),
            "array of shape (8, 8, 3), float32: expected uint8 or uint16 (H, W, 3) BGR",
        ),
        (np.zeros((3, 8, 8), np.uint8), "array of shape (3, 8, 8), uint8: expected"),
        (np.zeros((2, 8, 8, 3), np.uint8), "give several images as a list"),
        (np.zeros((0, 8, 3), np.uint8), "array of shape (0, 8, 3)"),
        (torch.zeros(2, 8, 8), "tensor of shape (2, 8, 8), torch.float32: expected (3, H, W)"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "torch.int64: expected"),
        (torch.full((3, 8, 8), 255.0), "tensor with values 255 to 255: expected 0-1; divide by 255 first"),
        (
            torch.full((3, 8, 8), torch.nan),
            "expected 0-1; find out where the values that are not finite come from",
        ),
        (
            torch.linspace(-0.06, 1.07, 192).view(3, 8, 8),
            "expected 0-1; resizing may overshoot: clamp(0, 1) first",
        ),
        (
            torch.linspace(-2.1, 2.6, 192).view(3, 8, 8),
            "give the image before it is normalised by mean and standard",
        ),
    ],
)
def test_arrays_and_tensors_that_are_no_images_are_errors(image: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        list(open_source([image, image]))
    assert message in str(caught.value)


def test_images_are_decoded_a_few_ahead_and_no_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    lock = threading.Event()

    def counting(path: Path, **_: Any) -> np.ndarray:
        decoded.append(path.name)
        if len(decoded) == PREFETCH + 1:
            lock.set()
        return plain_image()

    monkeypatch.setattr("detector.data.sources.read_image", counting)
    stream = iter(open_source([folder / "b.png"] * 20))
    next(stream)
    assert lock.wait(5)
    assert len(decoded) == PREFETCH + 1  # the one we hold, and those ahead of it


def test_leaving_early_ends_the_decoding_thread(folder: Path) -> None:
    for item in open_source([folder / "b.png"] * 50):
        assert item.image.shape == (20, 30, 3)
        break
    stream = iter(open_source(folder))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize("suffix", [suffix for suffix in IMAGE_SUFFIXES if suffix != ".mpo"])
def test_every_listed_suffix_is_decoded(tmp_path: Path, suffix: str) -> None:
    if not cv2.haveImageWriter(f"x{suffix}"):
        pytest.skip(f"this OpenCV was built without {suffix}")
    cv2.imwrite(str(tmp_path / f"x{suffix}"), plain_image(64, 96))
    (item,) = open_source(tmp_path)
    np.testing.assert_allclose(item.image.astype(int), plain_image(64, 96), atol=8)


def test_mpo_files_are_decoded(tmp_path: Path) -> None:
    image = Image.new("RGB", (96, 64), COLOUR[::-1])
    image.save(tmp_path / "x.mpo", save_all=True, append_images=[image])
    (item,) = open_source(tmp_path)
    np.testing.assert_allclose(item.image.astype(int), plain_image(64, 96), atol=8)


def test_files_opencv_can_not_decode_are_counted_in_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("x.heic", "y.HEIC", "z.dng"):
        (folder / name).write_bytes(b"?")
    assert len(list_images([folder])) == 3
    assert caplog.record_tuples == [
        (
            "detector.data.sources",
            logging.WARNING,
            f"{folder}: 1 .dng files, 2 .heic files left out: OpenCV can't decode them",
        )
    ]


def test_linked_folders_are_followed_once(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("links")
    (root / "images").symlink_to(folder)
    (folder / "sub" / "loop").symlink_to(folder)
    assert [path.relative_to(root) for path in list_images([root])] == [
        Path("images/a.PNG"),
        Path("images/b.png"),
        Path("images/sub/c.bmp"),
    ]


def test_list_images_refuses_what_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}/gone does not exist; expected a folder, a .txt list"):
        list_images([tmp_path / "gone"])


def test_a_tensor_that_is_off_by_rounding_is_the_same_image() -> None:
    image = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1).expand(3, 8, 8)
    rounded = image + torch.tensor([-1e-7, 0, 2e-7]).view(3, 1, 1)
    assert rounded.max() > 1 and rounded.min() < 0
    plain, off = (next(iter(open_source(tensor))).image for tensor in (image, rounded))
    assert (plain == off).all() and plain[0, 0].tolist() == [255, 128, 0]
