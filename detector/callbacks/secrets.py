"""Secrets in URLs: what is written to files, loggers and the log shows a host, but not how to get in."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s'\"]+)")
MASK = "***"


def mask_urls(text: str, *, paths: bool = True) -> str:
    """Return a text whose URLs show scheme and host only: `https://***@host/***`.

    Args:
        text: any text, such as one of `callbacks=`.
        paths: mask paths as well, in which chat services put their keys; else user, query and fragment only.
    """

    def mask(found: re.Match[str]) -> str:
        _, at, rest = found[2].rpartition("@")
        host, path, query = re.fullmatch(r"([^/?#]*)([^?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
        if paths:
            path, query = f"/{MASK}" if path.strip("/") or query else path, ""
        return f"{found[1]}{MASK + at if at else ''}{host}{path}{query and query[0] + MASK}"

    return URL.sub(mask, text)


@contextmanager
def masked_command() -> Iterator[None]:
    """Show no secrets in `sys.argv` for the length of a `with` block, in which other code may store it."""
    given = sys.argv
    sys.argv = [mask_urls(word) for word in given]
    try:
        yield
    finally:
        sys.argv = given
