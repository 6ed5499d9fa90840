"""What all loggers share: when they are called, and what happens when one of them fails."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, ClassVar

from detector.callbacks.callback import Callback
from detector.callbacks.secrets import mask_urls
from detector.callbacks.state import load_state, state_of
from detector.errors import error_text, excerpt
from detector.plain_data import to_float

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

HOOKS = ("open", "log_settings", "log_metrics", "log_images", "log_file", "close")
"""What a logger implements."""

MORE_HOOKS = ("verify", "log_text", "log_histogram", "log_figure")
"""What it may implement."""

IMAGE_FILES = (
    "labels.jpg", "results.png", "confusion_matrix*.png", "*_curve.png", "train_batch*.jpg", "val_batch*.jpg",
)  # fmt: skip
"""The images of a run folder that loggers receive."""


RUN_ID = re.compile(r"\w[\w.:=@+-]{0,199}")
"""What a backend's name of a run may be; a state may hold anything, and some backends make folders of it."""


def accept_metrics(method: Callable[..., Any]) -> Callable[..., None]:
    """Wrap `log_metrics` of a logger: names that its backend refuses, and what is not a number, are left out.

    Each is named once in a run.
    """

    @wraps(method)
    def call(self: Logger, metrics: Mapping[str, Any], step: int) -> None:
        accepted = {}
        for name, value in metrics.items():
            number = to_float(value)
            problem = "is not a number" if number is None else self.refuses(name)
            if problem is None:
                accepted[name] = number
            elif name not in self.left_out:
                self.left_out.add(name)
                log.warning("%s: the metric %s is left out: %s", self.title, excerpt(name, 80), problem)
        if accepted:
            method(self, accepted, step)

    return call


def guarded(method: Callable[..., Any]) -> Callable[..., None]:
    """Wrap a method of a logger so that it does nothing while the logger is not open, and never raises.

    The first exception becomes a warning; the logger is then closed and left out of the rest of the run.
    """

    @wraps(method)
    def call(self: Logger, *args: Any, **kwargs: Any) -> None:
        if not self.is_open:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._leave_out(error)

    return call


class Logger(Callback):
    """Sends what happens in a training to a backend.

    A subclass implements the hooks below, with nothing but the calls of its backend: each hook of a
    subclass is wrapped by `guarded`, whoever calls it.

    Args:
        log_model: give the best weights to the backend as well.

    Attributes:
        name: the setting that switches it on and off, and the extra that installs it.
        title: what messages call it.
        package: what must be importable.
        is_open: it logs what it is given.
        is_broken: it failed in this run.
        exception: what ended the training, or None; known when `close` is called.
        stop_reason: why it ended, in words without secrets; known when `close` is called.
        run_id: the backend's name of the run; set by `open`, if a resumed training is to continue that run.
        continues: when a training is resumed, the `run_id` it had, or None; known when `open` is called.
        start_epoch: epochs the run has already, if it is resumed.
        left_out: names of metrics that were left out of this run.
        run_folder: the run folder.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    package: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for hook in (*HOOKS, *MORE_HOOKS):
            if hook in cls.__dict__:
                method = cls.__dict__[hook]
                setattr(cls, hook, guarded(accept_metrics(method) if hook == "log_metrics" else method))

    def __init__(self, log_model: bool = True) -> None:
        self.log_model = log_model
        self.is_open = self.is_broken = self._says_no_texts = False
        self.exception: BaseException | None = None
        self.stop_reason = ""
        self.run_id: str | None = None
        self.continues: str | None = None
        self.start_epoch = 0
        self.left_out: set[Any] = set()
        self.run_folder = Path()

    # ------------------------------------------------------------------ before training

    @classmethod
    def is_switched_off(cls) -> bool:
        """Return whether the backend's own environment turns it off."""
        return False

    @classmethod
    def needs(cls) -> str | None:
        """Return what the user has to do before this logger can work, or None if nothing."""
        return None

    def refuses(self, name: Any) -> str | None:
        """Return why the backend does not take a metric of this name, or None if it does."""
        return None if isinstance(name, str) and name.strip() else "it has no name"

    # ------------------------------------------------------------------ what a backend implements

    def open(self, trainer: Any) -> None:
        """Start a run, or join the one that is active."""
        raise NotImplementedError

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        """Log the settings, and later the model's size, as parameters of the run."""
        raise NotImplementedError

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics; `step` is the epoch, counted from 1."""
        raise NotImplementedError

    def log_images(self, images: Mapping[str, Path], step: int) -> None:
        """Log image files by name."""
        raise NotImplementedError

    def log_file(self, path: Path) -> None:
        """Log the best weights as an artifact."""
        raise NotImplementedError

    def close(self, failed: bool) -> None:
        """End the run; also called after a failure of this logger."""
        raise NotImplementedError

    # ------------------------------------------------------------------ what a backend may implement

    def verify(self) -> None:
        """Write what was given by now, before the first epoch; for a backend that writes late."""

    def log_text(self, name: str, text: str, step: int) -> None:
        """Log a text; a backend without texts says once that it leaves them out."""
        if not self._says_no_texts:
            self._says_no_texts = True
            log.info("%s takes no texts: %s is left out", self.title, name)

    @guarded
    def log_histogram(self, name: str, values: Any, step: int) -> None:
        """Log how numbers are distributed: those of a tensor, an array or a list. By default as a plot."""
        counts, edges = histogram(values)
        if counts.sum():
            from matplotlib.figure import Figure

            figure = Figure(figsize=(6, 4), layout="constrained")
            axes = figure.add_subplot(xlabel=name, ylabel="count")
            axes.stairs(counts, edges, fill=True)
            self.log_figure(name, figure, step)

    @guarded
    def log_figure(self, name: str, figure: Any, step: int) -> None:
        """Log a figure of matplotlib as an image, which is written to `logged/` in the run folder."""
        path = self.run_folder / "logged" / f"{re.sub(r'[^-.0-9A-Za-z_]+', '_', name)}-{step}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        self.log_images({name: path}, step)

    # ------------------------------------------------------------------ events

    def on_pretrain_routine_start(self, trainer: Any) -> None:
        """Open, before other callbacks: their code may log to the run. A data set that is not there opens nothing."""
        self.is_open = self.is_broken = self._says_no_texts = False
        self.exception, self.stop_reason = None, ""
        self.run_folder = Path(trainer.save_dir)
        self.run_id, self.continues, self.start_epoch = None, None, 0
        self.left_out = set()
        if trainer.resume is not None:  # states are restored after this event, but opening needs this one
            saved = trainer.resume.content
            self.start_epoch = saved["epoch"] + 1
            state = state_of(self, trainer.callbacks.objects, saved["callbacks"])
            load_state(type(self).__name__, self, state or {})
        if trainer.is_data_found:
            self._start_run(trainer)

    def on_pretrain_routine_end(self, trainer: Any) -> None:
        """Open now, if the data set was only downloaded, drawn or made since."""
        if not (self.is_open or self.is_broken):
            self._start_run(trainer)

    def _start_run(self, trainer: Any) -> None:
        self.is_open = True
        self.open(trainer)
        self.log_settings(trainer.settings.to_dict() | origin_settings(trainer.origin))

    @guarded
    def on_train_start(self, trainer: Any) -> None:
        info = trainer.model.info(trainer.settings.imgsz)
        self.log_settings({"model/parameters": info.parameters, "model/GFLOPs": round(info.gflops, 3)})
        self.verify()

    @guarded
    def on_fit_epoch_end(self, trainer: Any) -> None:
        self.log_metrics(dict(trainer.metrics), trainer.epoch + 1)

    @guarded
    def on_train_end(self, trainer: Any) -> None:
        """Log the metrics of the best weights as `best/...`, then the images and the weights."""
        step = trainer.epoch + 1
        if trainer.final_metrics is not None:
            metrics = trainer.final_metrics.results_dict.items()
            best = {f"best/{name.removeprefix('metrics/')}": value for name, value in metrics}
            self.log_metrics(best, step)
        found = sorted(
            path
            for pattern in IMAGE_FILES
            for path in trainer.save_dir.glob(pattern)
            if not path.is_symlink()  # it may lead to any file of this machine
        )
        if found:
            self.log_images({f"pictures/{path.stem}": path for path in found}, step)
        weights = trainer.final_weights
        if self.log_model and weights is not None and not weights.is_symlink():
            self.log_file(weights)

    def teardown(self, trainer: Any) -> None:
        self.exception = trainer.exception
        self.stop_reason = mask_urls(trainer.stop_reason or "", paths=False)
        self.close(failed=trainer.exception is not None)
        self.is_open = False

    def state_dict(self) -> dict[str, Any]:
        """Return which run a resumed training continues."""
        return {"run_id": self.run_id or self.continues}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        run_id = state.get("run_id")
        if run_id is not None and not (isinstance(run_id, str) and RUN_ID.fullmatch(run_id)):
            raise ValueError(f"run_id={run_id!r:.100}: expected letters, digits and any of . : = @ + -")
        self.continues = run_id

    def outcome(self, failed: bool) -> str:
        """Return in a word how the run ended: "finished", "failed", or "killed" by Ctrl-C or an exit."""
        if isinstance(self.exception, (KeyboardInterrupt, SystemExit)):
            return "killed"
        return "failed" if failed else "finished"

    def _leave_out(self, error: Exception) -> None:
        if self.is_broken:  # this is the attempt to close it
            log.debug("%s could not be closed: %s", self.title, error)
            return
        self.is_broken = True
        reason = shorten(mask_urls(error_text(error), paths=False), 300, placeholder=" ...")
        log.warning("%s failed and is left out of the rest of this run: %s", self.title, reason)
        self.close(failed=True)
        self.is_open = False


def origin_settings(origin: Mapping[str, Any] | None) -> dict[str, str]:
    """Return where the weights of a training come from, as parameters of the run; nothing for random weights."""
    if origin is None:
        return {}
    before = " < ".join(one["name"] for one in origin["chain"]) or "none"
    values = {
        "name": origin["name"],
        "sha256": origin["sha256"],
        "licence": origin["licence"] or "not stated",
    }
    return {f"origin/{key}": value for key, value in (values | {"chain": before}).items()}


def histogram(values: Any, bins: int = 64) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the counts (bins,) and the edges (bins + 1,) of the finite ones among some numbers.

    Args:
        values: a tensor on any device, an array, or a list, of any shape.
        bins: how many.
    """
    import numpy as np

    values = values.detach().float().cpu() if hasattr(values, "detach") else values
    numbers = np.asarray(values, np.float64).ravel()
    counts, edges = np.histogram(numbers[np.isfinite(numbers)], bins)
    return counts, edges


def project_name(trainer: Any) -> str:
    """Return what backends call the project: the folder of the runs, or "detector" if that is just `runs`."""
    name = Path(trainer.settings.project).absolute().name
    return "detector" if name in ("", "runs") else name


def project_folder(trainer: Any) -> Path:
    """Return the absolute folder that holds the runs."""
    return Path(trainer.settings.project).absolute()


def is_true(variable: str) -> bool:
    """Return whether an environment variable is set to something that means yes."""
    return os.environ.get(variable, "").strip().lower() in ("1", "true", "yes", "on")


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables for the length of a `with` block, except those the user has set."""
    ours = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
