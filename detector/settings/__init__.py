"""Every setting of every command: its type, default, range, unit and help line, in one place.

`cfg/default.yaml`, `detector train --help` and `docs/settings.md` are written from these classes.
The user-facing keys are those known from other YOLO trainers.
"""

import types
from collections.abc import Mapping

from detector.settings.base import CommandSettings, DataSettings, EngineSettingsT, Settings, fold_of
from detector.settings.commands import (
    CheckSettings,
    CompareSettings,
    ConvertSettings,
    MonitorSettings,
    ReportSettings,
    RunsSettings,
    StopSettings,
)
from detector.settings.engines import BenchmarkSettings, ExportSettings, PredictSettings, ValSettings
from detector.settings.train import (
    DEFAULT_MODEL,
    LOGGER_NAMES,
    OPTIMIZERS,
    ShowSettings,
    TrainSettings,
    TuneSettings,
)

SETTINGS_OF: Mapping[str, type[CommandSettings]] = types.MappingProxyType(
    {
        "train": TrainSettings,
        "val": ValSettings,
        "predict": PredictSettings,
        "export": ExportSettings,
        "benchmark": BenchmarkSettings,
        "show": ShowSettings,
        "tune": TuneSettings,
        "check": CheckSettings,
        "convert": ConvertSettings,
        "runs": RunsSettings,
        "compare": CompareSettings,
        "stop": StopSettings,
        "report": ReportSettings,
        "monitor": MonitorSettings,
    }
)
"""Command -> its settings."""
EXTENDS: Mapping[str, str] = types.MappingProxyType({"show": "train", "tune": "train"})
"""Command -> the command whose settings it takes as well."""

__all__ = [
    "DEFAULT_MODEL",
    "EXTENDS",
    "LOGGER_NAMES",
    "OPTIMIZERS",
    "SETTINGS_OF",
    "BenchmarkSettings",
    "CheckSettings",
    "CommandSettings",
    "CompareSettings",
    "ConvertSettings",
    "DataSettings",
    "EngineSettingsT",
    "ExportSettings",
    "MonitorSettings",
    "PredictSettings",
    "ReportSettings",
    "RunsSettings",
    "Settings",
    "ShowSettings",
    "StopSettings",
    "TrainSettings",
    "TuneSettings",
    "ValSettings",
    "fold_of",
]
