"""Faults of boxes that their numbers alone show: of all boxes of a split at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.data.annotations import MIN_SIDE, SLACK_PX
from detector.data.letterbox import input_hw

SMALL_SIDE = 4  # px of the input: half the finest stride; smaller objects are hardly learned
SAME_BOX = 0.95  # IoU from which two boxes of an image count as one
OUTSIDE = (
    1e-3  # of the image, that a box may reach over its edge; or the `SLACK_PX` of tools that count from 1
)
_MOVED = 1 - SAME_BOX  # of the width: centres further apart leave a lower IoU
_MAX_STEPS = 64  # neighbours in the order of centres that are compared

Boxes = NDArray[np.float64] | NDArray[np.float32]


def is_flat(boxes: Boxes) -> NDArray[np.bool_]:
    """Return (N,) which boxes (N, 4) cxcywh have no area."""
    flat: NDArray[np.bool_] = boxes[:, 2:].min(1, initial=1) <= 0
    return flat


def reach_over(boxes: Boxes) -> NDArray[np.float64]:
    """Return (N,) how far boxes (N, 4) cxcywh, normalised, reach over the edge of their image, as a part of it."""
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    return np.asarray(np.maximum(-low, high - 1).max(1, initial=-1), np.float64)


def is_outside(
    over: NDArray[np.float64], image: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return (N,) which boxes reach over the edge of their image by more than tools round.

    Args:
        over: (N,) from `reach_over`.
        image: (N,) the image of each box.
        sizes: (n, 2) height and width of the images, px.
    """
    limits = np.maximum(OUTSIDE, SLACK_PX / np.maximum(sizes.min(1, initial=2**31), 1))
    outside: NDArray[np.bool_] = over > limits[image]
    return outside


def input_sides(
    boxes: Boxes, image: NDArray[np.int64], sizes: NDArray[np.int64], imgsz: int | Sequence[int]
) -> NDArray[np.float64]:
    """Return (N,) the longer side of boxes in the input, px; infinite for those of images that are not used.

    Args:
        boxes: (N, 4) cxcywh, normalised.
        image: (N,) the image of each.
        sizes: (n, 2) height and width of the images, px.
        imgsz: longer side of the input, px, or height and width.
    """
    scale = (np.array(input_hw(imgsz)) / np.maximum(sizes, 1)).min(1, initial=np.inf)
    in_input = sizes[:, ::-1] * scale[:, None]  # width, height of each image
    in_input[sizes.min(1, initial=MIN_SIDE) < MIN_SIDE] = np.inf
    sides: NDArray[np.float64] = (boxes[:, 2:] * in_input[image]).max(1, initial=0)
    return sides


def same_boxes(boxes: Boxes, image: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (K, 2) rows of boxes of one image that are nearly equal, the earlier row first.

    Found by sorting: the centres of such boxes are neighbours.

    Args:
        boxes: (N, 4) cxcywh with area.
        image: (N,) the image of each.
    """
    order = np.argsort(4.0 * image + boxes[:, 0], kind="stable")  # centres lie in 0..1, or little outside
    boxes, image = boxes[order], image[order]
    pairs = [np.zeros((0, 2), np.int64)]
    for step in range(1, min(_MAX_STEPS, len(order))):
        near = (image[step:] == image[:-step]) & (
            boxes[step:, 0] - boxes[:-step, 0] < _MOVED * boxes[:-step, 2]
        )
        index = np.flatnonzero(near)
        if not len(index):
            break
        index = index[_iou(boxes[index], boxes[index + step]) > SAME_BOX]
        pairs.append(np.sort(np.stack([order[index], order[index + step]], 1), 1))
    return np.concatenate(pairs)


def _iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    high = np.minimum(a[:, :2] + a[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2)
    low = np.maximum(a[:, :2] - a[:, 2:] / 2, b[:, :2] - b[:, 2:] / 2)
    shared = (high - low).clip(0).prod(1)
    result: NDArray[np.float64] = shared / (a[:, 2:].prod(1) + b[:, 2:].prod(1) - shared)
    return result
