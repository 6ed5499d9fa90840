"""Callbacks: the registry, the class form and the ready-made ones, each loaded when it is first asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector.callbacks.builtin.csv_logger import CSVLogger as CSVLogger
    from detector.callbacks.builtin.early_stopping import EarlyStopping as EarlyStopping
    from detector.callbacks.builtin.live_curves import LiveCurves as LiveCurves
    from detector.callbacks.builtin.lr_schedule import LRSchedule as LRSchedule
    from detector.callbacks.builtin.model_checkpoint import ModelCheckpoint as ModelCheckpoint
    from detector.callbacks.builtin.model_statistics import ModelStatistics as ModelStatistics
    from detector.callbacks.builtin.notify import Notify as Notify
    from detector.callbacks.builtin.on_non_finite import OnNonFinite as OnNonFinite
    from detector.callbacks.builtin.prediction_images import PredictionImages as PredictionImages
    from detector.callbacks.builtin.progress_bar import ProgressBar as ProgressBar
    from detector.callbacks.builtin.reduce_lr import ReduceLROnPlateau as ReduceLROnPlateau
    from detector.callbacks.builtin.report import Report as Report
    from detector.callbacks.builtin.resource_monitor import ResourceMonitor as ResourceMonitor
    from detector.callbacks.builtin.run_status import RunStatus as RunStatus
    from detector.callbacks.builtin.sample_images import Pictures as Pictures
    from detector.callbacks.builtin.time_limit import TimeLimit as TimeLimit
    from detector.callbacks.builtin.trial_pruning import TrialPruning as TrialPruning
    from detector.callbacks.builtin.unfreeze import Unfreeze as Unfreeze
    from detector.callbacks.builtin.weight_averaging import WeightAveraging as WeightAveraging
    from detector.callbacks.callback import BaseCallback as BaseCallback
    from detector.callbacks.callback import Callback as Callback
    from detector.callbacks.registry import CallbackRegistry as CallbackRegistry

READY_MADE: Mapping[str, str] = MappingProxyType(
    {
        "CSVLogger": "builtin.csv_logger",
        "EarlyStopping": "builtin.early_stopping",
        "LiveCurves": "builtin.live_curves",
        "LRSchedule": "builtin.lr_schedule",
        "ModelCheckpoint": "builtin.model_checkpoint",
        "ModelStatistics": "builtin.model_statistics",
        "Notify": "builtin.notify",
        "OnNonFinite": "builtin.on_non_finite",
        "Pictures": "builtin.sample_images",
        "PredictionImages": "builtin.prediction_images",
        "ProgressBar": "builtin.progress_bar",
        "ReduceLROnPlateau": "builtin.reduce_lr",
        "Report": "builtin.report",
        "ResourceMonitor": "builtin.resource_monitor",
        "RunStatus": "builtin.run_status",
        "TimeLimit": "builtin.time_limit",
        "TrialPruning": "builtin.trial_pruning",
        "Unfreeze": "builtin.unfreeze",
        "WeightAveraging": "builtin.weight_averaging",
    }
)
"""Every ready-made callback and the file it is in: what `callbacks=` knows by name."""

FORMER = (
    *(
        "csv_logger",
        "early_stopping",
        "lr_schedule",
        "model_checkpoint",
        "model_statistics",
        "monitor",
        "notify",
    ),
    *(
        "pictures",
        "prediction_images",
        "progress_bar",
        "reduce_lr",
        "resource_monitor",
        "time_limit",
        "unfreeze",
    ),
)
"""Modules that were here before they moved to `builtin`; nothing is added to this list."""

_LAZY = {**READY_MADE, "Callback": "callback", "BaseCallback": "callback", "CallbackRegistry": "registry"}


def __getattr__(name: str) -> Any:
    """Load a class on first use, so that importing this package stays quick and free of torch."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_LAZY, "READY_MADE"])


class _FormerModule(ModuleType):
    """Where a ready-made callback was before `builtin`: `detector.callbacks.early_stopping` can still be imported."""

    def __init__(self, name: str, now: str) -> None:
        super().__init__(name)
        self._now = now

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by whoever looks through all modules; nothing is loaded for that
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(self._now), name)


for _stem in FORMER:
    _now = {"pictures": "sample_images"}.get(_stem, _stem)
    _module = f"{__name__}.{_stem}"
    sys.modules.setdefault(_module, _FormerModule(_module, f"{__name__}.builtin.{_now}"))
