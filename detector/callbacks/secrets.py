"""Secrets: what is written to files, loggers and the log shows the host of a URL, but not how to get in.

Arguments of callbacks that a user wrote may be secrets of any form, so only numbers of them are shown.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from detector.callbacks import READY_MADE
from detector.callbacks.loading import read_arguments, split_texts, without_spaces

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


def mask_callbacks(text: str) -> str:
    """Return a text of `callbacks=` as it may be written down; several are separated by commas.

    A URL in the arguments of a ready-made callback shows its host only, however it was written; arguments of other
    callbacks are shown if they are numbers.
    """
    return ",".join(map(_mask_callback, split_texts(text)))


def _mask_callback(text: str) -> str:
    head, plain = text.partition("(")[0], mask_urls(text)
    show = _without_urls if head in READY_MADE else _numbers_only
    try:
        positional, keywords = read_arguments(text)
        shown = list(map(show, positional)), {name: show(value) for name, value in keywords.items()}
        if read_arguments(plain) == shown:
            return plain
    except ValueError:
        return f"{mask_urls(head)}({MASK})"
    words = [*map(repr, shown[0]), *(f"{name}={value!r}" for name, value in shown[1].items())]
    return f"{mask_urls(head)}({', '.join(words)})"


def _without_urls(value: Any) -> Any:
    """Return the value of an argument; a text with a URL in it masked, and without white space."""
    if isinstance(value, str) and (masked := mask_urls(plain := without_spaces(value))) != plain:
        return masked
    return value


def _numbers_only(value: Any) -> Any:
    """Return the value of an argument if it is made of numbers, true, false and none."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_numbers_only, value))
    return value if value is None or isinstance(value, (int, float)) else MASK


@contextmanager
def masked_command() -> Iterator[None]:
    """Show no secrets in `sys.argv` for the length of a `with` block, in which other code may store it."""
    given = sys.argv
    sys.argv = [_mask_word(word) for word in given]
    try:
        yield
    finally:
        sys.argv = given


def _mask_word(word: str) -> str:
    key, equals, text = word.partition("=")
    return f"{key}={mask_callbacks(text)}" if equals and key.strip("-") == "callbacks" else mask_urls(word)
