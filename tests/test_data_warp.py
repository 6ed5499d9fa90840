from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.data.annotations import Annotations
from detector.data.augment import (
    Augmentation,
    AugmentParams,
    Cut,
    GeometryDraw,
    Paste,
    Tile,
    affine_matrix,
    epoch_order,
    mosaic_tiles,
    sample_augment_params,
)
from detector.data.warp import (
    apply_augmentation,
    apply_geometry,
    box_candidates,
    hidden_shares,
    paste_object,
    shift_hsv,
    transform_boxes,
    uncovered,
)

SIZES = np.array([[240, 320], [320, 200], [320, 320], [160, 320]])


def smooth(index: int) -> np.ndarray:
    """An image without fine detail, so that interpolation and a shift below a pixel change little."""
    height, width = SIZES[index]
    rough = np.random.default_rng(index).integers(60, 200, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(rough, (int(width), int(height)), interpolation=cv2.INTER_CUBIC)


IMAGES = [smooth(index) for index in range(4)]


def annotations(boxes_per_image=1, box=(0.5, 0.5, 0.5, 0.5)):
    count = 4 * boxes_per_image
    return Annotations(
        [f"{i}.png" for i in range(4)],
        SIZES,
        np.arange(5) * boxes_per_image,
        np.tile(np.array(box, np.float32), (count, 1)),
        np.arange(count),
        {i: str(i) for i in range(count)},
    )


def draw(augmentation, position=0, side=320):
    return sample_augment_params(augmentation, 0, 0, position, epoch_order(0, 0, 4), SIZES, (side, side))


def reference(geometry: GeometryDraw, side=320):
    """The textbook way: paint the whole canvas, then warp it once."""
    canvas = np.full((geometry.canvas_wh[1], geometry.canvas_wh[0], 3), 114, np.uint8)
    covered = np.zeros(canvas.shape[:2], np.uint8)
    for number, tile in enumerate(geometry.tiles, 1):
        x1, y1, x2, y2 = tile.extent
        ox, oy = tile.origin
        canvas[y1:y2, x1:x2] = IMAGES[tile.index][y1 - oy : y2 - oy, x1 - ox : x2 - ox]
        covered[y1:y2, x1:x2] = number
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = (np.linalg.inv(half) @ geometry.matrix @ half)[:2]
    image = cv2.warpAffine(canvas, matrix, (side, side), borderValue=(114, 114, 114))
    which = cv2.warpAffine(covered, matrix, (side, side), flags=cv2.INTER_NEAREST)
    return image, which


@pytest.mark.parametrize("position", range(4))
def test_tiles_resized_in_place_match_a_warped_canvas(position):
    geometry = draw(Augmentation(), position).geometry
    expected, which = reference(geometry)

    image, _, _ = apply_geometry(geometry, IMAGES.__getitem__, annotations(), SIZES, (320, 320))

    edges = cv2.dilate(cv2.morphologyEx(which, cv2.MORPH_GRADIENT, np.ones((3, 3))), np.ones((3, 3))) > 0
    difference = np.abs(image.astype(int) - expected)[~edges]
    assert edges.mean() < 0.05
    assert difference.max() <= 12 and difference.mean() < 1.5


@pytest.mark.parametrize(("scale", "centre"), [(0.5, (320, 320)), (0.73, (211, 407)), (1.4, (300, 350))])
def test_boxes_follow_the_pixels(scale, centre):
    """The block painted into each image is found again, by its colour, within its box."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    images = [np.full((h, w, 3), 114, np.uint8) for h, w in SIZES.tolist()]
    for image, (h, w), colour in zip(images, SIZES.tolist(), colours, strict=True):
        image[h // 4 : h * 3 // 4, w // 4 : w * 3 // 4] = colour
    matrix = affine_matrix((640, 640), (320, 320), 0.0, scale, (0.0, 0.0), (0.53, 0.46), (0.0, 0.0))
    geometry = GeometryDraw(
        mosaic_tiles(range(4), SIZES.tolist(), centre, (640, 640)), (640, 640), matrix, scale
    )

    out, boxes, labels = apply_geometry(geometry, images.__getitem__, annotations(), SIZES, (320, 320))

    assert len(boxes) >= 2
    for box, label in zip(boxes, labels, strict=True):
        ys, xs = np.nonzero(np.abs(out.astype(int) - colours[label]).max(2) < 70)
        assert np.allclose(box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=1.01)


def test_a_plain_placement_has_exact_boxes():
    tile = Tile(2, (0, 0), (0, 0, 320, 320))
    matrix = np.array([[0.5, 0, 80], [0, 0.5, 80], [0, 0, 1]])

    image, boxes, labels = apply_geometry(
        GeometryDraw((tile,), (320, 320), matrix, 0.5), IMAGES.__getitem__, annotations(), SIZES, (320, 320)
    )

    assert boxes.tolist() == [[120, 120, 200, 200]] and labels.tolist() == [2]
    assert (image[:80] == 114).all() and (image[:, 240:] == 114).all()
    assert np.array_equal(image[80:240, 80:240], cv2.resize(IMAGES[2], (160, 160)))


def test_rotated_boxes_enclose_their_corners():
    quarter = np.array([[0, 1, 0], [-1, 0, 320], [0, 0, 1.0]])  # 90 degrees, counter-clockwise

    assert transform_boxes(np.array([[10, 20, 50, 100]], np.float32), quarter).tolist() == [
        [20, 270, 100, 310]
    ]


@pytest.mark.parametrize(
    "more", [{"degrees": 30.0}, {"shear": 10.0}, {"degrees": 10.0, "perspective": 0.0005}]
)
def test_general_warps_move_boxes_with_their_pixels(more):
    images = [np.zeros((h, w, 3), np.uint8) for h, w in SIZES.tolist()]
    for image, (height, width) in zip(images, SIZES.tolist(), strict=True):
        image[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 255
    geometry = draw(Augmentation(mosaic=0, translate=0, scale=(0.6, 0.6), **more)).geometry

    out, boxes, _ = apply_geometry(geometry, images.__getitem__, annotations(), SIZES, (320, 320))

    ys, xs = np.nonzero(out[..., 0] > 128 + 60)
    assert np.allclose(boxes[0], [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=1.5)


def test_box_candidates_match_the_reference():
    vector = json.loads((Path(__file__).parent / "vectors" / "vectors.json").read_text())["box_candidates"]

    keep = box_candidates(np.array(vector["before"], np.float32), np.array(vector["after"], np.float32))

    assert keep.tolist() == vector["keep_thr0.1"]


def test_boxes_that_lose_most_of_their_area_are_dropped():
    tile = Tile(2, (0, 0), (0, 0, 320, 320))

    def kept(shift):
        matrix = np.array([[1.0, 0, shift], [0, 1, 0], [0, 0, 1]])
        geometry = GeometryDraw((tile,), (320, 320), matrix, 1.0)
        return len(apply_geometry(geometry, IMAGES.__getitem__, annotations(), SIZES, (320, 320))[1])

    # the box spans 80..240; 20 px of its 160 are left, then 12
    assert (kept(220), kept(228)) == (1, 0)


def test_background_images_give_no_boxes():
    empty = Annotations(
        ["a"] * 4, SIZES, np.zeros(5, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), {}
    )
    for more in ({}, {"degrees": 10.0}):
        _, boxes, labels = apply_geometry(
            draw(Augmentation(**more)).geometry, IMAGES.__getitem__, empty, SIZES, (320, 320)
        )
        assert boxes.shape == (0, 4) and labels.shape == (0,)


def plain(**more):
    geometry = GeometryDraw((Tile(2, (0, 0), (0, 0, 320, 320)),), (320, 320), np.eye(3), 1.0)
    values = {
        "partner": None,
        "ratio": 1.0,
        "hsv": (0.0, 1.0, 1.0),
        "flipud": False,
        "fliplr": False,
        "bgr": False,
    }
    return AugmentParams(geometry, **{**values, **more})


def render(sample, box=(0.25, 0.5, 0.25, 0.5)):
    out = np.empty((3, 320, 320), np.uint8)
    boxes, labels = apply_augmentation(sample, IMAGES.__getitem__, annotations(box=box), SIZES, out)
    return out, boxes.tolist(), labels.tolist()


def test_images_come_out_as_rgb_planes():
    assert np.array_equal(render(plain())[0], IMAGES[2][..., ::-1].transpose(2, 0, 1))
    assert np.array_equal(render(plain(bgr=True))[0], IMAGES[2].transpose(2, 0, 1))


def test_flips_move_pixels_and_boxes():
    image, boxes, _ = render(plain())
    assert boxes == [[40, 80, 120, 240]]

    mirrored, boxes, _ = render(plain(fliplr=True))
    assert np.array_equal(mirrored, image[:, :, ::-1]) and boxes == [[200, 80, 280, 240]]

    upside, boxes, _ = render(plain(flipud=True), box=(0.25, 0.25, 0.25, 0.25))
    assert np.array_equal(upside, image[:, ::-1]) and boxes == [[40, 200, 120, 280]]

    both, boxes, _ = render(plain(flipud=True, fliplr=True))
    assert np.array_equal(both, image[:, ::-1, ::-1]) and boxes == [[200, 80, 280, 240]]


def test_mixup_blends_images_and_joins_boxes():
    other = GeometryDraw((Tile(0, (0, 0), (0, 0, 320, 240)),), (320, 240), np.eye(3), 1.0)

    image, boxes, labels = render(plain(partner=other, ratio=0.4))

    expected = 0.4 * IMAGES[2][10, 10, ::-1].astype(float) + 0.6 * IMAGES[0][10, 10, ::-1]
    assert np.allclose(image[:, 10, 10], expected, atol=1)
    below = 0.4 * IMAGES[2][300, 10, ::-1].astype(float) + 0.6 * 114
    assert np.allclose(image[:, 300, 10], below, atol=1)
    assert boxes == [[40, 80, 120, 240], [40, 60, 120, 180]] and labels == [2, 0]


@pytest.mark.parametrize("hsv", [(0.0, 1.0, 1.0), (2.4, 0.6, 1.3), (-3.0, 1.7, 0.7), (179.0, 1.0, 1.0)])
def test_colours_shift_as_in_a_plain_hsv(hsv):
    hue, saturation, value = hsv
    planes = cv2.cvtColor(IMAGES[2], cv2.COLOR_BGR2HSV).astype(np.float64)
    expected = np.stack(
        [
            (planes[..., 0] + round(hue)) % 180,
            np.clip(planes[..., 1] * saturation, 0, 255),
            np.clip(planes[..., 2] * value, 0, 255),
        ],
        2,
    )
    expected = cv2.cvtColor(expected.round().astype(np.uint8), cv2.COLOR_HSV2BGR)
    if hsv == (0.0, 1.0, 1.0):
        expected = IMAGES[2]

    assert np.abs(shift_hsv(IMAGES[2], *hsv).astype(int) - expected).max() <= 2


def test_grey_stays_grey():
    grey = np.full((4, 4, 3), 100, np.uint8)

    assert (shift_hsv(grey, 2.0, 1.7, 1.5) == 150).all()


def test_sources_are_not_written_to():
    before = [image.copy() for image in IMAGES]
    for position in range(4):
        out = np.empty((3, 320, 320), np.uint8)
        apply_augmentation(
            draw(Augmentation(flipud=1), position), IMAGES.__getitem__, annotations(), SIZES, out
        )

    assert all(np.array_equal(a, b) for a, b in zip(before, IMAGES, strict=True))


GREEN = np.array([0, 200, 0])


def one_object(height, width, box, colour=GREEN):
    """A grey image with one object, box xyxy in px, and its annotations."""
    image = np.full((height, width, 3), 114, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = colour
    row = np.array([[(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]])
    labels = Annotations(
        ["a"], np.array([[height, width]]), np.array([0, 1]), row.astype(np.float32), np.array([7]), {7: "g"}
    )
    return image, labels


def extent(mask):
    """The box around the pixels of a mask."""
    ys, xs = np.nonzero(mask)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


NOTHING = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)


@pytest.mark.parametrize(
    "box", [(80, 60, 180, 110), (0, 0, 60, 40), (260, 200, 320, 240), (11, 100, 18, 150)]
)
@pytest.mark.parametrize("scale", [0.8, 1.0, 1.37])
def test_a_pasted_box_bounds_its_pixels_within_the_soft_edge(box, scale):
    source, labels = one_object(240, 320, box)
    sample = np.full((320, 320, 3), 114, np.uint8)
    paste = Paste(0, 0, scale, np.array([[0.3, 0.6]]))

    boxes, found = paste_object(paste, sample, *NOTHING, lambda _: source, labels)

    assert found.tolist() == [7]
    width, height = boxes[0, 2:] - boxes[0, :2]
    assert width == pytest.approx((box[2] - box[0]) * scale, abs=0.5)
    assert height == pytest.approx((box[3] - box[1]) * scale, abs=0.5)
    # the object stays whole; an image that ends at it is mirrored, so that the object fades out there
    whole = np.abs(sample.astype(int) - GREEN).max(2) <= 2
    touched = (sample != 114).any(2)
    feather = 1 + max(2, round(0.1 * min(box[2] - box[0], box[3] - box[1]))) * scale
    at_edge = np.array([box[0] == 0, box[1] == 0, box[2] == 320, box[3] == 240])
    assert np.allclose(boxes[0], extent(whole), atol=1.51)
    outer = np.abs(boxes[0] - extent(touched))
    assert (outer[~at_edge] <= 1.51).all() and (outer[at_edge] <= feather).all()
    assert (outer[at_edge] > 1).all()


def test_the_soft_edge_rises_from_nothing_to_the_whole_object():
    source, labels = np.full((200, 200, 3), 254, np.uint8), one_object(200, 200, (50, 50, 150, 150))[1]
    sample = np.full((320, 320, 3), 54, np.uint8)

    (box,), _ = paste_object(
        Paste(0, 0, 1.0, np.array([[0.5, 0.5]])), sample, *NOTHING, lambda _: source, labels
    )

    assert box.tolist() == [110, 110, 210, 210]
    row = sample[160, :, 0].astype(int)
    assert (row[:100] == 54).all() and (row[110:210] == 254).all() and (row[220:] == 54).all()
    assert row[100:110].tolist() == row[210:220].tolist()[::-1] == [64 + 20 * k for k in range(10)]


def test_a_place_that_hides_too_much_is_left_for_the_next():
    source, labels = one_object(200, 200, (50, 50, 150, 150))
    boxes, classes = np.array([[120, 120, 200, 200], [0, 0, 40, 40]], np.float32), np.array([1, 2])
    places = np.array([[0.5, 0.5], [0.0, 0.0], [1.0, 0.1]])

    for tried, count in ((places, 3), (places[:2], 2)):
        sample = np.full((320, 320, 3), 114, np.uint8)
        paste = Paste(0, 0, 1.0, tried)
        after, found = paste_object(paste, sample, boxes, classes, lambda _: source, labels)
        assert len(after) == count and found.tolist() == [1, 2, 7][:count]
        assert after[:2].tolist() == boxes.tolist()
        assert (sample != 114).any() == (count == 3)
    hidden = hidden_shares(boxes, np.array([[140, 140, 400, 400], [0, 0, 20, 20]], np.float32))
    assert hidden == pytest.approx(np.array([[0.5625, 0], [0, 0.25]]))


def test_a_box_that_is_hidden_at_one_end_becomes_that_of_what_is_left():
    source, labels = one_object(200, 200, (50, 50, 150, 150))
    boxes = np.array([[190, 150, 290, 170], [90, 100, 300, 300]], np.float32)
    sample = np.full((320, 320, 3), 114, np.uint8)

    paste = Paste(0, 0, 1.0, np.array([[0.5, 0.5]]))
    after, found = paste_object(paste, sample, boxes, np.array([1, 2]), lambda _: source, labels)

    assert found.tolist() == [1, 2, 7]
    assert after.tolist() == [[210, 150, 290, 170], [90, 100, 300, 300], [110, 110, 210, 210]]


def test_large_objects_are_shrunk_and_tiny_ones_left_out():
    source, labels = one_object(300, 300, (0, 0, 300, 300))
    sample = np.full((160, 320, 3), 114, np.uint8)
    paste = Paste(0, 0, 1.0, np.array([[0.5, 0.5]]))
    (box,), _ = paste_object(paste, sample, *NOTHING, lambda _: source, labels)
    assert (box[2:] - box[:2]).max() <= 80 and (sample == GREEN).all(2).sum() > 60 * 60

    source, labels = one_object(300, 300, (10, 10, 12, 30))
    sample[:] = 114
    assert len(paste_object(paste, sample, *NOTHING, lambda _: source, labels)[0]) == 0
    assert (sample == 114).all()


def test_what_else_the_copied_box_shows_comes_along():
    source, _ = one_object(200, 200, (50, 50, 150, 150))
    boxes = np.array([[50, 50, 150, 150], [120, 60, 220, 80], [60, 100, 80, 120], [148, 0, 200, 200]])
    cxcywh = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1) / 200
    labels = Annotations(
        ["a"], np.array([[200, 200]]), np.array([0, 4]), cxcywh.astype(np.float32), np.arange(4), {}
    )
    sample = np.full((320, 320, 3), 114, np.uint8)

    after, found = paste_object(
        Paste(0, 0, 1.0, np.array([[0.5, 0.5]])), sample, *NOTHING, lambda _: source, labels
    )

    assert found.tolist() == [0, 1, 2]  # of the last one less than a tenth is in the box
    assert after.tolist() == [[110, 110, 210, 210], [180, 120, 210, 140], [120, 160, 140, 180]]


def test_what_a_rectangle_leaves_of_a_box_is_the_box_around_its_pixels():
    rng = np.random.default_rng(0)
    for _ in range(400):
        x, y = (np.sort(rng.choice(40, 2, replace=False)) for _ in range(2))
        u, v = (np.sort(rng.choice(41, 2, replace=False)) for _ in range(2))
        mask = np.zeros((41, 41), bool)
        mask[y[0] : y[1], x[0] : x[1]] = True
        area = mask.sum()
        mask[v[0] : v[1], u[0] : u[1]] = False

        (left,), (keep,) = uncovered(
            np.array([[x[0], y[0], x[1], y[1]]], np.float32), (u[0], v[0], u[1], v[1])
        )

        if not mask.any():
            assert not keep
            continue
        x1, y1, x2, y2 = extent(mask)
        assert left.tolist() == [x1, y1, x2, y2]
        assert keep == (min(x2 - x1, y2 - y1) > 2 and mask.sum() > 0.1 * area)


def test_cutmix_shows_each_side_where_its_boxes_say():
    """Every image is a block of one colour, which is found again, by its colour, within its box."""
    colours = np.array([(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)])
    images = [np.full((h, w, 3), 114, np.uint8) for h, w in SIZES.tolist()]
    for image, (h, w), colour in zip(images, SIZES.tolist(), colours, strict=True):
        image[h // 4 : h * 3 // 4, w // 4 : w * 3 // 4] = colour
    kept = []
    for position in range(60):
        made = sample_augment_params(
            Augmentation(mosaic=0, cutmix=1, hsv_h=0, hsv_s=0, hsv_v=0),
            0, position // 4, position % 4, epoch_order(0, position // 4, 4), SIZES, (320, 320),
        )  # fmt: skip
        if made.cut is None or made.cut.geometry.tiles[0].index == made.geometry.tiles[0].index:
            continue
        out = np.empty((3, 320, 320), np.uint8)
        boxes, labels = apply_augmentation(made, images.__getitem__, annotations(), SIZES, out)
        kept.append(len(labels))
        for box, label in zip(boxes, labels, strict=True):
            mask = np.abs(out[::-1].transpose(1, 2, 0).astype(int) - colours[label]).max(2) < 70
            assert np.allclose(box, extent(mask), atol=1.01)
    assert len(kept) > 30 and {1, 2} <= set(kept)


def test_a_cutmix_drops_what_it_hides_and_what_it_shows_too_little_of():
    other = GeometryDraw((Tile(0, (0, 0), (0, 0, 320, 240)),), (320, 240), np.eye(3), 1.0)

    def boxes_of(extent):
        image, boxes, labels = render(plain(cut=Cut(other, extent)))
        x1, x2 = extent[::2]
        assert np.array_equal(image[:, 100, x1:x2].T, IMAGES[0][100, x1:x2, ::-1])
        assert np.array_equal(image[:, 300, :].T, IMAGES[2][300, :, ::-1])
        return sorted(zip(labels, boxes, strict=True))

    # image 2 has a box at 40..120, 80..240; image 0 at 40..120, 60..180
    assert boxes_of((0, 0, 80, 250)) == [(0, [40, 60, 80, 180]), (2, [80, 80, 120, 240])]
    assert boxes_of((0, 0, 115, 250)) == [(0, [40, 60, 115, 180])]
    assert boxes_of((114, 0, 320, 250)) == [(2, [40, 80, 114, 240])]
    assert boxes_of((60, 90, 100, 200)) == [(0, [60, 90, 100, 180]), (2, [40, 80, 120, 240])]
