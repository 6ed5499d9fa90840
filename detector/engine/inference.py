"""A network made ready to run, and the way from its outputs to detections: shared by val and predict."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from detector.boxes import NMSParams, clip_boxes, scale_boxes, to_detections
from detector.engine.compiled import compile_network
from detector.engine.device import Precision, keep_freed_memory
from detector.engine.packed import can_pack, pack_convolutions
from detector.nn.model import DetectionModel, HeadPreds

VALIDATION_CONF = 0.001
"""Minimum score in validation, unless `conf` says otherwise: precision over recall needs the unsure detections too."""


class Ready(Protocol):
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
    """

    device: torch.device
    precision: Precision
    names: dict[int, str]
    num_classes: int
    strides: tuple[int, ...]
    head: str
    nms: bool
    input_hw: tuple[int, int] | None

    def forward(self, images: Tensor) -> tuple[Tensor, Any]:
        """Run images, (B, 3, H, W) uint8 RGB or float in 0..1; returns predictions for `detect`, and raw ones."""
        ...

    def detect(self, preds: Tensor, params: NMSParams) -> list[Tensor]:
        """Reduce predictions to detections: for each image (n, 6)."""
        ...

    def threads(self) -> AbstractContextManager[None]:
        """Return a context for everything that is done for one batch: it may limit torch's threads."""
        ...


class Runner:
    """A fused copy of a network on a device, in a precision.

    Attributes:
        names: class id -> name.
        strides: strides of the output levels, px.
        nms: whether its detections need suppression (a one-to-many head does).

    Args:
        model: the network; left as it is.
        device: where to run the copy.
        precision: what it computes in.
        compile: run it through torch.compile.
        head: the head to run; None is the selected one.
    """

    def __init__(
        self,
        model: DetectionModel,
        device: torch.device,
        precision: Precision,
        compile: bool = False,
        head: str | None = None,
    ) -> None:
        self.device, self.precision = device, precision
        self.names = dict(model.names)
        self.num_classes = model.num_classes
        self.strides = tuple(model.strides)
        self.head = head or model.selected_head
        self.nms = self.head == "one2many"
        self.network = model.fuse(precision.dtype, self.head).to(device).to(memory_format=precision.layout)
        self.input_hw: tuple[int, int] | None = None
        if device.type == "cpu":
            keep_freed_memory()
            if not compile and can_pack(precision.dtype):
                pack_convolutions(self.network)
        self._run = make_run(self.network, self.head)
        if compile:
            self._run = compile_network(self._run)

    def threads(self) -> AbstractContextManager[None]:
        return nullcontext()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> tuple[Tensor, HeadPreds]:
        """Run the network.

        Args:
            images: (B, 3, H, W) uint8 RGB, or float in 0..1.

        Returns:
            (B, 4 + C, A) float cx, cy, w, h in input px and class probabilities; and the raw outputs.

        Raises:
            SettingsError: if it is to be compiled and can't be.
        """
        images = images.to(self.device, non_blocking=True)
        layout = self.precision.layout
        if images.dtype == torch.uint8:  # multiplied in float32: dividing takes five times as long
            images = images.to(torch.float32, memory_format=layout).mul_(1 / 255)
        images = images.to(self.precision.dtype or torch.float32, memory_format=layout)
        return self._run(images)

    @torch.inference_mode()
    def detect(self, preds: Tensor, params: NMSParams) -> list[Tensor]:
        """Reduce decoded predictions to detections.

        Returns:
            For each image (n, 6): x1, y1, x2, y2 in input px, confidence, class; most confident first.
        """
        return to_detections(preds, params, self.nms)


def make_run(network: DetectionModel, head: str) -> Callable[[Tensor], tuple[Tensor, HeadPreds]]:
    """Return a function from images, (B, 3, H, W) float, to decoded and raw predictions of a head."""

    def run(images: Tensor) -> tuple[Tensor, HeadPreds]:
        preds = network(images)[head]
        return network.decode(preds), preds

    return run


def to_image(
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
