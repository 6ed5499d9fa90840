"""Average the weights of several epochs."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import Any

from detector.callbacks.builtin.checks import require_whole
from detector.callbacks.builtin.monitor import Monitor
from detector.callbacks.callback import Callback
from detector.callbacks.every_rank import every_rank
from detector.errors import CallbackError

log = logging.getLogger(__name__)

AVERAGE_NAME = "average.pt"
PART = re.compile(r"average-of-epoch\d+\.pt")


@every_rank
class WeightAveraging(Callback):
    """Writes the mean of the weights of the `count` best or last epochs as `weights/average.pt`, and validates it.

    At the end of the run its batch-norm statistics are computed again, on training images. What is averaged is what
    best.pt holds of an epoch: an average over steps already. Meanwhile the parts are in the folder of the weights.

    Args:
        count: epochs to average.
        of: "best", or "last".
        monitor: "fitness", or a name of `trainer.metrics`: what the best are chosen by.
        mode: "max" if higher values are better, "min" if lower ones are.

    Raises:
        CallbackError: for arguments that can't be used.
    """

    def __init__(self, count: int = 5, of: str = "best", monitor: str = "fitness", mode: str = "max") -> None:
        self.count = require_whole("WeightAveraging", "count", count, 2)
        if of not in ("best", "last"):
            raise CallbackError(f"WeightAveraging(of={of!r}): expected 'best' or 'last'")
        self.of = of
        self.monitor = Monitor("WeightAveraging", monitor, mode)
        self.kept: list[tuple[float, str]] = []  # rank and file name, what is to be averaged first

    def on_pretrain_routine_start(self, trainer: Any) -> None:
        """Reset; the state of a resumed run is restored after this."""
        self.monitor.reset()
        self.kept = []

    def on_train_start(self, trainer: Any) -> None:
        """Drop files that no longer exist from the list."""
        self.kept = [(rank, name) for rank, name in self.kept if (trainer.wdir / name).is_file()]

    def on_fit_epoch_end(self, trainer: Any) -> None:
        rank = -float(trainer.epoch)
        if self.of == "best":
            value = self.monitor.read(trainer)
            if value is None or not math.isfinite(value):
                return
            rank = self.monitor.rank(value)
        new = (rank, f"average-of-epoch{trainer.epoch + 1}.pt")
        ranked = sorted([*(old for old in self.kept if old[1] != new[1]), new], key=lambda part: part[0])
        if new in ranked[self.count :]:
            return
        trainer.save_checkpoint(trainer.wdir / new[1])  # before anything is deleted
        self.kept, pushed_out = ranked[: self.count], ranked[self.count :]
        self._delete(trainer, pushed_out)

    def on_train_end(self, trainer: Any) -> None:
        if len(self.kept) < 2:
            log.warning(
                "WeightAveraging did nothing: it needs at least two epochs, there were %d", len(self.kept)
            )
            return
        path = Path(trainer.wdir) / AVERAGE_NAME
        parts = [trainer.wdir / name for _, name in self.kept]
        metrics = trainer.save_average(parts, path)
        found = "" if metrics is None else f": mAP50-95 {metrics.box.map:.4f}"
        log.info("the average of %d epochs is in %s%s", len(parts), path, found)
        self._delete(trainer, self.kept)
        self.kept = []

    def _delete(self, trainer: Any, parts: list[tuple[float, str]]) -> None:
        for _, name in parts:
            (trainer.wdir / name).unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        return {"kept": [[rank, name] for rank, name in self.kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the list; names that are not this callback's own are left alone."""
        self.kept = [(rank, name) for rank, name in state["kept"] if PART.fullmatch(name)]
