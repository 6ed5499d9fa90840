"""The callbacks a training has by itself; each is an ordinary member of the registry and can be removed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from detector.callbacks.csv_logger import CSVLogger
from detector.callbacks.early_stopping import EarlyStopping
from detector.callbacks.loading import add_plugins
from detector.callbacks.loggers import choose_loggers
from detector.callbacks.pictures import Pictures
from detector.callbacks.progress_bar import ProgressBar
from detector.callbacks.registry import CallbackRegistry
from detector.settings import LOGGER_NAMES, TrainSettings

if TYPE_CHECKING:
    from detector.callbacks.loggers.base import Logger

log = logging.getLogger(__name__)


def add_default_callbacks(registry: CallbackRegistry, settings: TrainSettings) -> list[Logger]:
    """Add plug-ins, the default callbacks and the loggers to a training's callbacks.

    Loggers open before everything else and close last, so that any callback may log to their run.

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
        own.append(EarlyStopping(settings.patience))
    if settings.plots:
        own.append(Pictures())
    switches = {name: getattr(settings, name) for name in LOGGER_NAMES}
    loggers = choose_loggers(settings.loggers or "none", switches, settings.log_model)
    for logger in reversed(loggers):
        registry.add("on_pretrain_routine_start", logger.on_pretrain_routine_start, first=True)
    for callback in [*own, *loggers]:
        registry.add(callback)
    return loggers
