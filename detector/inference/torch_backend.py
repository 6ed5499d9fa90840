"""A network made ready to run, and the way from its outputs to detections: shared by val and predict."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from detector.boxes import NMSParams, to_detections
from detector.device import Precision
from detector.inference.compiled import compile_network
from detector.inference.malloc import keep_freed_memory
from detector.inference.onednn import can_pack, pack_convolutions
from detector.nn.model import DetectionModel, HeadPreds

VALIDATION_CONF = 0.001
"""Minimum score in validation, unless `conf` says otherwise: precision over recall needs the unsure detections too."""


class TorchBackend:
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
        self.channels, self.value_range = model.channels, model.value_range
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
