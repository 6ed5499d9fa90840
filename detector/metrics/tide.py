"""What kind each error is, and what mending a kind would gain: TIDE (Bolya et al., 2020, arXiv:2008.08115).

A detection that is not correct has the largest overlap IoU with labels of its class, and with those of other classes
(section 2.2 of the paper; t_f = 0.5, t_b = 0.1):

| kind | largest overlap |
|---|---|
| localisation | t_b <= IoU < t_f with its class |
| classification | IoU >= t_f with another class |
| duplicate | IoU >= t_f with its class: a detection of a higher score has that label |
| both | t_b < IoU < t_f with another class |
| background | IoU <= t_b with all |

Where several apply, the first one counts. A label is missed if no detection found it and none is a classification or
localisation error on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detector.metrics.curves import CURVE_IOU, RECALL_POINTS, Array, Index, best_of_groups, match, overlaps

if TYPE_CHECKING:
    from detector.metrics.evaluator import ImageRecord

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
"""The kinds of errors in the order of the paper; all but the last one are detections."""

IGNORED, CORRECT = -2, -1
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND = range(5)
"""What a detection is: positions in `KINDS`, or one of the two above."""

BACKGROUND_IOU = 0.1  # t_b of the paper; t_f is that of the curves


@dataclass(frozen=True)
class Errors:
    """N detections of all images, what each of them is, and M labels; images in the order given.

    Attributes:
        image: (N,) position of the image.
        scores: (N,) confidences.
        classes: (N,) class ids.
        kind: (N,) position in `KINDS`, or `CORRECT`, or `IGNORED`: on a label that is ignored, or beyond COCO's number
            of detections.
        target: (N,) label that it found, or that it names wrongly, or next to which it lies; -1 for the other kinds.
        label_image: (M,) position of the image of each label.
        labels: (M,) class ids.
    """

    image: Index
    scores: Array
    classes: Index
    kind: Index
    target: Index
    label_image: Index
    labels: Index

    @property
    def cover(self) -> Array:
        """(M,) the confidence above which a label is missed; 0 for one that always is."""
        cover = np.zeros(len(self.labels))
        covers = self.target >= 0
        np.maximum.at(cover, self.target[covers], self.scores[covers])
        return cover

    def counts(self, confidence: float, images: int) -> Index:
        """Return the errors of each image by kind, and how many detections are correct, at a threshold.

        Args:
            confidence: detections below are left out.
            images: number of images I.

        Returns:
            (I, 7) counts: the columns are `KINDS`, then the correct ones.
        """
        table = np.zeros((images, len(KINDS) + 1), np.int64)
        shown = (self.scores >= confidence) & (self.kind != IGNORED)
        kind = np.where(self.kind == CORRECT, len(KINDS), self.kind)
        np.add.at(table, (self.image[shown], kind[shown]), 1)
        missed = self.cover < max(confidence, np.finfo(float).tiny)
        table[:, len(KINDS) - 1] = np.bincount(self.label_image[missed], minlength=images)
        return table

    def d_ap(self, num_classes: int) -> dict[str, float]:
        """Return AP at IoU 0.5 as `AP50`, and by how much it rises if one kind of error is mended (section 2.3).

        A classification error gets the class of its label, a localisation error its box. Where a label then has several
        detections, the one that found it stays, or else the one of the highest score. (In the authors' program a label
        that has both errors can lose both, as their scores compete: there these two gains can be lower.) The other
        kinds of detections are left out, and missed labels are not demanded: a class without labels is left out of the
        mean. The mended kinds are those of `KINDS`, and
        `false positives` (all detections that are not correct are left out) and `false negatives` (only labels
        that are found are demanded).
        """
        demanded = np.bincount(self.labels, minlength=num_classes)
        before = _mean_ap(self, demanded)
        missed = np.bincount(self.labels[self.cover == 0], minlength=num_classes)
        found = np.bincount(self.labels[self.target[self.kind == CORRECT]], minlength=num_classes)
        after = {
            "classification": _mean_ap(self._mended(CLASSIFICATION), demanded),
            "localisation": _mean_ap(self._mended(LOCALISATION), demanded),
            "both": _mean_ap(self._without(self.kind == BOTH), demanded),
            "duplicate": _mean_ap(self._without(self.kind == DUPLICATE), demanded),
            "background": _mean_ap(self._without(self.kind == BACKGROUND), demanded),
            "missed": _mean_ap(self, demanded - missed),
            "false positives": _mean_ap(self._without(self.kind >= 0), demanded),
            "false negatives": _mean_ap(self, found),
        }
        return {"AP50": before} | {kind: value - before for kind, value in after.items()}

    def _without(self, gone: NDArray[np.bool_]) -> Errors:
        return replace(self, kind=np.where(gone, IGNORED, self.kind))

    def _mended(self, kind: int) -> Errors:
        """Return what is there once a kind of error on labels is correct, one detection per label."""
        fixed = self.kind == kind
        classes = (
            np.where(fixed, self.labels[self.target], self.classes) if len(self.labels) else self.classes
        )
        rivals = np.flatnonzero(fixed | (self.kind == CORRECT))
        rivals = rivals[np.lexsort((-self.scores[rivals], fixed[rivals]))]
        _, first = np.unique(self.target[rivals], return_index=True)
        kinds = self.kind.copy()
        kinds[rivals], kinds[rivals[first]] = IGNORED, CORRECT
        return replace(self, kind=kinds, classes=classes)


def find_errors(images: Sequence[ImageRecord], max_detections: int = 100) -> Errors:
    """Find what kind of error each detection is.

    Args:
        images: of one split; what of them is ignored makes no errors.
        max_detections: per image and class; those of lower scores are ignored.
    """
    parts: list[tuple[NDArray[Any], ...]] = []
    labels_before = 0
    for number, image in enumerate(images):
        kind, target = _errors_of(image, max_detections)
        target = np.where(target >= 0, target + labels_before, -1)
        labels_before += len(image.labels)
        owner, label_owner = np.full(len(kind), number), np.full(len(image.labels), number)
        parts.append((owner, image.scores, image.classes, kind, target, label_owner, image.labels))
    if not parts:
        none = np.zeros(0, np.int64)
        return Errors(none, np.zeros(0), none, none, none, none, none)
    return Errors(*map(np.concatenate, zip(*parts, strict=True)))


def _errors_of(image: ImageRecord, max_detections: int) -> tuple[Index, Index]:
    """Return kind and target of each detection of an image, (N,) each."""
    count = len(image.scores)
    kind, target = np.full(count, BACKGROUND), np.full(count, -1)
    order = np.argsort(-image.scores, kind="stable")
    turn = np.empty(count, np.int64)
    turn[order] = np.arange(count)
    within = np.empty(count, bool)
    within[order] = best_of_groups(image.classes[order], max_detections)
    if len(image.labels):
        iou = overlaps(image.preds, image.boxes)  # (N, M)
        same = image.classes[:, None] == image.labels[None]
        own, other = np.where(same, iou, 0.0), np.where(same, 0.0, iou)
        own_iou, other_iou = own.max(1), other.max(1)
        rules: tuple[tuple[int, Any, Callable[[Any], Any] | None], ...] = (  # the last one that holds counts
            (BOTH, (other_iou > BACKGROUND_IOU) & (other_iou < CURVE_IOU), None),
            (DUPLICATE, own_iou >= CURVE_IOU, None),
            (CLASSIFICATION, other_iou >= CURVE_IOU, lambda rows: other[rows].argmax(1)),
            (
                LOCALISATION,
                (own_iou >= BACKGROUND_IOU) & (own_iou < CURVE_IOU),
                lambda rows: own[rows].argmax(1),
            ),
        )
        for name, holds, find_label in rules:
            kind[holds] = name
            target[holds] = -1 if find_label is None else find_label(holds)
        detection, label = np.nonzero((own >= CURVE_IOU) & within[:, None])
        matched, taken = match(turn[detection], label, iou[detection, label])
        kind[order[matched]], target[order[matched]] = CORRECT, taken
    ignored = ~within | ((kind != CORRECT) & (image.ignored.own_overlap >= CURVE_IOU))
    kind[ignored], target[ignored] = IGNORED, -1
    return kind, target


def _mean_ap(errors: Errors, demanded: Index) -> float:
    """Return the mean over the classes of AP at IoU 0.5, as COCO interpolates it, at 101 values of recall.

    Args:
        errors: those of kind `CORRECT` are hits, those of `IGNORED` left out.
        demanded: (C,) labels of each class; classes without any are left out.
    """
    kept = np.flatnonzero(errors.kind != IGNORED)
    kept = kept[np.argsort(-errors.scores[kept], kind="stable")]
    by_class = kept[np.argsort(errors.classes[kept], kind="stable")]
    present = np.flatnonzero(demanded > 0)
    ends = np.searchsorted(errors.classes[by_class], [present, present + 1])
    recalls = np.linspace(0, 1, RECALL_POINTS)
    values = []
    for number, (start, end) in zip(present, ends.T, strict=True):
        found = np.cumsum(errors.kind[by_class[start:end]] == CORRECT)
        precision = found / np.arange(1, len(found) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        place = np.searchsorted(found / demanded[number], recalls, side="left")
        values.append(float(np.append(precision, 0.0)[np.minimum(place, len(found))].mean()))
    return float(np.mean(values)) if values else 0.0
