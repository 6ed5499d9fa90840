"""What a run's record costs: listing many runs, and the share of a training that writing it takes.

    python -m benchmarks --only runs

The run folders are written just before, so the system has them in memory: this measures the work, not the disk.
Listing is timed with the start of Python, as a user sees it; the best of several repeats counts, and the time of the
processor is given as well, which other programs don't lengthen. The training is the one of `--only callbacks`; with
`--quick` it is a tiny one, in which the record has its largest share.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.callbacks import measure_training, share
from tests.support.runs import write_run

if TYPE_CHECKING:
    from benchmarks.bench import Bench

RUNS, EPOCHS, REPEATS = 200, 300, 5


def write_runs(folder: Path) -> None:
    """Write the runs, which differ in three settings."""
    for number in range(RUNS):
        settings = {"lr0": 0.001 * number, "seed": number % 3, "optimizer": "SGD" if number % 2 else "AdamW"}
        write_run(folder / f"run-{number}", EPOCHS, offset=number / 1000, settings=settings)


def measure_listing(folder: Path, *words: str) -> tuple[float, float]:
    """Return the seconds of `detector runs`, and those of the processor."""
    command, spent = [sys.executable, "-m", "detector", "runs", str(folder), *words], []
    for _ in range(REPEATS):
        start, before = perf_counter(), os.times()
        subprocess.run(command, check=True, capture_output=True)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        spent.append((perf_counter() - start, used))
    return min(seconds for seconds, _ in spent), min(used for _, used in spent)


def run(bench: Bench) -> list[list[str]]:
    """Return the table."""
    rows = [["the record of a run", "s", "processor s", "of the run"]]
    with tempfile.TemporaryDirectory() as name:
        write_runs(Path(name))
        for words in ((), ("sort=-mAP50-95", "filter=seed=1"), ("--json",)):
            label = " ".join(["detector runs", *words])
            wall, used = measure_listing(Path(name), *words)
            rows.append([f"{label}, {RUNS} of {EPOCHS} epochs", f"{wall:.2f}", f"{used:.2f}", "-"])
    model = bench.models[0]
    settings = bench.training_settings(bench.steps * bench.batch, bench.val_images, bench.epochs)
    seconds, spent = measure_training(model, settings | {"save": True})
    rows.append([f"{model}, {bench.epochs} epochs", *_row(seconds, seconds)])
    for writer in ("RunStatus", "Report"):
        written = {event: value for (event, fn), value in spent.items() if fn.startswith(f"{writer}.")}
        rows.append([f"its {writer}, all", *_row(sum(written.values()), seconds)])
        for event, value in sorted(written.items(), key=lambda row: -row[1])[:4]:
            rows.append([f"  on {event}", *_row(value, seconds)])
    return rows


def _row(part: float, whole: float) -> list[str]:
    spent, of_run = share(part, whole)
    return [spent, "-", of_run]
