"""Training images per second: a bare loop over the network, our trainer, and the peer's.

The bare loop is forward, loss, backward and an AdamW step on one batch that stays in memory. The
trainers run whole steps with mosaic, waits for data included, as their callbacks see them; the first epoch
is not counted, and rates don't warm up, as in most of a run. `threads` of the peer are its default number, then as
many as ours.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.bench import now, set_threads, times

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from detector.device import Precision


class EpochClock:
    """Callbacks that time the training part of every epoch, and the waits for data within it."""

    def __init__(self, yolo: Any) -> None:
        self.epochs: list[float] = []
        self.waits: list[float] = []
        for event in ("train_epoch_start", "train_batch_start", "train_batch_end", "train_epoch_end"):
            yolo.add_callback(f"on_{event}", getattr(self, event))

    def train_epoch_start(self, _: Any) -> None:
        self.waits.append(0.0)
        self.start = self.last = now()

    def train_batch_start(self, _: Any) -> None:
        self.waits[-1] += time.perf_counter() - self.last

    def train_batch_end(self, _: Any) -> None:
        self.last = time.perf_counter()

    def train_epoch_end(self, _: Any) -> None:
        self.epochs.append(now() - self.start)


def measure(
    YOLO: Any,  # noqa: N803
    model: str,
    images: int,
    threads: int | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Time a training of either side; images/s and the share of time spent waiting for data."""
    yolo = YOLO(f"{model}.yaml")
    set_threads(yolo, threads)
    clock = EpochClock(yolo)
    yolo.train(val=False, plots=False, close_mosaic=0, warmup_epochs=0, **settings)
    seconds, waits = clock.epochs[1:], clock.waits[1:]
    return {
        "images_per_s": images * len(seconds) / sum(seconds),
        "wait": sum(waits) / sum(seconds),
        "threads": torch.get_num_threads(),
    }


def measure_bare(bench: Bench, model: str, precision: Precision, settings: dict[str, Any]) -> float:
    """Return images/s of the network and its loss on one batch of the data set."""
    from dataclasses import replace

    from detector.engine.loaders import TrainingData
    from detector.nn.losses import build_loss
    from detector.nn.model import DetectionModel, load_model_config
    from detector.settings import TrainSettings

    data = TrainingData(TrainSettings.parse(settings | {"close_mosaic": 0}))
    data.make_loaders(bench.batch, bench.device)
    batch = next(iter(data.train_loader.batches(0)))
    layout = precision.layout
    network = DetectionModel(replace(load_model_config(model), names=tuple(data.names.values())))
    network.to(bench.device).to(memory_format=layout).train()
    images = batch.images.to(bench.device, torch.float32, memory_format=layout).mul_(1 / 255)
    boxes, labels = batch.boxes.to(bench.device), batch.labels.to(bench.device)
    data.close()
    loss_fn = build_loss(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.001)

    def step() -> None:
        with precision.autocast():
            preds = network(images)
        total, _ = loss_fn(preds, boxes, labels)
        total.sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(max(bench.steps // 4, 1)):
        step()
    start = now()
    for _ in range(bench.steps):
        step()
    return bench.steps * bench.batch / (now() - start)


def run(bench: Bench) -> list[list[str]]:
    """Return the table."""
    from detector.yolo import YOLO

    images = bench.steps * bench.batch
    settings = bench.training_settings(images, 1, bench.epochs)
    default = bench.precisions[0].name
    header = ["training", "precision", "threads", "workers", "images/s", "data wait"]
    rows = [[*header, "of bare", "ours faster"]]
    for model in bench.models:
        ours = measure(YOLO, model, images, **settings)
        threads, speed = ours["threads"], ours["images_per_s"]
        bare = {p.name: measure_bare(bench, model, p, settings) for p in bench.precisions}
        for name, value in bare.items():
            rows.append([f"{model} bare", name, str(threads), "-", f"{value:.1f}", "-", "-", "-"])
        share = times(speed, bare[default])
        rows.append([f"{model} ours", default, *cells(ours, "auto"), share, "-"])
        choices: list[dict[str, Any]] = [{}, {"threads": threads}, {"threads": threads, "workers": 0}]
        for options in choices if bench.peer else ():
            found = bench.peer.run("training", model=model, images=images, **settings, **options)
            if found is not None:
                shown = cells(found, str(options.get("workers", "its own")))
                faster = times(speed, found["images_per_s"])
                rows.append([f"{model} peer {found['version']}", "its own", *shown, "-", faster])
    return rows


def cells(found: dict[str, Any], workers: str) -> list[str]:
    return [str(found["threads"]), workers, f"{found['images_per_s']:.1f}", f"{found['wait']:.0%}"]
