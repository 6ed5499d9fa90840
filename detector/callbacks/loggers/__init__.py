"""Loggers: backends that receive the settings, metrics, images and weights of a training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType

from detector.callbacks.loggers.base import Logger
from detector.callbacks.loggers.comet import CometLogger
from detector.callbacks.loggers.mlflow import MLflowLogger
from detector.callbacks.loggers.tensorboard import TensorBoardLogger
from detector.callbacks.loggers.wandb import WandbLogger
from detector.errors import MissingPackageError, SettingsError, nearest
from detector.files.folders import is_first_time

log = logging.getLogger(__name__)

LOGGERS: Mapping[str, type[Logger]] = MappingProxyType(
    {logger.name: logger for logger in (TensorBoardLogger, MLflowLogger, WandbLogger, CometLogger)}
)
"""Every logger by the name of its setting, in the order they open."""


def choose_loggers(
    loggers: str | Sequence[str], switches: Mapping[str, bool | None], log_model: bool = True
) -> list[Logger]:
    """Return the loggers of a training; no backend is imported.

    Args:
        loggers: "auto" for all that are installed and set up, "none", or the names of those that are needed.
        switches: logger -> True (needed), False (off, whatever `loggers` says) or None (as `loggers` says).
        log_model: give the best weights to them.

    Raises:
        MissingPackageError: if a logger that is asked for is not installed.
        SettingsError: if a logger is unknown, or is asked for and not set up.
    """
    names = [] if loggers in ("auto", "none") else [loggers] if isinstance(loggers, str) else list(loggers)
    for name in (*names, *switches):
        if name not in LOGGERS:
            hint = nearest(name, ("auto", "none", *LOGGERS)) or ""
            raise SettingsError(f"loggers={name}: expected auto, none or some of {', '.join(LOGGERS)}{hint}")
    chosen = []
    for name, logger in LOGGERS.items():
        asked_by = f"{name}=true" if switches.get(name) else f"loggers={name}" if name in names else None
        if switches.get(name) is False or not (asked_by or loggers == "auto"):
            continue
        if _is_ready(logger, asked_by):
            chosen.append(logger(log_model))
    return chosen


def _is_ready(logger: type[Logger], asked_by: str | None) -> bool:
    """Return whether a logger is installed and set up; raise if it is not, but was asked for."""
    found = find_spec(logger.package)
    if found is None or found.origin is None:  # a folder of that name is not a package
        if asked_by:
            raise MissingPackageError(
                f"{asked_by} needs the {logger.package} package: pip install 'detector[{logger.name}]'"
            )
        return False
    if logger.is_switched_off():
        if asked_by:
            log.warning("%s: but the environment switches %s off", asked_by, logger.title)
        return False
    if (todo := logger.needs()) is not None:
        if asked_by:
            raise SettingsError(f"{asked_by}: {logger.title} is not set up; {todo}")
        if is_first_time(f"{logger.name}-not-set-up"):
            log.info("%s is installed but not set up; to use it, %s", logger.title, todo)
        return False
    return True
