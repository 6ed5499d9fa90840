"""Files that are written whole or not at all. What had the name is replaced: a link is never followed to its file."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_native_id
from typing import IO

from detector.errors import DataError

UNFLUSHABLE = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM})
"""What network and user-space file systems answer when asked to flush a folder."""

LEFTOVER = re.compile(r".+\.(pt|safetensors|yaml|csv|json|png|jpg)\.[0-9]+\.tmp")
"""Temporary files of a run. A folder may hold those of other programs, too."""


@contextmanager
def atomic_write(path: Path, keep: Path | None = None, *, flush: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file in the folder of `path`; at the end of the block flush it to disk and rename it to `path`.

    Whatever fails on the way, and whenever the process dies, `path` holds either the old content or the new.

    Args:
        path: the file to write.
        keep: a second path, under which the old content stays; at any time one of the two files exists.
        flush: false leaves it to the system when the file reaches the disk, as for one of many images.

    Yields:
        The temporary file, open for writing and reading bytes.

    Raises:
        OSError: if it can't be written.
    """
    temporary = _temporary_name(path)
    try:
        with _open_new(temporary) as file:
            yield file
            file.flush()
            if flush:
                os.fsync(file.fileno())
        if keep is not None and path.exists():
            _keep(path, keep)
        temporary.replace(path)
        if flush:
            _flush_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write a whole file under a name; what had the name is replaced, and a link is not followed.

    Raises:
        OSError: if it can't be written.
    """
    with atomic_write(path, flush=False) as file:
        file.write(content)


def _temporary_name(path: Path) -> Path:
    """Return a name next to `path` that is this thread's, and not longer than file systems allow."""
    start = path.name.encode("utf-8", "surrogateescape")[:200].decode("utf-8", "ignore")
    return path.with_name(f"{start}.{os.getpid()}{get_native_id()}.tmp")


def _open_new(path: Path) -> IO[bytes]:
    """Open a file that does not exist yet; in place of a leftover, or of a link that somebody put there."""
    try:
        return path.open("x+b")
    except FileExistsError:
        path.unlink()
        return path.open("x+b")


def _keep(path: Path, keep: Path) -> None:
    """Link a file to another name, or move it there on file systems without hard links."""
    linked = _temporary_name(keep)
    try:
        linked.unlink(missing_ok=True)
        os.link(path, linked)
        linked.replace(keep)
    except OSError:
        path.replace(keep)
    finally:
        with suppress(OSError):  # it is still there after an error, or if both names were one file's already
            linked.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make a rename itself durable, where the system lets a folder be flushed."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in UNFLUSHABLE:
            raise


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed; nobody else may be writing there."""
    for path in folder.glob("*.tmp"):
        if LEFTOVER.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Yield a new empty folder next to `folder`, on the same disk; it is removed at the end if it still exists."""
    staging = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def move_into_place(staging: Path, folder: Path) -> None:
    """Rename a finished staging folder to `folder`.

    Raises:
        DataError: If `folder` has files in it already.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    if folder.exists():
        raise DataError(f"{folder.absolute()} is not empty; move it away or choose another folder.")
    staging.rename(folder)
