"""The peer, timed as a black box: an ultralytics installed in a separate virtual environment.

This file is run on both sides. `Peer` starts it with the interpreter of that environment, where `main`
hands the peer's public `YOLO` class to the same `measure` function that times ours; only callbacks and
public attributes are used. Settings and runs of the peer are in a scratch folder.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 3600  # seconds; a peer that hangs must not hang the whole table


@dataclass(frozen=True)
class Peer:
    """Runs `measure` functions in the peer's environment.

    Attributes:
        venv: the virtual environment.
        folder: scratch folder for whatever the peer writes.
    """

    venv: Path
    folder: Path

    def run(self, task: str, **options: Any) -> dict[str, Any] | None:
        """Return what `measure` of benchmarks/<task>.py found, or print one line that says why there is nothing."""
        windows = os.name == "nt"
        python = self.venv / ("Scripts/python.exe" if windows else "bin/python")
        self.folder.mkdir(parents=True, exist_ok=True)
        answer = self.folder / "answer.json"
        answer.unlink(missing_ok=True)
        order = json.dumps({"task": task, "answer": str(answer), **options}, default=str)
        environment = os.environ | {"YOLO_CONFIG_DIR": str(self.folder), "PYTHONPATH": str(ROOT)}
        try:
            done = subprocess.run(
                [python, "-m", "benchmarks.peer", order],
                cwd=self.folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"peer: {task} not measured: {error}", flush=True)
            return None
        if done.returncode or not answer.exists():
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            print(f"peer: {task} not measured: {said[-1]}", flush=True)
            return None
        return dict(json.loads(answer.read_text()))


class _Timed(Exception):  # noqa: N818
    """Ends the peer's training once its loader has been timed."""


def measure_loading(YOLO: Any, model: str, passes: int, **settings: Any) -> dict[str, Any]:  # noqa: N803
    """Time whole passes over the training loader, without training; images/s of each pass."""
    rates: list[float] = []

    def iterate(trainer: Any) -> None:
        for _ in range(passes):
            start = time.perf_counter()
            seen = sum(len(batch["img"]) for batch in trainer.train_loader)
            rates.append(seen / (time.perf_counter() - start))
        raise _Timed

    yolo = YOLO(f"{model}.yaml")
    yolo.add_callback("on_train_start", iterate)
    try:
        yolo.train(plots=False, close_mosaic=0, **settings)
    except _Timed:
        return {"images_per_s": rates}
    raise RuntimeError("on_train_start was not called")


def main() -> None:
    """The peer's side: run the task that `Peer.run` asked for, and write its result."""
    import ultralytics

    order = json.loads(sys.argv[1])
    task, answer = order.pop("task"), order.pop("answer")
    ultralytics.settings.update({"sync": False})
    measure = measure_loading if task == "loading" else importlib.import_module(f"benchmarks.{task}").measure
    found = measure(ultralytics.YOLO, **order)
    Path(answer).write_text(json.dumps(found | {"version": ultralytics.__version__}))


if __name__ == "__main__":
    main()
