"""Training at many input sizes: the size of a step, and its batch resized to it."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from torch import Tensor, nn


def sample_side(imgsz: int, multi_scale: float, seed: int, step: int) -> int:
    """Return a step's longer input side, px, a function of the seed and the step alone.

    Args:
        imgsz: the side it varies around, px.
        multi_scale: how far it varies, as a fraction of `imgsz`.
        seed: of the run.
        step: `global_step`.
    """
    smallest, largest = max(32, int(imgsz * (1 - multi_scale))), int(imgsz * (1 + multi_scale) + 32)
    return int(np.random.default_rng([seed, step]).integers(smallest, largest)) // 32 * 32


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
