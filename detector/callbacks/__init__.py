"""Callbacks: the registry, the class form and the ready-made ones, each loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector.callbacks.callback import Callback as Callback
    from detector.callbacks.csv_logger import CSVLogger as CSVLogger
    from detector.callbacks.early_stopping import EarlyStopping as EarlyStopping
    from detector.callbacks.lr_schedule import LRSchedule as LRSchedule
    from detector.callbacks.model_checkpoint import ModelCheckpoint as ModelCheckpoint
    from detector.callbacks.model_statistics import ModelStatistics as ModelStatistics
    from detector.callbacks.notify import Notify as Notify
    from detector.callbacks.pictures import Pictures as Pictures
    from detector.callbacks.prediction_images import PredictionImages as PredictionImages
    from detector.callbacks.progress_bar import ProgressBar as ProgressBar
    from detector.callbacks.reduce_lr import ReduceLROnPlateau as ReduceLROnPlateau
    from detector.callbacks.registry import CallbackRegistry as CallbackRegistry
    from detector.callbacks.resource_monitor import ResourceMonitor as ResourceMonitor
    from detector.callbacks.time_limit import TimeLimit as TimeLimit
    from detector.callbacks.unfreeze import Unfreeze as Unfreeze

READY_MADE: Mapping[str, str] = MappingProxyType(
    {
        "CSVLogger": "csv_logger",
        "EarlyStopping": "early_stopping",
        "LRSchedule": "lr_schedule",
        "ModelCheckpoint": "model_checkpoint",
        "ModelStatistics": "model_statistics",
        "Notify": "notify",
        "Pictures": "pictures",
        "PredictionImages": "prediction_images",
        "ProgressBar": "progress_bar",
        "ReduceLROnPlateau": "reduce_lr",
        "ResourceMonitor": "resource_monitor",
        "TimeLimit": "time_limit",
        "Unfreeze": "unfreeze",
    }
)
"""Every ready-made callback and the file it is in: what `callbacks=` knows by name."""

_LAZY = {**READY_MADE, "Callback": "callback", "CallbackRegistry": "registry"}


def __getattr__(name: str) -> Any:
    """Load a class on first use, so that importing this package stays quick and free of torch."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_LAZY, "READY_MADE"])
