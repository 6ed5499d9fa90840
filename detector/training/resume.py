"""What a training needs to resume: `weights/state.pt` in the run folder.

A state holds the raw and the averaged weights in full precision, the optimizer, the loss scaler, the schedule,
accumulated gradients, the counters and the position inside the epoch, the states of the callbacks and
of the random generators, the settings, the fingerprint of the data, the class names and the versions, as plain
data that `torch.load(weights_only=True)` opens. Data order and augmentation are functions of the seed, the epoch
and the batch, so that no state of the loader has to be saved.

It is written before the first batch, after every epoch, every `save_minutes` within one, and when a run is
interrupted. The previous state stays next to it as `state-previous.pt` until the run has ended: should the newer one
be damaged, the run resumes from the older.
"""

from __future__ import annotations

import io
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from detector.checkpoints.checkpoint import load_checkpoint
from detector.device import Precision
from detector.errors import (
    CheckpointError,
    DataError,
    DetectorError,
    RunCompleteError,
    SettingsError,
    error_text,
)
from detector.fields import format_value
from detector.nn.model import ModelConfig
from detector.settings import LOGGER_NAMES, TrainSettings
from detector.training.finite import find_non_finite
from detector.training.saving import PREVIOUS_STATE, STATE
from detector.version import __version__

log = logging.getLogger(__name__)

FORCE = "force"

FREE = frozenset(
    {
        *("model", "data", "resume", "epochs", "time", "patience", "project", "name", "exist_ok"),
        *("device", "processes", "wait_limit"),
        *("save_period", "save_minutes", "verbose", "plots", "workers", "cache"),
        *("callbacks", "plugins", "loggers", *LOGGER_NAMES, "log_model"),
    }
)
"""Settings that may differ from those of the run that is resumed."""

KEYS = (
    "epoch", "batches", "counters", "sums", "epoch_seconds", "seconds", "schedule", "callbacks", "random", "finished",
    "ema", "ema_updates", "optimizer", "grads", "loss_sum", "scaler", "frozen", "data", "machine",
)  # fmt: skip
"""What a state holds in addition to the content of every checkpoint."""

KINDS = MappingProxyType(
    {"epoch": int, "batches": int}
    | dict.fromkeys(("counters", "sums", "schedule", "callbacks", "random", "data", "machine"), dict)
)
"""What some of these are; the rest is found out when the training is restored."""


@dataclass(frozen=True)
class RunState:
    """A run that can be resumed.

    Attributes:
        folder: its run folder.
        content: what `save_state` wrote.
        force: resume even where settings or data have changed.
    """

    folder: Path
    content: dict[str, Any]
    force: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a file would: pickle alone can't carry every type of tensor."""
        stream = io.BytesIO()
        torch.save(self.content, stream)
        return _received, (self.folder, stream.getvalue(), self.force)

    @property
    def place(self) -> str:
        """Where the run stopped, as text."""
        done, batches = self.content["epoch"] + 1, self.content["batches"]
        return f"epoch {done + 1}, batch {batches}" if batches else f"the end of epoch {done}"

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end, final evaluation and all."""
        return bool(self.content["finished"])

    def complete(self, settings: TrainSettings, restarted: bool = False) -> None:
        """Fill in the run's settings where none are given now.

        Args:
            settings: the settings that are given now; changed in place.
            restarted: whether a launcher resumes it, and not a user; a complete run then ends once more.

        Raises:
            SettingsError: naming every given setting whose change would make it another run.
            RunCompleteError: if the run has come to its end and no more epochs are asked for.
        """
        saved = self.content["settings"]
        given = {
            key: getattr(settings, key)
            for key in type(settings).model_fields
            if key in settings.model_fields_set
        }
        changed = [
            f"{key}={format_value(value)}: the run in {self.folder} has {key}={format_value(saved.get(key))}"
            for key, value in given.items()
            if key in saved and key not in FREE and str(value) != str(saved[key])
        ]
        if changed and not self.force:
            raise SettingsError(
                "\n".join(
                    f"{line}; leave it out to resume, start a new run, or give resume={FORCE}:{self.folder}"
                    for line in changed
                )
            )
        for line in changed:
            log.warning(
                "%s; the run continues with the new value, but its results will differ from the original run",
                line,
            )
        settings.inherit(saved | self.place_settings(saved.get("name")))
        settings.resume = False
        done = self.content["epoch"] + 1
        if self.finished and not restarted and (settings.epochs == "auto" or settings.epochs <= done):
            raise RunCompleteError(
                f"the run in {self.folder} is complete after {done} epochs; "
                f"give more to continue, such as epochs={2 * done}"
            )

    def place_settings(self, name: Any) -> dict[str, Any]:
        """Return `project` and `name` as they are now; those of the state may name any folder of another machine.

        Args:
            name: the saved one; of `name=night/first` the project is the folder above both.
        """
        parts = Path(name).parts[:-1] if isinstance(name, str) else ()
        nested = bool(parts) and self.folder.parts[-1 - len(parts) : -1] == parts
        project = self.folder.parents[len(parts) if nested else 0]
        return {"project": str(project), "name": str(self.folder.relative_to(project))}

    def require_same(self, config: ModelConfig, data: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
        """Refuse another architecture or other data than the run's, and warn of another machine.

        Args:
            config: the architecture now, with the class names of the data.
            data: the fingerprint of the data now.
            machine: see `machine`.

        Raises:
            CheckpointError: if the data has other classes.
            DataError: if the data set has changed in another way, unless forced.
        """
        saved, now = self.content["model"], config.to_dict()
        for key, default in (("channels", 3), ("value_range", None)):  # which a saved architecture leaves out
            before, here = saved.get(key, default), now.get(key, default)
            if before != here:
                raise CheckpointError(
                    f"the run in {self.folder} has {key}: {format_value(before)}, data= has "
                    f"{key}: {format_value(here)} now; restore it, or start a new run"
                )
        if saved != now:
            raise CheckpointError(
                f"the run in {self.folder} has another architecture or other classes than data= has now: "
                f"{', '.join(saved['names'])} against {', '.join(config.names)}"
            )
        compare_data(self, data)
        compare_machines(self.content["machine"], machine)


def _received(folder: Path, content: bytes, force: bool) -> RunState:
    return RunState(folder, torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), force)


def find_run(resume: bool | str | Path, project: str | Path) -> RunState:
    """Open the run to resume.

    Args:
        resume: its folder (or its state.pt or last.pt), True for the newest unfinished run in `project`; "force"
            is True and "force:FOLDER" the folder, to resume even if settings or data have changed.
        project: the folder that holds the runs.

    Raises:
        CheckpointError: if there is no such run, or its state can't be read.
        RunCompleteError: if all runs in `project` are complete.
    """
    force, named = False, resume
    if isinstance(resume, str) and resume.split(":")[0] == FORCE:
        force, named = True, resume.partition(":")[2] or True
    if isinstance(named, bool):
        files = [*Path(project).glob(f"*/{STATE}"), *Path(project).glob(f"*/{PREVIOUS_STATE}")]
        files.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for folder in dict.fromkeys(file.parent.parent for file in files):
            if not (state := _open(folder, force)).finished:
                return state
        where = f"resume={format_value(resume)}: there is no unfinished run in {Path(project).absolute()}"
        if files:
            raise RunCompleteError(
                f"{where}, the runs there are complete; name one to continue it with more epochs="
            )
        raise CheckpointError(f"{where}; name its folder, as in resume=runs/train")
    path = Path(named)
    folder = path.parent.parent if path.suffix == ".pt" else path
    if not (folder / STATE).is_file() and not (folder / PREVIOUS_STATE).is_file():
        raise CheckpointError(
            f"resume={resume}: {(folder / STATE).absolute()} does not exist; expected a run folder"
        )
    return _open(folder, force)


def _open(folder: Path, force: bool) -> RunState:
    """Read the state of a run, or the previous one if that is damaged."""
    problems = []
    for name in (STATE, PREVIOUS_STATE):
        try:
            content = load_checkpoint(folder / name)
            _check_state(folder / name, content)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        run = RunState(folder.absolute(), content, force)
        for problem in problems:
            log.warning("%s; the run continues from the previous state, %s", problem, run.place)
        return run
    raise CheckpointError(problems[0])


def _check_state(path: Path, content: Mapping[str, Any]) -> None:
    """Make sure that a checkpoint is a state, of this version, and of use."""
    if "optimizer" not in content:
        raise CheckpointError(
            f"{path}: holds weights only, a run can't be resumed from it; start from them with pretrained="
        )
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise CheckpointError(
            f"{path}: was written by detector {content.get('version')} and lacks {', '.join(missing)}; "
            f"resume with that version, or start from its weights with pretrained="
        )
    for key, kind in KINDS.items():
        if not isinstance(content[key], kind):
            raise CheckpointError(
                f"{path}: its {key} is a {type(content[key]).__name__}, expected a {kind.__name__}; a run can't be "
                "resumed from it, start from its weights with pretrained="
            )
    if (name := find_non_finite(content)) is not None:
        raise CheckpointError(
            f"{path}: can't be resumed from, {name} is not finite; start a new run with a smaller lr0 or amp=false"
        )


def compare_data(state: RunState, now: Mapping[str, Any]) -> None:
    """Refuse data that differs from the run's, or warn of it if forced.

    Raises:
        DataError: naming what differs.
    """
    saved = state.content["data"]
    differences = [
        f"{split}: {now[split]['images']} images and {now[split]['boxes']} boxes now, "
        f"{saved[split]['images']} and {saved[split]['boxes']} before"
        + (", or other file names, sizes or labels" if _counts(now[split]) == _counts(saved[split]) else "")
        for split in saved
        if now[split] != saved[split]
    ]
    if not differences:
        return
    sentence = (
        f"the data set is not the one the run in {state.folder} was trained on ({'; '.join(differences)})"
    )
    if not state.force:
        raise DataError(
            f"{sentence}; restore it, or give resume={FORCE}:{state.folder} to resume nevertheless"
        )
    log.warning("%s; the run continues, but its results will differ from the original run", sentence)


def _counts(split: Mapping[str, Any]) -> tuple[int, int]:
    return split["images"], split["boxes"]


@contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Turn what a state that fits nothing raises within the `with` block into one sentence.

    Raises:
        CheckpointError: naming the folder of the run.
    """
    try:
        yield
    except DetectorError:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"the run in {folder} can't be restored: its state does not fit ({error_text(error)}); start from its "
            "weights with pretrained="
        ) from error


def machine(device: torch.device, precision: Precision, processes: int = 1) -> dict[str, Any]:
    """Return what else the last bits of a training depend on."""
    several = {"processes": processes} if processes > 1 else {}
    return several | {
        "detector": __version__,
        "torch": str(torch.__version__),
        "device": device.type,
        "precision": precision.name,
        "threads": torch.get_num_threads(),
    }


def compare_machines(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Warn where the run continues under other conditions."""
    saved, now = {"processes": 1, **saved}, {"processes": 1, **now}
    changed = [f"{key} {now[key]} instead of {saved.get(key)}" for key in now if now[key] != saved.get(key)]
    if changed:
        log.warning(
            "the run continues with %s: its metrics may differ in the last bits from those of an uninterrupted run",
            ", ".join(changed),
        )


def random_states() -> dict[str, Any]:
    """Return the states of all random generators of the process, as plain data.

    The training itself draws from none of them; callbacks and custom layers may.
    """
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).copy()), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put the random generators where they were."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy(), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
