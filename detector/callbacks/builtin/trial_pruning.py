"""Report the epochs of a training to a trial of Optuna, and end it when the study's pruner says so."""

from __future__ import annotations

import logging
from typing import Any

from detector.callbacks.callback import Callback
from detector.errors import CallbackError

log = logging.getLogger(__name__)


class TrialPruning(Callback):
    """Reports each epoch's fitness to a trial of Optuna and ends the training if its pruner says so.

    `detector tune` adds one to each of its trials; in a custom study give it to `model.train(callbacks=[...])`. The
    training ends like any that is stopped; `pruned` is true then, and the objective raises `optuna.TrialPruned`.

    Args:
        trial: Optuna's trial.

    Attributes:
        pruned: the training was ended.
        is_given_up: another process has counted this trial as dead, for want of signs of life, and repeats it.
    Raises:
        CallbackError: for anything but a trial.
    """

    def __init__(self, trial: Any) -> None:
        if not (callable(getattr(trial, "report", None)) and callable(getattr(trial, "should_prune", None))):
            raise CallbackError(f"TrialPruning(trial={trial!r}): expected a trial of Optuna")
        self.trial = trial
        self.pruned = self.is_given_up = False

    def on_fit_epoch_end(self, trainer: Any) -> None:
        if trainer.fitness is None:  # nothing was validated
            return
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self.trial.report(trainer.fitness, trainer.epoch)
            self.pruned = bool(self.trial.should_prune())
        except UpdateFinishedTrialError:
            self.is_given_up = True
        if self.pruned or self.is_given_up:
            why = "pruned" if self.pruned else "another process repeats this trial"
            trainer.stop, trainer.stop_reason = True, f"{why} after epoch {trainer.epoch + 1}"

    def state_dict(self) -> dict[str, Any]:
        return {"pruned": self.pruned, "is_given_up": self.is_given_up}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pruned, self.is_given_up = bool(state["pruned"]), bool(state["is_given_up"])
