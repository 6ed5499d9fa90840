"""The checksum at the end of every .pt that this package writes: SHA-256, as the comment of the zip container.

`torch.load` and other readers of zip pass over the comment. A file without any, as `torch.save` leaves it, is no
damaged one: cutting a sealed file or turning bits of it never makes such a file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

from detector.errors import CheckpointError

END = b"PK\x05\x06"  # the record that ends a zip file: 22 bytes, the last two the length of the comment
END_BYTES = 22
NAME = b"sha256:"
SEAL_BYTES = len(NAME) + 64


def seal(file: IO[bytes]) -> None:
    """Append the checksum to a zip file that was just written and is open for reading and writing.

    Raises:
        OSError: if it can't be, or the end of the file is not what was written.
    """
    file.seek(-END_BYTES, 2)
    end = file.read(END_BYTES)
    if end[:4] != END or end[-2:] != b"\0\0":
        raise OSError("what was written can't be read back")
    file.seek(-2, 2)
    file.write(SEAL_BYTES.to_bytes(2, "little"))
    digest = _digest(file, file.tell())
    file.seek(0, 2)
    file.write(NAME + digest)


def check_seal(path: Path) -> None:
    """Compare a .pt with its checksum.

    Raises:
        CheckpointError: if they differ, or there is a rest of a checksum only.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - END_BYTES - SEAL_BYTES, 0))
        tail = file.read()
        if tail[-END_BYTES:][:4] == END and tail[-2:] == b"\0\0":
            return
        digest = _digest(file, size - SEAL_BYTES) if size > SEAL_BYTES else b""
    if tail[-SEAL_BYTES:] != NAME + digest:
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
