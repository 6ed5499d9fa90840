"""The zip container that torch writes checkpoints in: its checksum, and a look at it before anything is unpacked.

Every .pt that this package writes ends with its SHA-256, as the comment of the zip container; `torch.load` and other
readers of zip ignore it. A file without any, as `torch.save` leaves it, is not a damaged one: cutting a file
that has one, or turning bits of it, never makes such a file. The CRC of each entry, which zip has anyway, does not
do: it covers neither the headers, the padding between entries nor the list of entries.

torch stores tensors uncompressed, so an honest file is never smaller than what it holds.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import IO

from detector.errors import CheckpointError

# yolo26x, for comparison: 237 MB, 1,098 entries, a pickle of 165 kB; the state of its training is about five times that
MAX_FILE_BYTES = 16 << 30
MAX_ENTRIES = 100_000
MAX_PICKLE_BYTES = 32 << 20
MAX_DIMENSIONS = 8  # of a tensor; a convolution's weights have 4

END = b"PK\x05\x06"  # the record that ends a zip file: 22 bytes, the last two the length of the comment
END_BYTES = 22
MARK = b"sha256:"  # how the comment starts
CHECKSUM_BYTES = len(MARK) + 64


def append_checksum(file: IO[bytes]) -> None:
    """Append the checksum to a zip file that was just written and is open for reading and writing.

    Raises:
        OSError: if it can't be, or the end of the file is not what was written.
    """
    file.seek(-END_BYTES, 2)
    end = file.read(END_BYTES)
    if end[:4] != END or end[-2:] != b"\0\0":
        raise OSError("what was written can't be read back")
    file.seek(-2, 2)
    file.write(CHECKSUM_BYTES.to_bytes(2, "little"))
    digest = _digest(file, file.tell())
    file.seek(0, 2)
    file.write(MARK + digest)


def verify_checksum(path: Path) -> None:
    """Compare a .pt with its checksum.

    Raises:
        CheckpointError: if they differ, or there is only a part of a checksum.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - END_BYTES - CHECKSUM_BYTES, 0))
        tail = file.read()
        if tail[-END_BYTES:][:4] == END and tail[-2:] == b"\0\0":
            return
        digest = _digest(file, size - CHECKSUM_BYTES) if size > CHECKSUM_BYTES else b""
    if tail[-CHECKSUM_BYTES:] != MARK + digest:
        raise CheckpointError(
            f"{path}: is damaged: cut short, or changed after it was written (its checksum is wrong)"
        )


def _digest(file: IO[bytes], size: int) -> bytes:
    """Return SHA-256 of the first `size` bytes, as hexadecimal digits."""
    total = hashlib.sha256()
    file.seek(0)
    while size > 0 and (part := file.read(min(size, 1 << 20))):
        total.update(part)
        size -= len(part)
    return total.hexdigest().encode()


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a checkpoint's container for reading, unless it could unpack to more than it is.

    Raises:
        CheckpointError: if it is not such a container, or not one that torch writes.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(4)
        if start != b"PK\x03\x04":
            raise CheckpointError(_what_else(path, start))
        _check_size(path, size)
        verify_checksum(path)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read as a checkpoint ({error}); is it cut short?") from None
    return _open_container(path, size)


def _open_container(path: Path, size: int) -> zipfile.ZipFile:
    """Open a zip file of `size` bytes and look at its entries."""
    try:
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
    """Make sure that a file is safe to open with torch: see `open_archive`."""
    open_archive(path).close()


def check_container(path: Path) -> None:
    """Do the checks of `open_archive` on a file that was just written, but for the checksum.

    Raises:
        CheckpointError: if it would be refused.
    """
    size = path.stat().st_size
    _check_size(path, size)
    _open_container(path, size).close()


def _check_size(path: Path, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise CheckpointError(f"{path}: has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read")


def _problem(entries: list[zipfile.ZipInfo], size: int) -> str:
    """Return what is wrong with a container of `size` bytes; empty if nothing is."""
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
    return f"{path}: can't be read as a checkpoint, it is not a zip file as torch writes it"
