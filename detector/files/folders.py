"""Paths: the files that ship with the package, the user's cache, the data sets.

The environment is read when a folder is asked for. A variable that is empty counts as unset; `~` and relative
paths are expanded. docs/environment.md lists every variable.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

from detector.errors import SettingsError

Kept = Literal["datasets", "downloads", "hints", "labels", "weights"]


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
        root = shared / "detector" if shared else _cache_in_home()
    return root / kind


def expand_home(path: str | Path) -> Path:
    """Return a path with `~` replaced by the home folder; as it is where that user has none."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises for a user without home


def _cache_in_home() -> Path:
    """Return the cache in the home folder; in a container's account without one, a temporary folder of its own.

    Raises:
        SettingsError: if that is another user's.
    """
    home = expand_home("~")
    if home.is_absolute():
        return home / ".cache" / "detector"
    folder = Path(tempfile.gettempdir()) / f"detector-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
        raise SettingsError(
            f"no folder for caches: this account has no home, and {folder} can't be used; set DETECTOR_CACHE"
        )
    return folder


def is_first_time(hint: str) -> bool:
    """Return whether a hint is to be given: once per machine, which a mark in the cache remembers."""
    try:
        mark = cache_dir("hints") / hint
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    except (OSError, SettingsError):  # no cache here: better twice than never
        return True
    return True


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
    return expand_home(given).absolute() if given else None
