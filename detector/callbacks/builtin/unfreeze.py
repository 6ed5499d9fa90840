"""Train frozen layers after some epochs."""

from __future__ import annotations

from typing import Any

from detector.callbacks.builtin.checks import require_whole
from detector.callbacks.callback import Callback
from detector.callbacks.every_rank import every_rank
from detector.errors import CallbackError


@every_rank
class Unfreeze(Callback):
    """Unfreezes layers that the `freeze` setting froze, after some epochs.

    Args:
        epoch: epochs to train without them.
        layers: as in `freeze`: a list of layer numbers and parts of names, or one of them; None for all.

    Raises:
        CallbackError: for arguments that can't be used.
    """

    def __init__(self, epoch: int, layers: list[int | str] | int | str | None = None) -> None:
        self.epoch = require_whole("Unfreeze", "epoch", epoch, 1)
        wanted = [layers] if isinstance(layers, (int, str)) else layers
        if wanted is not None and not (
            isinstance(wanted, (list, tuple))
            and wanted
            and all(isinstance(layer, (int, str)) and not isinstance(layer, bool) for layer in wanted)
        ):
            raise CallbackError(
                f"Unfreeze(layers={layers!r}): expected a list of layer numbers and parts of names"
            )
        self.layers = None if wanted is None else list(wanted)
        self.done = False

    def on_pretrain_routine_start(self, trainer: Any) -> None:
        """Reset: a model is frozen when it is made, in a resumed run as well."""
        self.done = False

    def on_train_epoch_start(self, trainer: Any) -> None:
        if not self.done and trainer.epoch >= self.epoch:
            trainer.unfreeze(self.layers)
            self.done = True
