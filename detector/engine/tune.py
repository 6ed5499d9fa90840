"""Tuning: a study of many trainings with Optuna, by one or several processes and machines.

`Tuner.run` is the loop. Which trial this process runs next is decided in `detector/tuning/trials.py`, so that
processes may come, go and be killed at any time.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import torch

from detector.callbacks.builtin.trial_pruning import TrialPruning
from detector.callbacks.registry import CallbackRegistry
from detector.engine.loaders import located_data, open_data
from detector.engine.run_folder import refuse_linked_folders, write_yaml
from detector.errors import SettingsError, TrainingError, cannot_write, error_text, shorten
from detector.fields import show_given
from detector.messages import first_warnings_only
from detector.settings import TrainSettings, TuneSettings
from detector.tuning.report import TuneResults, draw_plots, trial_rows, write_best, write_table
from detector.tuning.sampling import make_pruner, make_sampler
from detector.tuning.space import load_space
from detector.tuning.storage import (
    close_storage,
    has_heartbeat,
    mask_storage,
    open_storage,
    require_optuna,
    storage_failures,
)
from detector.tuning.trials import PROCESSES, Attempts, ProcessMark, is_given_up, origin, slots_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)

Train = Callable[[TrainSettings, CallbackRegistry], Any]
"""Runs a training and returns its trainer."""

COMPARED = ("data", "model", "training", "optimisation", "loss", "augmentation", "validation")
"""Themes of the settings that all processes of a study have to agree in."""

PLACES = ("data", "model", "pretrained")
"""Settings that may be another path on another machine: their last parts are compared."""

POLL = 5.0  # seconds between two looks at what other processes do

MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What errors of torch say when memory is used up; on the CPU they have no class of their own."""


class _TrialFailed(Exception):  # noqa: N818 - the study continues
    """A trial has ended badly."""


class Tuner:
    """Runs trials of a study until it has as many as it is to have.

    Args:
        settings: checked settings.
        callbacks: the user's; they run in every trial.
        train: runs one training.
        source: the model that the trainings start from, as in `model=`.

    Attributes:
        save_dir: the study's run folder.
        study: Optuna's study.
    """

    def __init__(
        self, settings: TuneSettings, callbacks: CallbackRegistry, train: Train, source: str
    ) -> None:
        require_optuna()
        self.settings, self.callbacks, self.train = settings, callbacks, train
        given = settings.model_fields_set & TrainSettings.model_fields.keys()
        self.space = load_space(settings.space, given)
        self.base = {key: getattr(settings, key) for key in given} | {"model": settings.model or source}
        TrainSettings.parse(self.base)
        self.deadline = None if settings.hours is None else monotonic() + settings.hours * 3600
        self.stopped: BaseException | None = None
        self.storage: Any = None
        self._shown: set[str] = set()
        self._waited_for: list[str] = []
        self._is_given_up = False

    # ------------------------------------------------------------------ the loop

    def run(self) -> TuneResults:
        """Run trials until the study is complete or the time is used up.

        Raises:
            SettingsError: if the study can't be opened, or was begun with other settings.
            TrainingError: if no trial came to a good end.
        """
        with first_warnings_only(__name__, self._shown):
            open_data(TrainSettings.parse(self.base))  # a study of data that is not there is not begun
        self.save_dir = open_study_folder(
            self.settings.project, self.settings.name or "tune", self.settings.exist_ok
        )
        with self.prepared():
            self.open_study()
            try:
                with first_warnings_only(__name__, self._shown):
                    while self.is_time_left() and (left := self.attempts.left()) != "none":
                        if left == "some":
                            self.run_trial()
                        else:
                            self.wait()
            finally:
                self.write()
            return self.finish()

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Let Optuna be quiet, and others know that this process lives, for the length of a `with` block."""
        with (
            _optuna_is_quiet(),
            storage_failures(self.settings.storage),
            ProcessMark(self.save_dir) as self.mark,
        ):
            try:
                yield
            finally:
                close_storage(self.storage)

    def run_trial(self) -> None:
        """Run one trial, and say in a line how it ended."""
        self._is_given_up = False
        try:
            self.study.optimize(
                self.objective,
                n_trials=1,
                catch=(_TrialFailed,),
                gc_after_trial=True,
                callbacks=[self.report],
            )
        except (Exception, KeyboardInterrupt):
            if self.stopped is not None:
                raise self.stopped from None
            if not self._is_given_up:
                raise
            log.warning("a trial of this process was counted as dead by another one, which repeats it")

    def wait(self) -> None:
        """Wait for the last trials, which other processes run, to repeat those whose process dies."""
        running = [
            f"{trial.number} ({trial.user_attrs.get('host', '?')})" for trial in self.attempts.running()
        ]
        if running != self._waited_for:
            log.info("waiting for the last trials, which run elsewhere: %s", ", ".join(running))
            self._waited_for = running
        sleep(min(POLL, self.settings.heartbeat))

    def is_time_left(self) -> bool:
        """Return whether another trial may start."""
        return self.deadline is None or monotonic() < self.deadline

    # ------------------------------------------------------------------ set-up

    def open_study(self) -> None:
        """Open the study, or make it; all processes have to agree on what is trained.

        Raises:
            SettingsError: if its settings are others.
        """
        from optuna import create_study

        settings = self.settings
        self.storage = storage = open_storage(settings.storage, self.save_dir, settings.heartbeat)
        name = settings.study_name or settings.name or "tune"
        self.study: Study = create_study(
            storage=storage,
            study_name=name,
            load_if_exists=True,
            direction="maximize",
            pruner=make_pruner(settings.pruner, settings.warmup_epochs, settings.epochs),
        )
        self.attempts = Attempts(
            self.study, settings.trials, self.mark, 2.0 * settings.heartbeat, has_heartbeat(storage)
        )
        agreed = {"settings": self.compared(), "space": self.space.plain}
        known = self.study.user_attrs.get("study")
        if known is None:
            self.study.set_user_attr("study", json.dumps(agreed))
        else:
            self.require_same(json.loads(known), agreed, name)
        given = {key: settings.to_dict()[key] for key in sorted(settings.model_fields_set)}
        shown = {"storage": None if settings.storage is None else mask_storage(settings.storage)}
        write_yaml(
            self.save_dir / "study.yaml", given | shown | {"study_name": name, "space": self.space.plain}
        )
        log.info(
            "study %s: %d trials, %d settings varied; %s",
            name, settings.trials, len(self.space.parameters), self.save_dir,
        )  # fmt: skip

    def compared(self) -> dict[str, Any]:
        """Return the settings that all processes of the study have to agree in, as plain data."""
        plain = TrainSettings.parse(self.base).to_dict()
        values = {key: plain[key] for key in settings_of(COMPARED)}
        return values | {key: _last_part(values[key]) for key in PLACES}

    def require_same(self, known: dict[str, Any], ours: dict[str, Any], name: str) -> None:
        """Refuse to add trials to a study of another training.

        Raises:
            SettingsError: naming what differs.
        """
        before, now = known["settings"], ours["settings"]
        changed = [
            f"{key}={show_given(before[key])}" for key in now if key in before and before[key] != now[key]
        ]
        if known["space"] != ours["space"]:
            names = dict.fromkeys([*known["space"], *ours["space"]])
            differ = [key for key in names if known["space"].get(key) != ours["space"].get(key)]
            changed.append(f"another space ({', '.join(differ)})")
        if changed:
            raise SettingsError(
                f"the study {name!r} was begun with {', '.join(changed)}; give the same settings, or another name= for "
                f"another study"
            )

    # ------------------------------------------------------------------ a trial

    def objective(self, trial: Trial) -> float:
        """Train with the trial's settings and return the fitness.

        Raises:
            TrialPruned: if the pruner ended the training.
            _TrialFailed: if it ended badly by what its settings are.
        """
        from optuna import TrialPruned

        self.note(trial, host=self.mark.host, process=self.mark.token)
        if not self.attempts.is_needed(trial.number):
            self.note(trial, surplus=True)
            raise _TrialFailed
        pruning = TrialPruning(trial)
        try:
            slot = self.attempts.slot_of(trial.number)
            self.study.sampler = make_sampler(
                self.settings.sampler, self.settings.seed, slot, self.space.first()
            )
            params = self.space.suggest(trial)
            with _signs_of_life(trial, None if self.attempts.has_heartbeat else self.settings.heartbeat):
                trainer = self.train(self.trial_settings(trial, params), self.trial_callbacks(trial, pruning))
        except BaseException as error:
            self.end_badly(trial, error)
            raise
        self._is_given_up = pruning.is_given_up
        if pruning.pruned:
            raise TrialPruned(trainer.stop_reason)
        if trainer.best_fitness is None:
            raise SettingsError(
                "the trials have no fitness: nothing is validated; name a validation split, or val=0.2"
            )
        return float(trainer.best_fitness)

    def note(self, trial: Trial, **attributes: Any) -> None:
        """Write attributes of a trial into the storage, unless another process has counted the trial as dead."""
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            for name, value in attributes.items():
                trial.set_user_attr(name, value)
        except UpdateFinishedTrialError:
            self._is_given_up = True

    def trial_settings(self, trial: Trial, params: dict[str, Any]) -> TrainSettings:
        """Return the settings of a trial: what was given, and what was drawn."""
        own: dict[str, Any] = {
            "project": self.save_dir,
            "name": f"trial-{trial.number:04d}",
            "exist_ok": False,
        }
        own |= {"verbose": False, "plots": self.settings.plots and "plots" in self.settings.model_fields_set}
        return TrainSettings.parse(self.base | params | own)

    def trial_callbacks(self, trial: Trial, pruning: TrialPruning) -> CallbackRegistry:
        """Return the user's callbacks, and after them those that report to Optuna."""
        registry = self.callbacks.copy()
        registry.add(
            "on_pretrain_routine_start", lambda trainer: self.note(trial, folder=trainer.save_dir.name)
        )
        registry.add(pruning)
        return registry

    def end_badly(self, trial: Trial, error: BaseException) -> None:
        """Note why a trial ended; what its settings may have caused ends the trial only.

        Raises:
            _TrialFailed: for those.
        """
        if is_fault_of_settings(error):
            self.note(trial, error=shorten(error_text(error)))
            torch.cuda.empty_cache()
            raise _TrialFailed from None
        if not isinstance(error, Exception):
            self.stopped = error
        self.note(trial, stopped=True)  # by Ctrl-C, or by an error that would end the other trials as well
        if self.stopped is not None:
            raise KeyboardInterrupt from None  # Optuna ends a trial at this one, and at none of the others

    def report(self, study: Study, trial: FrozenTrial) -> None:
        """After a trial: remove weights that are not kept, write the tables, say how it ended."""
        if trial.user_attrs.get("surplus"):
            return
        self.remove_weights()
        self.write()
        trials = self.attempts.trials()
        slots = slots_of(trials, self.settings.trials)
        done = sum(one[-1].state.is_finished() for one in slots.values())
        row = trial_rows([trial], [])[0]
        value = "no fitness" if row["fitness"] is None else f"fitness {row['fitness']:.5f}"
        how = {"complete": "", "failed": f" ({row['error']})"}.get(row["state"], f" ({row['state']})")
        best = best_of(trials)
        log.info(
            "trial %d: %s%s, %d epochs, %.0f s; best %s; %d of %d done",
            trial.number, value, how, row["epochs"] or 0, row["seconds"] or 0,
            "none" if best is None else f"{best.value:.5f} (trial {best.number})", done, self.settings.trials,
        )  # fmt: skip

    # ------------------------------------------------------------------ what is written

    def remove_weights(self) -> None:
        """Remove the weights of ended trials in this run folder that `keep` does not keep."""
        if self.settings.keep == "all":
            return
        trials = self.attempts.trials()
        best = best_of(trials) if self.settings.keep == "best" else None
        for trial in trials:
            if trial.state.is_finished() and (folder := self.folder_of(trial)) is not None:
                for path in (folder / "weights").glob("*"):
                    if trial is not best or path.name != "best.pt":
                        path.unlink(missing_ok=True)

    def folder_of(self, trial: FrozenTrial) -> Path | None:
        """Return the run folder of a trial if it is in this one; what the storage says of it is only a name."""
        name = trial.user_attrs.get("folder")
        if trial.user_attrs.get("host") != self.mark.host or not isinstance(name, str):
            return None
        folder = self.save_dir / name
        own = folder.parent == self.save_dir and name.startswith(f"trial-{trial.number:04d}")
        links = folder.is_symlink() or (folder / "weights").is_symlink()
        return folder if own and folder.is_dir() and not links else None

    def write(self) -> list[dict[str, Any]]:
        """Write the table of trials and the best settings so far; returns the rows."""
        trials = self.attempts.trials()
        rows = trial_rows(trials, list(self.space.parameters))
        write_table(self.save_dir / "trials.csv", rows)
        if (best := best_of(trials)) is not None:
            write_best(
                self.save_dir / "best.yaml",
                self.best_settings(best),
                f"trial {best.number} of the study {self.study.study_name}, fitness {best.value:.5f}; "
                f"detector train cfg=best.yaml",
            )
        return rows

    def best_settings(self, best: FrozenTrial) -> dict[str, Any]:
        """Return what was given and what a trial varied, as plain data that `train` takes."""
        drawn = {key: best.params[key] for key in self.space.parameters if key in best.params}
        settings = TrainSettings.parse(self.base | drawn)
        plain = settings.to_dict() | {"data": located_data(settings.data)}
        saved = (*settings_of(COMPARED), "amp")
        return {key: plain[key] for key in saved if key in self.base | drawn}

    def finish(self) -> TuneResults:
        """Draw the plots and put the results together.

        Raises:
            TrainingError: if no trial came to a good end.
        """
        rows, trials = self.write(), self.attempts.trials()
        for attempts in slots_of(trials, self.settings.trials).values():
            if is_given_up(attempts):
                log.warning(
                    "trial %d is left out: its process died %d times", origin(attempts[0]), len(attempts)
                )
        best = best_of(trials)
        if best is None:
            errors = [row["error"] for row in rows if row["error"]]
            raise TrainingError(
                f"none of {len(rows)} trials came to a good end{f'; the last: {errors[-1]}' if errors else ''}; see "
                f"{self.save_dir / 'trials.csv'}"
            )
        draw_plots(self.study, self.save_dir)
        assert best.value is not None
        folder = self.folder_of(best)
        weights = None if folder is None else folder / "weights" / "best.pt"
        return TuneResults(
            study=self.study,
            save_dir=self.save_dir,
            best_trial=best.number,
            best_fitness=best.value,
            best_params={key: best.params[key] for key in self.space.parameters if key in best.params},
            best_settings=self.best_settings(best),
            best_yaml=self.save_dir / "best.yaml",
            best_weights=weights if weights is not None and weights.is_file() else None,
            rows=rows,
            trials_csv=self.save_dir / "trials.csv",
        )


def best_of(trials: list[FrozenTrial]) -> FrozenTrial | None:
    """Return the trial that came to its end with the highest fitness; of equals the first; None if there is none."""
    complete = [trial for trial in trials if trial.state.name == "COMPLETE" and trial.value is not None]
    return max(complete, key=lambda trial: trial.value or 0.0, default=None)


def settings_of(themes: Collection[str]) -> list[str]:
    """Return the settings of a training that belong to some themes, but for `resume`."""
    fields = TrainSettings.model_fields
    extras = {name: field.json_schema_extra for name, field in fields.items() if name != "resume"}
    return [name for name, extra in extras.items() if isinstance(extra, dict) and extra["theme"] in themes]


def is_fault_of_settings(error: BaseException) -> bool:
    """Return whether a training ended by what its settings may have caused: no memory, or a non-finite loss."""
    if isinstance(error, (TrainingError, MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in MEMORY)


def open_study_folder(project: str | Path, name: str, exist_ok: bool) -> Path:
    """Make the run folder of a study, or return the one it has.

    Raises:
        SettingsError: if there is a folder of that name which is not a study's, or it can't be made.
    """
    folder = (Path(project) / name).absolute()
    try:
        if folder.is_dir():
            others = any(folder.iterdir()) and not (folder / PROCESSES).is_dir()
            if others and not exist_ok:
                raise SettingsError(f"{folder} is there and has no study in it; choose another name=")
            refuse_linked_folders(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / PROCESSES).is_symlink():
            raise SettingsError(
                f"{folder / PROCESSES} is a link; a study writes into folders of its own only"
            )
    except OSError as error:
        raise cannot_write(f"to {folder}", error) from None
    return folder


def _last_part(value: Any) -> Any:
    """Return the last part of a path, so that the same file in other folders is the same; of lists of each."""
    if isinstance(value, list):
        return [_last_part(part) for part in value]
    return Path(value).name if isinstance(value, str) else value


@contextmanager
def _signs_of_life(trial: Trial, seconds: int | None) -> Iterator[None]:
    """Let a trial change every so often in a storage without Optuna's heartbeat, for the length of a `with` block."""
    if seconds is None:
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        count = 0
        while not ended.wait(seconds):
            count += 1
            try:
                trial.set_user_attr("alive", count)
            except UpdateFinishedTrialError:
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _optuna_is_quiet() -> Iterator[None]:
    """Let Optuna log nothing for the length of a `with` block: what there is to say is said here."""
    from optuna import logging as optuna_logging

    before = optuna_logging.get_verbosity()
    optuna_logging.set_verbosity(optuna_logging.CRITICAL)
    try:
        yield
    finally:
        optuna_logging.set_verbosity(before)
