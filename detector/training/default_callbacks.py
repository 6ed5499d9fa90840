"""The default callbacks of a training; each is an ordinary member of the registry and can be removed."""

from __future__ import annotations

import logging

from detector.callbacks.builtin.csv_logger import CSVLogger
from detector.callbacks.builtin.early_stopping import EarlyStopping
from detector.callbacks.builtin.live_curves import LiveCurves
from detector.callbacks.builtin.progress_bar import ProgressBar
from detector.callbacks.builtin.report import Report
from detector.callbacks.builtin.run_status import RunStatus
from detector.callbacks.builtin.sample_images import Pictures
from detector.callbacks.loading import add_plugins
from detector.callbacks.loggers import choose_loggers
from detector.callbacks.loggers.base import Logger
from detector.callbacks.registry import CallbackRegistry
from detector.drawing import in_notebook
from detector.settings import LOGGER_NAMES, TrainSettings

log = logging.getLogger(__name__)

OPENING = ("on_pretrain_routine_start", "on_pretrain_routine_end")
"""Where loggers open: before other callbacks."""

DEFAULT_KINDS = (CSVLogger, ProgressBar, EarlyStopping, Pictures, LiveCurves, RunStatus, Report)


def add_default_callbacks(registry: CallbackRegistry, settings: TrainSettings) -> list[Logger]:
    """Add plug-ins, the default callbacks and the loggers to a training's callbacks.

    Loggers, those the user has added as well, open before everything else and are called last otherwise, so
    that any callback may log to their run, and what it puts into the metrics reaches them. A default callback is
    left out where there is one of its kind already; that one is called in its place, after the other callbacks.

    Returns:
        The loggers.

    Raises:
        MissingPackageError: if a logger that is asked for is not installed.
    """
    if settings.plugins and (named := add_plugins(registry)):
        log.info("plug-ins: %s", ", ".join(named))
    defaults: list[object] = [CSVLogger()]
    if settings.verbose:
        defaults.append(ProgressBar())
    if settings.patience:
        defaults.append(EarlyStopping(patience=settings.patience))
    if settings.plots:
        defaults += [Pictures(), Report()]
        if in_notebook():
            defaults.append(LiveCurves())
    defaults.append(RunStatus())
    switches = {name: getattr(settings, name) for name in LOGGER_NAMES}
    loggers = choose_loggers(settings.loggers or "none", switches, settings.log_model)
    for callback in [*defaults, *loggers]:
        if registry.has_kind(type(callback)):
            log.info("%s: yours is used in place of the default", type(callback).__name__)
        else:
            registry.add(callback)
    for event, functions in registry.items():
        place = _opening if event in OPENING else _closing if event == "teardown" else _group
        functions.sort(key=place)  # keeps the order else
    return [known for known in registry.objects if isinstance(known, Logger)]


def _group(fn: object) -> int:
    """Return a function's place within its event: the user's and plug-ins', then the default kinds, then loggers."""
    owner = _owner(fn)
    return 2 if isinstance(owner, Logger) else int(isinstance(owner, DEFAULT_KINDS))


def _opening(fn: object) -> int:
    """Return the same for the events in which loggers open: they come first, after the log of the run."""
    group = _group(fn)
    return -2 if isinstance(_owner(fn), RunStatus) else -1 if group == 2 else group


def _closing(fn: object) -> int:
    """Return the same for the end: the log has what the others say, and the report has the log."""
    owner = _owner(fn)
    return 4 if isinstance(owner, Report) else 3 if isinstance(owner, RunStatus) else _group(fn)


def _owner(fn: object) -> object:
    return getattr(fn, "__self__", None)
