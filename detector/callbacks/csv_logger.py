"""The run's figures as a CSV file, a row an epoch."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from time import perf_counter
from typing import Any

from detector.callbacks.callback import Callback

COLUMN_ORDER = ("train/", "metrics/", "val/", "lr/", "speed/")


class CSVLogger(Callback):
    """Writes `results.csv`: epoch (from 1), time in seconds, and every metric of the trainer.

    The columns are those of the first epoch in which validation ran; each row is flushed to disk. A resumed
    run keeps the rows of the epochs it builds on, drops later ones, and goes on counting the time.
    """

    def __init__(self) -> None:
        self.columns: list[str] = []
        self.rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Any) -> None:
        """Start with an empty file, or with the rows of the epochs before."""
        self.started = perf_counter()
        self.columns, self.rows = [], []
        if trainer.start_epoch > 0 and trainer.csv.exists():
            self.columns, self.rows = _read(trainer.csv, trainer.start_epoch)
        if self.rows:
            self.started -= float(self.rows[-1]["time"])
            _write(trainer.csv, self.columns, self.rows)
        else:
            trainer.csv.unlink(missing_ok=True)

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Write a row; when new columns have come up, the whole file anew."""
        numbers = {name: f"{value:.6g}" for name, value in trainer.metrics.items()}
        seconds = f"{perf_counter() - self.started:.6g}"
        self.rows.append({"epoch": trainer.epoch + 1, "time": seconds, **numbers})
        new = [name for name in self.rows[-1] if name not in self.columns]
        if new:
            self.columns = sorted([*self.columns, *new], key=_place)
            _write(trainer.csv, self.columns, self.rows)
        else:
            _append(trainer.csv, self.columns, self.rows[-1])


def _place(name: str) -> tuple[int, int]:
    """Order columns by kind: epoch and time, then as in COLUMN_ORDER, then the user's own."""
    if name in ("epoch", "time"):
        return (-1, 0)
    kinds = [i for i, prefix in enumerate(COLUMN_ORDER) if name.startswith(prefix)]
    return (kinds[0] if kinds else len(COLUMN_ORDER), 0)


def _read(path: Path, epochs: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns and the rows of the first `epochs` epochs; a row cut off in writing is left out."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if _is_whole(row) and int(row["epoch"]) <= epochs]
        return list(reader.fieldnames or []), rows


def _is_whole(row: dict[str, Any]) -> bool:
    if None in row or None in row.values() or not row.get("epoch", "").isdecimal():
        return False
    try:
        return float(row["time"]) >= 0
    except (KeyError, ValueError):
        return False


def _write(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    """Write the whole file beside the old one, then put it in its place."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _append(path: Path, columns: list[str], row: dict[str, Any]) -> None:
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, columns, restval="").writerow(row)
        file.flush()
        os.fsync(file.fileno())
