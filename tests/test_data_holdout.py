import cv2
import numpy as np
import pytest

from detector.data.holdout import Fold, folds_of, held_out, is_validated
from detector.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))


def write(path, seed, brighter=0):
    """Write noise of large squares; `brighter` by a little gives other bytes and nearly the same look."""
    squares = np.random.default_rng(seed).integers(20, 200, (8, 9, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.kron(squares + np.uint8(brighter), np.ones((8, 8, 1), np.uint8)))
    return str(path)


@pytest.fixture
def images(tmp_path):
    """Twenty images, and a group of four that are nearly equal."""
    alone = [write(tmp_path / f"{seed}.png", seed) for seed in range(20)]
    return alone + [write(tmp_path / f"near{step}.png", 100, step) for step in range(4)]


def test_every_image_is_in_one_fold_and_folds_are_nearly_equal_in_size(images):
    folds = folds_of(images, 5)
    assert sorted(np.bincount(folds, minlength=6).tolist()) == [0, 4, 5, 5, 5, 5]
    marked = sum(is_validated(images, Fold(number, 5)).astype(int) for number in range(1, 6))
    assert marked.tolist() == [1] * 24


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_nearly_equal_images_are_in_one_fold(images, count):
    assert len(set(folds_of(images, count)[-4:].tolist())) == 1


@pytest.mark.parametrize("cut", [0.3, Fold(2, 5)])
def test_what_is_held_out_depends_on_neither_names_nor_order(images, tmp_path, cut):
    moved = [write(tmp_path / "new" / f"{99 - seed}.png", seed) for seed in range(20)]
    moved += [write(tmp_path / "new" / f"x{step}.png", 100, step) for step in range(4)]
    expected = is_validated(images, cut)
    assert is_validated(moved, cut).tolist() == expected.tolist()
    assert is_validated(moved[::-1], cut).tolist() == expected[::-1].tolist()
    assert 0 < expected.sum() < 24


def test_a_larger_part_holds_out_what_a_smaller_one_does(images):
    small, large = held_out(images, 0.2), held_out(images, 0.6)
    assert small.sum() < large.sum() and not (small & ~large).any()


def test_images_that_can_not_be_read_are_in_no_fold(images, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    folds = folds_of([*images, str(tmp_path / "broken.png"), str(tmp_path / "gone.png")], 3)
    assert folds[-2:].tolist() == [0, 0] and folds[:-2].min() == 1


def test_more_folds_than_groups_are_refused(images):
    with pytest.raises(
        DataError, match=r"^split=k/22: the 24 images are only 21 groups of nearly equal ones"
    ):
        folds_of(images, 22)
