"""Run folders without a training: what `RunStatus` writes, quickly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detector.runs.process import describe_process

CLASSES = ("cat", "dog")


def status_of(epochs: int = 3, **changes: Any) -> dict[str, Any]:
    """Return the status of a finished run of some epochs; `changes` override and add."""
    return {
        "state": "finished", "epoch": epochs, "epochs": epochs, "progress": 1.0, "eta_s": None,
        "seconds": 2.0 * epochs, "best": best_of(epochs), "stop_reason": f"all {epochs} epochs are done",
        "error": None, **describe_process(), "started": "2026-01-01T10:00:00+00:00",
        "updated": "2026-01-01T10:10:00+00:00", "ended": "2026-01-01T10:10:00+00:00",
        "hardware": {"device": "cpu", "machine": "x86_64", "cpus": 2}, "versions": {"detector": "0.1.0"},
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "data": {"name": "pets.yaml", "fingerprint": "0011223344556677", "train_images": 8, "val_images": 4,
                 "classes": 2},
        "command": f"detector train data=pets.yaml epochs={epochs}",
        "settings": {"data": "pets.yaml", "epochs": epochs},
    } | changes  # fmt: skip


def row_of(epoch: int, epochs: int, offset: float = 0.0) -> dict[str, Any]:
    """Return an epoch's line of metrics.jsonl; losses fall, metrics rise with the epoch, these by `offset` more."""
    part = epoch / epochs
    return {
        "epoch": epoch, "time": f"2026-01-01T10:{epoch // 60 % 60:02}:{epoch % 60:02}+00:00", "seconds": 2.0 * epoch,
        "train/box_loss": 2 - part, "train/cls_loss": 3 - 2 * part, "train/dfl_loss": 1.5 - part / 2,
        "lr/pg0": 0.01 * (1 - part), "lr/pg1": 0.01 * (1 - part), "speed/images_per_second": 100.0,
        "val/loss": 6 - 3 * part, "val/box_loss": 2 - part, "val/cls_loss": 2.5 - part, "val/dfl_loss": 1.5 - part,
        "metrics/precision": 0.8 * part + offset, "metrics/recall": 0.7 * part + offset,
        "metrics/mAP50": 0.75 * part + offset, "metrics/mAP50-95": 0.5 * part + offset,
    }  # fmt: skip


def best_of(epochs: int, offset: float = 0.0) -> dict[str, Any]:
    """Return the best epoch of a status: the last one."""
    row = row_of(epochs, epochs, offset)
    metrics = {name: value for name, value in row.items() if name.startswith(("metrics/", "val/"))}
    return {"epoch": epochs, "fitness": row["metrics/mAP50-95"], **metrics}


def class_rows(names: Any = CLASSES, offset: float = 0.0) -> list[dict[str, Any]]:
    """Return the rows of classes.json: a class worse than the one before it."""
    return [
        {"class": name, "images": 4, "instances": 8, "precision": 0.8, "recall": 0.7, "f1": 0.75,
         "mAP50": 0.8 - 0.1 * number + offset, "mAP50-95": 0.5 - 0.1 * number + offset}
        for number, name in enumerate(names)
    ]  # fmt: skip


def write_run(
    folder: Path,
    epochs: int = 3,
    *,
    offset: float = 0.0,
    settings: Mapping[str, Any] | None = None,
    names: Any = CLASSES,
    **changes: Any,
) -> Path:
    """Write a run folder.

    Args:
        folder: is made.
        epochs: lines of metrics.jsonl.
        offset: added to all metrics of a validation.
        settings: added to those of the status.
        names: of the classes.
        changes: of the status, such as state="running".

    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    status = status_of(epochs, best=best_of(epochs, offset)) | changes
    status["settings"] = {**status["settings"], **(settings or {})}
    (folder / "status.json").write_text(json.dumps(status))
    rows = [row_of(epoch, epochs, offset) for epoch in range(1, epochs + 1)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "classes.json").write_text(json.dumps(class_rows(names, offset)))
    (folder / "train.log").write_text("".join(f"epoch {n}/{epochs}\n" for n in range(1, epochs + 1)))
    (folder / "weights").mkdir()
    (folder / "weights/best.pt").write_bytes(b"\0" * 1000)
    return folder
