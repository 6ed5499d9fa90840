"""How long the COCO metrics take with either backend, on random detections; fails if the metrics differ."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.metrics.cocoeval import BACKENDS
from detector.metrics.evaluator import CocoEvaluator
from detector.metrics.metrics import Metrics

if TYPE_CHECKING:
    from benchmarks.bench import Bench


def draw_cases(
    images: int, detections: int, labels: int, classes: int, seed: int
) -> Iterator[tuple[Any, ...]]:
    """Yield images of boxes and of detections around them: shifted, doubled and of a wrong class at times."""
    rng = np.random.default_rng(seed)
    for image_id in range(images):
        corner, size = rng.uniform(0, 540, (labels, 2)), np.exp(rng.uniform(2, 5.5, (labels, 2)))
        boxes = np.concatenate([corner, corner + size], 1)
        true = rng.integers(0, classes, labels)
        source = rng.integers(0, labels, detections)
        found = boxes[source] + rng.normal(0, 0.08, (detections, 4)) * np.tile(size[source], 2)
        guess = np.where(
            rng.uniform(size=detections) < 0.8, true[source], rng.integers(0, classes, detections)
        )
        scores = rng.uniform(size=detections).astype(np.float32)
        yield image_id, (640, 640), np.concatenate([found, scores[:, None], guess[:, None]], 1), boxes, true


def measure(backend: str, names: dict[int, str], cases: list[Any]) -> tuple[list[float], Metrics]:
    """Return seconds to add all images, to compute the metrics of an epoch, and all metrics."""
    warm = CocoEvaluator(names, backend)  # type: ignore[arg-type]
    warm.add(*cases[0])
    warm.compute()  # imports the backend
    start = perf_counter()
    evaluator = CocoEvaluator(names, backend)  # type: ignore[arg-type]
    for case in cases:
        evaluator.add(*case)
    added = perf_counter()
    quick = evaluator.compute(full=False)
    computed = perf_counter()
    full = evaluator.compute()
    end = perf_counter()
    assert quick.results_dict == full.results_dict
    return [added - start, computed - added, end - computed], full


def require_equal(first: Metrics, second: Metrics) -> None:
    """Fail unless two backends computed the same, but for rounding."""
    np.testing.assert_allclose(first.box.all_ap, second.box.all_ap, rtol=0, atol=1e-9)
    np.testing.assert_allclose(list(first.coco.values()), list(second.coco.values()), rtol=0, atol=1e-9)


def run(bench: Bench) -> list[list[str]]:
    """Return the table, of as many random images as COCO's val2017 has."""
    images = 5000 if bench.val_images > 100 else bench.val_images
    names = {n: f"class_{n}" for n in range(80)}
    cases = list(draw_cases(images, detections=100, labels=7, classes=80, seed=0))
    rows = [["evaluation, s", "images", "add", "epoch", "full"]]
    found = []
    for backend in BACKENDS:
        seconds, metrics = measure(backend, names, cases)
        found.append(metrics)
        rows.append([backend, str(images), *(f"{value:.3f}" for value in seconds)])
    require_equal(*found)
    return rows
