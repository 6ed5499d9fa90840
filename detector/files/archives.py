"""Unpack untrusted archives: nothing outside the folder, no links, nothing beyond the limits."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from detector.errors import DataError, first_line
from detector.files.atomic import move_into_place, staging_folder

if TYPE_CHECKING:
    from tarfile import TarFile, TarInfo

MAX_ENTRIES = 2_000_000  # against archives that fill a disk with empty files


MAX_RATIO = 100  # bytes unpacked for one in the archive: deflate reaches 1032 on zeros, images hardly shrink


MIN_LIMIT = 1 << 30  # bytes that any archive may unpack to


ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


class _Entry(NamedTuple):
    """A file or folder in an archive; neither reader takes more than `size` bytes for it."""

    name: str
    is_plain: bool
    size: int
    extract: Callable[..., object]


def unpack(archive: Path, folder: Path, max_bytes: int | None = None, max_entries: int = MAX_ENTRIES) -> Path:
    """Unpack a .zip, .tar, .tar.gz or .tgz file; `folder` appears only when everything is in it.

    Args:
        archive: The file.
        folder: Destination; must not exist or be empty.
        max_bytes: Maximum size of all files together; by default 100 times the archive, at least 1 GiB.
        max_entries: Maximum number of files and folders.

    Returns:
        `folder`.

    Raises:
        DataError: If the archive is damaged or of another kind, an entry would leave the folder or is a
            link or device, a limit is passed, or `folder` has files in it.
    """
    with staging_folder(folder) as staging:
        _unpack_into(archive, staging, max_bytes, max_entries)
        move_into_place(staging, folder)
    return folder


def _unpack_into(archive: Path, folder: Path, max_bytes: int | None, max_entries: int) -> None:
    import struct
    import tarfile
    import zipfile
    import zlib
    from lzma import LZMAError

    if not archive.name.lower().endswith(ARCHIVE_SUFFIXES):
        raise DataError(f"{archive.absolute()}: expected one of {', '.join(ARCHIVE_SUFFIXES)}.")
    damage: tuple[type[Exception], ...] = (
        *(OSError, EOFError, RuntimeError, ValueError, OverflowError, struct.error),
        *(zlib.error, LZMAError, zipfile.BadZipFile, tarfile.TarError),
    )
    reader = _zip_entries if archive.name.lower().endswith(".zip") else _tar_entries
    try:
        left = max(MIN_LIMIT, MAX_RATIO * archive.stat().st_size) if max_bytes is None else max_bytes
        with contextlib.closing(reader(archive)) as entries:
            for number, entry in enumerate(entries, 1):
                if number > max_entries:
                    raise DataError(f"{archive.absolute()}: more than {max_entries} entries; refused.")
                if not entry.is_plain:
                    raise DataError(f"{archive.absolute()}: entry {entry.name!r} is a link; refused.")
                if entry.name.rstrip("/") == ".":  # what `tar -czf x.tar.gz .` begins with
                    continue
                target = folder.joinpath(*_safe_parts(archive, entry.name))
                left -= entry.size
                if left < 0:
                    raise DataError(f"{archive.absolute()}: unpacks to more bytes than allowed; refused.")
                if target.is_file():
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), entry.name)
                entry.extract(path=folder)
    except DataError:
        raise
    except damage as error:
        raise DataError(f"{archive.absolute()} can't be unpacked: {first_line(error)}.") from error


def _safe_parts(archive: Path, name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0]:
        raise DataError(f"{archive.absolute()}: entry {name!r} would leave the folder; refused.")
    return parts


def _zip_entries(archive: Path) -> Generator[_Entry, None, None]:
    import zipfile

    with zipfile.ZipFile(archive) as bundle:
        for entry in bundle.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)  # what made it on Unix; 0 elsewhere
            is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            yield _Entry(entry.filename, is_plain, entry.file_size, partial(bundle.extract, entry))


def _tar_entries(archive: Path) -> Generator[_Entry, None, None]:
    import tarfile

    with tarfile.open(archive) as bundle:
        for entry in bundle:
            is_plain = entry.isreg() or entry.isdir()
            yield _Entry(entry.name, is_plain, entry.size, partial(_extract_from_tar, bundle, entry))


def _extract_from_tar(bundle: TarFile, entry: TarInfo, path: Path) -> None:
    """Write what the entry holds, and nothing else of it; `TarFile.extract` has no filter before Python 3.11.4."""
    target = path / entry.name
    if entry.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = bundle.extractfile(entry)
    assert source is not None  # of a plain file
    with source, target.open("xb") as file:
        shutil.copyfileobj(source, file)
