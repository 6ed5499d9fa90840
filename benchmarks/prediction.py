"""Milliseconds to predict one image from an array, end to end, and of the bare fused network.

All sides run the same weights: random ones whose last layer is rescaled so that some boxes pass the
default confidence. The boxes found are counted, so that neither side is fast because it finds nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.bench import now, set_threads, times

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from detector.nn.model import DetectionModel


def measure(
    YOLO: Any,  # noqa: N803
    model: str,
    image_file: str,
    weights: str,
    repeats: int,
    threads: int | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Time predictions of either side; ms, the median, and the boxes found."""
    yolo = load(YOLO, model, weights)
    set_threads(yolo, threads)
    return time_predictions(yolo, image_file, repeats, **settings)


def load(YOLO: Any, model: str, weights: str) -> Any:  # noqa: N803
    """Return a model of either side with the weights of `save_weights`."""
    yolo = YOLO(f"{model}.yaml")
    yolo.model.load_state_dict(torch.load(weights, weights_only=True))
    return yolo


def time_predictions(yolo: Any, image_file: str, repeats: int, **settings: Any) -> dict[str, Any]:
    """Time predictions of a model of either side: the median ms, the boxes found, and torch's threads."""
    image = np.load(image_file)
    seconds = []
    for _ in range(repeats + max(repeats // 5, 2)):
        start = time.perf_counter()
        results = yolo.predict(image, verbose=False, **settings)
        seconds.append(now() - start)
    milliseconds = 1e3 * median(seconds[-repeats:])
    return {"ms": milliseconds, "boxes": len(results[0].boxes), "threads": torch.get_num_threads()}


def measure_bare(run: Callable[[Any], Any], images: Any, repeats: int) -> float:
    """Return the median ms of a network or runtime, its boxes decoded, on one input that stays in memory."""
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats + max(repeats // 5, 2)):
            start = now()
            run(images)
            seconds.append(now() - start)
    return 1e3 * median(seconds[-repeats:])


@torch.no_grad()
def find_some(network: DetectionModel, images: Tensor, conf: float = 0.25) -> None:
    """Rescale the class scores of an untrained network until up to 100 anchors pass a confidence."""
    outputs = [level[-1] for level in network.head.cv3]  # of the one-to-many head, every side's default
    for output in outputs:
        output.bias.zero_()
    logits = network.eval()(images)[network.selected_head].scores  # (1, C, A)
    scale = 2 / logits.std()
    best = scale * logits.amax(1).flatten()
    lowest = best.topk(min(100, len(best) // 4)).values[-1]
    for output in outputs:
        output.weight.mul_(scale)
        output.bias.fill_(math.log(conf / (1 - conf)) - lowest)


def letterboxed(bench: Bench) -> Tensor:
    """Return the image as a network takes it, (1, 3, H, W) float RGB."""
    from detector.data.letterbox import input_hw, letterbox_batch

    images, _ = letterbox_batch([bench.image], input_hw(bench.predict_imgsz), min_rect=True)
    return images.contiguous().float() / 255


def save_weights(bench: Bench, model: str) -> tuple[str, str]:
    """Write the image, and weights that find something in it; returns the paths of both."""
    from detector.yolo import YOLO

    image_file, weights = bench.folder / "image.npy", bench.folder / "weights.pt"
    np.save(image_file, bench.image)
    network = YOLO(model).model
    find_some(network, letterboxed(bench))
    torch.save(network.state_dict(), weights)
    return str(image_file), str(weights)


def run(bench: Bench) -> list[list[str]]:
    """Return the table."""
    from detector.inference.torch_backend import TorchBackend, make_run
    from detector.yolo import YOLO

    images = letterboxed(bench)
    rows = [["prediction", "precision", "threads", "ms", "boxes", "of bare", "ours faster"]]
    for model in bench.models:
        image_file, weights = save_weights(bench, model)
        shared: dict[str, Any] = {"image_file": image_file, "weights": weights, "repeats": bench.repeats}
        shared |= {"imgsz": bench.predict_imgsz, "device": str(bench.device)}
        network = load(YOLO, model, weights).model
        default = None
        for precision in bench.precisions:
            ours = measure(YOLO, model, **shared, amp=precision.name)
            default = default or ours["ms"]
            backend = TorchBackend(network, bench.device, precision)
            resident = images.to(
                bench.device, precision.dtype or torch.float32, memory_format=backend.precision.layout
            )
            bare = measure_bare(make_run(backend.network, backend.head), resident, bench.repeats)
            name, threads = precision.name, str(ours["threads"])
            rows.append([f"{model} bare", name, threads, f"{bare:.1f}", "-", "-", "-"])
            share = times(bare, ours["ms"])
            rows.append([f"{model} ours", name, threads, f"{ours['ms']:.1f}", str(ours["boxes"]), share, "-"])
        for threads in (None, ours["threads"]) if bench.peer else ():
            found = bench.peer.run("prediction", model=model, threads=threads, **shared)
            if found is not None:
                cells = [str(found["threads"]), f"{found['ms']:.1f}", str(found["boxes"])]
                faster = times(found["ms"], default)
                rows.append([f"{model} peer {found['version']}", "its own", *cells, "-", faster])
    return rows
