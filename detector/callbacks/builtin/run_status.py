"""What a run says about itself in its folder, and the file by which it is ended."""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

from detector.callbacks.builtin.checks import require_number
from detector.callbacks.builtin.terminal_copy import TerminalCopy
from detector.callbacks.callback import Callback
from detector.callbacks.secrets import mask_callbacks, mask_urls
from detector.errors import DataError, cannot_write, ending, error_text
from detector.fields import format_value
from detector.files.atomic import atomic_write
from detector.files.git import describe_commit
from detector.runs.process import describe_process
from detector.runs.record import CLASSES, LOG, METRICS, STATUS, STOP, now, read_metrics, read_run, to_json
from detector.version import __version__

log = logging.getLogger(__name__)

STOP_FILE = "STOP file"
"""The reason of a run that was ended by one."""

LOOK_EVERY = 1.0  # seconds between two looks for the file STOP

PLACE = ("resume", "save_dir")
"""Settings that say where a run writes, and not what it does."""


class RunStatus(Callback):
    """Writes status.json, metrics.jsonl and train.log, and ends the run when a file STOP is put into its folder.

    docs/runs.md describes the files. The run ends cleanly after the current batch; the file is removed.

    Args:
        every: seconds between two updates of the status within an epoch.

    Raises:
        CallbackError: if `every` is not a number > 0.
    """

    def __init__(self, every: float = 2.0) -> None:
        self.every = require_number("RunStatus", "every", every, above=True)
        self._trainer: Any = None
        self._copy: TerminalCopy | None = None

    # ------------------------------------------------------------------ events

    def on_pretrain_routine_start(self, trainer: Any) -> None:
        """Begin the log and the status; a STOP from before is not meant for this run."""
        self._trainer, self.folder = trainer, Path(trainer.save_dir)
        self._is_cut = self._has_warned = False
        self._began = self._written = self._looked = perf_counter()
        self._seconds = self._progress_before = 0.0
        self._remove_stop()
        before = self._before(trainer)
        with self._warned():
            for name in (
                (LOG, METRICS, CLASSES) if trainer.resume is None else ()
            ):  # of a run that this one replaces
                (self.folder / name).unlink(missing_ok=True)
            self._copy = TerminalCopy(self.folder / LOG)
        settings = given_settings(trainer)
        self.status: dict[str, Any] = {
            "state": "running", "epoch": trainer.start_epoch, "epochs": trainer.epochs, "progress": 0.0, "eta_s": None,
            "seconds": 0.0, "best": None, "stop_reason": None, "error": None, **describe_process(),
            "started": before or now(), "updated": now(), "ended": None, "hardware": describe_hardware(trainer),
            "versions": describe_versions(), "git": describe_commit(Path.cwd()), "data": None,
            "command": command_of(settings), "settings": settings,
        }  # fmt: skip
        if trainer.resume is not None and self._copy is not None:
            self._copy.write_line(f"--- resumed {now()} ---")
        self._write()

    def on_pretrain_routine_end(self, trainer: Any) -> None:
        """Say what the training has found out of its data."""
        data = trainer.data
        text = json.dumps(data.fingerprint, sort_keys=True)
        self.status |= {
            "epochs": trainer.epochs,
            "data": {
                "name": data.config.yaml_path.name,
                "fingerprint": sha256(text.encode()).hexdigest()[:16],
                "train_images": len(data.train_annotations),
                "val_images": len(data.val_annotations),
                "classes": len(data.names),
            },
        }
        self._write()

    def on_train_start(self, trainer: Any) -> None:
        """Continue the rows of the epochs before, or begin with none."""
        path, rows = self.folder / METRICS, []
        if trainer.start_epoch:
            try:
                rows = read_metrics(self.folder, before=trainer.start_epoch)
            except DataError as problem:
                log.warning("%s; it begins again", problem)
        with self._warned(), atomic_write(path, flush=False) as file:
            file.writelines(_line(row) for row in rows)
        self._seconds = rows[-1].get("seconds", 0.0) if rows else 0.0
        best = next((row for row in rows if row["epoch"] == (trainer.best_epoch or 0) + 1), None)
        if best is not None and trainer.best_epoch is not None:
            self._take_best(best, trainer.best_fitness)
        self._began = perf_counter()
        self._progress_before = self._progress()
        self._write()

    def on_train_batch_end(self, trainer: Any) -> None:
        if trainer.stop and trainer.batch_index + 1 < trainer.num_batches:
            self._is_cut = True
        self._tick()

    def on_val_batch_end(self, validator: Any) -> None:
        self._tick()

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Append a row, and say how far the run is."""
        seconds = self._seconds + perf_counter() - self._began
        epoch = trainer.epoch + 1
        row = {"epoch": epoch, "time": now(), "seconds": round(seconds, 3), **to_json(trainer.metrics)}
        path = self.folder / METRICS
        with self._warned(), path.open("ab") as file:
            file.write(_line(row))
        if trainer.best_epoch == trainer.epoch:
            self._take_best(row, trainer.best_fitness)
        self.status["epoch"] = epoch
        self._write()

    def on_train_end(self, trainer: Any) -> None:
        """Write what the best weights reach for each class."""
        path = self.folder / CLASSES
        with self._warned():
            if trainer.final_metrics is None:
                path.unlink(missing_ok=True)
                return
            with atomic_write(path, flush=False) as file:
                file.write(
                    json.dumps(to_json(trainer.final_metrics.summary()), indent=1, allow_nan=False).encode()
                )

    def teardown(self, trainer: Any) -> None:
        """Say how it ended."""
        if self._trainer is None:  # it failed before it began
            return
        error = trainer.exception
        self.status |= {
            "state": self._outcome(trainer, error),
            "eta_s": None,
            "ended": now(),
            "stop_reason": mask_urls(reason, paths=False) if (reason := trainer.stop_reason) else None,
            "error": mask_urls(error_text(error), paths=False) if isinstance(error, Exception) else None,
        }
        self._remove_stop()
        try:
            self._write(flush=True)
        finally:
            if self._copy is not None:
                if error is not None:
                    self._copy.write_line(f"error: {ending(error)}")
                self._copy.close()
            self._copy = self._trainer = None

    # ------------------------------------------------------------------ the status

    def _outcome(self, trainer: Any, error: BaseException | None) -> str:
        if isinstance(error, Exception):
            return "failed"
        is_whole = self.status["epoch"] >= trainer.epochs and not self._is_cut
        return "finished" if is_whole and error is None else "stopped"

    def _before(self, trainer: Any) -> str | None:
        """Return when the run that is resumed was started."""
        if trainer.resume is None:
            return None
        with suppress(DataError):  # it was written without this callback, or is damaged: it starts now
            started: str | None = read_run(self.folder).status["started"]
            return started
        return None

    def _take_best(self, row: dict[str, Any], fitness: float | None) -> None:
        metrics = {name: value for name, value in row.items() if name.startswith(("metrics/", "val/"))}
        self.status["best"] = to_json({"epoch": row["epoch"], "fitness": fitness, **metrics})

    def _progress(self) -> float:
        """Return the part of the batches that is done, 0 to 1."""
        trainer = self._trainer
        done = trainer.progress.epochs_done + trainer.progress.batches_done / max(trainer.num_batches, 1)
        return float(min(max(done, self.status["epoch"]) / max(trainer.epochs, 1), 1.0))

    def _tick(self) -> None:
        """Look for the file STOP, and update the status."""
        at = perf_counter()
        if at - self._looked >= LOOK_EVERY:
            self._looked = at
            self._look_for_stop()
        if at - self._written >= self.every:
            self._write()

    def _look_for_stop(self) -> None:
        try:
            os.lstat(self.folder / STOP)
        except OSError:  # there is none, or the network has gone away
            return
        self._remove_stop()
        if not self._trainer.stop:
            self._trainer.stop, self._trainer.stop_reason = True, STOP_FILE
            log.info("stopped: there was a file STOP in %s", self.folder)

    def _remove_stop(self) -> None:
        with suppress(OSError):  # a folder of that name stays
            (self.folder / STOP).unlink(missing_ok=True)

    def _write(self, flush: bool = False) -> None:
        """Replace status.json."""
        at = self._written = perf_counter()
        trainer, status = self._trainer, self.status
        if status["data"] is not None:
            spent, progress = at - self._began, self._progress()
            gained = progress - self._progress_before
            status |= {
                "epochs": trainer.epochs,
                "progress": round(progress, 6),
                "seconds": round(self._seconds + spent, 3),
            }
            if status["state"] == "running":
                status["eta_s"] = round(spent * (1 - progress) / gained, 1) if gained > 0 else None
                status["stop_reason"] = trainer.stop_reason
        status["updated"] = now()
        with self._warned(), atomic_write(self.folder / STATUS, flush=flush) as file:
            file.write(json.dumps(to_json(status), indent=1, allow_nan=False).encode())

    @contextmanager
    def _warned(self) -> Iterator[None]:
        """Warn once of what can't be written: a run is not to fail for what is said about it."""
        try:
            yield
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                log.warning("RunStatus: %s; the run continues", cannot_write(f"to {self.folder}", error))


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(to_json(row), allow_nan=False, separators=(",", ":")).encode() + b"\n"


def given_settings(trainer: Any) -> dict[str, Any]:
    """Return the settings of a run that differ from the defaults, as plain data without secrets."""
    defaults = {name: field.default for name, field in type(trainer.settings).model_fields.items()}
    given = {}
    for name, value in to_json(trainer.initial_settings).items():
        if name not in PLACE and value != to_json(defaults.get(name)):
            if name == "callbacks":  # as they are written down elsewhere
                value = [mask_callbacks(text) for text in ([value] if isinstance(value, str) else value)]
            given[name] = mask_urls(value) if isinstance(value, str) else value
    return given


def command_of(settings: Mapping[str, Any]) -> str:
    """Return the command line of a training with these settings, quoted for a shell."""
    words = ["detector", "train"]
    for name, value in settings.items():
        is_callbacks = name == "callbacks" and isinstance(value, list)
        text = (
            ",".join(value)
            if is_callbacks
            else json.dumps(value)
            if isinstance(value, dict)
            else format_value(value)
        )
        words.append(shlex.quote(f"{name}={text}"))
    return " ".join(words)


def describe_hardware(trainer: Any) -> dict[str, Any]:
    """Return what the training runs on: device and its name, cores, and memory in GB (10^9 bytes)."""
    device = trainer.device
    found: dict[str, Any] = {"device": str(device), "machine": platform.machine(), "cpus": os.cpu_count()}
    with suppress(AttributeError, ValueError, OSError):  # where the system does not say it
        found["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    if device.type == "cuda":
        import torch

        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_memory_gb": round(properties.total_memory / 1e9, 1)}
    return found


def describe_versions() -> dict[str, str]:
    """Return the versions of this package, of Python, and of the packages whose version results depend on."""
    found = {"detector": __version__, "python": platform.python_version(), "system": platform.system()}
    for name in ("torch", "numpy", "cv2"):
        if (version := getattr(sys.modules.get(name), "__version__", None)) is not None:
            found[name] = str(version)
    return found
