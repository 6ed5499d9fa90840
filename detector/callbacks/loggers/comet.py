"""Comet: an experiment online, or an offline archive for `comet upload`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detector.callbacks.loggers.base import Logger, environment, is_true, project_folder, project_name
from detector.files.folders import expand_home

UNASKED = {
    "log_code": "COMET_AUTO_LOG_CODE",
    "log_graph": "COMET_AUTO_LOG_GRAPH",
    "log_git_patch": "COMET_AUTO_LOG_GIT_PATCH",
    "log_env_host": "COMET_AUTO_LOG_ENV_HOST",  # address and user name; asks a name server even offline
    "parse_args": "COMET_AUTO_LOG_CLI_ARGUMENTS",
    "auto_param_logging": "COMET_AUTO_LOG_PARAMETERS",
    "auto_metric_logging": "COMET_AUTO_LOG_METRICS",
}
"""What Comet would collect automatically -> the variable by which a user asks for it."""


class CometLogger(Logger):
    """Logs to Comet, if it has a key or is offline; a running experiment is joined and left open."""

    name, title, package = "comet", "Comet", "comet_ml"

    @classmethod
    def is_switched_off(cls) -> bool:
        """By COMET_AUTO_LOG_DISABLE."""
        return is_true("COMET_AUTO_LOG_DISABLE")

    @classmethod
    def needs(cls) -> str | None:
        """A key, or offline mode."""
        if _is_online() and not _has_key():
            return "run `comet login`, or set COMET_API_KEY, or set COMET_START_ONLINE=0 to log offline"
        return None

    def open(self, trainer: Any) -> None:
        """Join the running experiment or start one, without ever asking for a key."""
        self.experiment: Any = None
        self.owns_run = False
        if (todo := self.needs()) is not None:
            raise RuntimeError(todo)
        with environment(COMET_DISABLE_AUTO_LOGGING="1", COMET_ERROR_TRACKING_ENABLE="false"):
            import comet_ml
        running = comet_ml.get_running_experiment()
        if running is not None and not running.ended:
            self.experiment = running
            return
        options: dict[str, Any] = {
            name: False for name, variable in UNASKED.items() if variable not in os.environ
        }
        if "COMET_DISPLAY_SUMMARY_LEVEL" not in os.environ:
            options["display_summary_level"] = 0  # it would repeat a hundred lines
        if "COMET_START_EXPERIMENT_NAME" not in os.environ:
            options["name"] = trainer.save_dir.name
        if "COMET_OFFLINE_DIRECTORY" not in os.environ:
            options["offline_directory"] = str(project_folder(trainer) / "comet")
        project = comet_ml.get_config("comet.project_name") or project_name(trainer)
        self.experiment = comet_ml.start(
            project_name=project,
            experiment_key=self.continues,
            mode="get_or_create" if self.continues else None,
            online=_is_online(),
            experiment_config=comet_ml.ExperimentConfig(**options),
        )
        self.owns_run, self.run_id = True, self.experiment.get_key()
        if not self.experiment.alive:
            raise ConnectionError("there is no connection to Comet's server")

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        self.experiment.log_parameters(dict(settings), nested_support=False)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.experiment.log_metrics(dict(metrics), step=step, epoch=step)

    def log_images(self, images: Mapping[str, Path], step: int) -> None:
        for name, path in images.items():
            self.experiment.log_image(str(path), name=name, step=step)

    def log_file(self, path: Path) -> None:
        self.experiment.log_model("weights", str(path))

    def log_text(self, name: str, text: str, step: int) -> None:
        self.experiment.log_text(text, step=step, metadata={"name": name})

    def log_histogram(self, name: str, values: Any, step: int) -> None:
        values = values.detach().float().cpu().numpy() if hasattr(values, "detach") else values
        self.experiment.log_histogram_3d(values, name=name, step=step)

    def close(self, failed: bool) -> None:
        """End the experiment, if it is ours; one that failed is tagged, and says why."""
        if not self.owns_run:
            return
        self.owns_run = False
        state = self.outcome(failed)
        self.experiment.log_other("state", state)
        if self.stop_reason:
            self.experiment.log_other("stop_reason", self.stop_reason)
        if failed:
            self.experiment.add_tag(state)
        self.experiment.end()


def _is_online() -> bool:
    """Return whether to log to the server: unless COMET_START_ONLINE says no, or given a folder and no key."""
    if asked := os.environ.get("COMET_START_ONLINE"):
        return asked.strip().lower() not in ("0", "false", "no", "off")
    return _has_key() or "COMET_OFFLINE_DIRECTORY" not in os.environ


def _has_key() -> bool:
    """Look for a key where Comet looks, without importing it."""
    if os.environ.get("COMET_API_KEY"):
        return True
    for place in (os.environ.get("COMET_CONFIG") or "~", "."):
        path = expand_home(place)
        path = path / ".comet.config" if path.is_dir() else path
        if path.is_file() and re.search(
            r"^\s*api_key\s*=\s*\S", path.read_text(errors="replace"), re.MULTILINE
        ):
            return True
    return False
