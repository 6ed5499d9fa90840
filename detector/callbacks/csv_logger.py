"""The run's figures as a CSV file, a row an epoch."""

from __future__ import annotations

import csv
import logging
import os
from pathlib import Path
from time import perf_counter
from typing import Any

from detector.callbacks.callback import Callback

log = logging.getLogger(__name__)

COLUMN_ORDER = ("train/", "metrics/", "val/", "lr/", "speed/")


class CSVLogger(Callback):
    """Writes `results.csv`: epoch (from 1), time in seconds, and every metric of the trainer.

    The columns are those of the first epoch in which validation ran; each row is flushed to disk.
    """

    def __init__(self) -> None:
        self.columns: list[str] = []
        self.rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Any) -> None:
        """Start with an empty file."""
        self.started = perf_counter()
        self.columns, self.rows = [], []
        trainer.csv.unlink(missing_ok=True)

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Write a row; when new columns have come up, the whole file anew."""
        numbers = {name: f"{value:.6g}" for name, value in trainer.metrics.items()}
        seconds = f"{perf_counter() - self.started:.6g}"
        self.rows.append({"epoch": trainer.epoch + 1, "time": seconds, **numbers})
        new = [name for name in self.rows[-1] if name not in self.columns]
        if new:
            self.columns = sorted([*self.columns, *new], key=_place)
            _write(trainer.csv, "w", self.columns, self.rows, header=True)
        else:
            _write(trainer.csv, "a", self.columns, self.rows[-1:], header=False)


def _place(name: str) -> tuple[int, int]:
    """Order columns by kind: epoch and time, then as in COLUMN_ORDER, then the user's own."""
    if name in ("epoch", "time"):
        return (-1, 0)
    kinds = [i for i, prefix in enumerate(COLUMN_ORDER) if name.startswith(prefix)]
    return (kinds[0] if kinds else len(COLUMN_ORDER), 0)


def _write(path: Path, mode: str, columns: list[str], rows: list[dict[str, Any]], header: bool) -> None:
    with path.open(mode, newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())
