"""Memory of a training with `cache=ram` and 0, 2 and 4 loader processes, epoch by epoch.

    python -m benchmarks.memory --data shapes.yaml --imgsz 320 --epochs 12

Counted is the proportional set size of the training's process and its children (Linux): memory that several
share, as the cache, counts once.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detector import YOLO
from detector.tables import align

WORKERS = (0, 2, 4)
QUIET = {"val": False, "plots": False, "save": False, "verbose": False, "loggers": "none"}


def proportional_size() -> float:
    """Return the memory of this process and its children, MiB."""
    own = Path("/proc/self")
    children = [
        Path("/proc", pid)
        for task in (own / "task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    lines = [
        line
        for process in (own, *children)
        for line in (process / "smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    ]
    return sum(int(line.split()[1]) for line in lines) / 1024


class Watch:
    """A callback that notes the memory at the end of every epoch, and the size of the cache, MiB."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.cache = 0.0

    def on_train_epoch_end(self, trainer: Any) -> None:
        gc.collect()
        self.cache = trainer.data.train_loader.dataset.cache.nbytes / 2**20
        self.seen.append(proportional_size())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="shapes.yaml")
    parser.add_argument("--model", default="yolo11n.yaml")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=12)
    options = vars(parser.parse_args(arguments))
    model, epochs = options.pop("model"), options["epochs"]
    middle = epochs // 2
    rows = [
        [
            "workers",
            "cache, MiB",
            "epoch 2, MiB",
            f"epoch {middle}",
            f"epoch {epochs}",
            "growth per epoch, MiB",
        ]
    ]
    for workers in WORKERS:
        watch = Watch()
        YOLO(model).train(callbacks=[watch], workers=workers, cache="ram", patience=0, **options, **QUIET)
        second, half, last = watch.seen[1], watch.seen[middle - 1], watch.seen[-1]
        growth = (last - half) / (epochs - middle)
        rows.append(
            [str(workers), *(f"{value:.0f}" for value in (watch.cache, second, half, last)), f"{growth:+.1f}"]
        )
    print(align(rows))


if __name__ == "__main__":
    main()
