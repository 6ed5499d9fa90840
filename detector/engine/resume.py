"""What a training needs to go on: `state.pt` in the run folder's `weights`, written after every epoch.

A state holds the raw and the averaged weights in full precision, the optimizer, the loss scaler, the
schedule, the counters, the states of the callbacks, the settings and the class names, as plain data that
`torch.load(weights_only=True)` opens. Data order and augmentation are functions of the seed, the epoch and
the step, so that nothing of the loader has to be kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from detector.callbacks.state import gather_states, restore_states
from detector.engine import checkpoint
from detector.errors import CheckpointError, SettingsError
from detector.settings import LOGGER_NAMES, plain

if TYPE_CHECKING:
    from detector.engine.train import Trainer

FILE = "weights/state.pt"

FREE = frozenset(
    {
        *(
            "model",
            "resume",
            "epochs",
            "time",
            "patience",
            "project",
            "exist_ok",
            "save_period",
            "verbose",
            "plots",
        ),
        *("device", "workers", "cache", "callbacks", "plugins", "loggers", *LOGGER_NAMES, "log_model"),
    }
)
"""Settings that may differ from those of the run that is resumed."""


@dataclass(frozen=True)
class RunState:
    """A run that can go on.

    Attributes:
        folder: its run folder.
        content: what `save_state` wrote.
    """

    folder: Path
    content: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Whether all the planned epochs were trained."""
        return bool(self.content["complete"])

    def merge_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the run's settings with what is given now.

        Raises:
            SettingsError: naming every given setting whose change would make it another run.
        """
        saved = self.content["settings"]
        changed = [
            f"{key}={plain(value)}: the run in {self.folder} has {key}={plain(saved.get(key))}"
            for key, value in given.items()
            if key in saved and key not in FREE and str(value) != str(saved[key])
        ]
        if changed:
            raise SettingsError(
                "\n".join(f"{line}; leave it out to resume, or start a new run" for line in changed)
            )
        return dict(saved) | dict(given) | {"resume": False}


def find_run(resume: bool | str | Path, project: str | Path) -> RunState:
    """Open the run to go on with.

    Args:
        resume: its folder (or its state.pt or last.pt), or True for the newest unfinished run in `project`.
        project: the folder that holds the runs.

    Raises:
        CheckpointError: if there is no such run, or its state can't be read.
    """
    if isinstance(resume, bool):
        files = sorted(Path(project).glob(f"*/{FILE}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for file in files:
            if not (state := _open(file)).complete:
                return state
        raise CheckpointError(
            f"resume=true: there is no unfinished run in {Path(project).absolute()}; name its folder, "
            "as in resume=runs/train"
        )
    path = Path(resume)
    folder = path.parent.parent if path.suffix == ".pt" else path
    if not (folder / FILE).is_file():
        raise CheckpointError(
            f"resume={resume}: {(folder / FILE).absolute()} does not exist; expected a run folder"
        )
    return _open(folder / FILE)


def _open(file: Path) -> RunState:
    content = checkpoint.load_checkpoint(file)
    if "optimizer" not in content:
        raise CheckpointError(f"{file}: holds weights only, so that a run can't go on from it")
    return RunState(file.parent.parent.absolute(), content)


def save_state(trainer: Trainer) -> None:
    """Write the state at the end of an epoch."""
    content = {
        "model": trainer.model.config.to_dict(),
        "weights": trainer.model.state_dict(),
        "ema": trainer.ema.state_dict(),
        "ema_updates": trainer.ema.updates,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "schedule": trainer.schedule.state_dict(),
        "frozen": list(trainer.frozen.parameters),
        "counters": {name: getattr(trainer, name) for name in COUNTERS},
        "epoch": trainer.epoch,
        "seconds": perf_counter() - trainer.started,
        "metrics": dict(trainer.metrics),
        "callbacks": gather_states(trainer.callbacks.objects),
        "settings": trainer.initial_settings,
        "complete": trainer.epoch + 1 >= trainer.epochs,
    }
    checkpoint.save_checkpoint(trainer.save_dir / FILE, content)


COUNTERS = ("epoch", "epochs", "global_step", "last_step", "best_fitness", "best_epoch")


def restore_state(trainer: Trainer, state: RunState) -> None:
    """Put a trainer that is set up where the run was.

    Raises:
        CheckpointError: if the data has other classes, or the run is complete.
    """
    content = state.content
    if content["model"] != trainer.model.config.to_dict():
        raise CheckpointError(
            f"the run in {state.folder} has another architecture or other classes than data= has now: "
            f"{', '.join(content['model']['names'])} against {', '.join(trainer.model.names.values())}"
        )
    counters = dict(content["counters"])
    if counters["epoch"] + 1 >= trainer.epochs:
        raise CheckpointError(
            f"the run in {state.folder} is complete after {counters['epoch'] + 1} epochs; "
            f"give more to go on, such as epochs={2 * trainer.epochs}"
        )
    del counters["epochs"]
    for name, value in counters.items():
        setattr(trainer, name, value)
    trainer.start_epoch = trainer.epoch + 1
    trainer.saved_step = trainer.global_step
    trainer.started = perf_counter() - content["seconds"]
    trainer.model.load_state_dict(content["weights"])
    trainer.ema.model.load_state_dict(content["ema"])
    trainer.ema.updates = content["ema_updates"]
    trainer.optimizer.load_state_dict(content["optimizer"])
    trainer.scaler.load_state_dict(content["scaler"])
    trainer.schedule.load_state_dict(content["schedule"])
    trainer.frozen.restrict(content["frozen"])
    restore_states(trainer.callbacks.objects, content["callbacks"])
