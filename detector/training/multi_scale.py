"""Training at many input sizes: the size of a step, and its batch resized to it."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from torch import Tensor, nn

from detector.errors import SettingsError


def sample_side(imgsz: int, multi_scale: float, seed: int, step: int) -> int:
    """Return a step's longer input side, px, a function of the seed and the step alone.

    Args:
        imgsz: the side it varies around, px.
        multi_scale: how far it varies, as a fraction of `imgsz`.
        seed: of the run.
        step: `global_step`.
    """
    smallest, largest = max(32, int(imgsz * (1 - multi_scale))), largest_side(imgsz, multi_scale) + 32
    return int(np.random.default_rng([seed, step]).integers(smallest, largest)) // 32 * 32


def require_batch_norm_fits(images: int, batch: int, smallest_side: int, stride: int) -> None:
    """Refuse a training with a batch of one image of one cell: batch norm has no variance there.

    Args:
        images: training images.
        batch: images per batch.
        smallest_side: of the network input, see `smallest_side`, px.
        stride: the model's largest, px.

    Raises:
        SettingsError: if a batch can be like that.
    """
    if smallest_side <= stride and (images % batch == 1 or batch == 1):
        raise SettingsError(
            f"the last batch of an epoch has one image ({images} images, batch={batch}), and at {smallest_side} px it "
            f"gives batch norm a single value; use a larger imgsz, less multi_scale or another batch"
        )


def smallest_side(imgsz: int, multi_scale: float) -> int:
    """Return the smallest longer side that a step may have, px."""
    return max(32, int(imgsz * (1 - multi_scale))) // 32 * 32


def largest_side(imgsz: int, multi_scale: float) -> int:
    """Return the largest longer side that a step may have, px."""
    return int(imgsz * (1 + multi_scale))


def resize_batch(images: Tensor, long_side: int) -> tuple[Tensor, Tensor]:
    """Resize a batch so that its longer side is about `long_side`, both sides multiples of 32.

    Args:
        images: (B, 3, H, W) float.
        long_side: input px.

    Returns:
        The images, and (4,) the factors for x1, y1, x2, y2.
    """
    height, width = images.shape[-2:]
    factor = long_side / max(height, width)
    new_h, new_w = (ceil(side * factor / 32) * 32 for side in (height, width))
    ratio = torch.tensor([new_w / width, new_h / height] * 2, device=images.device)
    if (new_h, new_w) == (height, width):
        return images, ratio
    return nn.functional.interpolate(images, (new_h, new_w), mode="bilinear", align_corners=False), ratio
