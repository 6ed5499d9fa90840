"""What val and predict need of a network or an exported file that is ready to run, and of its detections."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from detector.boxes import NMSParams, clip_boxes, scale_boxes
from detector.device import Precision


class InferenceBackend(Protocol):
    """A network or an exported file, ready to run: what val and predict need of it.

    Attributes:
        device: where predictions are.
        precision: what it computes in.
        names: class id -> name.
        num_classes: number of classes, C.
        strides: strides of the output levels, px; their greatest divides height and width of an input.
        head: "one2many" or "one2one".
        nms: whether its predictions need suppression here.
        input_hw: the only height and width it takes, px, or None if they are free.
        channels: of an image: 1 is grey, 3 colour.
        value_range: values of images of 16 bits that become 0 and 255; None = their upper 8 bits are taken.
    """

    device: torch.device
    precision: Precision
    names: dict[int, str]
    num_classes: int
    strides: tuple[int, ...]
    head: str
    nms: bool
    input_hw: tuple[int, int] | None
    channels: int
    value_range: tuple[float, float] | None

    def forward(self, images: Tensor) -> tuple[Tensor, Any]:
        """Run images, (B, C, H, W) uint8 RGB or float in 0..1; returns predictions for `detect`, and raw ones."""
        ...

    def detect(self, preds: Tensor, params: NMSParams) -> list[Tensor]:
        """Reduce predictions to detections: for each image (n, 6)."""
        ...

    def threads(self) -> AbstractContextManager[None]:
        """Return a context for everything that is done for one batch: it may limit torch's threads."""
        ...


def rescale_to_image(
    detections: Tensor, ratio: tuple[float, float], pad: tuple[float, float], size: tuple[int, int]
) -> Tensor:
    """Map detections from the letterboxed input to the image, and clip them to it.

    Args:
        detections: (n, 6) with x1, y1, x2, y2 in input px first.
        ratio: input px per image px, (x, y).
        pad: left and top padding, input px.
        size: image height and width, px.

    Returns:
        (n, 6), boxes in image px.
    """
    boxes = clip_boxes(scale_boxes(detections[:, :4], ratio, pad), *size)
    return torch.cat([boxes, detections[:, 4:]], dim=1)
