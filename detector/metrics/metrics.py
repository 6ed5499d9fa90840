"""COCO's metrics for any data set: AP through pycocotools or faster_coco_eval, and the metrics reported with it.

AP follows the COCO protocol (Lin et al., 2014, https://cocodataset.org/#detection-eval): per image and class
the 100 best detections, greedy matching at IoU 0.50:0.05:0.95, precision interpolated at 101 recall points.
Size ranges use the box area: small < 32², medium < 96² <= large, in image px².
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detector.files.names import shortened
from detector.metrics.curves import (
    Array,
    ConfusionMatrix,
    Curves,
    Index,
)
from detector.tables import align, rows_to_csv, rows_to_df, rows_to_html

KEYS = ("metrics/precision", "metrics/recall", "metrics/mAP50", "metrics/mAP50-95")


@dataclass(frozen=True)
class BoxMetrics:
    """The metrics of the K classes that have labels.

    Attributes:
        ap_class_index: (K,) their class ids; the rows of the arrays below.
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
    def map75(self) -> float:
        """Mean AP at IoU 0.75; 0 without any labels."""
        return mean(self.all_ap[:, 5])

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

    def mean_results(self) -> tuple[float, float, float, float]:
        """Return mean precision, recall, AP50 and AP50-95."""
        return self.mp, self.mr, self.map50, self.map

    def class_result(self, row: int) -> tuple[float, float, float, float]:
        """Return precision, recall, AP50 and AP50-95 of the class in a row, `ap_class_index[row]`."""
        return float(self.p[row]), float(self.r[row]), float(self.ap50[row]), float(self.ap[row])


@dataclass
class Metrics:
    """What a validation found.

    Attributes:
        box: AP, precision, recall and F1.
        names: class id -> name.
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
        return {**dict(zip(KEYS, self.box.mean_results(), strict=True)), "fitness": self.fitness}

    def summary(self, decimals: int = 5) -> list[dict[str, Any]]:
        """Return one row per class with labels: its counts and metrics, rounded."""
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

    def _repr_html_(self) -> str:
        """Return the metrics of all classes together and of each, for notebooks."""
        means = dict(zip(("precision", "recall", "mAP50", "mAP50-95"), self.box.mean_results(), strict=True))
        counts = {"class": "all", "images": self.num_images, "instances": int(self.nt_per_class.sum())}
        first = counts | {key: round(value, 5) for key, value in (means | {"f1": mean(self.box.f1)}).items()}
        rows = self.summary()
        return rows_to_html([{key: first[key] for key in row} for row in rows[:1]] + rows)

    def table(self) -> str:
        """Return the metrics as aligned text: a header, `all`, then the classes if there are several."""
        box = self.box
        instances = int(self.nt_per_class.sum())
        means = ("all", self.num_images, instances, box.mp, box.mr, mean(box.f1), box.map50, box.map)
        rows = [means, *(tuple(row.values()) for row in self.summary() if len(self.names) > 1)]
        cells = [["class", "images", "instances", "P", "R", "F1", "mAP50", "mAP50-95"]]
        cells += [
            [*map(shortened, map(str, row[:3])), *(f"{value:.3f}" for value in row[3:])] for row in rows
        ]
        return align(cells)


def mean(values: Array) -> float:
    """Return the mean, or 0 of nothing."""
    return float(values.mean()) if values.size else 0.0
