"""Milliseconds to predict one image from an array with an exported file, end to end, and of its runtime alone.

The image, the weights and the count of boxes are those of benchmarks/prediction.py. "fixed" is a file of a square
input, as both sides export by default; "dynamic" takes any size, so that the image gets minimal padding
(`rect`). Bare is the runtime on the same input, which stays in memory; ours and bare are in the precision that
`amp=auto` selects.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.bench import times
from benchmarks.prediction import load, measure_bare, save_weights, time_predictions

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from detector.engine.predict import Predictor

PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}


def open_export(YOLO: Any, model: str, weights: str, **settings: Any) -> Any:  # noqa: N803
    """Export on either side, and open the file."""
    return YOLO(str(load(YOLO, model, weights).export(**settings)))


def measure(
    YOLO: Any,  # noqa: N803
    model: str,
    weights: str,
    image_file: str,
    repeats: int,
    imgsz: int,
    **settings: Any,
) -> dict[str, Any]:
    """Export on either side, then time predictions; ms, the median, and the boxes found."""
    opened = open_export(YOLO, model, weights, imgsz=imgsz, **settings)
    return time_predictions(opened, image_file, repeats, imgsz=imgsz, device="cpu")


def measure_runtime(predictor: Predictor, image_file: str, repeats: int) -> float:
    """Return the median ms of a predictor's runtime alone, on the input of the prediction."""
    from detector.inference.exported_backend import ExportedBackend
    from detector.inference.pixels import to_input

    backend = predictor.backend
    assert isinstance(backend, ExportedBackend)
    images = to_input(predictor.preprocess([np.load(image_file)])[0], backend.runtime, backend.contract)
    with backend.threads():
        return measure_bare(backend.runtime.run, images, repeats)


def run(bench: Bench) -> list[list[str]]:
    """Return the table, of the formats whose packages are installed."""
    from detector.yolo import YOLO

    rows = [["exported", "format", "input", "ms", "boxes", "of bare", "ours faster"]]
    for model in bench.models:
        image_file, weights = save_weights(bench, model)
        for format in [name for name, package in PACKAGES.items() if find_spec(package)]:
            for dynamic in (False, True):
                kind = [format, "dynamic" if dynamic else "fixed"]
                export = {"format": format, "dynamic": dynamic, "imgsz": bench.predict_imgsz}
                opened = open_export(YOLO, model, weights, **export, folder=bench.folder, verbose=False)
                sizes = {"imgsz": bench.predict_imgsz, "device": "cpu"}
                ours = time_predictions(opened, image_file, bench.repeats, **sizes)
                bare = measure_runtime(opened.predictor, image_file, bench.repeats)
                rows.append([f"{model} bare", *kind, f"{bare:.1f}", "-", "-", "-"])
                share = times(bare, ours["ms"])
                rows.append([f"{model} ours", *kind, f"{ours['ms']:.1f}", str(ours["boxes"]), share, "-"])
                if bench.peer is None:
                    continue
                shared = {"model": model, "weights": weights, "repeats": bench.repeats}
                found = bench.peer.run("exported", image_file=image_file, **shared, **export)
                if found is not None:
                    faster = times(found["ms"], ours["ms"])
                    cells = [f"{found['ms']:.1f}", str(found["boxes"]), "-", faster]
                    rows.append([f"{model} peer {found['version']}", *kind, *cells])
    return rows
