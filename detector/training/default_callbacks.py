"""The default callbacks of a training; each is an ordinary member of the registry and can be removed."""

from __future__ import annotations

import logging

from detector.callbacks.builtin.csv_logger import CSVLogger
from detector.callbacks.builtin.early_stopping import EarlyStopping
from detector.callbacks.builtin.progress_bar import ProgressBar
from detector.callbacks.builtin.sample_images import Pictures
from detector.callbacks.loading import add_plugins
from detector.callbacks.loggers import choose_loggers
from detector.callbacks.loggers.base import Logger
from detector.callbacks.registry import CallbackRegistry
from detector.settings import LOGGER_NAMES, TrainSettings

log = logging.getLogger(__name__)


def add_default_callbacks(registry: CallbackRegistry, settings: TrainSettings) -> list[Logger]:
    """Add plug-ins, the default callbacks and the loggers to a training's callbacks.

    Loggers, those the user has added as well, open before everything else and are called last otherwise, so
    that any callback may log to their run, and what it puts into the metrics reaches them.

    Returns:
        The loggers.

    Raises:
        MissingPackageError: if a logger that is asked for is not installed.
    """
    if settings.plugins and (named := add_plugins(registry)):
        log.info("plug-ins: %s", ", ".join(named))
    own: list[object] = [CSVLogger()]
    if settings.verbose:
        own.append(ProgressBar())
    if settings.patience:
        own.append(EarlyStopping(patience=settings.patience))
    if settings.plots:
        own.append(Pictures())
    switches = {name: getattr(settings, name) for name in LOGGER_NAMES}
    loggers = choose_loggers(settings.loggers or "none", switches, settings.log_model)
    given = tuple(registry.objects)
    loggers = [logger for logger in loggers if not any(isinstance(known, type(logger)) for known in given)]
    for callback in [*own, *loggers]:
        registry.add(callback)
    for event, functions in registry.items():
        functions.sort(key=_is_loggers, reverse=event == "on_pretrain_routine_start")  # keeps the order else
    return [known for known in registry.objects if isinstance(known, Logger)]


def _is_loggers(fn: object) -> bool:
    return isinstance(getattr(fn, "__self__", None), Logger)
