"""Continue after a loss that is not finite."""

from __future__ import annotations

import copy
import logging
from typing import Any

from detector.callbacks.builtin.checks import require_number, require_whole
from detector.callbacks.callback import Callback
from detector.callbacks.every_rank import every_rank
from detector.errors import CallbackError, TrainingError, first_line

log = logging.getLogger(__name__)


@every_rank
class OnNonFinite(Callback):
    """Continues a run whose loss or weights became NaN or infinite, with the weights of the epoch's start.

    Without it, such a run ends. Weights, averages and optimizer are put back to where they were when the epoch began,
    the learning rates are lowered through `trainer.schedule.scale`, and training continues with the next batch. A copy
    of the weights and of the optimizer's state is kept in memory.

    Args:
        rollback: put the weights back; False only leaves the batch out, and looks at every loss at once, which slows
            training on a GPU.
        lr_scale: factor of the learning rates after each time, > 0 and at most 1.
        tries: times in a run; the next one ends it, as without this callback.

    Raises:
        CallbackError: for arguments that can't be used.
    """

    def __init__(self, rollback: bool = True, lr_scale: float = 0.5, tries: int = 2) -> None:
        self.rollback = bool(rollback)
        self.lr_scale = require_number("OnNonFinite", "lr_scale", lr_scale, above=True)
        if self.lr_scale > 1:
            raise CallbackError(f"OnNonFinite(lr_scale={lr_scale!r}): expected a number of at most 1")
        self.tries = require_whole("OnNonFinite", "tries", tries, 1)
        self.used = 0
        self.good: dict[str, Any] = {}

    def on_pretrain_routine_start(self, trainer: Any) -> None:
        """Reset; the state of a resumed run is restored after this."""
        self.used, self.good = 0, {}

    def on_train_start(self, trainer: Any) -> None:
        self._keep(trainer)
        trainer.recovery = lambda error: self._recover(trainer, first_line(error))
        if not self.rollback:
            trainer.finite.late = False

    def on_train_epoch_start(self, trainer: Any) -> None:
        self._keep(trainer)

    def on_train_epoch_end(self, trainer: Any) -> None:
        """Before the weights are validated and saved: see whether they are finite."""
        if (
            self.rollback
            and not _all_finite(trainer)
            and not self._recover(trainer, "weights are not finite")
        ):
            raise TrainingError(
                f"weights are not finite at the end of epoch {trainer.epoch + 1}, and OnNonFinite has used its "
                f"{self.tries} tries; try a smaller lr0 or amp=false"
            )

    def teardown(self, trainer: Any) -> None:
        self.good = {}

    def _keep(self, trainer: Any) -> None:
        if not self.rollback:
            return
        parts = {
            "model": trainer.model.state_dict(),
            "ema": trainer.ema.model.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "scaler": trainer.scaler.state_dict(),
        }
        self.good = copy.deepcopy(parts) | {"updates": trainer.ema.updates}

    def _recover(self, trainer: Any, reason: str) -> bool:
        """Put the training back; returns whether there was a try left."""
        if self.used >= self.tries:
            return False
        self.used += 1
        trainer.optimizer.zero_grad()
        if self.rollback:
            trainer.model.load_state_dict(self.good["model"])
            trainer.ema.model.load_state_dict(self.good["ema"])
            trainer.ema.updates = self.good["updates"]
            trainer.optimizer.load_state_dict(copy.deepcopy(self.good["optimizer"]))
            trainer.scaler.load_state_dict(self.good["scaler"])
        if not bool(trainer.meters.loss_sum.isfinite().all()):
            trainer.reset_meters()
        trainer.schedule.scale *= self.lr_scale
        log.warning(
            "%s. %s, and learning rates are now %g times the scheduled ones (try %d of %d)",
            reason,
            "The weights are those of the epoch's start again" if self.rollback else "The batch is left out",
            trainer.schedule.scale,
            self.used,
            self.tries,
        )
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"used": self.used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.used = int(state["used"])


def _all_finite(trainer: Any) -> bool:
    """Return whether the weights and their averages are finite; this synchronises with the device."""
    import torch

    norms = torch._foreach_norm([*trainer.model.parameters(), *trainer.ema.model.parameters()])
    return bool(torch.stack(norms).isfinite().all())
