"""Fit an image into the network's input: resize, then pad with grey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.data.images import to_grey

GREY = 114  # the value of every pixel that no image covers


def input_hw(imgsz: int | Sequence[int]) -> tuple[int, int]:
    """Return height and width of the input that an `imgsz` setting asks for: one side, or both."""
    sides = [imgsz] if isinstance(imgsz, int) else imgsz
    return int(sides[0]), int(sides[-1])


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies inside a padded input.

    Attributes:
        new_wh: width and height of the resized image, input px.
        top: rows of padding above; likewise ``bottom``, ``left``, ``right``.
        ratio: input px per image px along x and y, from the rounded size.
    """

    new_wh: tuple[int, int]
    top: int
    bottom: int
    left: int
    right: int
    ratio: tuple[float, float]

    @property
    def out_hw(self) -> tuple[int, int]:
        """Height and width of the padded input, input px."""
        return self.new_wh[1] + self.top + self.bottom, self.new_wh[0] + self.left + self.right

    @property
    def pad(self) -> tuple[int, int]:
        """Left and top padding, input px."""
        return self.left, self.top


def letterbox_geometry(
    shape_hw: tuple[int, int],
    new_hw: tuple[int, int],
    min_rect: bool = False,
    scale_up: bool = True,
    stride: int = 32,
) -> Letterbox:
    """Centre an image of one shape in an input of another, keeping its aspect ratio.

    Args:
        shape_hw: height and width of the image, image px.
        new_hw: height and width wanted, input px.
        min_rect: pad only up to the next multiple of ``stride``, not to the whole input.
        scale_up: also enlarge images that are smaller than the input.
        stride: see ``min_rect``, input px.
    """
    (h, w), (new_h, new_w) = shape_hw, new_hw
    scale = min(new_h / h, new_w / w)
    if not scale_up:
        scale = min(scale, 1.0)
    width, height = max(round(w * scale), 1), max(round(h * scale), 1)
    spare_w, spare_h = new_w - width, new_h - height
    if min_rect:
        spare_w, spare_h = spare_w % stride, spare_h % stride
    top, left = spare_h // 2, spare_w // 2  # an odd row or column of padding goes below and to the right
    return Letterbox(
        new_wh=(width, height),
        top=top,
        bottom=spare_h - top,
        left=left,
        right=spare_w - left,
        ratio=(width / w, height / h),
    )


def image_shape(hw: tuple[int, int], channels: int) -> tuple[int, ...]:
    """Return the shape of an image: (H, W, 3), or (H, W) where it is grey."""
    return hw if channels == 1 else (*hw, channels)


def letterbox(image: NDArray[Any], geometry: Letterbox) -> NDArray[Any]:
    """Resize (bilinear) and pad an (H, W, 3) or (H, W) uint8 image as the geometry says."""
    canvas = np.empty((*geometry.out_hw, *image.shape[2:]), np.uint8)
    width, height = geometry.new_wh
    if (height, width) != geometry.out_hw:
        canvas.fill(GREY)
    view = canvas[geometry.top : geometry.top + height, geometry.left : geometry.left + width]
    resize_into(image, view)
    return canvas


def letterbox_batch(
    images: Sequence[NDArray[np.uint8]],
    new_hw: tuple[int, int],
    min_rect: bool = False,
    stride: int = 32,
    channels: int = 3,
) -> tuple[Tensor, list[Letterbox]]:
    """Letterbox images of any shapes into one batch.

    Args:
        images: (H, W, 3) uint8 BGR arrays.
        new_hw: height and width of the input, input px.
        min_rect: where all images have one shape, pad only up to the next multiple of ``stride``.
        stride: see ``min_rect``, input px.
        channels: of the input; 1 makes the images grey first.

    Returns:
        (B, 3, H, W) uint8 RGB, whose memory is (B, H, W, 3), or (B, 1, H, W) grey; and where each image lies in it.
    """
    min_rect = min_rect and len({image.shape for image in images}) == 1
    places = [
        letterbox_geometry((image.shape[0], image.shape[1]), new_hw, min_rect, stride=stride)
        for image in images
    ]
    stack = np.empty((len(images), *places[0].out_hw, channels), np.uint8)
    for image, place, out in zip(images, places, stack, strict=True):
        if channels == 1:
            out[..., 0] = letterbox(to_grey(image), place)
        else:
            cv2.cvtColor(letterbox(image, place), cv2.COLOR_BGR2RGB, dst=out)
    return torch.from_numpy(stack).permute(0, 3, 1, 2), places


def resize_into(image: NDArray[Any], view: NDArray[Any]) -> None:
    """Resize (bilinear) into a view of a larger image, without a copy in between."""
    if image.shape == view.shape:
        view[...] = image
    else:
        cv2.resize(image, view.shape[1::-1], dst=view, interpolation=cv2.INTER_LINEAR)


def fit_size(shape_hw: Any, imgsz: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of an image once it fits an input: its long side a square one, see `input_hw`."""
    (h, w), (new_h, new_w) = (int(shape_hw[0]), int(shape_hw[1])), input_hw(imgsz)
    ratio = min(new_h / h, new_w / w)
    return min(ceil(h * ratio), new_h), min(ceil(w * ratio), new_w)


def rect_shape(
    min_ratio: float, max_ratio: float, imgsz: int | Sequence[int], margin: float, stride: int = 32
) -> tuple[int, int]:
    """The smallest input that holds images with these ratios height / width, scaled to fit ``imgsz``.

    Args:
        min_ratio: smallest height / width.
        max_ratio: largest height / width.
        imgsz: long side of the images, or height and width that they fit in, input px.
        margin: added before rounding up, in strides (0.5 for validation, 0 for training).
        stride: height and width are multiples of it, input px.

    Returns:
        Height and width, input px.
    """
    height, width = input_hw(imgsz)
    high, wide = float(height), float(width)
    if max_ratio < height / width:
        high = max_ratio * width
    elif min_ratio > height / width:
        wide = 1 / min_ratio * height
    return ceil(high / stride + margin) * stride, ceil(wide / stride + margin) * stride
