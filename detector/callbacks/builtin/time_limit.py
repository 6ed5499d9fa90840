"""Stop when the time is used up."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import Any

from detector.callbacks.builtin.checks import require_number
from detector.callbacks.callback import Callback
from detector.errors import CallbackError

log = logging.getLogger(__name__)


class TimeLimit(Callback):
    """Ends a training cleanly after the batch in which the time is used up.

    The clock starts with the set-up; a resumed run starts it again. What comes after the last batch (saving and two
    validations) is not included: leave time for it. The `time` setting is something else: it fits the number
    of epochs, and with it the learning rates, to a budget.

    Args:
        hours: added to the others.
        minutes: added to the others.
        seconds: added to the others.

    Raises:
        CallbackError: if they are not a positive time.
    """

    def __init__(self, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        parts = [
            factor * require_number("TimeLimit", name, value)
            for name, value, factor in (
                ("hours", hours, 3600),
                ("minutes", minutes, 60),
                ("seconds", seconds, 1),
            )
        ]
        self.seconds = sum(parts)
        if self.seconds == 0:
            raise CallbackError("TimeLimit(): expected a time, such as TimeLimit(hours=2, minutes=30)")
        self.started: float | None = None

    def on_pretrain_routine_start(self, trainer: Any) -> None:
        self.started = perf_counter()

    def on_train_batch_end(self, trainer: Any) -> None:
        if self.started is not None and perf_counter() - self.started >= self.seconds and not trainer.stop:
            reason = f"time limit {_span(self.seconds)}"
            trainer.stop, trainer.stop_reason = True, reason
            log.info("stopped: %s", reason)

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Stop if validation used up the time."""
        self.on_train_batch_end(trainer)


def _span(seconds: float) -> str:
    """Return a time in the largest unit of which it has a whole number, or in seconds."""
    for name, unit in (("h", 3600), ("min", 60)):
        if seconds % unit == 0:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"
