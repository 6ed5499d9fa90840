"""Collects detections and ground truth of a split, and measures them by COCO's protocol."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.boxes import CROWD, DIFFICULT, OBJECT
from detector.errors import DataError
from detector.metrics.cocoeval import MAX_DETECTIONS, Backend, choose_backend, paused_gc, run_coco
from detector.metrics.curves import (
    CONFUSION_CONF,
    CONFUSION_IOU,
    CURVE_IOU,
    Array,
    ConfusionMatrix,
    Curves,
    Index,
    best_of_groups,
    compute_curves,
    count_confusions,
    match,
    overlaps,
    to_xywh,
)
from detector.metrics.metrics import BoxMetrics, Metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageRecord:
    """Detections and labels of one image, boxes as x, y, width, height in image px."""

    size_hw: tuple[int, int]
    preds: Array  # (N, 4)
    scores: Array  # (N,)
    classes: Index  # (N,)
    boxes: Array  # (M, 4), those that count
    labels: Index  # (M,)
    pairs: tuple[Index, Index, Array]  # detection, label, IoU of the pairs that may match
    ignored: Ignored

    def truth(self) -> Iterator[tuple[list[float], int, int]]:
        """Yield box, class id and kind of every label, those that count first."""
        for box, number in zip(self.boxes.tolist(), self.labels.tolist(), strict=True):
            yield box, number, OBJECT
        kinds = np.where(self.ignored.is_group, CROWD, DIFFICULT).tolist()
        yield from zip(self.ignored.boxes.tolist(), self.ignored.labels.tolist(), kinds, strict=True)


@dataclass(frozen=True)
class Ignored:
    """Labels of one image that are neither demanded nor make detections wrong, and how far these lie on them.

    Attributes:
        boxes: (K, 4) x, y, width, height, px.
        labels: (K,) class ids.
        is_group: (K,) whether it is a group of objects, else a difficult object.
        own_overlap: (N,) largest overlap of each detection with one of its class: IoU, or with a group the part of the
            detection that lies on it.
        overlap: (N,) likewise, of any class.
    """

    boxes: Array
    labels: Index
    is_group: NDArray[np.bool_]
    own_overlap: Array
    overlap: Array


class CocoEvaluator:
    """Collects detections and labels image by image and computes their `Metrics`.

    The metrics do not depend on the order of the images; of equal scores in one image the first given counts
    as the better.

    Args:
        names: class id -> name, numbers 0 ... C - 1.
        backend: "auto" takes faster_coco_eval where it is installed, else pycocotools. Both give equal metrics.

    Attributes:
        backend: the package in use.
        images: image id -> what was added of it.

    Raises:
        SettingsError: no such backend.
        MissingPackageError: the named backend is not installed.
    """

    def __init__(self, names: dict[int, str], backend: Backend = "auto") -> None:
        self.names = dict(sorted(names.items()))
        self.backend = choose_backend(backend)
        self.images: dict[int, ImageRecord] = {}

    def __len__(self) -> int:
        return len(self.images)

    def add(
        self,
        image_id: int,
        size_hw: tuple[int, int],
        preds: ArrayLike,
        boxes: ArrayLike,
        labels: ArrayLike,
        kinds: ArrayLike | None = None,
    ) -> None:
        """Add one image.

        Args:
            image_id: any number, once.
            size_hw: height and width, px.
            preds: (N, 6) x1, y1, x2, y2, score, class; boxes in image px.
            boxes: (M, 4) xyxy, image px, of the labels.
            labels: (M,) class ids.
            kinds: (M,) `OBJECT`, `DIFFICULT` or `CROWD` of `detector.boxes`; by default all are objects. The others
                are neither demanded nor make detections wrong: COCO's groups and VOC's difficult objects.

        Raises:
            DataError: an image id comes twice, or a class has no name.
        """
        if image_id in self.images:
            raise DataError(f"image id {image_id} was added twice; give every image its own id.")
        preds = np.asarray(preds, np.float64).reshape(-1, 6)
        corners = np.asarray(boxes, np.float64).reshape(-1, 4)
        true = np.asarray(labels, np.int64).reshape(-1)
        classes = preds[:, 5].astype(np.int64)
        for what, numbers in (("a detection", classes), ("a label", true)):
            if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self.names):
                wrong = int(numbers.max() if numbers.min() >= 0 else numbers.min())
                raise DataError(
                    f"image id {image_id}: {what} has class {wrong}, but {len(self.names)} classes are named "
                    f"(0-{len(self.names) - 1}); validate with the data set the model was trained for."
                )
        found, boxes_xywh = to_xywh(preds[:, :4]), to_xywh(corners)
        kind = np.zeros(len(true), np.uint8) if kinds is None else np.asarray(kinds, np.uint8).reshape(-1)
        counts = kind == OBJECT
        ignored = ignore(found, classes, boxes_xywh[~counts], true[~counts], kind[~counts] == CROWD)
        boxes_xywh, true = boxes_xywh[counts], true[counts]
        iou = overlaps(found, boxes_xywh)
        detection, label = np.nonzero(iou > CONFUSION_IOU)
        self.images[int(image_id)] = ImageRecord(
            (int(size_hw[0]), int(size_hw[1])),
            found,
            preds[:, 4],
            classes,
            boxes_xywh,
            true,
            (detection, label, iou[detection, label]),
            ignored,
        )

    def records(self) -> list[ImageRecord]:
        """Return what was added, images in ascending order of their ids."""
        return [image for _, image in sorted(self.images.items())]

    def image_ids(self) -> list[int]:
        """Return the ids of `records`."""
        return sorted(self.images)

    @property
    def max_detections(self) -> int:
        """How many detections per image and class count: COCO's 100, or more where there are more objects."""
        counts = (int(np.bincount(image.labels).max(initial=0)) for image in self.images.values())
        return max([MAX_DETECTIONS, *counts])

    def detections(self, category_ids: tuple[int, ...] | None = None) -> list[dict[str, Any]]:
        """Return all detections in COCO's result format, images in ascending order, nothing rounded.

        Args:
            category_ids: category of each class; by default class + 1. `COCO_CATEGORY_IDS` for COCO itself.
        """
        categories = category_ids or tuple(range(1, len(self.names) + 1))
        return [
            {"image_id": image_id, "category_id": categories[number], "bbox": box, "score": score}
            for image_id, image in sorted(self.images.items())
            for box, score, number in zip(
                image.preds.tolist(), image.scores.tolist(), image.classes.tolist(), strict=True
            )
        ]

    def ground_truth(self, category_ids: tuple[int, ...] | None = None) -> dict[str, Any]:
        """Return the labels as a COCO data set; the area of an object is that of its box.

        What is ignored has `iscrowd`, and difficult objects `difficult` too, which COCO does not know.

        Args:
            category_ids: as for `detections`.
        """
        categories = category_ids or tuple(range(1, len(self.names) + 1))
        images = sorted(self.images.items())
        annotations = [
            {
                "image_id": image_id,
                "category_id": categories[number],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(kind != OBJECT),
            }
            | ({"difficult": 1} if kind == DIFFICULT else {})
            for image_id, image in images
            for box, number, kind in image.truth()
        ]
        for number, annotation in enumerate(annotations, 1):
            annotation["id"] = number
        return {
            "info": {},
            "images": [
                {"id": image_id, "height": image.size_hw[0], "width": image.size_hw[1]}
                for image_id, image in images
            ],
            "categories": [{"id": categories[n], "name": name} for n, name in self.names.items()],
            "annotations": annotations,
        }

    def compute(self, full: bool = True) -> Metrics:
        """Compute the metrics of the images added so far.

        Args:
            full: also the twelve COCO numbers (sizes, AR) and the confusion matrix. AP, precision and recall
                are the same either way.
        """
        limit = self.max_detections
        if full and limit > MAX_DETECTIONS:
            log.info(
                "an image has %d objects of one class: AP counts as many detections per image and class, where COCO's "
                "protocol has %d",
                *(limit, MAX_DETECTIONS),
            )
        curves, num_labels, num_images, confusion = self._match(full, limit)
        with paused_gc():
            coco = run_coco(self.ground_truth(), self.detections(), self.backend, full, limit)
        curves.precision_at_recall[:] = coco.precision_at_recall[curves.classes]
        best = curves.best
        box = BoxMetrics(
            curves.classes,
            coco.ap[curves.classes],
            curves.precision[:, best],
            curves.recall[:, best],
            curves.f1[:, best],
            len(self.names),
        )
        return Metrics(
            box,
            self.names,
            num_labels,
            num_images,
            len(self.images),
            curves,
            self.backend,
            coco.stats,
            confusion,
        )

    def _match(self, full: bool, max_detections: int) -> tuple[Curves, Index, Index, ConfusionMatrix | None]:
        """Match all images at once; return curves, labels and images per class, and confusions."""
        count = len(self.names)
        images = self.records()
        scores = join([i.scores for i in images], np.float64)
        classes = join([i.classes for i in images], np.int64)
        labels = join([i.labels for i in images], np.int64)
        owner = np.repeat(np.arange(len(images)), [len(i.scores) for i in images])
        label_owner = np.repeat(np.arange(len(images)), [len(i.labels) for i in images])
        starts = np.cumsum([0] + [len(i.scores) for i in images])
        label_starts = np.cumsum([0] + [len(i.labels) for i in images])
        detection = join([i.pairs[0] + s for i, s in zip(images, starts, strict=False)], np.int64)
        label = join([i.pairs[1] + s for i, s in zip(images, label_starts, strict=False)], np.int64)
        iou = join([i.pairs[2] for i in images], np.float64)

        order = np.argsort(-scores, kind="stable")  # turns: by score, then image, then as given
        turn = np.empty_like(order)
        turn[order] = np.arange(len(order))
        allowed = best_of_groups(owner[order] * count + classes[order], max_detections)  # in order of turns

        usable = (iou >= CURVE_IOU) & (classes[detection] == labels[label]) & allowed[turn[detection]]
        matched, _ = match(turn[detection[usable]], label[usable], iou[usable])
        hits = np.zeros(len(order), bool)
        hits[matched] = True
        own = join([i.ignored.own_overlap for i in images], np.float64)
        allowed &= hits | (own[order] < CURVE_IOU)
        num_labels = np.bincount(labels, minlength=count)
        num_images = np.bincount(np.unique(label_owner * count + labels) % count, minlength=count)
        curves = compute_curves(scores[order][allowed], classes[order][allowed], hits[allowed], num_labels)
        if not full:
            return curves, num_labels, num_images, None

        shown = scores > CONFUSION_CONF
        usable = shown[detection]
        matched, taken = match(turn[detection[usable]], label[usable], iou[usable])
        true = np.full(len(scores), count)  # background unless matched
        true[order[matched]] = labels[taken]
        shown &= (true < count) | (join([i.ignored.overlap for i in images], np.float64) <= CONFUSION_IOU)
        missed = np.delete(labels, taken)
        confusion = count_confusions(
            np.concatenate([classes[shown], np.full(len(missed), count)]),
            np.concatenate([true[shown], missed]),
            self.names,
        )
        return curves, num_labels, num_images, confusion


def ignore(found: Array, classes: Index, boxes: Array, labels: Index, is_group: NDArray[np.bool_]) -> Ignored:
    """Return what is ignored in an image, with the overlaps of its detections.

    Args:
        found: (N, 4) detections, x, y, width, height, px.
        classes: (N,) their class ids.
        boxes: (K, 4) likewise, of what is ignored; labels, is_group: (K,).
    """
    if not len(boxes):
        none = np.zeros(len(found))
        return Ignored(boxes, labels, is_group, none, none)
    iou = overlaps(found, boxes)
    area, own_area = (boxes[:, 2] * boxes[:, 3])[None], (found[:, 2] * found[:, 3])[:, None]
    shared = iou * (area + own_area) / (1 + iou)
    part = np.divide(shared, own_area, out=np.zeros_like(shared), where=own_area > 0)
    overlap = np.where(is_group[None], part, iou)
    own = np.where(classes[:, None] == labels[None], overlap, 0.0)
    return Ignored(boxes, labels, is_group, own.max(1), overlap.max(1))


def join(arrays: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
    """Concatenate arrays, of which there may be none."""
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype)
