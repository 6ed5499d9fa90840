"""The checksum of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

PART = 1 << 20  # bytes read at once


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, 64 hexadecimal digits.

    Raises:
        OSError: if it can't be read.
    """
    total = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(PART):
            total.update(part)
    return total.hexdigest()
