from __future__ import annotations

import numpy as np
import pytest

from detector.data.annotations import Annotations, Ignored
from detector.data.donors import Donors


def annotations(labels_by_image, difficult=None):
    """Images with boxes of these classes, all of one size."""
    labels = np.array([label for image in labels_by_image for label in image], np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(image) for image in labels_by_image])])
    count = len(labels_by_image)
    none = np.zeros(count + 1, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    return Annotations(
        [f"{i}.png" for i in range(count)],
        np.full((count, 2), 320),
        offsets,
        np.tile(np.array([0.5, 0.5, 0.2, 0.2], np.float32), (len(labels), 1)),
        labels,
        {0: "a", 1: "b", 2: "c", 3: "absent"},
        ignored=None if difficult is None else Ignored(np.array(difficult), *none),
    )


COMMON = [[0] * 4] * 4  # 16 of class 0


def test_the_rarer_a_class_the_more_often_it_is_drawn():
    donors = Donors(annotations([*COMMON, [1, 1, 1, 1], [2]]))
    assert donors.probabilities == pytest.approx(np.array([1 / 4, 1 / 2, 1, 0]) / 1.75)

    near, rng = donors.near(np.arange(6)), np.random.default_rng(0)
    rows = [donors.choose(tuple(rng.random(2)), near, own=99) for _ in range(4000)]
    drawn = np.bincount(annotations([*COMMON, [1, 1, 1, 1], [2]]).labels[rows], minlength=4) / 4000
    assert drawn == pytest.approx([1 / 7, 2 / 7, 4 / 7, 0], abs=0.02)
    assert set(rows) == set(range(21))  # every object


def test_objects_near_by_come_first_and_rare_classes_from_everywhere():
    donors = Donors(annotations([*COMMON, [2], [2]]))
    near = donors.near(np.array([1, 3]))
    assert near.tolist() == [4, 5, 6, 7, 12, 13, 14, 15]

    rng = np.random.default_rng(0)
    rows = {donors.choose(tuple(rng.random(2)), near, own=0) for _ in range(500)}
    assert rows == {*near.tolist(), 16, 17}
    assert [donors.place(row) for row in (0, 5, 17)] == [(0, 0), (1, 1), (5, 0)]


def test_an_image_is_no_donor_of_its_own():
    donors = Donors(annotations([[0], [1]]))
    for own, found in ((0, {None, 1}), (1, {0, None})):
        assert {donors.choose((u, 0.5), donors.near(np.arange(2)), own) for u in (0.1, 0.9)} == found


def test_difficult_objects_are_not_copied():
    donors = Donors(annotations([[0, 0], [1]], difficult=[True, False, True]))
    assert donors.probabilities.tolist() == [1, 0, 0, 0]
    assert {donors.choose((u, v), np.arange(3), own=9) for u in (0.0, 0.99) for v in (0.0, 0.99)} == {1}
    nothing = Donors(annotations([[0, 0], [1]], difficult=[True] * 3))
    assert nothing.choose((0.5, 0.5), np.arange(3), own=9) is None
