from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detector.data.annotations import Annotations
from detector.data.augment import (
    MAX_PASTES,
    WINDOW,
    Augmentation,
    affine_matrix,
    epoch_order,
    mosaic_tiles,
    sample_augment_params,
)
from detector.data.donors import Donors

SIZES = np.array([[240, 320]] * 10)
SIDE = (320, 320)


PLAIN = Augmentation()


def draw(augmentation=PLAIN, seed=0, epoch=0, position=0, count=10, **kwargs):
    order = epoch_order(seed, epoch, count)
    return sample_augment_params(
        augmentation, seed, epoch, position, order, np.array([[240, 320]] * count), SIDE, **kwargs
    )


def draws(augmentation, count=400, **kwargs):
    return [draw(augmentation, position=k, count=count, **kwargs) for k in range(count)]


def test_a_draw_follows_from_seed_epoch_and_position():
    assert repr(draw(position=3)) == repr(draw(position=3))
    others = [draw(position=4), draw(epoch=1, position=3), draw(seed=1, position=3)]
    assert len({repr(d.geometry.matrix) for d in [draw(position=3), *others]}) == 4


def test_each_epoch_visits_every_image_in_a_different_order():
    first, second = epoch_order(0, 0, 50), epoch_order(0, 1, 50)

    assert sorted(first) == sorted(second) == list(range(50))
    assert first.tolist() != second.tolist()
    assert [d.geometry.tiles[0].index for d in draws(Augmentation(), 50)] == first.tolist()


def test_changing_one_probability_leaves_the_other_draws_alone():
    plain, flipped = draw(Augmentation(fliplr=0)), draw(Augmentation(fliplr=1, mixup=1))

    assert (plain.fliplr, flipped.fliplr) == (False, True)
    assert plain.hsv == flipped.hsv and repr(plain.geometry) == repr(flipped.geometry)


def donors(count=10):
    """One object per image: class 0 in most of them, class 1 in every fifth."""
    labels = (np.arange(count) % 5 == 0).astype(np.int64)
    boxes = np.tile(np.array([0.5, 0.5, 0.2, 0.2], np.float32), (count, 1))
    sizes = np.array([[240, 320]] * count)
    return Donors(
        Annotations([""] * count, sizes, np.arange(count + 1), boxes, labels, {0: "common", 1: "rare"})
    )


def test_the_draws_of_old_settings_stay_what_they_were():
    made = draw(Augmentation(mixup=1), seed=3, epoch=2, position=5)

    assert [tile.index for tile in made.geometry.tiles] == [2, 6, 8, 4]
    assert [tile.index for tile in made.partner.tiles] == [6, 6, 8, 7]
    assert made.geometry.tiles[3].origin == (288, 198) and made.partner.tiles[3].origin == (392, 333)
    assert made.geometry.matrix[:2] == pytest.approx(
        np.array([[1.04306, 0, -156.79602], [0, 1.04306, -202.64708]]), abs=1e-5
    )
    assert made.hsv == pytest.approx((1.658527, 1.524511, 1.128165), abs=1e-6)
    assert made.ratio == pytest.approx(0.529115, abs=1e-6)
    assert (made.flipud, made.fliplr, made.bgr, made.pastes, made.cut) == (False, False, False, (), None)


def test_copy_paste_and_cutmix_change_no_other_draw():
    plain = draw(Augmentation(mixup=1), position=4)
    mixed = draw(Augmentation(mixup=1, copy_paste=1, cutmix=1), position=4, donors=donors())
    pasted = draw(Augmentation(mixup=1, copy_paste=1), position=4, donors=donors())

    assert mixed.pastes and mixed.cut is not None
    assert repr(replace(mixed, pastes=(), cut=None)) == repr(plain)
    assert repr(replace(mixed, cut=None)) == repr(pasted)


def test_pasted_objects_are_some_of_other_images_and_rare_ones_come_first():
    made = draws(Augmentation(copy_paste=0.6), 1500, donors=donors(1500))
    counts = np.array([len(d.pastes) for d in made])
    pastes = [(d, paste) for d in made for paste in d.pastes]

    assert np.mean(counts > 0) == pytest.approx(0.6, abs=0.04)
    assert np.bincount(counts[counts > 0], minlength=4)[1:] == pytest.approx(300, abs=45)
    assert counts.max() == MAX_PASTES == 3
    assert all(paste.index != d.geometry.tiles[0].index and paste.row == 0 for d, paste in pastes)
    # a fifth of the objects is rare; sqrt(4) : 1 is how often they are pasted
    assert np.mean([paste.index % 5 == 0 for _, paste in pastes]) == pytest.approx(2 / 3, abs=0.03)
    zooms = np.array([paste.scale / d.geometry.scale for d, paste in pastes])
    assert zooms.min() == pytest.approx(0.8, abs=0.01) and zooms.max() == pytest.approx(1.25, abs=0.01)


def test_objects_to_paste_come_from_the_samples_just_before():
    count, order = 2000, epoch_order(0, 0, 2000)
    place = np.argsort(order)
    made = draws(Augmentation(copy_paste=1), count, donors=donors(count))
    distances = [(k - place[paste.index]) % count for k, d in enumerate(made) for paste in d.pastes]

    assert min(distances) == 1 and max(distances) == WINDOW


def test_a_cutmix_rectangle_covers_any_part_of_the_sample():
    made = [d.cut for d in draws(Augmentation(cutmix=0.5), 2000)]
    found = np.array([cut.extent for cut in made if cut is not None])
    widths, heights = found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]

    assert len(found) / 2000 == pytest.approx(0.5, abs=0.04)
    assert found.min() == 0 and found.max() == 320 and widths.min() > 0 and heights.min() > 0
    inside = (found[:, :2] > 0).all(1) & (found[:, 2:] < 320).all(1)
    assert np.abs(widths - heights)[inside].max() <= 1  # the sample's aspect ratio, where it is not cut
    # of a rectangle of area a and any centre, sqrt(a) (1 - sqrt(a) / 4) of either side is left
    assert (widths / 320).mean() == pytest.approx(2 / 3 - 1 / 8, abs=0.02)
    assert len({cut.geometry.tiles[0].index for cut in made if cut is not None}) > 300


def test_probabilities_are_met():
    made = draws(Augmentation(mosaic=0.75, mixup=0.25, flipud=0.3, fliplr=0.5, bgr=0.1), 2000)

    def share(found):
        return np.mean(list(found))

    assert share(len(d.geometry.tiles) == 4 for d in made) == pytest.approx(0.75, abs=0.04)
    assert share(d.partner is not None for d in made) == pytest.approx(0.25, abs=0.04)
    assert share(d.flipud for d in made) == pytest.approx(0.3, abs=0.04)
    assert share(d.fliplr for d in made) == pytest.approx(0.5, abs=0.04)
    assert share(d.bgr for d in made) == pytest.approx(0.1, abs=0.03)
    ratios = [d.ratio for d in made if d.partner]
    assert np.mean(ratios) == pytest.approx(0.5, abs=0.02)
    assert np.std(ratios) == pytest.approx(0.062, abs=0.01)  # Beta(32, 32)


def test_ranges_are_filled_and_kept():
    made = draws(Augmentation(scale=0.5, translate=0.1, hsv_h=0.1, hsv_s=0.7, hsv_v=0.4), 2000)
    scales = np.array([d.geometry.scale for d in made])
    centres = np.array([(d.geometry.matrix @ [320, 320, 1])[:2] for d in made]) / 320
    hsv = np.array([d.hsv for d in made])

    assert scales.min() == pytest.approx(0.5, abs=0.01) and scales.max() == pytest.approx(1.5, abs=0.01)
    assert centres.min() == pytest.approx(0.4, abs=0.01) and centres.max() == pytest.approx(0.6, abs=0.01)
    assert np.allclose(np.abs(hsv - [0, 1, 1]).max(0), [18, 0.7, 0.4], rtol=0.03)
    assert np.median(np.abs(hsv[:, 2] - 1)) == pytest.approx(0.4 / 2, rel=0.1)  # uniform


def test_scale_may_be_a_range():
    scales = [d.geometry.scale for d in draws(Augmentation(scale=(0.9, 1.0)))]

    assert 0.9 <= min(scales) < 0.91 and 0.99 < max(scales) <= 1.0


def test_a_closed_mosaic_is_one_image_without_a_partner():
    closed = draw(Augmentation(mixup=1, cutmix=1, copy_paste=1), mixes=False, donors=donors())
    assert len(closed.geometry.tiles) == 1 and closed.partner is closed.cut is None and closed.pastes == ()


def test_partners_come_from_the_samples_just_before():
    count, position = 2000, 100
    order = epoch_order(0, 0, count)
    place = np.argsort(order)
    sizes = np.array([[240, 320]] * count)
    seen = set()
    for seed in range(300):
        made = sample_augment_params(Augmentation(mixup=1), seed, 0, position, order, sizes, SIDE)
        partners = [tile.index for tile in (*made.geometry.tiles[1:], *made.partner.tiles)]
        seen |= {int((position - place[index]) % count) for index in partners}

    assert min(seen) == 1 and max(seen) == WINDOW and len(seen) > 250


def test_a_set_of_one_image_is_its_own_partner():
    assert [tile.index for tile in draw(count=1).geometry.tiles] == [0, 0, 0, 0]


def test_tiles_meet_at_the_centre_and_stay_on_the_canvas():
    tiles = mosaic_tiles(
        [5, 6, 7, 8], [(240, 320), (320, 200), (100, 320), (320, 320)], (400, 200), (640, 640)
    )

    assert [tile.index for tile in tiles] == [5, 6, 7, 8]
    assert [tile.origin for tile in tiles] == [(80, -40), (400, -120), (80, 200), (400, 200)]
    assert [tile.extent for tile in tiles] == [
        (80, 0, 400, 200),
        (400, 0, 600, 200),
        (80, 200, 400, 300),
        (400, 200, 640, 520),
    ]


def test_centres_lie_in_the_middle_half_of_the_canvas():
    corners = np.array([d.geometry.tiles[3].origin for d in draws(Augmentation(), 1000)])

    assert corners.min() >= 160 and corners.max() < 480
    assert corners.min() < 165 and corners.max() > 475


def test_the_plain_matrix_is_the_general_one_without_rotation():
    def matrix(angle):
        return affine_matrix((640, 640), (320, 320), angle, 0.7, (0.0, 0.0), (0.55, 0.42), (0.0, 0.0))

    assert np.allclose(matrix(0.0), matrix(1e-12), atol=1e-8)
    assert np.allclose(matrix(0.0) @ [320, 320, 1], [0.55 * 320, 0.42 * 320, 1])


def test_rotation_is_counter_clockwise_and_shear_and_perspective_act():
    turned = affine_matrix((2, 2), (2, 2), 90.0, 1.0, (0.0, 0.0), (0.5, 0.5), (0.0, 0.0))
    sheared = affine_matrix((2, 2), (2, 2), 0.0, 1.0, (45.0, 0.0), (0.5, 0.5), (0.0, 0.0))
    tilted = affine_matrix((2, 2), (2, 2), 0.0, 1.0, (0.0, 0.0), (0.5, 0.5), (0.5, 0.0))

    assert np.allclose(turned @ [2, 1, 1], [1, 0, 1])  # the right edge's middle goes up
    assert np.allclose(sheared @ [1, 2, 1], [2, 2, 1])
    assert np.allclose(tilted @ [2, 1, 1], [1 + 1.5, 1.5, 1.5])
