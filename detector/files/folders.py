"""Paths: the files that ship with the package, the user's cache, the data sets.

The environment is read when a folder is asked for. A variable that is empty counts as unset; `~` and relative
paths are expanded. docs/environment.md lists every variable.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

Kept = Literal["datasets", "downloads", "labels", "weights"]


def resource_dir(name: str) -> Path:
    """Return the folder `cfg` or `datasets`: inside an installed wheel, or at the top of a checkout."""
    file = Path(__file__).absolute()
    packages = [
        place.parent.parent for place in dict.fromkeys((file, file.resolve()))
    ]  # of a link, and linked to
    places = [folder / name for package in packages for folder in (package, package.parent)]
    return next((place for place in places if place.is_dir()), places[-1])


def cache_dir(kind: Kept) -> Path:
    """Return the folder of one kind of cached files; it need not exist.

    All lie under `DETECTOR_CACHE`, else `detector` under `XDG_CACHE_HOME` or the system's cache folder
    (`LOCALAPPDATA` on Windows, `~/.cache` elsewhere).
    """
    root = _folder("DETECTOR_CACHE")
    if root is None:
        shared = _folder("XDG_CACHE_HOME") or (_folder("LOCALAPPDATA") if sys.platform == "win32" else None)
        root = (shared or Path.home() / ".cache") / "detector"
    return root / kind


def datasets_dir() -> Path:
    """Return the folder of the packaged data sets: `DETECTOR_DATASETS`, else `datasets` in the cache."""
    return _folder("DETECTOR_DATASETS") or cache_dir("datasets")


def is_offline() -> bool:
    """Return whether the environment variable DETECTOR_OFFLINE forbids the network."""
    return _is_on("DETECTOR_OFFLINE")


def allows_insecure() -> bool:
    """Return whether DETECTOR_INSECURE_DOWNLOADS allows plain http, and other people's files to name this machine."""
    return _is_on("DETECTOR_INSECURE_DOWNLOADS")


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() not in ("", "0", "false", "no")


def _folder(variable: str) -> Path | None:
    given = os.environ.get(variable)
    return Path(given).expanduser().absolute() if given else None
