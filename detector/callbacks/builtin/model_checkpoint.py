"""Keep the weights of the best epochs, and of moments in between."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from string import Formatter
from time import perf_counter
from typing import Any

from detector.callbacks.builtin.checks import require_number, require_whole
from detector.callbacks.builtin.monitor import Monitor
from detector.callbacks.callback import Callback
from detector.errors import CallbackError, nearest

log = logging.getLogger(__name__)

TIMED_NAME = "timed.pt"
RESERVED = (TIMED_NAME, "best.pt", "last.pt", "state.pt", "state-previous.pt")
NUMBER = r"[-+0-9.,_%eE ]+"  # what a format makes of a finite number; names of the run's own files are no such thing


class ModelCheckpoint(Callback):
    """Keeps the `top_k` best epochs as `weights/epoch3-fitness_0.4217.pt`, next to last.pt and best.pt.

    With `filename`, they are called as it says: `"{epoch}-{metrics/mAP50:.3f}.pt"` gives `3-0.512.pt`.

    Of equal values the later one counts as better. A file that is pushed out by a better one is deleted; files this
    object did not write are left alone. The list of files is part of the run's state: a resumed run continues with it.
    Whatever a state names, only files with names of this form in `weights` are ever deleted.

    Args:
        monitor: "fitness", or a name of `trainer.metrics`.
        mode: "max" if higher values are better, "min" if lower ones are.
        top_k: epochs to keep; 0 for none, None for all.
        every_epochs: epochs from one look to the next.
        every_minutes: also write `weights/timed.pt` this often, in the middle of epochs too.
        filename: what the files are called; in braces `epoch` (from 1), `value` (what is monitored), `fitness` or a
            name of `trainer.metrics`, each with a format such as `:.3f`. Without `{epoch}` in it only one
            can be kept (`top_k=1`).

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
        filename: str | None = None,
    ) -> None:
        self.monitor = Monitor("ModelCheckpoint", monitor, mode)
        self.top_k = None if top_k is None else require_whole("ModelCheckpoint", "top_k", top_k, 0)
        self.every_epochs = require_whole("ModelCheckpoint", "every_epochs", every_epochs, 1)
        self.every_seconds: float | None = None
        if every_minutes is not None:
            minutes = require_number("ModelCheckpoint", "every_minutes", every_minutes, above=True)
            self.every_seconds = 60 * minutes
        stem = re.sub(r"[^\w.-]+", "_", self.monitor.name)
        filename = f"epoch{{epoch}}-{stem}_{{value:.4f}}.pt" if filename is None else filename
        self.filename = _checked_filename(filename, self.top_k)
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
        new = (value, self._name(trainer, value))
        ranked = sorted([new, *self.kept], key=lambda entry: self.monitor.rank(entry[0]))
        room = len(ranked) if self.top_k is None else self.top_k
        if new in ranked[room:]:
            return
        trainer.save_checkpoint(_folder(trainer) / new[1])  # before anything is deleted
        self.kept = ranked[:room]
        for _, name in ranked[room:]:
            if name != new[1]:
                (_folder(trainer) / name).unlink(missing_ok=True)

    def _name(self, trainer: Any, value: float) -> str:
        """Return the file name of this epoch."""
        known = {**trainer.metrics, "fitness": trainer.fitness, "value": value, "epoch": trainer.epoch + 1}
        parts, said = [], f"ModelCheckpoint(filename={self.filename!r})"
        for text, field, form, _ in Formatter().parse(self.filename):
            parts.append(text)
            if field is None:
                continue
            if known.get(field) is None:
                raise CallbackError(
                    f"{said}: no such metric as {field}{nearest(field, known)}; there are {', '.join(known)}"
                )
            try:
                parts.append(format(known[field], form or ""))
            except (TypeError, ValueError):
                raise CallbackError(
                    f"{said}: {field} can't be written as {form!r}; try {{{field}:.3f}}"
                ) from None
        return "".join(parts)

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

    def _is_own(self, name: str) -> bool:
        """Return whether this object could have given this name to a file; a state may name anything."""
        parts = Formatter().parse(self.filename)
        pattern = "".join(re.escape(text) + (NUMBER if field else "") for text, field, *_ in parts)
        return re.fullmatch(pattern, name) is not None


def _checked_filename(filename: str, top_k: int | None) -> str:
    """Return a pattern of file names that can't lead out of the folder, or replace files of the run."""
    said = f"ModelCheckpoint(filename={filename!r})"
    try:
        parts = list(Formatter().parse(filename))
    except (TypeError, ValueError):
        raise CallbackError(f"{said}: expected a name such as '{{epoch}}-{{metrics/mAP50:.3f}}.pt'") from None
    around = "".join(text for text, *_ in parts)
    written = around + "".join(form or "" for _, _, form, _ in parts)
    if not around.endswith(".pt") or any(letter in written for letter in "/\\:\0"):
        raise CallbackError(
            f"{said}: expected a file name that ends in .pt; the files are in the run's weights folder"
        )
    if any(conversion or "{" in (form or "") for _, _, form, conversion in parts):
        raise CallbackError(f"{said}: in braces a name and a format are allowed, such as {{epoch:03d}}")
    if filename in RESERVED:
        raise CallbackError(f"{said}: the run itself writes this file; choose another name")
    if top_k != 1 and not any(field == "epoch" for _, field, *_ in parts):
        raise CallbackError(f"{said}: top_k={top_k} keeps several files; put {{epoch}} into the name")
    return filename


def _folder(trainer: Any) -> Path:
    return Path(trainer.save_dir) / "weights"
