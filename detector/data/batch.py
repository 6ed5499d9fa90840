"""What the loaders hand to the engines: one batch of images with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass
class Batch:
    """A batch of images and their ground truth, padded to the largest count M >= 1 of the batch.

    Attributes:
        images: (B, 3, H, W) uint8, RGB, or (B, 1, H, W), grey.
        boxes: (B, M, 4) float32, xyxy, input px, zeros where padded.
        labels: (B, M) int64, -1 where padded.
        paths: file of each image (of the first one of a mosaic).
        indices: position of each image in the annotations.
        ratios: (B, 2) float32, input px per image px along x and y; 1 for augmented images.
        pads: (B, 2) float32, left and top padding, input px; 0 for augmented images.
        sizes: (B, 2) int64, height and width of each image file, image px.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    paths: list[str]
    indices: list[int]
    ratios: Tensor
    pads: Tensor
    sizes: Tensor

    def __len__(self) -> int:
        return len(self.paths)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Copy the tensors to a device; paths and indices are shared."""
        return replace(self, **{k: v.to(device, non_blocking=non_blocking) for k, v in self._tensors()})

    def pin_memory(self) -> Batch:
        """Copy the tensors to page-locked memory, from which a GPU reads without waiting."""
        return replace(self, **{k: v.pin_memory() for k, v in self._tensors()})

    def _tensors(self) -> list[tuple[str, Any]]:
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return [(name, value) for name, value in pairs if isinstance(value, Tensor)]


@dataclass(frozen=True)
class Target:
    """Everything a batch holds for one image, except the pixels.

    Attributes:
        boxes: (N, 4) float32, xyxy, input px.
        labels: (N,) int64.
        path: the image file.
        index: position in the annotations.
        ratio: input px per image px along x and y.
        pad: left and top padding, input px.
        size: height and width of the file, image px.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    path: str
    index: int
    ratio: tuple[float, float]
    pad: tuple[float, float]
    size: tuple[int, int]


@dataclass(frozen=True)
class Sample:
    """One image of (C, H, W) uint8 and its target."""

    image: Tensor
    target: Target


def collate(samples: Sequence[Sample]) -> Batch:
    """Join samples whose images have one shape."""
    return assemble(torch.stack([sample.image for sample in samples]), [sample.target for sample in samples])


def assemble(images: Tensor, targets: Sequence[Target]) -> Batch:
    """Join a (B, C, H, W) uint8 tensor of images and the B targets, padding the boxes."""
    largest = max(1, *(len(target.labels) for target in targets))
    boxes = np.zeros((len(targets), largest, 4), np.float32)
    labels = np.full((len(targets), largest), -1, np.int64)
    for row, target in enumerate(targets):
        boxes[row, : len(target.labels)] = target.boxes
        labels[row, : len(target.labels)] = target.labels
    return Batch(
        images=images,
        boxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(labels),
        paths=[target.path for target in targets],
        indices=[target.index for target in targets],
        ratios=torch.tensor([target.ratio for target in targets], dtype=torch.float32),
        pads=torch.tensor([target.pad for target in targets], dtype=torch.float32),
        sizes=torch.tensor([target.size for target in targets], dtype=torch.int64),
    )
