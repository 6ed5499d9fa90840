"""What a training keeps: its state, from which it resumes, and checkpoints."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from detector.callbacks.state import gather_states, restore_states
from detector.engine.steps import TrainingSteps
from detector.errors import CallbackError, excerpt
from detector.scale.gradients import mean_of
from detector.training.auto import is_mosaic_closed
from detector.training.checked import MetricsDict
from detector.training.progress import FromProgress, StopFlag
from detector.training.resume import RunState, machine, random_states, restoring, set_random_states
from detector.training.saving import RunSaver

if TYPE_CHECKING:
    from detector.training.fitness import Fitness
    from detector.training.freeze import FrozenLayers

log = logging.getLogger(__name__)


class TrainingState(TrainingSteps):
    """The part of the trainer that keeps the training, and continues one that was kept.

    Attributes:
        saver: writes the files of the run folder.
        started: when the training began, of `perf_counter`; earlier for a resumed one.
        start_epoch: epochs that were done when it began.
    """

    initial_settings: dict[str, Any]
    origin: Mapping[str, Any] | None
    saver: RunSaver
    started: float
    start_epoch: int
    frozen: FrozenLayers
    fitness_by: Fitness
    fitness: float | None
    _refused_metrics: set[str]
    _end_of_epoch: dict[str, Any] | None  # the state from before the end of an epoch

    epochs, global_step, stop_reason = FromProgress(), FromProgress(), FromProgress()
    best_fitness, best_epoch = FromProgress(), FromProgress()
    stop = StopFlag()

    @property
    def metrics(self) -> dict[str, Any]:
        """Name -> number, of this epoch; numbers of any library become Python's, and what is not one is left out."""
        return self._metrics

    @metrics.setter
    def metrics(self, values: Mapping[str, Any]) -> None:
        if not isinstance(values, Mapping):
            raise CallbackError(
                f"trainer.metrics = {excerpt(values, 60)}: expected a dict of names and numbers"
            )
        if values is not self.__dict__.get("_metrics"):  # as after |=
            self._metrics = MetricsDict(values, self._warn_of_metric)

    def _warn_of_metric(self, name: Any, problem: str) -> None:
        """Name a metric that is left out, once in a run."""
        if (text := excerpt(name, 60)) not in self._refused_metrics:
            self._refused_metrics.add(text)
            caller = self.callbacks.running_text()
            log.warning(
                "the metric %s %s; it is left out of files and loggers%s",
                text, problem, f": {caller}" if caller else "",
            )  # fmt: skip

    @property
    def mosaic_is_closed(self) -> bool:
        """Whether this is one of the last `close_mosaic` epochs, which have no mosaic, copy-paste, mixup or cutmix."""
        return is_mosaic_closed(self.epoch, self.epochs, self.settings.close_mosaic)

    def keep_state(self) -> None:
        """Let the state of now be the one that is saved, until the end of the epoch."""
        self._end_of_epoch = self.state_dict()

    def save_state(self) -> None:
        """Write what the run needs to resume: between two batches, or from before the end of an epoch."""
        if self.settings.save:
            self.saver.save_state(self._end_of_epoch or self.state_dict())

    def save_checkpoint(self, path: str | Path) -> Path:
        """Write the averaged weights as they are now to a checkpoint at `path`; whole or not at all."""
        path = Path(path)
        if not self.ranks.is_main:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.saver.save_checkpoint(path, self.checkpoint())
        return path

    def save_on_exception(self, error: BaseException) -> None:
        """Before an exception is raised again: save the training since the last save, and say how to resume it."""
        if hasattr(self, "saver"):
            self.saver.save_on_exception(
                error, self.progress, self.checkpoint, lambda: self._end_of_epoch or self.state_dict()
            )

    def checkpoint(self) -> dict[str, Any]:
        """Return what goes into a checkpoint file, as plain data; see `checkpoints/checkpoint.py`."""
        return {
            "model": self.model.config.to_dict(),
            "weights": {key: value.float() if value.is_floating_point() else value
                        for key, value in self.ema.state_dict().items()},
            "settings": self.initial_settings,
            "epoch": self.epoch,
            "metrics": dict(self.metrics),
            "origin": self.origin,
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the training between two batches, see `training/resume.py`.

        The tensors are the training's own; everything else is a copy.
        """
        plain = {
            **self.progress.state_dict(),
            "seconds": perf_counter() - self.started,
            "schedule": self.schedule.state_dict(),
            "metrics": dict(self.metrics),
            "callbacks": gather_states(self.callbacks.objects),
            "random": random_states(),
        }
        grads = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        shares = self.ranks.accumulated(grads)
        return copy.deepcopy(plain) | {
            **self.meters.state_dict(),
            "model": self.model.config.to_dict(),
            "weights": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "grads": grads if len(shares) == 1 else mean_of(shares),
            "shares": shares if len(shares) > 1 else [],
            "scaler": self.scaler.state_dict(),
            "frozen": list(self.frozen.parameters),
            "settings": self.initial_settings,
            "origin": self.origin,
            "data": self.data.fingerprint,
            "machine": machine(self.device, self.precision, self.ranks.size),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, in a trainer that is set up on the same data."""
        planned = self.epochs
        self.progress.load_state_dict(state)
        if self.settings.epochs != state["settings"]["epochs"]:
            self.progress.replan(planned)
        self.start_epoch = self.progress.epochs_done
        self.epoch = max(self.start_epoch - 1, 0)
        self.metrics = dict(state["metrics"])
        self.fitness = self.fitness_by.of(self.metrics)
        self.meters.load_state_dict(state)
        self.started = perf_counter() - state["seconds"]
        self.model.load_state_dict(state["weights"])
        self.ema.model.load_state_dict(state["ema"])
        self.ema.updates = state["ema_updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        shares = state.get("shares", [])
        grads = shares[self.ranks.rank] if len(shares) == self.ranks.size else state["grads"]
        for name, parameter in self.model.named_parameters():
            if name in grads:
                parameter.grad = grads[name].to(parameter.device)
        self.scaler.load_state_dict(state["scaler"])
        self.schedule.load_state_dict(state["schedule"])
        self.schedule.epochs = self.epochs
        self.frozen.restrict(state["frozen"])
        restore_states(self.callbacks.objects, state["callbacks"])
        set_random_states(state["random"])

    def resume_run(self, run: RunState) -> None:
        """Continue where a run was, if this is the same architecture and data.

        Raises:
            CheckpointError: if the data has other classes.
            DataError: if the data set has changed in another way, unless forced.
        """
        with restoring(run.folder):
            here = machine(self.device, self.precision, self.ranks.size)
            run.require_same(self.model.config, self.data.fingerprint, here)
            # whatever fails now, the state on disk is newer
            self.saver.saved_step = int(run.content["counters"]["global_step"])
            self.load_state_dict(run.content)
        log.info("resumed: %s continues after %s", run.folder, run.place)
        run.content.clear()  # as large as the training itself, and kept by whoever opened it
