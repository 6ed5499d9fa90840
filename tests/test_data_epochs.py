from __future__ import annotations

import logging
import math

import numpy as np
import pytest

from detector.data.annotations import Annotations
from detector.data.augment import epoch_order
from detector.data.epochs import EpochOrder, repeat_factors


def annotations(labels_by_image):
    """Images with boxes of these classes."""
    labels = np.array([label for image in labels_by_image for label in image], np.int64)
    count = len(labels_by_image)
    return Annotations(
        [f"{i}.png" for i in range(count)],
        np.full((count, 2), 320),
        np.concatenate([[0], np.cumsum([len(image) for image in labels_by_image])]),
        np.tile(np.array([0.5, 0.5, 0.2, 0.2], np.float32), (len(labels), 1)),
        labels,
        {0: "a", 1: "b", 2: "c"},
    )


# 40 images: class 0 in 36 of them (also twice), class 1 in 10, class 2 in one; then 20 without objects
RARE = annotations([*[[0, 0]] * 29, *[[0, 1]] * 7, *[[1]] * 3, [2], *[[]] * 20])


def visits(order, seed, epoch, count=60):
    return np.bincount(order.draw(seed, epoch), minlength=count)


def test_a_plain_epoch_is_the_shuffle_it_always_was():
    order = EpochOrder(RARE)
    assert order.is_plain and len(order) == 60
    assert order.draw(3, 5).tolist() == epoch_order(3, 5, 60).tolist()
    assert epoch_order(0, 0, 8).tolist() == [3, 2, 1, 7, 4, 0, 5, 6]


def test_repeat_factors_match_their_definition():
    found = repeat_factors(RARE, 0.5)
    share = {0: 36 / 40, 1: 10 / 40, 2: 1 / 40}
    for index, factor in enumerate(found):
        classes = set(RARE.rows(index)[1].tolist())
        assert factor == pytest.approx(max([1, *(math.sqrt(0.5 / share[c]) for c in classes)]))
    assert found[[0, 30, 39, 59]] == pytest.approx([1, math.sqrt(2), math.sqrt(20), 1])


def test_balance_keeps_the_length_and_shows_rare_classes_more_often():
    order = EpochOrder(RARE, balance=0.5)
    epochs = np.array([visits(order, 0, epoch) for epoch in range(400)])
    expected = 40 * order.factors / order.factors.sum()

    assert len(order) == 60 and (epochs.sum(1) == 60).all()
    assert (epochs[:, 40:] == 1).all()  # images without objects, as they are
    assert (epochs[:, :40] >= np.floor(expected)).all() and (epochs[:, :40] <= np.ceil(expected)).all()
    assert epochs[:, :40].mean(0) == pytest.approx(expected, abs=0.08)
    assert expected[39] > 3 > 1 > expected[0] > 0.5


def test_an_epoch_follows_from_seed_and_epoch():
    order, again = (EpochOrder(RARE, balance=0.5, background=0.1) for _ in range(2))
    assert order.draw(1, 7).tolist() == again.draw(1, 7).tolist()
    others = [order.draw(1, 8).tolist(), order.draw(2, 7).tolist()]
    assert order.draw(1, 7).tolist() not in others


@pytest.mark.parametrize(("background", "images"), [(0.0, 0), (0.2, 10), (0.25, 13), (1 / 3, 20)])
def test_background_is_the_largest_share_of_an_epoch(background, images):
    order = EpochOrder(RARE, background=background)
    assert len(order) == 40 + images and images / len(order) <= background
    for epoch in range(3):
        seen = visits(order, 0, epoch)
        assert (seen[:40] == 1).all() and seen[40:].sum() == images and seen.max() == 1


def test_every_epoch_draws_other_images_without_objects():
    order = EpochOrder(RARE, background=0.2)
    seen = sum(visits(order, 0, epoch)[40:] for epoch in range(40))
    assert seen.min() >= 10 and seen.max() <= 30  # of 20 on average


def test_too_few_images_without_objects_are_said(caplog):
    caplog.set_level(logging.INFO)
    order = EpochOrder(RARE, background=0.5)
    assert len(order) == 60 and order.is_plain
    EpochOrder(RARE, background=0.2)
    EpochOrder(annotations([[0]] * 3), background=0.1)
    assert caplog.messages == [
        "background=0.5: 20 of the 60 images per epoch (33.3%) have no objects, as the training split has only these",
        "background=0.2: 10 of the 50 images per epoch (20.0%) have no objects, drawn from 20",
        "background=0.1: 0 of the 3 images per epoch (0.0%) have no objects, as the training split has only these",
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]


def test_a_balance_that_changes_nothing_is_said(caplog):
    caplog.set_level(logging.INFO)
    EpochOrder(RARE, balance=0.02)
    EpochOrder(RARE, balance=0.5)
    EpochOrder(annotations([[]]), balance=0.5)
    assert caplog.messages[0] == (
        "balance=0.02 changes nothing: no class is rarer than that, or all images have one"
    )
    assert caplog.messages[1] == "balance=0.5: an image is visited 0.84 to 3.76 times per epoch on average"
    assert caplog.messages[2].startswith("balance=0.5 changes nothing")


def test_a_balance_that_changes_nothing_keeps_the_order_of_the_images():
    one_class = annotations([[0]] * 30 + [[]] * 5)
    plain, balanced = EpochOrder(one_class), EpochOrder(one_class, balance=0.5)
    assert balanced.draw(1, 2).tolist() == plain.draw(1, 2).tolist()
