"""Training images per second in several processes that share the machine's cores, or its GPUs.

One process with all threads is compared with one that is a group by itself, which is what data parallelism costs,
and with two, which have half of the threads each (or a GPU each). Batches are the same.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from benchmarks.bench import times

if TYPE_CHECKING:
    from benchmarks.bench import Bench


class Speeds:
    """A callback that keeps the images per second of every epoch's training."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_epoch_end(self, trainer: Any) -> None:
        self.found.append(trainer.metrics["speed/images_per_second"])

    def state_dict(self) -> dict[str, Any]:
        return {"found": self.found}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.found = state["found"]


def measure(model: str, settings: dict[str, Any], **options: Any) -> float:
    """Return images/s, without the first epoch."""
    from detector import YOLO

    speeds = Speeds()
    yolo = YOLO(f"{model}.yaml")
    yolo.add_callback(speeds)
    yolo.train(val=False, plots=False, loggers="none", close_mosaic=0, warmup_epochs=0, **settings, **options)
    return len(speeds.found[1:]) / sum(1 / speed for speed in speeds.found[1:])


def group_of_one() -> dict[str, str]:
    """Return the environment of a process that is a group by itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def run(bench: Bench) -> list[list[str]]:
    """Return the table."""
    settings = bench.training_settings(bench.steps * bench.batch, 1, bench.epochs)
    several = torch.cuda.device_count() > 1 and bench.device.type == "cuda"
    two = {"device": [0, 1]} if several else {"device": "cpu", "processes": 2}
    rows = [["processes", "images/s", "of one process"]]
    for model in bench.models:
        alone = measure(model, settings)
        with mock.patch.dict(os.environ, group_of_one()):
            group = measure(model, settings)
        rows.append([f"{model} one", f"{alone:.1f}", "-"])
        rows.append([f"{model} one, as a group", f"{group:.1f}", times(group, alone)])
        if several or bench.device.type == "cpu":
            both = measure(model, settings | two)
            rows.append([f"{model} two", f"{both:.1f}", times(both, alone)])
    return rows
