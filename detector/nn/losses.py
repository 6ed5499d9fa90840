"""Training losses of single and dual heads.

Only the slots of the assignment carry box losses, so those are computed on M * k rows per image instead of
all anchor points. Nothing here synchronises with the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus

from detector.boxes import ciou
from detector.nn.assigner import Assignment, assign
from detector.nn.heads import HeadPreds, expected_distances
from detector.nn.model import DetectionModel

SumOverProcesses = Callable[[Tensor], Tensor]
"""Sums a tensor over the processes that share a batch."""

FIRST_O2M, LAST_O2M = 0.8, 0.1  # weight of the one-to-many loss in the first and in the last epoch


class Loss(Protocol):
    """What training and validation need of a loss, whatever the number of heads.

    Attributes:
        shared_sum: sums the target scores over the processes that share a training batch, by which the terms are
            divided; None in a training alone. The terms of all processes then add up to those of the whole batch.
    """

    shared_sum: SumOverProcesses | None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the L terms."""

    def __call__(
        self, preds: dict[str, HeadPreds], boxes: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the (L,) terms to minimise, not times the batch size, and the terms of every head."""

    def items(self, head: str, preds: HeadPreds, boxes: Tensor, labels: Tensor) -> Tensor:
        """Return the (L,) terms of one head."""

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Set the schedule to epoch 0, 1, ... of `epochs`."""


class DetectionLoss:
    """Loss of one head: box overlap, classification, and the distances' distribution or their L1 error.

    Args:
        num_classes: C.
        reg_max: R, bins per box side; 1 for plain distances, which take the L1 term.
        box: gain of the box term.
        cls: gain of the classification term.
        dfl: gain of the distribution or L1 term.
        class_weights: (C,) factors of the classes' classification loss.
        topk: maximum anchor points per box.
        topk2: as many of them are kept once conflicts are settled; None keeps all.
        min_side: `assign`'s minimum side of a box, px; the second stride.
    """

    def __init__(
        self,
        num_classes: int,
        reg_max: int,
        box: float = 7.5,
        cls: float = 0.5,
        dfl: float = 1.5,
        class_weights: Tensor | Sequence[float] | None = None,
        topk: int = 10,
        topk2: int | None = None,
        min_side: float = 16.0,
    ) -> None:
        self.num_classes = num_classes
        self.reg_max = reg_max
        self.gains = (box, cls, dfl)
        self.class_weights = (
            None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        )
        self.topk = topk
        self.topk2 = topk2
        self.min_side = min_side

    @property
    def names(self) -> tuple[str, ...]:
        return ("box_loss", "cls_loss", "dfl_loss" if self.reg_max > 1 else "l1_loss")

    def __call__(
        self, preds: HeadPreds, boxes: Tensor, labels: Tensor, shared_sum: SumOverProcesses | None = None
    ) -> Tensor:
        """Compute the three terms.

        Args:
            preds: raw predictions of the head.
            boxes: (B, M, 4) float, xyxy, input px.
            labels: (B, M) int64, -1 for padding.
            shared_sum: see `Loss`.

        Returns:
            (L,) float32, times the gains, not times the batch size.
        """
        assignment = self.assign(preds, boxes, labels)
        scores = assignment.scores.sum()
        total = (scores if shared_sum is None else shared_sum(scores)).clamp(min=1)
        box, distance = self._box_terms(preds, assignment, boxes)
        terms = (box, self._class_term(preds, assignment, labels), distance)
        return torch.stack([gain * term / total for gain, term in zip(self.gains, terms, strict=True)])

    @torch.no_grad()
    def assign(self, preds: HeadPreds, boxes: Tensor, labels: Tensor) -> Assignment:
        """Choose the anchor points that learn the boxes; arguments as for the call."""
        steps = preds.strides[:, None]
        raw = preds.boxes.transpose(1, 2).float()
        pred_boxes = _corners(preds.anchor_points, self._distances(raw)) * steps
        points = preds.anchor_points * steps
        return assign(preds.scores, pred_boxes, points, boxes, labels, self.topk, self.topk2, self.min_side)

    def _bins(self, raw: Tensor) -> Tensor:
        """Distances of the bins, (R,), cells."""
        return torch.arange(self.reg_max, device=raw.device, dtype=raw.dtype)

    def _distances(self, raw: Tensor) -> Tensor:
        """Distances (B, N, 4) in cells from raw predictions (B, N, 4 R)."""
        return expected_distances(raw, self._bins(raw)) if self.reg_max > 1 else raw

    def _class_term(self, preds: HeadPreds, assignment: Assignment, labels: Tensor) -> Tensor:
        """Sum of binary cross entropies: softplus(x) for every logit less x * target for the positive ones."""
        logits = preds.scores.transpose(1, 2).float()  # (B, A, C)
        slot_labels = labels.clamp(min=0).gather(1, assignment.gts)
        positive = logits.flatten(1).gather(1, assignment.anchors * self.num_classes + slot_labels)
        if self.class_weights is None:
            return softplus(logits).sum() - (positive * assignment.scores).sum()
        weights = self.class_weights = self.class_weights.to(logits.device)
        background = (softplus(logits) * weights).sum()
        return background - (positive * assignment.scores * weights[slot_labels]).sum()

    def _box_terms(self, preds: HeadPreds, assignment: Assignment, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of 1 - CIoU and of the distance loss over the slots, weighted by their target scores."""
        raw = _rows(preds.boxes.transpose(1, 2), assignment.anchors).float()  # (B, S, 4 R)
        points, steps = preds.anchor_points[assignment.anchors], preds.strides[assignment.anchors][..., None]
        targets = _rows(boxes.float(), assignment.gts) / steps  # (B, S, 4) xyxy, cells
        wanted = torch.cat(
            (points - targets[..., :2], targets[..., 2:] - points), -1
        )  # left top right bottom
        distances = self._distances(raw)
        overlap = ciou(_corners(points, distances), targets)
        if self.reg_max > 1:
            error = _distribution_loss(raw, wanted, self._bins(raw))
        else:
            size = (preds.anchor_points + 0.5).mul(preds.strides[:, None]).amax(0).repeat(2)  # W H W H, px
            error = ((distances - wanted) * steps / size).abs().mean(-1)
        return ((1 - overlap) * assignment.scores).sum(), (error * assignment.scores).sum()


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Gather rows: (B, N, D) at (B, S) gives (B, S, D)."""
    batch, count, width = values.shape
    flat = index + torch.arange(batch, device=index.device)[:, None] * count
    return values.reshape(-1, width).index_select(0, flat.flatten()).view(batch, index.shape[1], width)


def _corners(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes xyxy from points (..., 2) and their distances left, top, right, bottom (..., 4)."""
    near, far = distances.chunk(2, -1)
    return torch.cat((points - near, points + far), -1)


def _distribution_loss(raw: Tensor, wanted: Tensor, bins: Tensor) -> Tensor:
    """Distribution focal loss, mean over the sides (generalised focal loss, arXiv:2006.04388, eq. 6).

    The two bins next to the target share its probability linearly, which is a hat of width 1 around it. A target
    at or beyond the last bin is put 0.01 before it, so that two bins share it like any other.

    Args:
        raw: (B, S, 4 R) float logits.
        wanted: (B, S, 4) float distances, cells; clipped to the bins.
        bins: (R,) float, distances of the bins, cells.

    Returns:
        (B, S) float.
    """
    shares = 1 - (wanted.clamp(0, len(bins) - 1 - 0.01)[..., None] - bins).abs()  # (B, S, 4, R)
    return -(raw.view(*shares.shape).log_softmax(-1) * shares.clamp(min=0)).sum(-1).mean(-1)


class SingleHeadLoss:
    """`DetectionLoss` of the one-to-many head, with the common interface.

    Args:
        one2many: the head's loss.
    """

    def __init__(self, one2many: DetectionLoss) -> None:
        self.shared_sum: SumOverProcesses | None = None
        self.one2many = one2many

    @property
    def names(self) -> tuple[str, ...]:
        return self.one2many.names

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Nothing changes over the epochs."""

    def items(self, head: str, preds: HeadPreds, boxes: Tensor, labels: Tensor) -> Tensor:
        """Return the (L,) terms of the only head, "one2many"."""
        assert head == "one2many", head
        return self.one2many(preds, boxes, labels)

    def __call__(
        self, preds: dict[str, HeadPreds], boxes: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the terms.

        Args:
            preds: raw predictions by head name.
            boxes: (B, M, 4) float, xyxy, input px.
            labels: (B, M) int64, -1 for padding.

        Returns:
            (L,) terms to minimise, not times the batch size, and the same by head name.
        """
        terms = self.one2many(preds["one2many"], boxes, labels, self.shared_sum)
        return terms, {"one2many": terms}


class DualHeadLoss:
    """Weighted sum of a one-to-many and a one-to-one loss whose weights move from the first to the second.

    Both heads learn the same boxes, each through its own assignment (YOLOv10, arXiv:2405.14458, section 3.1).
    Backbone and neck learn from the one-to-many loss alone, so that its falling weight slows them down too:
    a network that will be run with that head is better off without (measured in docs/benchmarks.md).

    Args:
        one2many: loss of the one-to-many head.
        one2one: loss of the one-to-one head.
        keep_one2many: leave the weight of the one-to-many loss at its first value.
    """

    def __init__(self, one2many: DetectionLoss, one2one: DetectionLoss, keep_one2many: bool = False) -> None:
        self.shared_sum: SumOverProcesses | None = None
        self.losses = {"one2many": one2many, "one2one": one2one}
        self.keep_one2many = keep_one2many
        self.weights = {"one2many": FIRST_O2M, "one2one": 1 - FIRST_O2M}

    @property
    def names(self) -> tuple[str, ...]:
        return self.losses["one2one"].names

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Set the weights: linear over the epochs, from 0.8 one-to-many to 0.1 and from 0.2 one-to-one to 0.9.

        Args:
            epoch: 0 for the first.
            epochs: how many there are.
        """
        left = max(0.0, 1 - epoch / max(epochs - 1, 1))
        one2many = LAST_O2M + (FIRST_O2M - LAST_O2M) * left
        self.weights = {"one2many": FIRST_O2M if self.keep_one2many else one2many, "one2one": 1 - one2many}

    def items(self, head: str, preds: HeadPreds, boxes: Tensor, labels: Tensor) -> Tensor:
        """Return the (L,) unweighted terms of one head, "one2many" or "one2one"."""
        return self.losses[head](preds, boxes, labels)

    def __call__(
        self, preds: dict[str, HeadPreds], boxes: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the terms of both heads.

        Args:
            preds: raw predictions by head name.
            boxes: (B, M, 4) float, xyxy, input px.
            labels: (B, M) int64, -1 for padding.

        Returns:
            (L,) weighted terms to minimise, not times the batch size, and every head's unweighted ones.
        """
        items = {
            head: loss(preds[head], boxes, labels, self.shared_sum) for head, loss in self.losses.items()
        }
        total = self.weights["one2many"] * items["one2many"] + self.weights["one2one"] * items["one2one"]
        return total, items


def build_loss(
    model: DetectionModel,
    box: float = 7.5,
    cls: float = 0.5,
    dfl: float = 1.5,
    class_weights: Tensor | Sequence[float] | None = None,
) -> SingleHeadLoss | DualHeadLoss:
    """Build the loss that fits a network's heads, and of two heads the one that is selected.

    Args:
        model: the network, not fused.
        box: gain of the box term.
        cls: gain of the classification term.
        dfl: gain of the distribution or L1 term.
        class_weights: (C,) factors of the classes' classification loss.
    """

    def head_loss(topk: int, topk2: int | None = None) -> DetectionLoss:
        min_side = float(model.strides[min(1, len(model.strides) - 1)])
        gains = (box, cls, dfl, class_weights)
        return DetectionLoss(model.num_classes, model.reg_max, *gains, topk, topk2, min_side)

    if model.dual_head:
        # one anchor point per box, the best of seven candidates; ten for the head with suppression
        return DualHeadLoss(head_loss(10), head_loss(7, topk2=1), model.selected_head == "one2many")
    return SingleHeadLoss(head_loss(10))
