"""The zip container that torch writes checkpoints in, looked at before anything is unpacked.

torch stores tensors uncompressed, so an honest file is never smaller than what it holds.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from detector.engine.seal import check_seal
from detector.errors import CheckpointError

MAX_FILE_BYTES = 16 << 30
MAX_ENTRIES = 100_000
MAX_PICKLE_BYTES = 32 << 20


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a checkpoint's container for reading, unless it could unpack to more than it is.

    Raises:
        CheckpointError: if it is no such container, or one that torch does not write.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(4)
        if start != b"PK\x03\x04":
            raise CheckpointError(_what_else(path, start))
        if size > MAX_FILE_BYTES:
            raise CheckpointError(f"{path}: has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
        check_seal(path)
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: can't be read as a checkpoint ({error}); is it cut short?") from None
    if any("/code/" in name for name in archive.namelist()):
        archive.close()
        raise CheckpointError(f"{path}: is a TorchScript program; give the .pt file it was exported from")
    problem = _problem(archive.infolist(), size)
    if problem:
        archive.close()
        raise CheckpointError(f"{path}: {problem}; torch writes no such file, it was not loaded")
    return archive


def check_archive(path: Path) -> None:
    """Make sure that torch can be let open a file: see `open_archive`."""
    open_archive(path).close()


def _problem(entries: list[zipfile.ZipInfo], size: int) -> str:
    """Say what is wrong with a container of `size` bytes; empty if nothing is."""
    names = [entry.filename for entry in entries]
    if len(names) > MAX_ENTRIES:
        return f"has {len(names):,} entries"
    if len(set(names)) < len(names):
        return "has two entries of one name"
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        return "has compressed or encrypted entries"
    if sum(entry.file_size for entry in entries) > size:
        return f"promises more than its {size:,} bytes hold"
    if any(entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE_BYTES for entry in entries):
        return f"describes its content in more than {MAX_PICKLE_BYTES:,} bytes"
    return ""


def _what_else(path: Path, start: bytes) -> str:
    if not start:
        return f"{path}: can't be read as a checkpoint, it is empty"
    if start[:1] == b"\x80":
        return (
            f"{path}: is a bare pickle, as torch wrote before 1.6; it was not loaded. Have whoever it is from "
            f"save it with a newer torch"
        )
    return f"{path}: can't be read as a checkpoint, it is no zip file as torch writes"
