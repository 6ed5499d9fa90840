from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.data import drawn
from detector.data.drawn import FORMS, MIN_VISIBLE, draw_scene, looks_of, make_drawn_dataset
from detector.errors import DataError


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*.*")):
        total.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return total.hexdigest()


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_drawn_dataset(tmp_path / name, {"train": 3, "val": 2}, FORMS[:3], seed=seed, size=96)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def test_a_scene_does_not_depend_on_those_drawn_before() -> None:
    alone = draw_scene(1, 5, 128)
    for index in range(3):
        draw_scene(1, index, 128)
    again = draw_scene(1, 5, 128)
    for first, second in zip(alone, again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_splits_do_not_share_scenes_nor_depend_on_each_others_size(tmp_path: Path) -> None:
    make_drawn_dataset(tmp_path / "a", {"train": 2, "val": 2}, FORMS[:2], size=64)
    make_drawn_dataset(tmp_path / "b", {"train": 4, "val": 2}, FORMS[:2], size=64)
    first, second = (digest(tmp_path / name / "images" / "val") for name in "ab")
    assert first == second
    names = [file.name for file in sorted((tmp_path / "b" / "images" / "train").iterdir())]
    assert names == ["000000.jpg", "000001.jpg", "000002.jpg", "000003.jpg"]
    train = {file.read_bytes() for file in (tmp_path / "b" / "images" / "train").iterdir()}
    assert not train & {file.read_bytes() for file in (tmp_path / "b" / "images" / "val").iterdir()}


def test_scenes_have_the_promised_shapes_sizes_and_labels() -> None:
    counts, labels_seen = [], set()
    for index in range(60):
        image, boxes, labels = draw_scene(0, index, 160)
        height, width = image.shape[:2]
        assert (image.dtype, boxes.dtype, labels.dtype) == (np.uint8, np.float32, np.int64)
        assert max(height, width) == 160 and min(height, width) >= 120
        assert boxes.shape == (len(labels), 4)
        assert (boxes >= 0).all() and (boxes <= [width, height, width, height]).all()
        assert (boxes[:, 2:] - boxes[:, :2] > 4).all()
        counts.append(len(labels))
        labels_seen |= set(labels.tolist())
    assert labels_seen == set(range(6))
    assert 3 < np.mean(counts) < 6 and min(counts) == 0


@pytest.mark.parametrize("form", FORMS)
def test_boxes_are_tight_to_the_drawn_mask(form: str) -> None:
    rng = np.random.default_rng(0)
    shifts = []
    for _ in range(20):
        contours = [contour + 200 for contour in drawn._place(rng, form, 200, 200)]
        points = np.concatenate(contours)
        mask = drawn._mask(contours, 0, 0, 600, 600).astype(np.float64) / 255
        rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
        extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(extent, [*points.min(0), *points.max(0)], atol=1.6)
        ys, xs = np.mgrid[:600, :600] + 0.5
        moments = [cv2.moments(contour) for contour in contours]
        signs = [1] + [-1] * (len(contours) - 1)
        area = sum(s * m["m00"] for s, m in zip(signs, moments, strict=True))
        for grid, key in ((xs, "m10"), (ys, "m01")):
            expected = sum(s * m[key] for s, m in zip(signs, moments, strict=True)) / area
            shifts.append((grid * mask).sum() / mask.sum() - expected)
        assert mask.sum() == pytest.approx(abs(area), rel=0.15)
    assert abs(np.mean(shifts)) < 0.2  # the mask is not displaced against its box


def test_every_shape_stays_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[tuple[np.ndarray, float, tuple[int, int, int, int]]] = []
    paint = drawn._paint

    def recording(rng, canvas, look, contours, mask, window):  # type: ignore[no-untyped-def]
        placed.append((mask > 127, drawn._area(contours), window))
        paint(rng, canvas, look, contours, mask, window)

    monkeypatch.setattr(drawn, "_paint", recording)
    overlaps = 0
    for index in range(40):
        placed.clear()
        image, _, labels = draw_scene(0, index, 160)
        assert len(placed) == len(labels)
        owner = np.full(image.shape[:2], -1)
        for number, (solid, _, (x1, y1, x2, y2)) in enumerate(placed):
            owner[y1:y2, x1:x2][solid] = number
        for number, (solid, area, _) in enumerate(placed):
            in_sight = np.count_nonzero(owner == number)
            overlaps += in_sight < np.count_nonzero(solid)
            assert in_sight >= MIN_VISIBLE * area
    assert overlaps > 10


def test_written_labels_are_the_drawn_boxes(tmp_path: Path) -> None:
    make_drawn_dataset(tmp_path / "set", {"val": 4}, FORMS[:4], seed=2, size=96)
    for number in range(4):
        image, boxes, labels = draw_scene(2, drawn.SPLIT_START["val"] + number, 96, FORMS[:4])
        text = (tmp_path / "set" / "labels" / "val" / f"{number:06d}.txt").read_text()
        rows = np.array([line.split() for line in text.splitlines()], float).reshape(-1, 5)
        scale = np.array(image.shape[:2][::-1])
        np.testing.assert_array_equal(rows[:, 0], labels)
        np.testing.assert_allclose((rows[:, 1:3] - rows[:, 3:] / 2) * scale, boxes[:, :2], atol=1e-3)
        np.testing.assert_allclose((rows[:, 1:3] + rows[:, 3:] / 2) * scale, boxes[:, 2:], atol=1e-3)
        stored = cv2.imread(str(tmp_path / "set" / "images" / "val" / f"{number:06d}.jpg"))
        assert np.abs(stored.astype(int) - image).mean() < 8


def test_other_class_names_get_distinct_looks() -> None:
    assert [look.form for look in looks_of(["star", "disc"])] == ["star", "disc"]
    assert len(set(looks_of([f"class_{number}" for number in range(240)]))) == 240
    with pytest.raises(DataError, match="241 class names: synthetic images have between 1 and 240 classes"):
        looks_of([f"class_{number}" for number in range(241)])


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="size=32: a synthetic image needs at least 64 pixels"):
        draw_scene(0, 0, 32)
    with pytest.raises(DataError, match="drawn split vall: 3; draw 0 or more of train, val and test"):
        make_drawn_dataset(tmp_path / "set", {"vall": 3}, FORMS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="full is not empty"):
        make_drawn_dataset(tmp_path / "full", {"val": 1}, FORMS, size=64)
    assert [file.name for file in tmp_path.iterdir()] == ["full"]
