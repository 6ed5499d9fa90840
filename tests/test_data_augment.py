from __future__ import annotations

import numpy as np
import pytest

from detector.data.augment import (
    WINDOW,
    Augmentation,
    affine_matrix,
    epoch_order,
    mosaic_tiles,
    sample_augment_params,
)

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
    closed = draw(Augmentation(mixup=1), mixes=False)
    assert len(closed.geometry.tiles) == 1 and closed.partner is None


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
    tiles = mosaic_tiles([5, 6, 7, 8], [(240, 320), (320, 200), (100, 320), (320, 320)], (400, 200), 320)

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
