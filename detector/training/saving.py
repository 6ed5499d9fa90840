"""The files a training writes: the weights of its epochs, and the state it resumes from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from detector.checkpoints.checkpoint import save_checkpoint
from detector.errors import DetectorError, TrainingError, ending
from detector.training.finite import require_finite
from detector.training.progress import Progress

log = logging.getLogger(__name__)

STATE, PREVIOUS_STATE = "weights/state.pt", "weights/state-previous.pt"

Content = dict[str, Any]


class RunSaver:
    """Writes the files of a run folder; each whole or not at all.

    Attributes:
        last: path of the newest weights.
        best: path of the best weights.
        saved_step: the `global_step` of the newest state, 0 before there is one.

    Args:
        folder: the run folder.
        enabled: False writes nothing (`save=false`).
        period: also keep the weights of every n-th epoch; 0 or less for none.
        minutes: age at which a state is written within an epoch; 0 for never.
    """

    def __init__(self, folder: Path, enabled: bool, period: int, minutes: float) -> None:
        self.folder, self.enabled, self.period, self.minutes = folder, enabled, period, minutes
        self.last, self.best = folder / "weights/last.pt", folder / "weights/best.pt"
        self.saved_step = 0
        self.saved_at = perf_counter()

    @property
    def is_due(self) -> bool:
        """Whether the newest state is too old."""
        return bool(self.minutes) and perf_counter() - self.saved_at > 60 * self.minutes

    def save_weights(self, content: Content, epoch: int, is_best: bool) -> None:
        """Write a checkpoint to every file that is to have the weights after this epoch (from 0).

        Raises:
            TrainingError: if a weight is not finite.
            CheckpointError: if it can't be written.
        """
        paths = [self.last]
        if is_best:
            paths.append(self.best)
        if self.period > 0 and (epoch + 1) % self.period == 0:
            paths.append(self.last.with_name(f"epoch{epoch + 1}.pt"))
        require_finite(content, self.last, self.last.parent)
        for path in paths:
            save_checkpoint(path, content)

    def save_checkpoint(self, path: Path, content: Content) -> None:
        """Write a checkpoint to any path.

        Raises:
            TrainingError: if a weight is not finite.
            CheckpointError: if it can't be written.
        """
        require_finite(content, path, self.last.parent)
        save_checkpoint(path, content)

    def save_state(self, state: Content) -> None:
        """Write a state; the previous one stays until the run has ended.

        Raises:
            TrainingError: if a weight is not finite.
            CheckpointError: if it can't be written; the previous one is untouched.
        """
        if not self.enabled:
            return
        require_finite(state, self.folder / STATE, self.last.parent)
        save_checkpoint(self.folder / STATE, state, keep=self.folder / PREVIOUS_STATE)
        self.saved_step, self.saved_at = state["counters"]["global_step"], perf_counter()
        if state["finished"]:
            with suppress(OSError):  # it is of no more use, and does no harm
                (self.folder / PREVIOUS_STATE).unlink(missing_ok=True)

    def save_on_exception(
        self,
        error: BaseException,
        progress: Progress,
        checkpoint: Callable[[], Content],
        state: Callable[[], Content],
    ) -> None:
        """Save the training since the last save, and say how to resume it.

        After a non-finite loss the weights are of no use; after a failure within a step they go to last.pt, but
        the run resumes from the previous state.

        Args:
            error: what ends the run.
            progress: its counters.
            checkpoint: gives the averaged weights as a checkpoint.
            state: gives the state.
        """
        if not self.enabled or isinstance(error, TrainingError):
            return
        if progress.global_step > self.saved_step:
            try:
                self.save_checkpoint(self.last, checkpoint())
                if not progress.in_step:
                    self.save_state(state())
            except DetectorError as problem:
                log.error("%s", problem)
        if self.saved_step and not progress.finished:
            log.warning(
                "the run ends by %s; its weights are in %s, and resume=%s continues it",
                ending(error), self.last, self.folder,
            )  # fmt: skip
