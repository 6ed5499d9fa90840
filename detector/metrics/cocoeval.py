"""The COCO evaluation, run by faster_coco_eval or by pycocotools: same protocol, same metrics."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import io
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal

import numpy as np

from detector.errors import MissingPackageError, SettingsError
from detector.metrics.curves import RECALL_POINTS, Array

Backend = Literal["auto", "pycocotools", "faster_coco_eval"]
BACKENDS = {  # name: module of the COCO class, module of the evaluation class, its name; first choice first
    "faster_coco_eval": ("faster_coco_eval", "faster_coco_eval", "COCOeval_faster"),
    "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval", "COCOeval"),
}
MAX_DETECTIONS = 100  # per image and class
COCO_STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
COCO_CATEGORY_IDS = tuple(n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
"""The official category id of each of COCO's 80 classes."""
SILENCING = Lock()  # stdout is one for all threads: two that take it at once would not give it back


@dataclass(frozen=True)
class CocoMetrics:
    """What the evaluation of C categories gave.

    Attributes:
        ap: (C, 10) AP at IoU 0.50, 0.55 ... 0.95, -1 where a category has no labels.
        precision_at_recall: (C, 101) precision at IoU 0.5 and recall 0, 0.01 ... 1, -1 without labels.
        stats: the twelve numbers pycocotools prints, by the names in `COCO_STATS`; empty if not asked for.
    """

    ap: Array
    precision_at_recall: Array
    stats: dict[str, float]


def choose_backend(backend: str) -> str:
    """Return the package to compute AP with: faster_coco_eval where installed, unless one is named.

    Raises:
        SettingsError: no such backend.
        MissingPackageError: the package is not installed.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise SettingsError(f"backend={backend!r}: expected 'auto', 'pycocotools' or 'faster_coco_eval'.")
    wanted = list(BACKENDS) if backend == "auto" else [backend]
    for name in wanted:
        if importlib.util.find_spec(name) is not None:
            return name
    package = wanted[-1].replace("_", "-")
    raise MissingPackageError(f"computing AP needs the {package} package: pip install {package}.")


@contextlib.contextmanager
def paused_gc() -> Iterator[None]:
    """Keep the garbage collector from walking the half million dicts of a big evaluation again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def run_coco(
    truth: dict[str, Any],
    detections: list[dict[str, Any]],
    backend: str,
    full: bool,
    max_detections: int = MAX_DETECTIONS,
) -> CocoMetrics:
    """Evaluate detections silently.

    Args:
        truth: a COCO data set; categories in ascending order of their ids.
        detections: COCO results, each of a known image and category.
        backend: a key of `BACKENDS`.
        full: also by object size and for 1 and 10 detections per image, and the twelve numbers.
        max_detections: per image and class, of AP; the twelve numbers are always those of 100.
    """
    categories = len(truth["categories"])
    if not truth["images"]:  # the backends index into the first image
        stats = dict.fromkeys(COCO_STATS, -1.0) if full else {}
        return CocoMetrics(-np.ones((categories, 10)), -np.ones((categories, RECALL_POINTS)), stats)
    for number, found in enumerate(detections, 1):
        _, _, width, height = found["bbox"]
        found |= {"id": number, "area": width * height, "iscrowd": 0}
    coco_module, eval_module, eval_name = BACKENDS[backend]
    with SILENCING, contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for dataset in (truth, {**truth, "annotations": detections}):
            side = importlib.import_module(coco_module).COCO()
            side.dataset = dataset
            side.createIndex()
            sides.append(side)
        evaluation = _with_difficult(getattr(importlib.import_module(eval_module), eval_name))
        stats = {}
        if full:
            run = evaluation(*sides, iouType="bbox")
            run.evaluate()
            run.accumulate()
            run.summarize()
            stats = dict(zip(COCO_STATS, map(float, run.stats[:12]), strict=True))
        if not full or max_detections > MAX_DETECTIONS:
            run = evaluation(*sides, iouType="bbox")
            run.params.areaRng, run.params.areaRngLbl = run.params.areaRng[:1], run.params.areaRngLbl[:1]
            run.params.maxDets = [max_detections]
            run.evaluate()
            run.accumulate()
    precision = np.asarray(run.eval["precision"])[..., 0, -1]  # (10, 101, C)
    return CocoMetrics(precision.mean(1).T, precision[0].T, stats)


def _with_difficult(evaluation: Any) -> Any:
    """Return an evaluation class that compares difficult objects by IoU, where groups count by the part on them.

    Both packages ignore a label, and all detections that match it, if it is a group (`iscrowd`); VOC's protocol treats
    difficult objects so.
    """

    class Evaluation(evaluation):  # type: ignore[misc]
        def computeIoU(self, image_id: int, category_id: int) -> Any:  # noqa: N802 - their name
            labels = self.cocoGt.imgToAnns[image_id]
            difficult = [o for o in labels if o.get("difficult") and o["category_id"] == category_id]
            for label in difficult:
                label["iscrowd"] = 0
            try:
                return super().computeIoU(image_id, category_id)
            finally:
                for label in difficult:
                    label["iscrowd"] = 1

    return Evaluation
