"""Box formats, scaling, clipping, overlaps and the two ways from raw predictions to detections.

Boxes are float tensors whose last dimension is 4: `xyxy` (left, top, right, bottom) or
`cxcywh` (centre x, centre y, width, height).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-7  # keeps areas and sides from being divided by zero
MAX_CANDIDATES = 30_000  # (box, class) pairs of one image that enter suppression: bounds its quadratic time
GIANT = 1e5  # px; coordinates from here on need float64 when planes of classes are laid next to each other
MAX_COORDINATE = 1e9  # px; what lies outside is compared as if it lay there
MIN_PREFIX = 1024  # up to this many candidates are suppressed at once, unsorted
OBJECT, DIFFICULT, CROWD = 0, 1, 2
"""What a labelled box stands for: an object; one that evaluation ignores; a group of objects, which it ignores too."""


@dataclass(frozen=True)
class NMSParams:
    """How raw predictions are reduced to detections.

    Attributes:
        conf: keep scores above this.
        iou: suppress a box that overlaps a better one of its class by more than this; None ranks only, as the
            predictions of an NMS-free head need it.
        max_det: maximum detections per image; the best ones.
        agnostic: let boxes of different classes suppress each other; without suppression, only the best class of
            each anchor point.
        multi_label: every class of an anchor point above `conf` is a candidate, not only its best one (validation).
        classes: class ids to keep; None keeps all.
    """

    conf: float
    iou: float | None = 0.7
    max_det: int = 300
    agnostic: bool = False
    multi_label: bool = False
    classes: Sequence[int] | None = None


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Convert centre and size to corners.

    Args:
        boxes_cxcywh: (..., 4) float, any unit.

    Returns:
        (..., 4) float, xyxy, the same unit.
    """
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat((centre - half, centre + half), -1)


def clip_boxes(boxes_xyxy: Tensor, height: float, width: float) -> Tensor:
    """Move corners that lie outside the image onto its border.

    Args:
        boxes_xyxy: (..., 4) float, px.
        height: image height, px.
        width: image width, px.

    Returns:
        (..., 4) float, a new tensor.
    """
    return boxes_xyxy.clamp(min=0).minimum(boxes_xyxy.new_tensor((width, height, width, height)))


def scale_boxes(boxes_xyxy: Tensor, ratio: tuple[float, float], pad: tuple[float, float]) -> Tensor:
    """Map boxes from the letterboxed input back to the image.

    Args:
        boxes_xyxy: (..., 4) float, input px.
        ratio: input px per image px along x and along y.
        pad: left and top padding, input px.

    Returns:
        (..., 4) float, image px, not clipped.
    """
    offset = boxes_xyxy.new_tensor((*pad, *pad))
    return (boxes_xyxy - offset) / boxes_xyxy.new_tensor((*ratio, *ratio))


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every box of one set with every box of another.

    Args:
        a: (N, 4) float, xyxy.
        b: (M, 4) float, xyxy, the same unit.

    Returns:
        (N, M) float in [0, 1].
    """
    size = (torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])).clamp(min=0)
    overlap = size[..., 0] * size[..., 1]
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    return overlap / (area_a[:, None] + area_b - overlap + EPS)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes paired by broadcasting.

    Args:
        a: (..., 4) float, xyxy.
        b: (..., 4) float, xyxy, the same unit, broadcastable with `a`.

    Returns:
        (...) float.
    """
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    overlap = width * height
    area_a = (ax2 - ax1) * (ay2 - ay1 + EPS)
    area_b = (bx2 - bx1) * (by2 - by1 + EPS)
    return overlap / (area_a + area_b - overlap + EPS)


def aspect_angle(boxes_xyxy: Tensor) -> Tensor:
    """Angle of a box's diagonal, atan(width / height): what CIoU compares of two shapes.

    Args:
        boxes_xyxy: (..., 4) float.

    Returns:
        (...) float, radians.
    """
    x1, y1, x2, y2 = boxes_xyxy.unbind(-1)
    return torch.atan((x2 - x1) / (y2 - y1 + EPS))


def ciou(a: Tensor, b: Tensor, angle_a: Tensor | None = None, angle_b: Tensor | None = None) -> Tensor:
    """Complete IoU of boxes paired by broadcasting (Zheng et al. 2020, arXiv:1911.08287, eq. 10-12).

    IoU less the squared distance of the centres over the squared diagonal of the enclosing box, less a
    penalty on different aspect ratios whose weight is constant for the gradient.

    Args:
        a: (..., 4) float, xyxy.
        b: (..., 4) float, xyxy, the same unit, broadcastable with `a`.
        angle_a: `aspect_angle(a)` where the caller has it: far cheaper per box than per pair.
        angle_b: `aspect_angle(b)`.

    Returns:
        (...) float, at most 1; negative for distant boxes.
    """
    angle_a = aspect_angle(a) if angle_a is None else angle_a
    angle_b = aspect_angle(b) if angle_b is None else angle_b
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    overlap = iou(a, b)
    span_x = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    span_y = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    diagonal = span_x.square() + span_y.square() + EPS
    distance = ((ax1 + ax2 - bx1 - bx2).square() + (ay1 + ay2 - by1 - by2).square()) / 4
    shape = (4 / math.pi**2) * (angle_a - angle_b).square()
    with torch.no_grad():
        weight = shape / (shape - overlap + (1 + EPS))
    return overlap - (distance / diagonal + shape * weight)


def _wanted(classes: Sequence[int] | None, num_classes: int, device: torch.device) -> Tensor | None:
    """Mask (C,) of the classes to keep, None for all of them."""
    if classes is None:
        return None
    numbers = torch.arange(num_classes, device=device)
    return torch.isin(numbers, torch.tensor(list(classes), dtype=torch.int64, device=device))


def _candidates(preds: Tensor, conf: float, multi_label: bool, wanted: Tensor | None) -> Tensor:
    """Pick the (box, class) pairs of one image above `conf`.

    Args:
        preds: (4 + C, n) float, the image's anchors with any score above `conf`.

    Returns:
        (k, 6) x1, y1, x2, y2, score, label, with k <= MAX_CANDIDATES.
    """
    preds = preds if preds.dtype == torch.float64 else preds.float()
    if multi_label:
        passed = preds[4:] > conf
        passed = passed if wanted is None else passed & wanted[:, None]
        labels, anchors = passed.nonzero(as_tuple=True)
        boxes, scores = preds[:4, anchors], preds[labels + 4, anchors]
    else:
        boxes, (scores, labels) = preds[:4], preds[4:].max(0)
        if wanted is not None:
            (anchors,) = wanted[labels].nonzero(as_tuple=True)
            boxes, scores, labels = boxes[:, anchors], scores[anchors], labels[anchors]
    rows = torch.cat((cxcywh_to_xyxy(boxes.T), scores[:, None], labels[:, None]), 1)
    return rows if len(rows) <= MAX_CANDIDATES else rows[scores.topk(MAX_CANDIDATES).indices]


def _comparable(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return candidates and the boxes to compare them by, so that none spoils the comparison of the others.

    Boxes that are not finite are dropped. Among giant ones, float32 would not tell the planes of the classes apart.

    Args:
        rows: (k, 6) float, x1, y1, x2, y2 in input px, score, label.

    Returns:
        (k', 6) float, and (k', 4) of their boxes, float64 if there are giants.
    """
    boxes = rows[:, :4]
    if not len(rows) or bool(boxes.abs().amax() < GIANT):  # false for NaN
        return rows, boxes
    rows = rows[boxes.isfinite().all(1)]
    return rows, rows[:, :4].double().clamp(-MAX_COORDINATE, MAX_COORDINATE)


def _keep(boxes: Tensor, scores: Tensor, iou: float, max_det: int) -> Tensor:
    """Indices of the first `max_det` survivors of greedy suppression, best first.

    A box is judged by better ones only, so the survivors among the best n are the first survivors of
    all: a prefix is enough as soon as it yields `max_det`. Greedy suppression is quadratic, hence the gain.
    The first prefix leaves room for three boxes in four to be suppressed; where more are, it grows fourfold.
    """
    from torchvision.ops import nms

    size = max(MIN_PREFIX, 4 * max_det)
    if len(boxes) <= size:
        survivors: Tensor = nms(boxes, scores.to(boxes.dtype), iou)
        return survivors[:max_det]
    order = scores.argsort(descending=True, stable=True)
    boxes, scores = boxes[order], scores[order]
    while True:
        kept = nms(boxes[:size], scores[:size].to(boxes.dtype), iou)[:max_det]
        if len(kept) == max_det or size >= len(boxes):
            return order[kept]
        size *= 4


def non_max_suppression(preds: Tensor, params: NMSParams) -> list[Tensor]:
    """Turn decoded predictions into detections by greedy non-maximum suppression.

    An anchor point is dropped if its best class is not among `params.classes` (single label).

    Args:
        preds: (B, 4 + C, A) float, cxcywh in input px and C probabilities per anchor point.
        params: thresholds and limits; `iou` is a number.

    Returns:
        B tensors (n, 6) float32: x1, y1, x2, y2 in input px, score, label; best first. float64 if `preds` is.
    """
    assert params.iou is not None, "an NMS-free head: see nms_free_detections"
    wanted = _wanted(params.classes, preds.shape[1] - 4, preds.device)
    passed = preds[:, 4:].amax(1) > params.conf  # (B, A)
    detections = []
    for image_preds, image_passed in zip(preds, passed, strict=True):
        image_preds = image_preds[:, image_passed.nonzero().squeeze(1)]
        if not image_preds.shape[1]:  # nothing found: the rest would only take time
            detections.append(preds.new_zeros(0, 6, dtype=torch.promote_types(preds.dtype, torch.float32)))
            continue
        rows = _candidates(image_preds, params.conf, params.multi_label, wanted)
        rows, boxes = _comparable(rows)
        if not params.agnostic and len(rows):  # one plane per class, so that classes never touch
            boxes = boxes + rows[:, 5:] * (boxes.max() - boxes.min() + 1)
        detections.append(rows[_keep(boxes, rows[:, 4], params.iou, params.max_det)])
    return detections


def top_detections(preds: Tensor, max_det: int, agnostic: bool = False) -> Tensor:
    """Rank the predictions of an NMS-free head by two-stage top-k; static shapes, so it can be exported.

    First the `max_det` anchor points with the best class, then the best `max_det` of their scores: one
    anchor may give several classes (YOLOv10, arXiv:2405.14458).

    Args:
        preds: (B, 4 + C, A) float, cxcywh in input px and C probabilities per anchor point.
        max_det: rows wanted per image; fewer when A is smaller.
        agnostic: only the best class of each anchor point.

    Returns:
        (B, min(max_det, A), 6) float: x1, y1, x2, y2 in input px, score, label; best first.
    """
    num_classes, num_anchors = preds.shape[1] - 4, preds.shape[2]
    count = min(max_det, num_anchors)
    if agnostic:
        best, best_labels = preds[:, 4:].max(1)
        scores, anchors = best.topk(count)  # (B, k)
        labels = best_labels.gather(1, anchors)
    else:
        anchors = preds[:, 4:].amax(1).topk(count).indices
        pairs = (
            preds[:, 4:].gather(2, anchors[:, None].expand(-1, num_classes, -1)).transpose(1, 2).flatten(1)
        )
        scores, order = pairs.topk(count)  # (B, k) of k * C
        labels = order % num_classes
        anchors = anchors.gather(1, order // num_classes)
    boxes = preds[:, :4].gather(2, anchors[:, None].expand(-1, 4, -1)).transpose(1, 2)
    return torch.cat((cxcywh_to_xyxy(boxes), scores[..., None], labels[..., None].to(scores.dtype)), -1)


def nms_free_detections(preds: Tensor, params: NMSParams) -> list[Tensor]:
    """Turn the decoded predictions of an NMS-free head into detections.

    Args:
        preds: (B, 4 + C, A) float, cxcywh in input px and C probabilities per anchor point.
        params: thresholds and limits; `iou` and `multi_label` are not used.

    Returns:
        B tensors (n, 6) float32: x1, y1, x2, y2 in input px, score, label; best first. float64 if `preds` is.
    """
    preds = preds if preds.dtype == torch.float64 else preds.float()
    wanted = _wanted(params.classes, preds.shape[1] - 4, preds.device)
    if wanted is not None:
        scores = preds[:, 4:]
        if params.agnostic:  # the best class decides first, then whether it is wanted
            scores = scores.where(scores == scores.amax(1, keepdim=True), 0)
        preds = torch.cat((preds[:, :4], scores * wanted[:, None]), 1)
    rows = top_detections(preds, params.max_det, params.agnostic)
    wanted_rows = (rows[..., 4] > params.conf) & rows[..., :4].isfinite().all(-1)
    return [image_rows[image_wanted] for image_rows, image_wanted in zip(rows, wanted_rows, strict=True)]


def to_detections(preds: Tensor, params: NMSParams, nms: bool) -> list[Tensor]:
    """Turn decoded predictions into detections, by suppression or, for an NMS-free head, without it."""
    return non_max_suppression(preds, params) if nms else nms_free_detections(preds, params)
