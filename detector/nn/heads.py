"""The detection head: raw distances and class logits for every anchor point, and their decoding."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import lru_cache
from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detector.nn.blocks import Conv, DWConv

BRANCHES = {"one2many": ("cv2", "cv3"), "one2one": ("one2one_cv2", "one2one_cv3")}


class HeadPreds(NamedTuple):
    """Raw predictions of one head; levels concatenated from fine to coarse, each row by row.

    Attributes:
        boxes: (B, 4 * R, A) float, R bins or one distance in cells for left, then top, right, bottom.
        scores: (B, C, A) float, class logits.
        anchor_points: (A, 2) float, x and y of the cell centres, cells.
        strides: (A,) float, input px per cell.
    """

    boxes: Tensor
    scores: Tensor
    anchor_points: Tensor
    strides: Tensor


class OutputConv(nn.Conv2d):
    """Plain 1x1 convolution that ends a branch; stays out of autocast.

    Raw distances times the stride are pixels: the eight bits of bfloat16 would cost several of them.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve in the dtype of the weight, whatever the autocast state."""
        with without_autocast(x):
            return super().forward(x.to(self.weight.dtype))


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Return a context in which the operations on `x` keep its dtype."""
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def expected_distances(boxes: Tensor, bins: Tensor) -> Tensor:
    """Reduce a distribution over bins to its mean (generalised focal loss, arXiv:2006.04388, eq. 5).

    Args:
        boxes: (B, N, 4 * R) float, logits.
        bins: (R,) float, distance of each bin, cells.

    Returns:
        (B, N, 4) float, cells.
    """
    distribution: Tensor = boxes.unflatten(-1, (4, -1)).softmax(-1)  # type: ignore[no-untyped-call]
    with without_autocast(boxes):
        return (distribution @ bins[:, None]).squeeze(-1)  # by a vector ONNX Runtime would go row by row


class DFL(nn.Module):
    """Keeps the distances of the bins, 0 .. bins - 1 cells, under the name that checkpoints use.

    Args:
        bins: number of bins.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(bins, 1, 1, bias=False).requires_grad_(False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.arange(bins).view(1, bins, 1, 1))

    def forward(self, boxes: Tensor) -> Tensor:
        """Apply `expected_distances`, (B, A, 4 * R) to (B, A, 4)."""
        return expected_distances(boxes, self.conv.weight.flatten().to(boxes.dtype))


def make_anchors(features: list[Tensor], strides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Centres of all cells.

    In inference mode those of the last few input sizes are remembered; they are not to be changed.

    Args:
        features: (B, channels, H, W) per level; only their shape and device are read.
        strides: input px per cell of each level.

    Returns:
        anchor_points (A, 2) float32 in cells, strides (A,) float32 in px; float64 for float64 features.
    """
    dtype = torch.promote_types(features[0].dtype, torch.float32)
    sizes = tuple((feature.shape[2], feature.shape[3]) for feature in features)
    remember = not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()
    centres = remembered_centres if remember else cell_centres
    return centres(sizes, strides, dtype, features[0].device)


def cell_centres(
    sizes: tuple[tuple[int, int], ...], strides: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Compute what `make_anchors` returns, for levels of these numbers of rows and columns."""
    points, steps = [], []
    for (height, width), stride in zip(sizes, strides, strict=True):
        x = torch.arange(width, device=device, dtype=dtype) + 0.5
        y = torch.arange(height, device=device, dtype=dtype) + 0.5
        points.append(
            torch.stack((x.expand(height, width), y[:, None].expand(height, width)), -1).flatten(0, 1)
        )
        steps.append(x.new_full((height * width,), stride))
    return torch.cat(points), torch.cat(steps)


remembered_centres = lru_cache(maxsize=16)(cell_centres)


class Detect(nn.Module):
    """Decoupled box and class branches on every level; a second copy of both when `dual_head`.

    In training the one-to-one copy reads detached features (YOLOv10, arXiv:2405.14458, section 3.1, with
    the gradient of the one-to-one head kept out of the backbone).

    Args:
        channels: channels of each level, fine to coarse.
        strides: input px per cell of each level.
        num_classes: C.
        reg_max: R, bins per side; 1 predicts the distance itself.
        dual_head: add the one-to-one branches.
        depthwise: build the class branch of depthwise and 1x1 convolutions instead of 3x3 ones.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        num_classes: int,
        reg_max: int,
        dual_head: bool,
        depthwise: bool,
    ) -> None:
        super().__init__()
        self.strides = strides
        self.reg_max = reg_max
        # no branch is narrower than its outputs; the class branch follows the classes up to 100 only
        box_width = max(16, channels[0] // 4, 4 * reg_max)
        class_width = max(channels[0], min(num_classes, 100))
        class_branch = _depthwise_branch if depthwise else _plain_branch
        self.cv2 = nn.ModuleList(_plain_branch(c, box_width, 4 * reg_max) for c in channels)
        self.cv3 = nn.ModuleList(class_branch(c, class_width, num_classes) for c in channels)
        self._set_biases(num_classes)
        self.dfl = DFL(reg_max) if reg_max > 1 else nn.Identity()
        if dual_head:
            self.one2one_cv2 = deepcopy(self.cv2)
            self.one2one_cv3 = deepcopy(self.cv3)
        self.selected = "one2many"

    def _set_biases(self, num_classes: int) -> None:
        """Start from about five objects of any class per level of a 640 px image, and from distances of two cells.

        The first is the prior of the focal loss (arXiv:1708.02002, section 3.3): with the usual bias of 0 the many
        empty anchor points would drown the first steps. log(p) stands for logit(p), which it equals for small p. The
        second holds where a branch gives the distance itself; over bins an equal bias says nothing.
        """
        for box, classes, stride in zip(self.cv2, self.cv3, self.strides, strict=True):
            nn.init.constant_(box[-1].bias, 2.0)  # type: ignore[index]
            nn.init.constant_(classes[-1].bias, log(5 / num_classes / (640 / stride) ** 2))  # type: ignore[index]

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads present: "one2many", "one2one" or both."""
        return tuple(name for name, (box, _) in BRANCHES.items() if hasattr(self, box))

    def drop_other_heads(self) -> None:
        """Remove the branches of the head that is not selected."""
        for name in self.heads:
            if name != self.selected:
                for branch in BRANCHES[name]:
                    delattr(self, branch)

    def forward(self, features: list[Tensor]) -> dict[str, HeadPreds]:
        """Predict with every head in training, with the selected one otherwise.

        Args:
            features: (B, channels, H, W) float per level.

        Returns:
            Head name to raw predictions.
        """
        anchors = make_anchors(features, self.strides)
        names = self.heads if self.training else (self.selected,)
        preds = {}
        for name in names:
            inputs = [feature.detach() for feature in features] if name == "one2one" else features
            boxes, scores = (_run(getattr(self, branch), inputs) for branch in BRANCHES[name])
            preds[name] = HeadPreds(boxes, scores, *anchors)
        return preds

    def decode(self, preds: HeadPreds) -> Tensor:
        """Turn raw predictions into boxes and probabilities.

        Args:
            preds: what `forward` gave for one head.

        Returns:
            (B, 4 + C, A) at least float32: cx, cy, w, h in input px, then C probabilities.
        """
        dtype = torch.promote_types(preds.boxes.dtype, torch.float32)
        boxes, scores = (value.transpose(1, 2).to(dtype) for value in preds[:2])  # (B, A, 4 R), (B, A, C)
        near, far = self.dfl(boxes).chunk(2, -1)  # (B, A, 2): left and top, right and bottom
        strides = preds.strides[:, None]
        centre = (preds.anchor_points + (far - near) / 2) * strides
        return torch.cat((centre, (near + far) * strides, scores.sigmoid()), -1).transpose(1, 2)


def _plain_branch(channels: int, width: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions and the output."""
    return nn.Sequential(Conv(channels, width, 3), Conv(width, width, 3), OutputConv(width, outputs))


def _depthwise_branch(channels: int, width: int, outputs: int) -> nn.Sequential:
    """Two pairs of a depthwise 3x3 and a 1x1 convolution, and the output."""
    return nn.Sequential(
        nn.Sequential(DWConv(channels, channels, 3), Conv(channels, width)),
        nn.Sequential(DWConv(width, width, 3), Conv(width, width)),
        OutputConv(width, outputs),
    )


def _run(branches: nn.ModuleList, features: list[Tensor]) -> Tensor:
    """Apply a branch per level and join the cells: (B, outputs, A).

    Joined channels-last and returned transposed: for channels-last features that copies whole rows, and the
    losses read all outputs of an anchor point together.
    """
    maps = (branch(feature) for branch, feature in zip(branches, features, strict=True))
    return torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1).transpose(1, 2)
