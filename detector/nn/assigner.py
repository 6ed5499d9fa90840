"""Task-aligned assignment of ground truths to anchor points (TOOD, arXiv:2108.07755, section 3.2).

All shapes follow from the padded inputs, so nothing synchronises with the device. A ground truth gets at most k
anchor points, hence the result has M * k slots per image instead of a row for every anchor point.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from detector.boxes import EPS, aspect_angle

METRIC_EPS = 1e-9  # against division by 0; and an anchor point on the border of a box is not inside it
PAIRS_ON_CPU = 2**17  # (box, anchor point) pairs worked on at once: they stay in the cache
PAIRS_ON_ACCELERATOR = 2**24  # few kernels, well below 1 GB


class Assignment(NamedTuple):
    """Which anchor points learn which ground truths, in S = M * k slots per image.

    Attributes:
        anchors: (B, S) int64, anchor point of the slot.
        gts: (B, S) int64, ground truth it learns.
        scores: (B, S) float32, target of the class probability; 0 in an unused slot. No anchor point has more
            than one used slot.
    """

    anchors: Tensor
    gts: Tensor
    scores: Tensor


@torch.no_grad()
def assign(
    scores: Tensor,
    pred_boxes: Tensor,
    anchor_points: Tensor,
    boxes: Tensor,
    labels: Tensor,
    topk: int = 10,
    topk2: int | None = None,
    min_side: float = 16.0,
    pairs: int | None = None,
) -> Assignment:
    """Choose positive anchor points and their target scores.

    An anchor point inside a box has the metric p^0.5 * u^6 for it (TOOD eq. 3 with alpha = 0.5, beta = 6): p is
    the predicted probability of the box's class, u the CIoU of box and prediction. Every box takes its `topk` best
    anchor points; one that several take goes to the box it overlaps most. The targets of a box are its metrics,
    scaled so that the largest equals its largest overlap. An anchor point of metric 0 is never taken.

    Args:
        scores: (B, C, A) float, class logits.
        pred_boxes: (B, A, 4) float, xyxy, input px.
        anchor_points: (A, 2) float, input px.
        boxes: (B, M, 4) float, xyxy, input px.
        labels: (B, M) int64, -1 for padding.
        topk: k, maximum anchor points per box.
        topk2: keep only this many of them per box once conflicts are settled; 1 makes the match one-to-one.
        min_side: shorter sides count as this long in the test of lying inside, so that boxes smaller than a
            cell find anchor points too, px.
        pairs: (box, anchor point) pairs worked on at once, by default as suits the device. The result does not
            depend on it.
    """
    batch, num_classes, num_anchors = scores.shape
    pairs = pairs or (PAIRS_ON_CPU if scores.device.type == "cpu" else PAIRS_ON_ACCELERATOR)
    confidence = scores.float().sigmoid().contiguous().sqrt_().view(-1, num_anchors)  # (B * C, A)
    rows = labels.clamp(min=0) + torch.arange(batch, device=labels.device)[:, None] * num_classes  # (B, M)
    taken = _select_candidates(
        confidence,
        rows,
        pred_boxes.float(),
        anchor_points.float(),
        boxes.float(),
        _inside_limits(boxes.float(), labels, min_side),
        min(topk, num_anchors),
        max(1, pairs // max(1, batch * num_anchors)),
    )
    return _resolve_conflicts(taken, confidence, rows, topk2)


class _Taken(NamedTuple):
    """What every box takes, and the box that overlaps every anchor point most."""

    anchors: Tensor  # (B, M, k)
    metrics: Tensor  # (B, M, k)
    overlaps: Tensor  # (B, M, k)
    best_gts: Tensor  # (B, A)
    best_overlaps: Tensor  # (B, A)


class _Shapes(NamedTuple):
    """Boxes taken apart for pairwise work, each (B, 1, A) or (B, M, 1)."""

    x1: Tensor
    y1: Tensor
    x2: Tensor
    y2: Tensor
    width: Tensor
    height: Tensor
    area: Tensor
    x: Tensor
    y: Tensor
    angle: Tensor

    @classmethod
    def of(cls, boxes: Tensor, dim: int) -> _Shapes:
        """Take (B, n, 4) boxes apart, with a new dimension `dim` to pair along."""
        x1, y1, x2, y2 = (side.contiguous() for side in boxes.unbind(-1))
        angle = aspect_angle(boxes) * (2 / math.pi)
        parts = (
            x1,
            y1,
            x2,
            y2,
            x2 - x1,
            y2 - y1,
            (x2 - x1) * (y2 - y1 + EPS),
            (x1 + x2) / 2,
            (y1 + y2) / 2,
            angle,
        )
        return cls(*(part.unsqueeze(dim) for part in parts))


def _inside_limits(boxes: Tensor, labels: Tensor, min_side: float) -> Tensor:
    """Boxes grown to `min_side` about their centres; padding such that nothing lies inside: (B, M, 4)."""
    missing = (min_side - (boxes[..., 2:] - boxes[..., :2])).clamp(min=0) / 2
    near = (boxes[..., :2] - missing).masked_fill(labels[..., None] < 0, math.inf)
    return torch.cat((near, boxes[..., 2:] + missing), -1)


def _select_candidates(
    confidence: Tensor,
    rows: Tensor,
    pred_boxes: Tensor,
    anchor_points: Tensor,
    boxes: Tensor,
    limits: Tensor,
    topk: int,
    step: int,
) -> _Taken:
    """Let every box take anchor points, `step` boxes of all images at a time.

    The pairwise tensors are built in place in a few buffers: on a CPU they stay in the cache, which makes this
    several times faster than whole (B, M, A) tensors, and memory is bounded on any device.
    """
    batch, num_boxes, num_anchors = *rows.shape, len(anchor_points)
    shape = (batch, num_boxes, topk)
    taken = _Taken(
        rows.new_zeros(shape),
        boxes.new_zeros(shape),
        boxes.new_zeros(shape),
        rows.new_zeros(batch, num_anchors),
        boxes.new_full((batch, num_anchors), -1.0),
    )
    preds, gts = _Shapes.of(pred_boxes, 1), _Shapes.of(boxes, 2)
    x, y = anchor_points.T.contiguous()
    buffers = [boxes.new_empty(batch * step * num_anchors) for _ in range(4)]
    for start in range(0, num_boxes, step):
        part = slice(start, min(start + step, num_boxes))
        shape = (batch, part.stop - start, num_anchors)
        overlaps, *work = (buffer[: math.prod(shape)].view(shape) for buffer in buffers)
        _overlap(preds, _Shapes(*(value[:, part] for value in gts)), overlaps, *work)
        overlaps.mul_(_inside(x, y, limits[:, part], *work))
        metrics = torch.mul(overlaps, overlaps, out=work[0]).mul_(overlaps)
        metrics.mul_(metrics).mul_(confidence.index_select(0, rows[:, part].flatten()).view(shape))
        best_metrics, anchors = metrics.topk(topk, -1, sorted=False)
        taken.metrics[:, part], taken.anchors[:, part] = best_metrics, anchors
        taken.overlaps[:, part] = overlaps.gather(2, anchors)
        best_overlaps, best_gts = overlaps.max(1)
        better = best_overlaps > taken.best_overlaps
        torch.where(better, best_gts + start, taken.best_gts, out=taken.best_gts)
        torch.maximum(best_overlaps, taken.best_overlaps, out=taken.best_overlaps)
    return taken


def _overlap(a: _Shapes, b: _Shapes, out: Tensor, t: Tensor, u: Tensor, v: Tensor) -> None:
    """Write max(0, CIoU) of all pairs to `out`: `boxes.ciou` with everything of one box alone done before.

    The enclosing span is width + width - (unclamped) intersection.
    """
    torch.minimum(a.x2, b.x2, out=out).sub_(torch.maximum(a.x1, b.x1, out=t))
    torch.minimum(a.y2, b.y2, out=u).sub_(torch.maximum(a.y1, b.y1, out=t))
    torch.add(a.width, b.width, out=t).sub_(out).square_()
    torch.add(a.height, b.height, out=v).sub_(u)
    t.addcmul_(v, v).add_(EPS)  # squared diagonal of the enclosing box
    torch.mul(out.clamp_(min=0), u.clamp_(min=0), out=out)
    out.div_(torch.add(a.area, b.area, out=u).sub_(out).add_(EPS))  # IoU
    torch.sub(a.x, b.x, out=u).square_()
    torch.sub(a.y, b.y, out=v)
    u.addcmul_(v, v).div_(t)  # squared distance of the centres
    torch.sub(a.angle, b.angle, out=t).square_()
    torch.sub(t, out, out=v).add_(1 + EPS)
    out.sub_(u).sub_(t.square_().div_(v)).clamp_(min=0)


def _inside(x: Tensor, y: Tensor, limits: Tensor, t: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return 1 for anchor points inside the limits and 0 for others, written to `t`."""
    x1, y1, x2, y2 = limits.unsqueeze(-1).unbind(2)
    torch.minimum(torch.sub(x, x1, out=t), torch.sub(x2, x, out=u), out=t)
    torch.minimum(torch.sub(y, y1, out=u), torch.sub(y2, y, out=v), out=u)
    return torch.minimum(t, u, out=t).gt_(METRIC_EPS)


def _resolve_conflicts(taken: _Taken, confidence: Tensor, rows: Tensor, topk2: int | None) -> Assignment:
    """Leave every anchor point to one box, and scale the metrics to target scores.

    The slots of one anchor point are alike after the conflict; the first of them is used.
    """
    batch, num_boxes, topk = taken.anchors.shape
    num_anchors = taken.best_gts.shape[1]
    anchors, metrics, overlaps = (value.flatten(1) for value in taken[:3])  # (B, S)
    slots = torch.arange(num_boxes * topk, device=anchors.device).expand_as(anchors)
    gts = slots // max(topk, 1)
    used = metrics > 0
    takers = anchors.new_zeros(batch, num_anchors).scatter_add_(1, anchors, used.long())
    contested = takers.gather(1, anchors) > 1
    gts = torch.where(contested, taken.best_gts.gather(1, anchors), gts)
    overlaps = torch.where(contested, taken.best_overlaps.gather(1, anchors), overlaps)
    confidence = confidence.view(-1)[rows.gather(1, gts) * num_anchors + anchors]
    metrics = torch.where(contested, overlaps.pow(6) * confidence, metrics)
    used = used & (_first_slot(anchors, slots, used, num_anchors) == slots)
    if topk2 is not None:
        used = _keep_best(metrics, gts, slots, used, num_boxes, topk2)
    metrics, overlaps = metrics * used, overlaps * used
    most_metric = _largest(metrics, gts, num_boxes)
    most_overlap = _largest(overlaps, gts, num_boxes)
    return Assignment(anchors, gts, metrics * most_overlap / (most_metric + METRIC_EPS))


def _largest(values: Tensor, gts: Tensor, num_boxes: int) -> Tensor:
    """For every slot (B, S) the largest value, at least 0, among the slots of the same ground truth."""
    largest = values.new_zeros(len(values), num_boxes).scatter_reduce_(1, gts, values, "amax")
    return largest.gather(1, gts)


def _first_slot(index: Tensor, slots: Tensor, used: Tensor, count: int) -> Tensor:
    """For every slot (B, S) the first used slot with the same index below `count`."""
    unused = slots.shape[1]
    first = slots.new_full((len(slots), count), unused)
    return first.scatter_reduce_(1, index, slots.masked_fill(~used, unused), "amin").gather(1, index)


def _keep_best(
    metrics: Tensor, gts: Tensor, slots: Tensor, used: Tensor, num_boxes: int, count: int
) -> Tensor:
    """Mask (B, S) of the `count` used slots of largest metric for every ground truth, the first among equals."""
    kept = torch.zeros_like(used)
    for _ in range(count):
        left = metrics * (used & ~kept)
        best = (left == _largest(left, gts, num_boxes)) & used & ~kept
        kept = kept | (best & (_first_slot(gts, slots, best, num_boxes) == slots))
    return kept
