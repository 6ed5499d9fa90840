"""Weights & Biases: a run online, or offline for `wandb sync`."""

from __future__ import annotations

import netrc
import os
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from detector.callbacks.loggers.base import Logger, histogram, is_true, project_folder, project_name
from detector.callbacks.secrets import masked_command
from detector.files.folders import expand_home

OWN_NAMES = {"project": "WANDB_PROJECT", "name": "WANDB_NAME", "dir": "WANDB_DIR"}
LIMITS = {
    "init_timeout": (30.0, "WANDB_INIT_TIMEOUT"),  # seconds
    "finish_timeout": (300.0, "WANDB_FINISH_TIMEOUT"),  # what is not sent by then stays on disk
    "disable_git": (True, "WANDB_DISABLE_GIT"),  # it would send uncommitted source code
}
"""Setting of W&B -> our value, and the variable by which a user sets another."""

EXIT_CODES = {"finished": 0, "failed": 1, "killed": 255}  # by which W&B tells states apart


class WandbLogger(Logger):
    """Logs to Weights & Biases, if it has a key or is offline; an active run is joined and left open.

    Rows carry the epoch, and charts use it as x axis, because custom calls of `wandb.log` advance W&B's step.
    """

    name, title, package = "wandb", "Weights & Biases", "wandb"

    @classmethod
    def is_switched_off(cls) -> bool:
        """By WANDB_MODE=disabled."""
        return os.environ.get("WANDB_MODE", "").lower() == "disabled" or is_true("WANDB_DISABLED")

    @classmethod
    def needs(cls) -> str | None:
        """A key, or offline mode."""
        mode = os.environ.get("WANDB_MODE") or _saved_setting("mode") or "online"
        if mode.lower() in ("offline", "dryrun", "disabled") or _has_key():
            return None
        return "run `wandb login`, or set WANDB_API_KEY, or set WANDB_MODE=offline"

    def open(self, trainer: Any) -> None:
        """Join the active run or start one, without ever asking for a key."""
        self.run: Any = None
        self.owns_run, self.known = False, {"epoch"}
        if (todo := self.needs()) is not None:
            raise RuntimeError(todo)
        import wandb

        if wandb.run is not None:
            self.run = wandb.run
            return
        folder = project_folder(trainer)
        names = {"project": project_name(trainer), "name": trainer.save_dir.name, "dir": str(folder)}
        names = {name: value for name, value in names.items() if OWN_NAMES[name] not in os.environ}
        if self.continues is not None and "WANDB_RUN_ID" not in os.environ:
            names |= {"id": self.continues, "resume": "allow"}
        limits = {
            name: value
            for name, (value, variable) in LIMITS.items()
            if variable not in os.environ and name in wandb.Settings.model_fields
        }
        with masked_command():
            self.run = wandb.init(**names, settings=wandb.Settings(**limits))
        self.owns_run, self.run_id = True, self.run.id

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        self.run.config.update(dict(settings), allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._log(metrics, step)

    def log_images(self, images: Mapping[str, Path], step: int) -> None:
        import wandb

        self._log({name: wandb.Image(str(path)) for name, path in images.items()}, step)

    def log_file(self, path: Path) -> None:
        import wandb

        artifact = wandb.Artifact(f"run-{self.run.id}-weights", type="model")
        artifact.add_file(str(path))
        self.run.log_artifact(artifact, aliases=["best"])

    def log_text(self, name: str, text: str, step: int) -> None:
        import wandb

        self._log({name: wandb.Html(f"<pre>{escape(text)}</pre>")}, step)

    def log_histogram(self, name: str, values: Any, step: int) -> None:
        import wandb

        self._log({name: wandb.Histogram(np_histogram=histogram(values))}, step)

    def close(self, failed: bool) -> None:
        """Finish the run, if it is ours."""
        if self.owns_run:
            self.owns_run = False
            if self.stop_reason:
                self.run.summary["stop_reason"] = self.stop_reason
            self.run.finish(exit_code=EXIT_CODES[self.outcome(failed)])

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        for name in values.keys() - self.known:
            self.run.define_metric(name, step_metric="epoch")
        self.known |= values.keys()
        row = {**values, "epoch": step}
        self.run.log(row, step=step if self.run.step <= step else None, commit=True)


def _has_key() -> bool:
    """Look for a key where W&B looks, without importing it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    if _saved_setting("api_key"):
        return True
    address = os.environ.get("WANDB_BASE_URL") or _saved_setting("base_url") or "https://api.wandb.ai"
    given = os.environ.get("NETRC")
    for path in [given] if given else ["~/.netrc", "~/_netrc"]:
        try:
            if netrc.netrc(expand_home(path)).authenticators(urlsplit(address).netloc):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _saved_setting(name: str) -> str | None:
    """Return a setting that `wandb login`, `wandb offline` and the like have saved, or None."""
    shared = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    for folder in (os.environ.get("WANDB_DIR") or ".", shared):
        path = expand_home(folder) / ("settings" if folder == shared else "wandb/settings")
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            if found := re.search(rf"^{name}\s*=\s*(\S+)", text, re.MULTILINE):
                return found[1]
    return None
