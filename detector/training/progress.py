"""The progress of a training: its counters, and the meters of an epoch."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from detector.callbacks.builtin.monitor import compare
from detector.callbacks.registry import short_name
from detector.errors import CheckpointError
from detector.training.checked import CheckedAttributes


@dataclass
class Progress(CheckedAttributes):
    """The counters and flags of a training; what callbacks set of them is checked.

    Attributes:
        epochs: planned epochs; `time=` and callbacks may change them.
        epochs_done: whole epochs, their end included.
        batches_done: batches of the epoch after those.
        global_step: batches since the start.
        last_step: the `global_step` of the last optimizer step, -1 before the first.
        best_fitness: the highest fitness so far; `best_epoch` is the epoch it is from, from 0.
        best_loss: the validation loss of that epoch, which decides among equals; None without one.
        stop: end the run cleanly after the current batch.
        stop_reason: who asked for it, or None.
        done: no epoch follows.
        finished: the run has come to its end, final evaluation and all.
        in_step: within a step, where no state can be taken; not part of the state.
    """

    epochs: int
    epochs_done: int = 0
    batches_done: int = 0
    global_step: int = 0
    last_step: int = -1
    best_fitness: float | None = None
    best_epoch: int | None = None
    best_loss: float | None = None
    stop: bool = False
    stop_reason: str | None = None
    done: bool = False
    finished: bool = False
    in_step: bool = field(default=False, repr=False)

    place: ClassVar[str] = "trainer"

    def take_if_better(self, fitness: float, loss: float | None, epoch: int) -> None:
        """Keep an epoch as the best one, unless that was better: of equals the smaller loss, else the later one.

        Args:
            fitness: of the epoch; NaN is never better.
            loss: its validation loss, if there is one.
            epoch: from 0.
        """
        if compare(fitness, loss, self.best_fitness, self.best_loss) >= 0:
            self.best_fitness, self.best_epoch = fitness, epoch
            self.best_loss = None if loss is None or not math.isfinite(loss) else loss

    def state_dict(self) -> dict[str, Any]:
        """Return it as plain data; `epoch` is the last one that is done, -1 before the first has ended."""
        return {
            "epoch": self.epochs_done - 1,
            "batches": self.batches_done,
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "finished": self.finished,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; `finished` is left alone, since a resumed run continues past it."""
        self.epochs_done, self.batches_done = max(state["epoch"] + 1, 0), max(state["batches"], 0)
        for name, kind in COUNTERS.items():  # those only: a state may hold anything
            value = state["counters"].get(name) if name in OPTIONAL else state["counters"][name]
            setattr(self, name, None if value is None and name in OPTIONAL else kind(value))
        if not (self.stop or self.done):
            self.stop_reason = None

    def replan(self, epochs: int) -> None:
        """Set another number of epochs than those the run was started with."""
        self.epochs = epochs
        self.stop = self.done = self.epochs_done >= epochs
        self.stop_reason = None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got a {type(value).__name__}")
    return value


COUNTERS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "epochs": int, "global_step": int, "last_step": int, "best_fitness": float, "best_epoch": int,
        "best_loss": float, "stop": bool, "done": bool, "stop_reason": _text,
    }
)  # fmt: skip
"""What a state holds under `counters`: name -> what makes a value of it."""

OPTIONAL = frozenset({"best_fitness", "best_epoch", "best_loss", "stop_reason"})
"""Counters that may be None; states of earlier versions lack the last two."""


class EpochMeters:
    """What is summed over an epoch: losses, images and time.

    Attributes:
        loss_sum: (L,) float32, loss terms summed over the images seen.
        images_seen: images of this epoch so far.
        data_wait: seconds spent waiting for batches.

    Args:
        terms: number of loss terms, L.
        device: where losses are summed, so that no step synchronises with the device.
    """

    def __init__(self, terms: int, device: torch.device) -> None:
        self.loss_sum = torch.zeros(terms, device=device)
        self.images_seen = 0
        self.data_wait = 0.0
        self._started = perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds this epoch has taken so far; those before an interruption count, the interruption does not."""
        return perf_counter() - self._started

    def add(self, loss_items: Tensor, images: int) -> None:
        """Count a batch.

        Args:
            loss_items: (L,) float32, means over its images.
            images: its images.
        """
        self.loss_sum += loss_items * images
        self.images_seen += images

    def mean_losses(self) -> list[float]:
        """Return the means over the images so far; this synchronises with the device."""
        means: list[float] = (self.loss_sum / max(self.images_seen, 1)).tolist()
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return plain data, and the sum itself, which the next epoch does not touch."""
        return {
            "sums": {"images_seen": self.images_seen, "data_wait": self.data_wait},
            "epoch_seconds": self.seconds,
            "loss_sum": self.loss_sum,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; the clock continues from there.

        Raises:
            CheckpointError: if the state is of a loss with another number of terms.
        """
        if state["loss_sum"].shape != self.loss_sum.shape:
            raise CheckpointError(
                f"the run that is resumed sums {len(state['loss_sum'])} loss terms, this version has "
                f"{len(self.loss_sum)}; resume it with the version that wrote it, or start from its weights with "
                f"pretrained="
            )
        self.images_seen, self.data_wait = state["sums"]["images_seen"], state["sums"]["data_wait"]
        self._started = perf_counter() - state["epoch_seconds"]
        self.loss_sum.copy_(state["loss_sum"])


SETTERS = ("detector.engine.engine", "detector.engine.names_elsewhere", "detector.training.checked", __name__)
"""Modules through which an attribute of the trainer is set."""


class FromProgress:
    """An attribute of the trainer that its `progress` holds, there under the same name if no other is given."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name

    def __get__(self, trainer: Any, owner: type) -> Any:
        return self if trainer is None else getattr(trainer.progress, self.name)

    def __set__(self, trainer: Any, value: Any) -> None:
        setattr(trainer.progress, self.name, value)


class StopFlag(FromProgress):
    """`stop` under all its names; whoever sets it is named in `stop_reason`, unless there is a reason already."""

    def __set__(self, trainer: Any, value: Any) -> None:
        super().__set__(trainer, value)
        progress = trainer.progress
        if not progress.stop:
            progress.stop_reason = None
        elif progress.stop_reason is None:
            progress.stop_reason = f"stopped by {_caller(trainer)}"


def _caller(trainer: Any) -> str:
    """Return the line of code that sets an attribute of a trainer, and the callback and event it belongs to."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__") in SETTERS:
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    place = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name
    running = trainer.callbacks.running
    by = f" ({short_name(running[1])} on {running[0]})" if running else ""
    return f"{place}:{frame.f_lineno}{by}"
