"""Keep the weights of the best epochs, and of moments in between."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from time import perf_counter
from typing import Any

from detector.callbacks.builtin.checks import require_number, require_whole
from detector.callbacks.builtin.monitor import Monitor
from detector.callbacks.callback import Callback

log = logging.getLogger(__name__)

TIMED_NAME = "timed.pt"


class ModelCheckpoint(Callback):
    """Keeps the `top_k` best epochs as `weights/epoch3-fitness_0.4217.pt`, next to last.pt and best.pt.

    A file that is pushed out by a better one is deleted; files this object did not write are left alone.
    The list of files is part of the run's state: a resumed run continues with it. Whatever a state names, only
    files with names of this form in `weights` are ever deleted.

    Args:
        monitor: "fitness", or a name of `trainer.metrics`.
        mode: "max" if higher values are better, "min" if lower ones are.
        top_k: epochs to keep; 0 for none, None for all.
        every_epochs: epochs from one look to the next.
        every_minutes: also write `weights/timed.pt` this often, in the middle of epochs too.

    Raises:
        CallbackError: for arguments that can't be used.
    """

    def __init__(
        self,
        monitor: str = "fitness",
        mode: str = "max",
        top_k: int | None = 1,
        every_epochs: int = 1,
        every_minutes: float | None = None,
    ) -> None:
        self.monitor = Monitor("ModelCheckpoint", monitor, mode)
        self.top_k = None if top_k is None else require_whole("ModelCheckpoint", "top_k", top_k, 0)
        self.every_epochs = require_whole("ModelCheckpoint", "every_epochs", every_epochs, 1)
        self.every_seconds: float | None = None
        if every_minutes is not None:
            minutes = require_number("ModelCheckpoint", "every_minutes", every_minutes, above=True)
            self.every_seconds = 60 * minutes
        self.kept: list[tuple[float, str]] = []  # value and file name, best first

    def on_pretrain_routine_start(self, trainer: Any) -> None:
        """Reset; the state of a resumed run is restored after this."""
        self.monitor.reset()
        self.kept = []

    def on_train_start(self, trainer: Any) -> None:
        """Drop files that no longer exist from the list, and start the clock."""
        if odd := [name for _, name in self.kept if not self._is_own(name)]:
            log.warning(
                "ModelCheckpoint: the saved run lists %s, which it did not write; it is left alone",
                ", ".join(f"{name!r:.100}" for name in odd[:5]),
            )
        self.kept = [
            (value, name)
            for value, name in self.kept
            if self._is_own(name) and (_folder(trainer) / name).exists()
        ]
        self.saved_at = perf_counter()

    def on_train_batch_end(self, trainer: Any) -> None:
        if self.every_seconds is not None and perf_counter() - self.saved_at >= self.every_seconds:
            trainer.save_checkpoint(_folder(trainer) / TIMED_NAME)
            self.saved_at = perf_counter()

    def on_fit_epoch_end(self, trainer: Any) -> None:
        if self.top_k == 0 or (trainer.epoch + 1) % self.every_epochs:
            return
        value = self.monitor.read(trainer)
        if value is None or not math.isfinite(value):
            return
        new = (value, f"epoch{trainer.epoch + 1}-{self._stem}_{value:.4f}.pt")
        ranked = sorted([*self.kept, new], key=lambda entry: self.monitor.rank(entry[0]))
        room = len(ranked) if self.top_k is None else self.top_k
        if new in ranked[room:]:
            return
        trainer.save_checkpoint(_folder(trainer) / new[1])  # before anything is deleted
        for _, name in ranked[room:]:
            (_folder(trainer) / name).unlink(missing_ok=True)
        self.kept = ranked[:room]

    def on_train_end(self, trainer: Any) -> None:
        if self.kept:
            value, name = self.kept[0]
            log.info("best %s %.4f: %s", self.monitor.name, value, _folder(trainer) / name)
        elif self.top_k != 0:
            self.monitor.warn_if_never_read()

    def state_dict(self) -> dict[str, Any]:
        return {"kept": [[value, name] for value, name in self.kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = [(float(value), str(name)) for value, name in state["kept"]]

    @property
    def _stem(self) -> str:
        """The metric's name as a part of file names: without anything that separates folders."""
        return re.sub(r"[^\w.-]+", "_", self.monitor.name)

    def _is_own(self, name: str) -> bool:
        """Return whether this object could have given this name to a file; a state may name anything."""
        return (
            re.fullmatch(rf"epoch[0-9]+-{re.escape(self._stem)}_-?[0-9]+\.[0-9]{{4}}\.pt", name) is not None
        )


def _folder(trainer: Any) -> Path:
    return Path(trainer.save_dir) / "weights"
