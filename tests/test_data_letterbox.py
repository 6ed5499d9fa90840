from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detector.data.letterbox import fit_size, letterbox, letterbox_geometry, rect_shape

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
    ("shape", "expected"), [((480, 640), (240, 320)), ((375, 500), (240, 320)), ((100, 33), (320, 106))]
)
def test_the_long_side_is_resized_and_the_short_one_rounded_up(shape, expected):
    assert fit_size(shape, 320) == expected


def test_rectangles_have_a_margin_and_whole_strides():
    assert rect_shape(0.75, 0.75, 640, margin=0.5) == (512, 672)
    assert rect_shape(1.5, 2.0, 640, margin=0) == (640, 448)
    assert rect_shape(0.5, 2.0, 640, margin=0) == (640, 640)
