"""Stop when a metric no longer improves."""

from __future__ import annotations

import logging
import math
from typing import Any

from detector.callbacks.builtin.checks import require_number, require_whole
from detector.callbacks.builtin.monitor import Monitor
from detector.callbacks.callback import Callback

log = logging.getLogger(__name__)


class EarlyStopping(Callback):
    """Ends a training after `patience` epochs in which a metric did not improve. Epochs without validation don't count.

    Of equal fitness, one with a smaller validation loss is an improvement.

    Args:
        monitor: "fitness", or a name of `trainer.metrics`.
        mode: "max" if higher values are better, "min" if lower ones are.
        patience: epochs to wait.
        min_delta: how much better a value must be to count.
        start_from_epoch: epochs at the start that don't count, as those of a warm-up.
        baseline: a value to get beyond: until then no epoch counts as an improvement.

    Raises:
        CallbackError: for arguments that can't be used.
    """

    def __init__(
        self,
        monitor: str = "fitness",
        mode: str = "max",
        patience: int = 100,
        min_delta: float = 0.0,
        start_from_epoch: int = 0,
        baseline: float | None = None,
    ) -> None:
        self.patience = require_whole("EarlyStopping", "patience", patience, 1)
        self.monitor = Monitor("EarlyStopping", monitor, mode, min_delta)
        self.start_from_epoch = require_whole("EarlyStopping", "start_from_epoch", start_from_epoch, 0)
        self.baseline: float | None = None
        if baseline is not None:
            self.baseline = require_number("EarlyStopping", "baseline", baseline, -math.inf)
        self.waited, self.best_epoch = 0, 0

    def on_pretrain_routine_start(self, trainer: Any) -> None:
        """Reset; the state of a resumed run is restored after this."""
        self.monitor.reset()
        self.waited, self.best_epoch = 0, 0

    def on_fit_epoch_end(self, trainer: Any) -> None:
        value = self.monitor.read(trainer)
        if value is None or trainer.epoch < self.start_from_epoch:
            return
        if self.monitor.improves(value):
            self.best_epoch = trainer.epoch
            if self.baseline is None or self.monitor.rank(value) < self.monitor.rank(self.baseline):
                self.waited = 0
                return
        self.waited += 1
        if self.waited >= self.patience:
            best, beyond = self.best_epoch + 1, "" if self.baseline is None else f" beyond {self.baseline:g}"
            what = f"patience {self.patience} without improvement of {self._metric(trainer)}{beyond}"
            reason = f"{what}; the best was epoch {best}"
            trainer.stop, trainer.stop_reason = True, reason
            log.info("stopped early: %s", reason)

    def _metric(self, trainer: Any) -> str:
        """Return the name of the metric; of a fitness that is one metric, that one's."""
        names = list(getattr(getattr(trainer, "fitness_by", None), "weights", ()))
        return names[0] if self.monitor.name == "fitness" and len(names) == 1 else self.monitor.name

    def state_dict(self) -> dict[str, Any]:
        best, best_loss = self.monitor.best, self.monitor.best_loss
        return {"best": best, "best_loss": best_loss, "best_epoch": self.best_epoch, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.monitor.restore(state["best"], state.get("best_loss"))
        self.best_epoch, self.waited = int(state["best_epoch"]), int(state["waited"])
