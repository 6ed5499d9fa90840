"""Text files of any editor: Notepad and PowerShell begin theirs with a byte order mark, or write UTF-16."""

from __future__ import annotations

import codecs
from pathlib import Path

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode_text(content: bytes) -> str:
    """Decode a text: by its byte order mark, which is left out, else as UTF-8.

    Raises:
        UnicodeDecodeError: if it is not text.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    return content.decode(encoding)


def read_text(path: str | Path) -> str:
    """Read a text file.

    Raises:
        UnicodeDecodeError: if it is not text.
        OSError: if it can't be read.
    """
    return decode_text(Path(path).read_bytes())
