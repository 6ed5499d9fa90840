"""A custom learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from detector.callbacks.builtin.checks import require_number
from detector.callbacks.callback import Callback
from detector.callbacks.every_rank import every_rank
from detector.errors import CallbackError


@every_rank
class LRSchedule(Callback):
    """Sets the learning rate of every batch, in place of the trainer's schedule and its warm-up.

    Each parameter group's rate is its `initial_lr` (what `lr0` makes it) times the factor of the epoch,
    times `trainer.schedule.scale`, so that `ReduceLROnPlateau` may be used with it.

    Args:
        fn: a function of the epoch (0.5 is the middle of the first one) that returns the factor; or a table
            of steps, `{0: 1.0, 10: 0.1}`: from epoch 10 on a tenth. Before its first entry the factor is 1.

    Raises:
        CallbackError: if `fn` is neither; during training, if it returns anything but a number >= 0.
    """

    def __init__(self, fn: Callable[[float], float] | Mapping[float, float]) -> None:
        if isinstance(fn, Mapping):
            self.factor: Callable[[float], Any] = _steps(fn)
        elif callable(fn):
            self.factor = fn
        else:
            raise CallbackError(
                f"LRSchedule({fn!r}): expected a function of the epoch or a table such as {{0: 1.0, 10: 0.1}}"
            )

    def on_train_start(self, trainer: Any) -> None:
        trainer.schedule.paused = True

    def on_train_batch_start(self, trainer: Any) -> None:
        epoch = trainer.epoch + trainer.batch_index / trainer.num_batches
        factor = require_number("LRSchedule", f"factor of epoch {epoch:g}", self.factor(epoch))
        for group in trainer.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor * trainer.schedule.scale


def _steps(table: Mapping[float, float]) -> Callable[[float], float]:
    if not table:
        raise CallbackError("LRSchedule({}): expected at least one step, such as {0: 1.0, 10: 0.1}")
    steps = sorted(
        (
            require_number("LRSchedule", "epoch", epoch),
            require_number("LRSchedule", f"factor of {epoch}", factor),
        )
        for epoch, factor in table.items()
    )

    def factor_at(epoch: float) -> float:
        return next((factor for start, factor in reversed(steps) if start <= epoch), 1.0)

    return factor_at
