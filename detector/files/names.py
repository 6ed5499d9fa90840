"""Names from files as names of files and as text on a terminal: no control characters, not endless, none twice."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from detector.errors import shorten

MAX_NAME = 120  # bytes; file systems take 255, and suffixes and numbers are added
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # by Windows, with any suffix
_UNSAFE = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text that does nothing to a terminal: control characters but tabs and line ends are written as \\x1b."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def shortened(text: str, length: int = 60) -> str:
    """Return a text of one line and at most this many letters, without control characters."""
    return shorten(printable(" ".join(text.split())), length)


def file_name(name: str) -> str:
    """Return a name as one for a file or a folder on any system."""
    name = _UNSAFE.sub("_", name).encode("utf-8")[:MAX_NAME].decode("utf-8", "ignore").strip(". ")
    return f"_{name}" if not name or RESERVED.match(name) else name


def distinct_file_names(names: Iterable[str]) -> dict[str, str]:
    """Return name -> name for a file; different names have different ones on every file system."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        stem = candidate = file_name(name)
        number = 1
        while folded(candidate) in taken:
            number += 1
            candidate = f"{stem}-{number}"
        taken.add(folded(candidate))
        found[name] = candidate
    return found


def folded(name: str) -> str:
    """Return what file systems that know neither case nor composition of letters compare."""
    return unicodedata.normalize("NFC", name).casefold()
