"""Scenes of drawn motifs."""

from __future__ import annotations

import numpy as np
import pytest

from detector.data import scenes
from detector.data.scenes import MIN_BOX, FreshScene, draw_motif_scene
from detector.data.transforms import Transforms


def same(first, second):
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_scene_is_a_function_of_seed_and_index():
    scene = draw_motif_scene(1, 5, (96, 128))
    draw_motif_scene(1, 4, (96, 128))
    assert same(scene, draw_motif_scene(1, 5, (96, 128)))
    assert not np.array_equal(scene[0], draw_motif_scene(1, 6, (96, 128))[0])
    assert not np.array_equal(scene[0], draw_motif_scene(2, 5, (96, 128))[0])


def test_scenes_have_the_promised_shapes_sizes_and_labels():
    counts, sides, seen = [], [], set()
    for index in range(60):
        image, boxes, labels = draw_motif_scene(0, index, (96, 128), classes=10)
        assert (image.shape, image.dtype, boxes.dtype) == ((96, 128, 3), np.uint8, np.float32)
        assert (boxes >= 0).all() and (boxes <= [128, 96, 128, 96]).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= MIN_BOX).all()
        counts.append(len(labels))
        sides += (boxes[:, 2:] - boxes[:, :2]).max(1).tolist()
        seen |= set(labels.tolist())
    assert seen == set(range(10))
    assert min(counts) <= 1 and max(counts) > 10
    assert min(sides) < 0.12 * 96 and max(sides) > 0.7 * 96


def test_boxes_are_tight_to_what_is_visible(monkeypatch):
    """Every object is painted in a colour of its own on black, so that the image shows what is visible of each."""
    monkeypatch.setattr(
        scenes, "_background", lambda rng, height, width: np.zeros((height, width, 3), np.uint8)
    )
    monkeypatch.setattr(scenes, "_clutter", lambda rng, canvas: None)
    monkeypatch.setattr(scenes, "_camera", lambda rng, canvas: canvas)
    painted = []

    def paint(rng, region, motif, body, marks, length):
        painted.append(motif)
        region[body > 127] = len(painted)

    monkeypatch.setattr(scenes, "_paint", paint)
    overlapped = 0
    for index in range(25):
        painted.clear()
        image, boxes, labels = draw_motif_scene(0, index, (160, 160), 20)
        visible = {}
        for number, motif in enumerate(painted, 1):
            rows, columns = np.nonzero(image[..., 0] == number)
            if len(rows):
                box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                visible[tuple(map(float, box))] = motif
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            assert visible[tuple(box)] == scenes.motif_of(label)
        overlapped += len(painted) - len(labels)
    assert overlapped > 0  # some are hidden or cut, and have no label


def test_an_object_that_others_cover_or_the_edge_cuts_has_no_label(monkeypatch):
    drawn = {}
    for limit in (0.0, 0.3, 0.9):
        monkeypatch.setattr(scenes, "MIN_VISIBLE", limit)
        drawn[limit] = sum(len(draw_motif_scene(0, index, (96, 96), 10)[2]) for index in range(15))
    assert drawn[0.0] > drawn[0.3] > drawn[0.9] > 0


def test_a_fresh_scene_takes_the_place_of_a_sample_and_follows_from_its_seed():
    transforms = Transforms([FreshScene(7)])
    grey, boxes = np.full((64, 96, 3), 114, np.uint8), np.zeros((0, 4), np.float32)

    def sample(*seed):
        return transforms(grey, boxes, np.zeros(0, np.int64), seed)

    image, _, labels = first = sample(0, 3, 11)
    assert image.shape == (64, 96, 3) and image.std() > 0
    assert (labels < 7).all()
    others = [sample(*seed)[0] for seed in ((1, 3, 11), (0, 4, 11), (0, 3, 12))]
    assert same(first, sample(0, 3, 11))
    assert not any(np.array_equal(image, other) for other in others)


@pytest.mark.parametrize("size", [(32, 32), (64, 256)])
def test_small_and_long_images_can_be_drawn(size):
    for index in range(20):
        assert draw_motif_scene(3, index, size, 10)[0].shape == (*size, 3)
