"""Restarts under torchrun: which run a group was training when a process of it was lost."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from detector.files.atomic import replace_file
from detector.settings import TrainSettings
from detector.training.resume import find_run
from detector.training.saving import PREVIOUS_STATE, STATE

log = logging.getLogger(__name__)

MARK = "launch.json"
MARK_BYTES = 10_000


def mark_run(folder: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Write which launch a run belongs to."""
    if (run_id := environment.get("TORCHELASTIC_RUN_ID")) is not None:
        replace_file(folder / MARK, json.dumps({"run_id": run_id}).encode())


def marked_run(project: str | Path, name: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder of the run that this launch has begun and not finished, or None.

    A launch is known by its id, which is random unless `--rdzv-id` gives one, as a job that is requeued does.

    Args:
        project: folder that holds the runs.
        name: of the run; later ones have a number after it.
        environment: what torchrun sets.
    """
    run_id = environment.get("TORCHELASTIC_RUN_ID")
    restarts = int(environment.get("TORCHELASTIC_RESTART_COUNT", 0))
    if run_id is None or (run_id == "none" and not restarts):  # none: no id was given
        return None
    files = sorted(Path(project).glob(f"{name}*/{MARK}"), key=lambda path: -path.stat().st_mtime)
    folder = next((file.parent for file in files if _run_id(file) == run_id), None)
    if folder is None or restarts or not has_state(folder):
        return folder
    return None if find_run(folder, project).finished else folder


def _run_id(file: Path) -> str | None:
    """Return the launch that a mark names; None of a damaged one."""
    try:
        with file.open("rb") as stream:
            known = json.loads(stream.read(MARK_BYTES))
    except (OSError, ValueError):
        return None
    return known.get("run_id") if isinstance(known, dict) else None


def has_state(folder: Path) -> bool:
    """Return whether a run can be resumed."""
    return (folder / STATE).is_file() or (folder / PREVIOUS_STATE).is_file()


def continue_marked(settings: TrainSettings) -> TrainSettings:
    """Return settings with which a training that was restarted resumes its run, or begins again in its folder."""
    folder = marked_run(settings.project, settings.name or "train")
    if folder is None:
        return settings
    settings = settings.model_copy()
    if has_state(folder):
        log.info("restarted: %s is resumed", folder)
        settings.resume = str(folder)
    else:
        settings.project, settings.name, settings.exist_ok = str(folder.parent), folder.name, True
    return settings
