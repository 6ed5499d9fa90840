"""Stop when the fitness no longer grows."""

from __future__ import annotations

import logging
from typing import Any

from detector.callbacks.callback import Callback

log = logging.getLogger(__name__)


class EarlyStopping(Callback):
    """Ends a training after `patience` epochs without a better fitness.

    Args:
        patience: epochs to wait.
    """

    def __init__(self, patience: int = 100) -> None:
        self.patience = patience

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Compare this epoch with the best one."""
        if trainer.best_epoch is None or trainer.epoch - trainer.best_epoch < self.patience:
            return
        trainer.stop = True
        log.info(
            "stopped early: no better fitness in %d epochs; the best was epoch %d",
            self.patience,
            trainer.best_epoch + 1,
        )
