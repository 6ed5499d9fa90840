from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detector.data.letterbox import (
    fit_size,
    input_hw,
    letterbox,
    letterbox_batch,
    letterbox_geometry,
    rect_shape,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "vectors.json").read_text())["letterbox"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['shape_hw']}->{v['new']}")
def test_geometry_matches_the_reference(vector):
    new = vector["new"]
    new_hw = (new, new) if isinstance(new, int) else tuple(new)

    found = letterbox_geometry(
        tuple(vector["shape_hw"]), new_hw, min_rect=vector["auto"], scale_up=vector["scaleup"]
    )

    assert list(found.new_wh) == vector["unpad_wh"]
    borders = (found.top, found.bottom, found.left, found.right)
    assert borders == tuple(vector[side] for side in ("top", "bottom", "left", "right"))
    assert list(found.out_hw) == vector["out_hw"]
    assert found.pad == (vector["left"], vector["top"])
    assert found.ratio == pytest.approx((vector["ratio"],) * 2, abs=0.01)


def test_letterbox_centres_the_image_on_grey():
    image = np.full((10, 20, 3), 200, np.uint8)

    out = letterbox(image, letterbox_geometry((10, 20), (32, 64), scale_up=False))

    assert out.shape == (32, 64, 3)
    assert (out[11:21, 22:42] == 200).all()
    assert (out == 114).sum() == (32 * 64 - 200) * 3


def test_letterbox_enlarges_when_asked():
    image = np.full((10, 20, 3), 200, np.uint8)

    out = letterbox(image, letterbox_geometry((10, 20), (40, 40)))

    assert (out[10:30] == 200).all() and (out[:10] == 114).all() and (out[30:] == 114).all()


@pytest.mark.parametrize(
    ("imgsz", "expected"), [(640, (640, 640)), ([320], (320, 320)), ([320, 640], (320, 640))]
)
def test_one_side_or_both_give_height_and_width(imgsz, expected):
    assert input_hw(imgsz) == expected


def test_a_batch_is_its_letterboxed_images_in_rgb():
    images = [np.random.default_rng(i).integers(0, 256, (30 + i, 50, 3), np.uint8) for i in range(2)]

    batch, places = letterbox_batch(images, (64, 96), min_rect=True)

    assert [place.out_hw for place in places] == [(64, 96)] * 2, "two shapes: the whole input"
    for image, place, found in zip(images, places, batch, strict=True):
        assert (found.numpy() == letterbox(image, place)[..., ::-1].transpose(2, 0, 1)).all()


def test_images_of_one_shape_are_padded_to_whole_strides_only():
    images = [np.zeros((30, 60, 3), np.uint8)] * 2

    batch, _ = letterbox_batch(images, (96, 96), min_rect=True, stride=16)

    assert batch.shape == (2, 3, 48, 96)


@pytest.mark.parametrize(
    ("shape", "expected"), [((480, 640), (240, 320)), ((375, 500), (240, 320)), ((100, 33), (320, 106))]
)
def test_the_long_side_is_resized_and_the_short_one_rounded_up(shape, expected):
    assert fit_size(shape, 320) == expected


def test_rectangles_have_a_margin_and_whole_strides():
    assert rect_shape(0.75, 0.75, 640, margin=0.5) == (512, 672)
    assert rect_shape(1.5, 2.0, 640, margin=0) == (640, 448)
    assert rect_shape(0.5, 2.0, 640, margin=0) == (640, 640)
