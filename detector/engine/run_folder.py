"""The folder a run writes to."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakSet

import yaml

from detector.errors import SettingsError, cannot_write
from detector.files.atomic import atomic_write, remove_leftovers
from detector.runs.record import LOG, STATUS

log = logging.getLogger(__name__)

LOCK = "run.lock"

ABOUT = ("args.yaml", STATUS, LOG)
"""What a run writes before it has done anything."""

SUBFOLDERS = ("weights", "predictions", "labels", "crops")
"""What runs write into, below their folder."""


def make_run_folder(project: str | Path, name: str, exist_ok: bool) -> Path:
    """Make and return `project/name`, or `name-2`, `name-3` ... if it exists and `exist_ok` is false.

    Raises:
        SettingsError: if the folder can't be made.
    """
    return open_run_folder(project, name, exist_ok)[0]


def open_run_folder(project: str | Path, name: str, exist_ok: bool) -> tuple[Path, bool]:
    """Do what `make_run_folder` does; return whether the folder was made as well.

    Raises:
        SettingsError: if the folder can't be made.
    """
    for number in count(1):
        folder = Path(project) / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if exist_ok and folder.is_dir():
                refuse_linked_folders(folder)
                return folder.absolute(), False
            if exist_ok:
                raise SettingsError(
                    f"name={name}: {folder.absolute()} is a file; choose another name="
                ) from None
        except OSError as error:
            raise SettingsError(
                f"project={project}: can't write to {folder.absolute()} ({error.strerror}); choose another project="
            ) from None
        else:
            return folder.absolute(), True
    raise AssertionError("count() is endless")


def refuse_linked_folders(folder: Path) -> None:
    """Refuse a folder whose subfolders lead out of it: what a run writes stays in its folder.

    Raises:
        SettingsError: naming the link.
    """
    for path in (*(folder / name for name in SUBFOLDERS), *(folder / "crops").glob("*")):
        if path.is_symlink():
            raise SettingsError(
                f"{path.absolute()} is a link to {path.readlink()}; a run writes into folders of its own only, put "
                "a folder in its place or choose another name="
            )


def discard_if_unused(folder: Path | None) -> None:
    """Remove the folder that a run has made, if it failed before it wrote anything but its settings and status."""
    if folder is None or any(p.is_file() and p.name not in ABOUT for p in folder.rglob("*")):
        return
    with suppress(OSError):  # it may not be ours to remove
        for name in ABOUT:
            (folder / name).unlink(missing_ok=True)
        for empty in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
            empty.rmdir()
        folder.rmdir()


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    """Write plain data as YAML, keys in the given order, whole or not at all.

    Raises:
        SettingsError: if it can't be written.
    """
    try:
        with atomic_write(path) as file:
            file.write(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode())
    except OSError as error:
        raise cannot_write(f"to {path.parent}", error) from None


class RunLock:
    """A run folder that only one training writes to, of all processes and threads.

    The system releases the lock when the process ends, for whatever reason; to copy the folder does not. Nothing is
    locked on Windows, nor in network folders without locks; there a warning is logged.

    Args:
        folder: the run folder; `weights` is made in it.

    Raises:
        SettingsError: if another training runs there, or it can't be written to.
    """

    held: ClassVar[WeakSet[RunLock]] = WeakSet()
    """The locks of this process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        refuse_linked_folders(folder)
        try:
            if self.path.is_symlink():
                self.path.unlink()
            (folder / "weights").mkdir(exist_ok=True)
            self._file = self.path.open("a")
            while not self._lock():  # whoever had it until now has removed the file
                self._file.close()
                self._file = self.path.open("a")
        except OSError as error:
            raise cannot_write(f"to {folder}", error) from None
        for place in (folder, folder / "weights"):
            remove_leftovers(place)

    def _lock(self) -> bool:
        """Lock the open file; return False if it is not the one at the path any more.

        The lock is that of the open file, and not of the process: it excludes other threads, and other handles of
        the file may be closed. Forked processes have to close their copy, or they would keep it beyond this one.
        """
        if sys.platform == "win32":
            return True
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows both when another one has the lock
            self._file.close()
            raise SettingsError(
                f"another training runs in {self.path.parent}; wait until it has ended, or choose another name="
            ) from None
        except OSError as error:
            log.warning(
                "%s can't be locked (%s): make sure that no other training runs there",
                self.path.parent,
                error,
            )
            return True
        _close_locks_in_children()
        self.held.add(self)
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let other trainings write there."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close the file; the lock goes with its last handle."""
        self.held.discard(self)
        self._file.close()


@cache
def _close_locks_in_children() -> None:
    """From now on, let every forked process close the locks it gets a copy of."""

    def close_all() -> None:
        for lock in list(RunLock.held):
            lock.close()

    os.register_at_fork(after_in_child=close_all)
