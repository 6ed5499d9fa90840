"""The run's metrics as a CSV file, one row per epoch."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from detector.callbacks.callback import Callback
from detector.errors import cannot_write
from detector.files.atomic import atomic_write

COLUMN_ORDER = ("train/", "metrics/", "val/", "lr/", "speed/")


class CSVLogger(Callback):
    """Writes `results.csv`: epoch (from 1), time in seconds, and every metric of the trainer.

    The columns are those of the first epoch in which validation ran; each row is flushed to disk. The rows are
    part of the run's state: a resumed run first writes those of the epochs before it, even if the file was changed
    or deleted, and continues to count the time.
    """

    def __init__(self) -> None:
        self.columns: list[str] = []
        self.rows: list[dict[str, Any]] = []

    def on_pretrain_routine_start(self, _: Any) -> None:
        """Reset; the state of a resumed run is restored after this."""
        self.columns, self.rows = [], []

    def on_train_start(self, trainer: Any) -> None:
        """Start with an empty file, or with the rows of the epochs before."""
        self.started = perf_counter()
        if self.rows:
            self.started -= float(self.rows[-1]["time"])
            _write(trainer.csv, self.columns, self.rows)
        else:
            with _in_a_sentence(trainer.csv):
                trainer.csv.unlink(missing_ok=True)

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Append a row; if there are new columns, write the whole file again."""
        numbers = {name: f"{value:.6g}" for name, value in trainer.metrics.items()}
        seconds = f"{perf_counter() - self.started:.6g}"
        self.rows.append({"epoch": trainer.epoch + 1, "time": seconds, **numbers})
        new = [name for name in self.rows[-1] if name not in self.columns]
        if new:
            self.columns = sorted([*self.columns, *new], key=_place)
            _write(trainer.csv, self.columns, self.rows)
        else:
            _append(trainer.csv, self.columns, self.rows[-1])

    def state_dict(self) -> dict[str, Any]:
        return {"columns": self.columns, "rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        columns, rows = [str(name) for name in state["columns"]], [dict(row) for row in state["rows"]]
        if odd := {name for row in rows for name in row} - set(columns):
            raise ValueError(f"there is no column {min(map(str, odd))!r}")
        if rows:
            float(rows[-1]["time"])
        self.columns, self.rows = columns, rows


def _place(name: str) -> tuple[int, int]:
    """Order columns by kind: epoch and time, then as in COLUMN_ORDER, then custom ones."""
    if name in ("epoch", "time"):
        return (-1, 0)
    kinds = [i for i, prefix in enumerate(COLUMN_ORDER) if name.startswith(prefix)]
    return (kinds[0] if kinds else len(COLUMN_ORDER), 0)


def _write(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    """Write a new file, then replace the old one with it."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    with _in_a_sentence(path), atomic_write(path) as file:
        file.write(text.getvalue().encode())


def _append(path: Path, columns: list[str], row: dict[str, Any]) -> None:
    with _in_a_sentence(path), path.open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, columns, restval="").writerow(row)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _in_a_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(str(path), error) from None
