"""Lower the learning rate when a metric no longer improves."""

from __future__ import annotations

import logging
from typing import Any

from detector.callbacks.builtin.checks import require_number, require_whole
from detector.callbacks.builtin.monitor import Monitor
from detector.callbacks.callback import Callback
from detector.callbacks.every_rank import every_rank
from detector.errors import CallbackError

log = logging.getLogger(__name__)


@every_rank
class ReduceLROnPlateau(Callback):
    """Multiplies the learning rate by `factor` after `patience` epochs in which a metric did not improve.

    It works through `trainer.schedule.scale`, on top of the schedule: with `lrf=1` the rate is changed by
    plateaus only. Epochs without validation don't count. Of equal fitness, one with a smaller validation loss is an
    improvement.

    Args:
        monitor: "fitness", or a name of `trainer.metrics`.
        mode: "max" if higher values are better, "min" if lower ones are.
        factor: between 0 and 1.
        patience: epochs to wait.
        min_scale: the rate is not brought below this part of the scheduled one.
        cooldown: epochs after a change that are not counted.
        min_delta: how much better a value must be to count.

    Raises:
        CallbackError: for arguments that can't be used.
    """

    def __init__(
        self,
        monitor: str = "fitness",
        mode: str = "max",
        factor: float = 0.1,
        patience: int = 10,
        min_scale: float = 1e-4,
        cooldown: int = 0,
        min_delta: float = 0.0,
    ) -> None:
        self.monitor = Monitor("ReduceLROnPlateau", monitor, mode, min_delta)
        self.factor = require_number("ReduceLROnPlateau", "factor", factor, above=True)
        if self.factor >= 1:
            raise CallbackError(f"ReduceLROnPlateau(factor={factor!r}): expected a number below 1")
        self.patience = require_whole("ReduceLROnPlateau", "patience", patience, 1)
        self.min_scale = require_number("ReduceLROnPlateau", "min_scale", min_scale)
        self.cooldown = require_whole("ReduceLROnPlateau", "cooldown", cooldown, 0)
        self.waited = self.cooling = 0

    def on_pretrain_routine_start(self, trainer: Any) -> None:
        """Reset; the state of a resumed run is restored after this."""
        self.monitor.reset()
        self.waited = self.cooling = 0

    def on_fit_epoch_end(self, trainer: Any) -> None:
        value = self.monitor.read(trainer)
        if value is None:
            return
        counts = not self.monitor.improves(value) and not self.cooling
        self.waited = self.waited + 1 if counts else 0
        self.cooling = max(self.cooling - 1, 0)
        if self.waited >= self.patience:
            self._reduce(trainer)

    def on_train_end(self, trainer: Any) -> None:
        self.monitor.warn_if_never_read()

    def _reduce(self, trainer: Any) -> None:
        schedule = trainer.schedule
        scale = max(schedule.scale * self.factor, self.min_scale)
        if scale < schedule.scale * (1 - 1e-6):  # 1e-6: rounding; at its minimum already, nothing changes
            schedule.scale = scale
            log.info(
                "no better %s in %d epochs: learning rates are now %g times the scheduled ones",
                self.monitor.name,
                self.waited,
                scale,
            )
        self.waited, self.cooling = 0, self.cooldown

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs; the scale itself is saved with the schedule."""
        best, best_loss = self.monitor.best, self.monitor.best_loss
        return {"best": best, "best_loss": best_loss, "waited": self.waited, "cooling": self.cooling}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.monitor.restore(state["best"], state.get("best_loss"))
        self.waited, self.cooling = int(state["waited"]), int(state["cooling"])
