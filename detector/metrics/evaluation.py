"""A validation as plain data for evaluation.json: what the report and the live page show of it.

| key | content |
|---|---|
| `final`, `images`, `instances`, `speed` | whether it is the run's last one; what was measured; ms per image by stage |
| `overall`, `classes` | precision, recall, F1, AP50, AP75 and AP50-95 of all classes together, and of each |
| `best_confidence` | the threshold with the best F1, at which precision, recall and F1 are taken |
| `sizes` | COCO's AP, AR and the number of objects that are small, medium and large |
| `curves` | precision, recall and F1 over confidence, precision over recall; of each class and of all |
| `confusion` | the confusion matrix |
| `errors` | by kind (`detector.metrics.tide`): how many over confidence, and the AP that mending it would gain |
| `by_image` | images with the most errors: name, then correct detections and errors by kind |
| `samples` | the worst and the best images with their boxes |

A light one, of a validation within a run, has the first three rows only. Everything is bounded: of more than
`MAX_CLASSES` classes those with the most labels have curves, and `left_out` says how many have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.files.names import shortened
from detector.metrics.curves import Array, ConfusionMatrix, Curves, Index
from detector.metrics.evaluator import CocoEvaluator
from detector.metrics.metrics import Metrics, mean
from detector.metrics.tide import CORRECT, IGNORED, KINDS, Errors, find_errors

EVALUATION = "evaluation.json"

MAX_CLASSES = 100  # with curves and in the confusion matrix
MAX_ROWS = 5000  # of the table of classes
MAX_IMAGES = 500  # of the table of images
WORST, BEST = 12, 8  # images shown
MAX_BOXES = 100  # detections of such an image
MIN_SCORE = 0.05  # of such a detection
POINTS = 101  # of a curve
SMALL, MEDIUM = 32**2, 96**2  # px²: COCO's object sizes
SIZES = {"small": "s", "medium": "m", "large": "l"}
DIGITS = 4


def describe_metrics(metrics: Metrics, final: bool) -> dict[str, Any]:
    """Return the light form: the metrics of all classes together, and of each that has labels."""
    box = metrics.box
    overall = dict(zip(("precision", "recall", "ap50", "ap"), box.mean_results(), strict=True))
    columns = {"precision": box.p, "recall": box.r, "f1": box.f1, "ap50": box.ap50, "ap": box.ap}
    rows = box.ap_class_index[:MAX_ROWS].tolist()
    return {
        "final": final,
        "images": metrics.num_images,
        "instances": int(metrics.nt_per_class.sum()),
        "speed": _rounded(metrics.speed),
        "best_confidence": _round(metrics.detection_curves.best_confidence),
        "overall": _rounded(overall | {"f1": mean(box.f1), "ap75": box.map75}),
        "classes": [
            {
                "name": shortened(metrics.names[number]),
                "images": int(metrics.nt_per_image[number]),
                "instances": int(metrics.nt_per_class[number]),
                **{key: _round(values[row]) for key, values in columns.items()},
            }
            for row, number in enumerate(rows)
        ],
        "classes_left_out": len(box.ap_class_index) - len(rows),
    }


def describe_evaluation(metrics: Metrics, evaluator: CocoEvaluator, paths: Sequence[str]) -> dict[str, Any]:
    """Return the full form.

    Args:
        metrics: computed in full.
        evaluator: with the images they are of, by position in `paths`.
        paths: image files.

    Returns:
        Plain data. The samples have an `index`, their image's position in `paths`, and no pixels.
    """
    images, errors = evaluator.records(), find_errors(evaluator.records(), evaluator.max_detections)
    names, curves = metrics.names, metrics.detection_curves
    indices = evaluator.image_ids()
    shown = np.argsort(-metrics.nt_per_class[curves.classes], kind="stable")[:MAX_CLASSES]
    shown.sort()
    by_image = errors.counts(curves.best_confidence, len(images))
    wrong, correct = by_image[:, : len(KINDS)].sum(1), by_image[:, len(KINDS)]
    worst = np.lexsort((-correct, -wrong))
    worst = worst[wrong[worst] > 0]
    best = np.lexsort((-correct, wrong))
    best = best[(correct[best] > 0) & ~np.isin(best, worst[:WORST])]
    samples = [
        {"rank": rank, "index": indices[number], "name": shortened(Path(paths[indices[number]]).name)}
        | _boxes_of(number, images[number], errors)
        for rank, chosen in (("worst", worst[:WORST]), ("best", best[:BEST]))
        for number in chosen.tolist()
    ]
    used = sorted({label for sample in samples for _, label, *_ in (*sample["truth"], *sample["found"])})
    return describe_metrics(metrics, final=True) | {
        "sizes": _sizes(metrics, [image.boxes for image in images]),
        "curves": _curves(curves, shown, names),
        "confusion": None if metrics.confusion_matrix is None else _confusion(metrics.confusion_matrix),
        "errors": _error_counts(errors) | {"gain": _rounded(errors.d_ap(len(names)))},
        "kinds": list(KINDS),
        "by_image": [
            [shortened(Path(paths[indices[n]]).name), int(correct[n]), *by_image[n, : len(KINDS)].tolist()]
            for n in worst[:MAX_IMAGES].tolist()
        ],
        "images_with_errors": len(worst),
        "samples": samples,
        "sample_names": {str(number): shortened(names[number]) for number in used},
    }


def _sizes(metrics: Metrics, boxes: Sequence[Array]) -> dict[str, dict[str, float | int | None]]:
    area = np.concatenate([rows[:, 2] * rows[:, 3] for rows in boxes] or [np.zeros(0)])
    number = np.bincount((area >= SMALL).astype(int) + (area >= MEDIUM), minlength=3).tolist()
    found = {}
    for size, instances in zip(SIZES, number, strict=True):
        values = {key: metrics.coco.get(f"{key.upper()}{SIZES[size]}", -1.0) for key in ("ap", "ar")}
        found[size] = {key: _round(value) if value >= 0 else None for key, value in values.items()}
        found[size] |= {"instances": instances}
    return found


def _curves(curves: Curves, shown: NDArray[np.intp], names: Mapping[int, str]) -> dict[str, Any]:
    kinds = {"precision": curves.precision, "recall": curves.recall, "f1": curves.f1}
    places = np.linspace(0, len(curves.confidence) - 1, POINTS).round().astype(int)

    def of(rows: Any) -> dict[str, list[float]]:
        over = {kind: _list(rows(values)[places]) for kind, values in kinds.items()}
        return over | {"precision_at_recall": _list(rows(curves.precision_at_recall))}

    return {
        "confidence": _list(curves.confidence[places]),
        "recall": _list(curves.recall_points),
        "all": of(lambda values: values.mean(0)) if len(curves.classes) else None,
        "classes": [
            {"name": shortened(names[int(curves.classes[row])]), **of(lambda values, row=row: values[row])}
            for row in shown.tolist()
        ],
        "left_out": len(curves.classes) - len(shown),
    }


def _confusion(confusion: ConfusionMatrix) -> dict[str, Any]:
    confusion = confusion.largest(MAX_CLASSES)
    return {
        "names": [*map(shortened, confusion.names.values()), "background"],
        "matrix": confusion.matrix.tolist(),
        "conf": confusion.conf,
        "iou": confusion.iou,
    }


def _error_counts(errors: Errors) -> dict[str, Any]:
    """Return how many errors of each kind there are above each confidence, and how many correct detections."""
    thresholds = np.linspace(0, 1, POINTS)
    cover = np.sort(errors.cover)
    table = {}
    for number, kind in enumerate((*KINDS[:-1], "correct")):
        wanted = number if kind != "correct" else CORRECT
        scores = np.sort(errors.scores[errors.kind == wanted])
        table[kind] = (len(scores) - np.searchsorted(scores, thresholds, side="left")).tolist()
    limits = np.maximum(thresholds, np.finfo(float).tiny)  # what nothing covers is missed at any threshold
    table["missed"] = np.searchsorted(cover, limits, side="left").tolist()
    return {"confidence": _list(thresholds), "counts": table}


def _boxes_of(number: int, image: Any, errors: Errors) -> dict[str, Any]:
    """Return the labels and detections of an image.

    Returns:
        `size`: height and width, px; `truth`: box, class id and the confidence above which it is missed; `found`: box,
        class id, score and kind, best first. Boxes are x1, y1, x2, y2, image px.
    """
    chosen = np.flatnonzero(
        (errors.image == number) & (errors.kind != IGNORED) & (errors.scores >= MIN_SCORE)
    )
    first = np.searchsorted(errors.image, number)
    chosen = chosen[np.argsort(-errors.scores[chosen], kind="stable")][:MAX_BOXES]
    kinds = ["correct" if kind == CORRECT else KINDS[kind] for kind in errors.kind[chosen].tolist()]
    labels = np.flatnonzero(errors.label_image == number)
    cover = errors.cover[labels].round(DIGITS).tolist()
    found = _corners(image.preds[chosen - first])
    scores = errors.scores[chosen].round(DIGITS).tolist()
    return {
        "size": list(image.size_hw),
        "truth": [list(row) for row in zip(_corners(image.boxes), image.labels.tolist(), cover, strict=True)][
            : 3 * MAX_BOXES
        ],
        "found": [
            list(row) for row in zip(found, errors.classes[chosen].tolist(), scores, kinds, strict=True)
        ],
    }


def _corners(boxes_xywh: Array) -> list[list[float]]:
    corners = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
    return corners.round(1).tolist()  # type: ignore[no-any-return]


def _list(values: Array | Index) -> list[float]:
    return np.nan_to_num(values).round(DIGITS).tolist()  # type: ignore[no-any-return]


def _round(value: Any) -> float:
    return round(float(value), DIGITS)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {key: _round(value) for key, value in values.items()}
