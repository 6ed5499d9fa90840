"""One metric to watch: where it is read from, which value is better, and the best so far."""

from __future__ import annotations

import logging
import math
from typing import Any

from detector.callbacks.builtin.checks import require_number
from detector.errors import CallbackError, nearest

log = logging.getLogger(__name__)

LOSS = "val/loss"
"""The metric that decides between epochs of equal fitness; lower is better."""


def compare(
    value: float, loss: float | None, best: float | None, best_loss: float | None, min_delta: float = 0.0
) -> int:
    """Compare an epoch with the best one: 1 = better, 0 = as good, -1 = worse or not a finite number.

    Of equal values, such as mAP 0 at the start or on a split without labels, that with the smaller loss is better.

    Args:
        value: of the epoch; higher is better.
        loss: validation loss of the epoch, if there is one.
        best: value of the best epoch, if there is one.
        best_loss: its validation loss, if there is one.
        min_delta: how much higher a value must be.
    """
    if best is None:
        return 1 if math.isfinite(value) else -1
    if value != best:
        return 1 if math.isfinite(value) and value - best > min_delta else -1
    if loss is None or best_loss is None or loss == best_loss:
        return 0
    return 1 if loss < best_loss else -1


class Monitor:
    """Reads a metric in each epoch and knows when it improved; see `compare`.

    Args:
        callback: class name of the callback that watches, for messages.
        name: "fitness", or a name of `trainer.metrics`.
        mode: "max" if higher values are better, "min" if lower ones are.
        min_delta: how much better a value must be to count.

    Attributes:
        best: the best value so far, or None.
        best_loss: the validation loss of that epoch, or None.
        loss: the validation loss of the epoch that was read last, or None; of other metrics than fitness, None.

    Raises:
        CallbackError: for arguments that can't be used.
    """

    def __init__(self, callback: str, name: str, mode: str, min_delta: float = 0.0) -> None:
        if not isinstance(name, str) or not name:
            raise CallbackError(f"{callback}(monitor={name!r}): expected 'fitness' or the name of a metric")
        if mode not in ("max", "min"):
            raise CallbackError(f"{callback}(mode={mode!r}): expected 'max' or 'min'")
        if mode == "max" and "loss" in name:
            log.warning("%s(monitor=%r) treats a higher loss as better; use mode='min'", callback, name)
        self.callback, self.name, self.sign = callback, name, 1 if mode == "max" else -1
        self.min_delta = require_number(callback, "min_delta", min_delta)
        self.reset()

    def reset(self) -> None:
        """Forget what was seen, for another run."""
        self.best: float | None = None
        self.best_loss: float | None = None
        self.loss: float | None = None
        self.was_read = False

    def read(self, trainer: Any) -> float | None:
        """Return this epoch's value; None if the epoch has none because nothing was validated.

        Raises:
            CallbackError: if validation ran and there is no such metric, naming those there are.
        """
        self.loss = trainer.metrics.get(LOSS) if self.name == "fitness" else None
        value = trainer.fitness if self.name == "fitness" else trainer.metrics.get(self.name)
        if value is not None:
            self.was_read = True
            return float(value)
        if trainer.fitness is None:
            return None
        known = ["fitness", *trainer.metrics]
        raise CallbackError(
            f"{self.callback}(monitor={self.name!r}): no such metric{nearest(self.name, known)}; "
            f"there are {', '.join(known)}"
        )

    def improves(self, value: float) -> bool:
        """Return whether a value is better than the best so far, which it then is itself."""
        best = None if self.best is None else self.sign * self.best
        better = compare(self.sign * value, self.loss, best, self.best_loss, self.min_delta) > 0
        if better:
            self.best, self.best_loss = value, self.loss
        return better

    def restore(self, best: Any, best_loss: Any = None) -> None:
        """Set the best value and its loss, as a saved state holds them: numbers or None."""
        self.best = None if best is None else float(best)
        self.best_loss = None if best_loss is None else float(best_loss)

    def rank(self, value: float) -> float:
        """Return a key that sorts the best value first."""
        return -self.sign * value

    def warn_if_never_read(self) -> None:
        """At the end of a run, warn if there was nothing to watch."""
        if not self.was_read:
            log.warning(
                "%s did nothing: no epoch was validated, so there was no %s", self.callback, self.name
            )
