"""The checksum of an exported file: damage is noticed before a runtime is given the file.

Its place is in the metadata, as `checksum`: SHA-256 of the file, or of the files of a folder, with zeros in that place.
A file that is a zip archive, whose parts have checksums already, has it in the archive's comment, as our .pt files do.
It finds damage, not forgery. Files of earlier versions and of other tools have none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from detector.errors import ExportError

PLACE = "detector-sha256:" + "0" * 64
"""What metadata has as `checksum` when a file is written; `write_checksum` puts in the number."""
MARK = PLACE.encode()[:-64]
DIGEST = re.compile(re.escape(MARK) + rb"([0-9a-f]{64})")
ZIP, END, END_BYTES = b"PK\x03\x04", b"PK\x05\x06", 22  # start of a zip file, and the record that ends it
PARTS = ("model.xml", "model.bin", "model.ncnn.param", "model.ncnn.bin", "detector.json")  # of a folder


def write_checksum(path: Path) -> str:
    """Put its checksum into a file or a folder that was just written with `PLACE` in its metadata.

    Returns:
        `checksum` as the metadata in the file has it now.

    Raises:
        ExportError: if that is not there.
    """
    parts = _parts(path)
    is_zip = parts[0].read_bytes()[:4] == ZIP
    if is_zip:
        _write_comment(path)
    else:
        contents = [part.read_bytes() for part in parts]
        part, at = _find(contents) or missing_checksum(path)
        with parts[part].open("r+b") as file:
            file.seek(at)
            file.write(_digest(contents, part, at))
    digest = require_intact(path) or missing_checksum(path)
    return PLACE if is_zip else digest


def require_intact(path: Path) -> str | None:
    """Compare a file or a folder with its checksum; return that, or None if it has none.

    Raises:
        ExportError: if they differ.
    """
    contents = [part.read_bytes() for part in _parts(path)]
    if contents and contents[0][:4] == ZIP:
        comment = contents[0][-len(PLACE) :]
        if not comment.startswith(MARK):
            return None
        found, expected = comment[len(MARK) :], _sha256(memoryview(contents[0])[: -len(PLACE)])
    else:
        place = _find(contents)
        if place is None:
            return None
        part, at = place
        found, expected = contents[part][at : at + 64], _digest(contents, part, at)
    if found != expected:
        raise ExportError(
            f"{path}: is damaged: cut short, or changed after it was written (its checksum is wrong); export the model "
            f"again"
        )
    return (MARK + found).decode()


def missing_checksum(path: Path) -> NoReturn:
    """Refuse a file that says that it has a checksum, and has none.

    Raises:
        ExportError: always.
    """
    raise ExportError(
        f"{path}: is damaged: its checksum is not where its metadata says; export the model again"
    )


def _parts(path: Path) -> list[Path]:
    """Return the files a checksum is of: those of the one network, whatever else lies in the folder."""
    if path.suffix == ".xml":
        return [path, path.with_suffix(".bin")] if path.with_suffix(".bin").is_file() else [path]
    if not path.is_dir():
        return [path]
    networks = list(path.glob("*.xml"))
    return (
        _parts(networks[0])
        if len(networks) == 1
        else [path / part for part in PARTS if (path / part).is_file()]
    )


def _find(contents: list[bytes]) -> tuple[int, int] | None:
    """Return in which part, and where in it, the digits of the checksum are."""
    places = (
        (part, found.start(1)) for part, content in enumerate(contents) if (found := DIGEST.search(content))
    )
    return next(places, None)


def _digest(contents: list[bytes], part: int, at: int) -> bytes:
    """Return the checksum of contents whose digits are at a place of one of them."""
    return _sha256(*_without(contents, part, at))


def _without(contents: list[bytes], part: int, at: int) -> Iterator[memoryview]:
    for number, content in enumerate(contents):
        view = memoryview(content)
        yield from (view[:at], memoryview(b"0" * 64), view[at + 64 :]) if number == part else (view,)


def _sha256(*views: memoryview) -> bytes:
    total = hashlib.sha256()
    for view in views:
        total.update(view)
    return total.hexdigest().encode()


def _write_comment(path: Path) -> None:
    """Make the checksum of a zip file its comment."""
    with path.open("r+b") as file:
        content = bytearray(file.read())
        if content[-END_BYTES:][:4] != END or content[-2:] != b"\0\0":
            raise ExportError(f"{path}: what was written can't be read back")
        content[-2:] = len(PLACE).to_bytes(2, "little")
        file.seek(-2, 2)
        file.write(content[-2:] + MARK + _sha256(memoryview(content)))
