"""Milliseconds per validated image: the bare fused network, our validation, and the peer's.

"training" is the validation inside a training, from the end of its training batches to `on_val_end`,
data, loss and COCO metrics included; the median of all epochs but the first. "command" is `val` on the
trained model, from `on_val_start` to `on_val_end`. "stages" is the part of it that either side
reports as its speed. Bare is the network alone on the same batches, kept in memory.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.bench import now, set_threads, times

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from detector.device import Precision


class ValidationClock:
    """Callbacks that time validations: in a training from the end of its batches, else from their start."""

    def __init__(self, yolo: Any) -> None:
        self.start: float | None = None
        self.whole: list[float] = []
        self.stages: list[float] = []
        for event in ("train_epoch_end", "val_start", "val_end"):
            yolo.add_callback(f"on_{event}", getattr(self, event))

    def train_epoch_end(self, _: Any) -> None:
        self.start = now()

    def val_start(self, _: Any) -> None:
        self.start = self.start or now()

    def val_end(self, validator: Any) -> None:
        assert self.start is not None
        self.whole.append(1e3 * (now() - self.start))
        self.stages.append(sum(validator.speed.values()))
        self.start = None


def measure(
    YOLO: Any,  # noqa: N803
    model: str,
    images: int,
    threads: int | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Time the validations of a training and one of the command; ms per image."""
    yolo = YOLO(f"{model}.yaml")
    set_threads(yolo, threads)
    clock = ValidationClock(yolo)
    yolo.train(plots=False, close_mosaic=0, **settings)
    counted = slice(1, settings["epochs"])  # what follows is the final validation of the best weights
    found = {"training": median(clock.whole[counted]) / images, "stages": median(clock.stages[counted])}
    kept = {key: settings[key] for key in ("data", "imgsz", "device", "project", "verbose")}
    yolo.val(plots=False, **kept)
    return found | {"command": clock.whole[-1] / images, "threads": torch.get_num_threads()}


def measure_bare(bench: Bench, model: str, precision: Precision, settings: dict[str, Any]) -> float:
    """Return ms per image of the fused network on the batches of the validation split."""
    from detector.engine.loaders import TrainingData
    from detector.inference.torch_backend import TorchBackend
    from detector.nn.model import DetectionModel, load_model_config
    from detector.settings import TrainSettings

    data = TrainingData(TrainSettings.parse(settings))
    data.make_loaders(bench.batch, bench.device)
    backend = TorchBackend(
        DetectionModel(load_model_config(model, data.config.num_classes)), bench.device, precision
    )
    dtype = precision.dtype or torch.float32
    batches = [
        batch.images.to(bench.device).to(dtype, memory_format=backend.precision.layout) / 255
        for batch in data.val_loader
    ]
    data.close()
    with torch.inference_mode(), precision.autocast():
        for batch in batches:  # each shape once, to warm up
            backend.network(batch)
        start = now()
        for batch in batches:
            backend.network(batch)
        return 1e3 * (now() - start) / sum(len(batch) for batch in batches)


def run(bench: Bench) -> list[list[str]]:
    """Return the table."""
    from detector.yolo import YOLO

    settings = bench.training_settings(2 * bench.batch, bench.val_images, bench.epochs + 2)
    images = min(bench.val_images, len(bench.data.split_images("val")))
    default = bench.precisions[0].name
    header = ["validation, ms per image", "precision", "threads", "training", "stages", "command"]
    rows = [[*header, "of bare", "ours faster"]]
    for model in bench.models:
        ours = measure(YOLO, model, images, **settings)
        threads = ours["threads"]
        bare = {p.name: measure_bare(bench, model, p, settings) for p in bench.precisions}
        for name, value in bare.items():
            rows.append([f"{model} bare", name, str(threads), f"{value:.2f}", "-", "-", "-", "-"])
        rows.append([f"{model} ours", default, *cells(ours), times(bare[default], ours["training"]), "-"])
        for choice in (None, threads) if bench.peer else ():
            found = bench.peer.run("validation", model=model, images=images, threads=choice, **settings)
            if found is not None:
                faster = times(found["training"], ours["training"])
                rows.append([f"{model} peer {found['version']}", "its own", *cells(found), "-", faster])
    return rows


def cells(found: dict[str, Any]) -> list[str]:
    milliseconds = [f"{found[key]:.2f}" for key in ("training", "stages", "command")]
    return [str(found["threads"]), *milliseconds]
