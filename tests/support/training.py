"""A quick training, and a run that is only played, for tests of what happens in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from detector import YOLO

Watch = Mapping[str, Callable[[Any], object]]


def quick_settings(**changes: Any) -> dict[str, Any]:
    """Return the settings of a quick, silent training on the CPU; `changes` override and add."""
    return {
        "imgsz": 64, "batch": 4, "epochs": 2, "workers": 0, "plots": False, "verbose": False, "device": "cpu",
    } | changes  # fmt: skip


def train(model: YOLO | Path, *callbacks: Any, **settings: Any) -> YOLO:
    """Train with quick settings; return the model.

    Args:
        model: a model or the path of one.
        callbacks: objects, and pairs of an event and a function.
        settings: what differs from `quick_settings`; `data` has to be there.
    """
    yolo = model if isinstance(model, YOLO) else YOLO(model)
    for callback in callbacks:
        yolo.add_callback(*callback) if isinstance(callback, tuple) else yolo.add_callback(callback)
    yolo.train(**quick_settings(**settings))
    return yolo


def draw_results(trainer: Any) -> None:
    """Write a results.png of 60 x 40 px, which a training leaves when it makes plots."""
    cv2.imwrite(str(trainer.save_dir / "results.png"), np.full((40, 60, 3), 90, np.uint8))


def plain_trainer(**attributes: Any) -> SimpleNamespace:
    """Return what a callback is handed by `play`: the trainer's plain attributes, and these."""
    start = attributes.get("start_epoch", 0)
    plain = {
        "epoch": start, "start_epoch": 0, "batch_index": 0, "stop": False, "fitness": None, "metrics": {},
        "exception": None, "stop_reason": None,
    }  # fmt: skip
    return SimpleNamespace(**(plain | attributes))


def play(
    callback: Any,
    metrics: Sequence[Mapping[str, float] | None],
    trainer: SimpleNamespace | None = None,
    state: Any = None,
    batches: int = 1,
    watch: Watch | None = None,
) -> SimpleNamespace:
    """Drive a callback through a run without a training: the trainer's events in their order.

    Args:
        callback: an object with methods named as events; of those it lacks nothing is called.
        metrics: one entry per epoch, None where nothing was validated; "fitness" becomes the trainer's own,
            as in a training.
        trainer: what the callback is handed; a plain one by default. Its `start_epoch` comes first.
        state: what the callback's `state_dict` returned, in a run that is resumed.
        batches: per epoch.
        watch: functions of the trainer by event, called after the callback's method.

    Returns:
        The trainer.
    """
    trainer = trainer or plain_trainer()
    watch = watch or {}

    def fire(event: str) -> None:
        for fn in (getattr(callback, event, None), watch.get(event)):
            if fn is not None:
                fn(trainer)

    fire("on_pretrain_routine_start")
    if state is not None:
        callback.load_state_dict(state)
    fire("on_train_start")
    for trainer.epoch, given in enumerate(metrics, trainer.start_epoch):
        fire("on_train_epoch_start")
        for trainer.batch_index in range(batches):
            fire("on_train_batch_start")
            fire("on_train_batch_end")
        fire("on_train_epoch_end")
        trainer.metrics = dict(given or {})
        trainer.fitness = trainer.metrics.pop("fitness", None)
        fire("on_fit_epoch_end")
        if trainer.stop:
            break
    fire("on_exception" if trainer.exception else "on_train_end")
    fire("teardown")
    return trainer
