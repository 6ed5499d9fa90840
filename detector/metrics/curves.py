"""Matching detections with labels, and the curves and the confusion matrix that follow from it.

Arrays only, no per-box loops. The matching is COCO's: the detections of a class take turns, highest score
first, and each takes the unclaimed label it overlaps best.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.tables import rows_to_csv, rows_to_df

Array = NDArray[np.float64]
Index = NDArray[np.int64]

CONFIDENCES = 1000  # points of the curves over confidence
RECALL_POINTS = 101  # of a precision-recall curve, as COCO has them
SMOOTHING = 101  # points of the box filter applied to the mean F1 before its maximum is looked for
CONFUSION_CONF = 0.25  # below this a detection is not shown to a user
CONFUSION_IOU = 0.45  # lower than for the curves: a loose box still shows which class was seen
CURVE_IOU = 0.5  # overlap that counts as found in all curves


def to_xywh(boxes_xyxy: Array) -> Array:
    """Turn (N, 4) corners into top left corner, width and height."""
    return np.concatenate([boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], axis=1)


def overlaps(boxes_a: Array, boxes_b: Array) -> Array:
    """Compute the IoU of every pair as COCO does: float64, no epsilon.

    Args:
        boxes_a: (N, 4) x, y, width, height (top left corner), any unit.
        boxes_b: (M, 4) likewise.

    Returns:
        (N, M) IoU, 0 where two boxes do not touch.
    """
    a, b = boxes_a[:, None], boxes_b[None]
    sides = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.where((sides > 0).all(-1), sides[..., 0] * sides[..., 1], 0.0)  # (N, M)
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def match(detection: Index, label: Index, iou: Array) -> tuple[Index, Index]:
    """Let detections claim labels one after another, each the best one still free.

    The turn-taking is computed as deferred acceptance (Gale and Shapley, 1962): all detections propose to
    their best label at once, a label keeps the proposer whose turn comes first, the others try their next
    best. As all labels prefer the earlier turn, the outcome is the one of taking turns.

    Args:
        detection: (P,) detection of each candidate pair, numbered in the order of their turns (by score).
        label: (P,) label of each pair.
        iou: (P,) overlap of each pair. Of equal overlaps the label with the higher number is preferred.

    Returns:
        The matched detections and their labels, both (Q,), in the order of turns.
    """
    order = np.lexsort((-label, -iou, detection))
    detection, label = detection[order], label[order]
    while True:
        _, proposals = np.unique(detection, return_index=True)  # the best remaining pair of each detection
        _, kept = np.unique(label[proposals], return_index=True)  # the earliest turn at each label
        if len(kept) == len(proposals):
            return detection[proposals], label[proposals]
        refused = np.delete(proposals, kept)
        detection, label = np.delete(detection, refused), np.delete(label, refused)


def best_of_groups(groups: Index, limit: int) -> NDArray[np.bool_]:
    """Mark the first `limit` members of every group.

    Args:
        groups: (N,) group of each member, best member first.
        limit: members to keep per group.

    Returns:
        (N,) whether the member is among the first of its group.
    """
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    rank = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
    kept = np.empty(len(groups), bool)
    kept[order] = rank < limit
    return kept


@dataclass(frozen=True)
class Curves:
    """Precision, recall and F1 at IoU 0.5 of the K classes that have labels.

    Attributes:
        classes: (K,) class ids; the rows of the other arrays.
        confidence: (1000,) from 0 to 1.
        precision: (K, 1000) precision of the detections above each confidence; 1 above the highest score.
        recall: (K, 1000) likewise; 0 above the highest score.
        f1: (K, 1000) harmonic mean of the two.
        best: position on `confidence` where the class-averaged, smoothed F1 is highest.
        recall_points: (101,) recall values of the precision-recall curves: 0, 0.01 ... 1.
        precision_at_recall: (K, 101) COCO's interpolated precision at those; its row means are AP50.
    """

    classes: Index
    confidence: Array
    precision: Array
    recall: Array
    f1: Array
    best: int
    recall_points: Array
    precision_at_recall: Array

    @property
    def best_confidence(self) -> float:
        """The confidence threshold with the best F1, at which `p`, `r` and `f1` are reported."""
        return float(self.confidence[self.best])


def compute_curves(scores: Array, classes: Index, hits: NDArray[np.bool_], num_labels: Index) -> Curves:
    """Trace precision, recall and F1 over the confidence threshold.

    Between the scores of two detections the curves are interpolated linearly.

    Args:
        scores: (N,) confidences in descending order.
        classes: (N,) class of each detection.
        hits: (N,) whether the detection claimed a label at IoU 0.5.
        num_labels: (C,) labels of each class.

    Returns:
        The curves of the classes with labels; the precision-recall curves are left at 0.
    """
    present = np.flatnonzero(num_labels)
    confidence = np.linspace(0, 1, CONFIDENCES)
    precision, recall = np.zeros((2, len(present), CONFIDENCES))
    by_class = np.argsort(classes, kind="stable")
    ends = np.searchsorted(classes[by_class], [present, present + 1])
    for row, (start, end) in enumerate(ends.T):
        if start == end:
            continue
        chosen = by_class[start:end]
        found = np.cumsum(hits[chosen])
        precision[row] = np.interp(-confidence, -scores[chosen], found / np.arange(1, len(found) + 1), left=1)
        recall[row] = np.interp(-confidence, -scores[chosen], found / num_labels[present[row]], left=0)
    f1 = 2 * precision * recall / (precision + recall + 1e-16)  # 0 where both are
    best = int(smooth(f1.mean(0)).argmax()) if len(present) else 0
    recall_points = np.linspace(0, 1, RECALL_POINTS)
    at_recall = np.zeros((len(present), RECALL_POINTS))
    return Curves(present, confidence, precision, recall, f1, best, recall_points, at_recall)


def smooth(values: Array, width: int = SMOOTHING) -> Array:
    """Average over a sliding window; the ends are continued with their own value.

    Args:
        values: (N,) curve.
        width: odd number of points of the window.

    Returns:
        (N,) smoothed curve.
    """
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")


@dataclass(frozen=True)
class ConfusionMatrix:
    """Which class was taken for which, regardless of class-aware AP matching.

    Detections above `conf` claim labels of any class with an IoU above `iou`, highest score first.

    Attributes:
        matrix: (C + 1, C + 1) counts: row = predicted class, column = true class. The last column counts
            detections on background (false positives), the last row labels that were not found.
        names: class id -> name.
        conf: confidence threshold. 0.25, the default of prediction: at validation's 0.001 the last column
            would drown everything else.
        iou: overlap threshold.
    """

    matrix: Index
    names: dict[int, str]
    conf: float = CONFUSION_CONF
    iou: float = CONFUSION_IOU

    def normalized(self) -> Array:
        """Return the matrix with every column (true class) divided by its sum; empty columns stay 0."""
        totals = self.matrix.sum(0, keepdims=True)
        return np.asarray(self.matrix / np.maximum(totals, 1))

    def largest(self, count: int) -> ConfusionMatrix:
        """Return the matrix of the `count` classes with the most labels, the others summed into one class."""
        rest = len(self.names) - count
        if rest <= 0:
            return self
        kept = np.sort(np.argsort(-self.matrix[:, :-1].sum(0), kind="stable")[:count])
        place = np.full(len(self.names) + 1, count)
        place[kept], place[-1] = np.arange(count), count + 1
        joined = np.zeros((count + 2, count + 2), np.int64)
        np.add.at(joined, (place[:, None], place[None]), self.matrix)
        names = list(self.names.values())
        shown = [*(names[number] for number in kept), f"{rest} other classes"]
        return ConfusionMatrix(joined, dict(enumerate(shown)), self.conf, self.iou)

    def summary(self, normalize: bool = False, decimals: int = 5) -> list[dict[str, Any]]:
        """Return one row per predicted class: its name under `predicted`, and a count under each true class.

        The last row and the last column are `background`. Classes of equal names are followed by their id.

        Args:
            normalize: shares of the true class instead of counts.
            decimals: digits kept of a share.
        """
        names = [*self.names.values(), "background"]
        repeated = {name for name, times in Counter([*names, "predicted"]).items() if times > 1}
        names = [f"{name} {number}" if name in repeated else name for number, name in enumerate(names)]
        cells = self.normalized().round(decimals) if normalize else self.matrix
        return [
            {"predicted": name, **dict(zip(names, row, strict=True))}
            for name, row in zip(names, cells.tolist(), strict=True)
        ]

    def to_csv(self, normalize: bool = False, decimals: int = 5) -> str:
        """Return `summary` as CSV with a header line."""
        return rows_to_csv(self.summary(normalize, decimals))

    def to_df(self, normalize: bool = False, decimals: int = 5) -> Any:
        """Return `summary` as a polars DataFrame.

        Raises:
            MissingPackageError: polars is not installed.
        """
        return rows_to_df(self.summary(normalize, decimals))


def count_confusions(predicted: Index, true: Index, names: dict[int, str]) -> ConfusionMatrix:
    """Count pairs of predicted and true class.

    Args:
        predicted: (N,) predicted class, C for a label that was not found.
        true: (N,) true class, C for a detection on background.
        names: class id -> name.

    Returns:
        The confusion matrix at the thresholds of this module.
    """
    side = len(names) + 1
    matrix = np.bincount(predicted * side + true, minlength=side * side).reshape(side, side)
    return ConfusionMatrix(matrix.astype(np.int64), names)
