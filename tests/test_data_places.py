from __future__ import annotations

from pathlib import Path

import pytest

from detector.data.places import Move, find_move, join, native, path_parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("images/train", ("images", "train")),
        ("./images//train/", ("images", "train")),
        (r"D:\sets\cats\images\train", ("sets", "cats", "images", "train")),
        ("D:/sets/cats", ("sets", "cats")),
        ("/home/ann/cats/../dogs/train", ("home", "ann", "dogs", "train")),
        ("../../train/images", ("train", "images")),
    ],
)
def test_the_parts_of_a_path_are_those_of_any_system(text: str, parts: tuple[str, ...]) -> None:
    assert path_parts(text) == parts


def test_windows_separators_are_read_unless_a_file_is_called_so(tmp_path: Path) -> None:
    assert native(r"images\train", tmp_path) == "images/train"
    (tmp_path / r"images\train").touch()
    assert native(r"images\train", tmp_path) == r"images\train"


def test_an_absolute_path_of_any_system_is_under_no_folder() -> None:
    assert join("data", "images/train") == "data/images/train"
    assert join("data", "/sets/train") == "/sets/train"
    assert join("data", r"C:\sets\train") == r"C:\sets\train"
    assert join("", "images/train") == "images/train"


def test_only_leading_folders_that_all_paths_have_are_left_out(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / split / "images").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    texts = ["project/train/images", "project/valid/images"]
    assert find_move(texts, [tmp_path], all_exist=True) == Move(tmp_path, 1)
    texts = ["project/train/images", "project/test/images"]
    assert find_move(texts, [tmp_path], all_exist=True) is None
    assert find_move(texts, [tmp_path], all_exist=False) == Move(tmp_path, 1)
    assert find_move(["gone/a", "gone/b"], [tmp_path], all_exist=False) is None
