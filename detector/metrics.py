"""COCO's figures for any data set: AP through pycocotools or faster_coco_eval, and what is told beside it.

AP follows the COCO protocol (Lin et al., 2014, https://cocodataset.org/#detection-eval): per image and class
the 100 best detections, greedy matching at IoU 0.50:0.05:0.95, precision interpolated at 101 recall points.
Size ranges use the box area: small < 32², medium < 96² <= large, in image px².
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .cocoeval import MAX_DETECTIONS, Backend, choose_backend, paused_gc, run_coco
from .curves import (
    CONFUSION_CONF,
    CONFUSION_IOU,
    CURVE_IOU,
    Array,
    ConfusionMatrix,
    Curves,
    Index,
    best_of_groups,
    count_confusions,
    draw_curves,
    match,
    overlaps,
    to_xywh,
)
from .errors import DataError
from .tables import align, rows_to_csv, rows_to_df

KEYS = ("metrics/precision", "metrics/recall", "metrics/mAP50", "metrics/mAP50-95")


@dataclass(frozen=True)
class BoxMetrics:
    """The figures of the K classes that have labels.

    Attributes:
        ap_class_index: (K,) their class numbers; the rows of the arrays below.
        all_ap: (K, 10) AP at IoU 0.50, 0.55 ... 0.95.
        p: (K,) precision at the confidence with the best F1, IoU 0.5.
        r: (K,) recall there.
        f1: (K,) F1 there.
        num_classes: number of classes C, with or without labels.
    """

    ap_class_index: Index
    all_ap: Array
    p: Array
    r: Array
    f1: Array
    num_classes: int

    @property
    def ap(self) -> Array:
        """(K,) AP50-95 of each class."""
        return np.asarray(self.all_ap.mean(1))

    @property
    def ap50(self) -> Array:
        """(K,) AP of each class at IoU 0.50."""
        return self.all_ap[:, 0]

    @property
    def map(self) -> float:
        """Mean AP50-95; 0 without any labels."""
        return mean(self.all_ap)

    @property
    def map50(self) -> float:
        """Mean AP at IoU 0.50; 0 without any labels."""
        return mean(self.all_ap[:, 0])

    @property
    def maps(self) -> Array:
        """(C,) AP50-95 of every class; a class without labels gets the mean."""
        values = np.full(self.num_classes, self.map)
        values[self.ap_class_index] = self.ap
        return values

    @property
    def mp(self) -> float:
        """Mean precision; 0 without any labels."""
        return mean(self.p)

    @property
    def mr(self) -> float:
        """Mean recall; 0 without any labels."""
        return mean(self.r)


@dataclass
class Metrics:
    """What a validation found.

    Attributes:
        box: AP, precision, recall and F1.
        names: class number -> name.
        nt_per_class: (C,) labels of each class.
        nt_per_image: (C,) images with a label of each class.
        num_images: images evaluated.
        detection_curves: precision, recall and F1 over confidence; `detection_curves.best_confidence` is the
            threshold at which `box.p`, `box.r` and `box.f1` are taken.
        backend: the package that computed AP.
        coco: the twelve numbers pycocotools prints, by short name ("AP", "APs", "AR100" ...), -1 where
            there are no labels of that size. Empty unless computed in full.
        confusion_matrix: counts of predicted against true classes. None unless computed in full.
        speed: ms per image by stage, filled in by the engine.
    """

    box: BoxMetrics
    names: dict[int, str]
    nt_per_class: Index
    nt_per_image: Index
    num_images: int
    detection_curves: Curves
    backend: str
    coco: dict[str, float] = field(default_factory=dict)
    confusion_matrix: ConfusionMatrix | None = None
    speed: dict[str, float] = field(default_factory=dict)

    @property
    def fitness(self) -> float:
        """AP50-95, the number by which the best checkpoint is chosen."""
        return self.box.map

    @property
    def results_dict(self) -> dict[str, float]:
        """Mean precision, recall, AP50 and AP50-95 by key, and the fitness."""
        means = (self.box.mp, self.box.mr, self.box.map50, self.box.map)
        return {**dict(zip(KEYS, means, strict=True)), "fitness": self.fitness}

    def summary(self, decimals: int = 5) -> list[dict[str, Any]]:
        """Return one row per class with labels: its counts and figures, rounded."""
        box = self.box
        columns = {"precision": box.p, "recall": box.r, "f1": box.f1, "mAP50": box.ap50, "mAP50-95": box.ap}
        rows: list[dict[str, Any]] = []
        for i, number in enumerate(box.ap_class_index.tolist()):
            counts = {"images": int(self.nt_per_image[number]), "instances": int(self.nt_per_class[number])}
            rounded = {key: round(float(values[i]), decimals) for key, values in columns.items()}
            rows.append({"class": self.names[number], **counts, **rounded})
        return rows

    def to_json(self, decimals: int = 5) -> str:
        """Return `summary` as a JSON list."""
        import json

        return json.dumps(self.summary(decimals), indent=2, ensure_ascii=False)

    def to_csv(self, decimals: int = 5) -> str:
        """Return `summary` as CSV with a header line."""
        return rows_to_csv(self.summary(decimals))

    def to_df(self, decimals: int = 5) -> Any:
        """Return `summary` as a polars DataFrame.

        Raises:
            MissingPackageError: polars is not installed.
        """
        return rows_to_df(self.summary(decimals))

    def table(self) -> str:
        """Return the figures as aligned text: a header, `all`, then the classes if there are several."""
        box = self.box
        instances = int(self.nt_per_class.sum())
        means = ("all", self.num_images, instances, box.mp, box.mr, mean(box.f1), box.map50, box.map)
        rows = [means, *(tuple(row.values()) for row in self.summary() if len(self.names) > 1)]
        cells = [["class", "images", "instances", "P", "R", "F1", "mAP50", "mAP50-95"]]
        cells += [[*map(str, row[:3]), *(f"{value:.3f}" for value in row[3:])] for row in rows]
        return align(cells)


def mean(values: Array) -> float:
    """Return the mean, or 0 of nothing."""
    return float(values.mean()) if values.size else 0.0


@dataclass(frozen=True)
class ImageRecord:
    """Detections and labels of one image, boxes as x, y, width, height in image px."""

    size_hw: tuple[int, int]
    preds: Array  # (N, 4)
    scores: Array  # (N,)
    classes: Index  # (N,)
    boxes: Array  # (M, 4)
    labels: Index  # (M,)
    pairs: tuple[Index, Index, Array]  # detection, label, IoU of the pairs that may match


class CocoEvaluator:
    """Collects detections and labels image by image and computes their `Metrics`.

    The figures do not depend on the order of the images; of equal scores in one image the first given counts
    as the better.

    Args:
        names: class number -> name, numbers 0 ... C - 1.
        backend: "auto" takes faster_coco_eval where it is installed, else pycocotools. The figures are equal.

    Attributes:
        backend: the package in use.

    Raises:
        SettingsError: no such backend.
        MissingPackageError: the named backend is not installed.
    """

    def __init__(self, names: dict[int, str], backend: Backend = "auto") -> None:
        self.names = dict(sorted(names.items()))
        self.backend = choose_backend(backend)
        self._images: dict[int, ImageRecord] = {}

    def __len__(self) -> int:
        return len(self._images)

    def add(
        self, image_id: int, size_hw: tuple[int, int], preds: ArrayLike, boxes: ArrayLike, labels: ArrayLike
    ) -> None:
        """Add one image.

        Args:
            image_id: any number, once.
            size_hw: height and width, px.
            preds: (N, 6) x1, y1, x2, y2, score, class; boxes in image px.
            boxes: (M, 4) xyxy, image px, of the labels.
            labels: (M,) class numbers.

        Raises:
            DataError: an image id comes twice, or a class has no name.
        """
        if image_id in self._images:
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
        iou = overlaps(found, boxes_xywh)
        detection, label = np.nonzero(iou > CONFUSION_IOU)
        self._images[int(image_id)] = ImageRecord(
            (int(size_hw[0]), int(size_hw[1])),
            found,
            preds[:, 4],
            classes,
            boxes_xywh,
            true,
            (detection, label, iou[detection, label]),
        )

    def detections(self, category_ids: tuple[int, ...] | None = None) -> list[dict[str, Any]]:
        """Return all detections in COCO's result format, images in ascending order, nothing rounded.

        Args:
            category_ids: category of each class; by default class + 1. `COCO_CATEGORY_IDS` for COCO itself.
        """
        categories = category_ids or tuple(range(1, len(self.names) + 1))
        return [
            {"image_id": image_id, "category_id": categories[number], "bbox": box, "score": score}
            for image_id, image in sorted(self._images.items())
            for box, score, number in zip(
                image.preds.tolist(), image.scores.tolist(), image.classes.tolist(), strict=True
            )
        ]

    def ground_truth(self, category_ids: tuple[int, ...] | None = None) -> dict[str, Any]:
        """Return the labels as a COCO data set; the area of an object is that of its box.

        Args:
            category_ids: as for `detections`.
        """
        categories = category_ids or tuple(range(1, len(self.names) + 1))
        images = sorted(self._images.items())
        annotations = [
            {
                "image_id": image_id,
                "category_id": categories[number],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for image_id, image in images
            for box, number in zip(image.boxes.tolist(), image.labels.tolist(), strict=True)
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
        """Compute the figures of the images added so far.

        Args:
            full: also the twelve COCO numbers (sizes, AR) and the confusion matrix. AP, precision and recall
                are the same either way.
        """
        curves, num_labels, num_images, confusion = self._match(full)
        with paused_gc():
            figures = run_coco(self.ground_truth(), self.detections(), self.backend, full)
        curves.precision_at_recall[:] = figures.precision_at_recall[curves.classes]
        best = curves.best
        box = BoxMetrics(
            curves.classes,
            figures.ap[curves.classes],
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
            len(self._images),
            curves,
            self.backend,
            figures.stats,
            confusion,
        )

    def _match(self, full: bool) -> tuple[Curves, Index, Index, ConfusionMatrix | None]:
        """Match all images at once; return curves, labels and images per class, and confusions."""
        count = len(self.names)
        images = [image for _, image in sorted(self._images.items())]
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
        allowed = best_of_groups(owner[order] * count + classes[order], MAX_DETECTIONS)  # in order of turns

        usable = (iou >= CURVE_IOU) & (classes[detection] == labels[label]) & allowed[turn[detection]]
        matched, _ = match(turn[detection[usable]], label[usable], iou[usable])
        hits = np.zeros(len(order), bool)
        hits[matched] = True
        num_labels = np.bincount(labels, minlength=count)
        num_images = np.bincount(np.unique(label_owner * count + labels) % count, minlength=count)
        curves = draw_curves(scores[order][allowed], classes[order][allowed], hits[allowed], num_labels)
        if not full:
            return curves, num_labels, num_images, None

        shown = scores > CONFUSION_CONF
        usable = shown[detection]
        matched, taken = match(turn[detection[usable]], label[usable], iou[usable])
        true = np.full(len(scores), count)  # background unless matched
        true[order[matched]] = labels[taken]
        missed = np.delete(labels, taken)
        confusion = count_confusions(
            np.concatenate([classes[shown], np.full(len(missed), count)]),
            np.concatenate([true[shown], missed]),
            self.names,
        )
        return curves, num_labels, num_images, confusion


def join(arrays: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
    """Concatenate arrays, of which there may be none."""
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype)
