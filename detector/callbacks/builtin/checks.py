"""Checks of what the ready-made callbacks are constructed with, in the same words everywhere."""

from __future__ import annotations

import math
from typing import Any

from detector.errors import CallbackError


def require_whole(callback: str, name: str, value: Any, least: int) -> int:
    """Return a whole number that is at least `least`.

    Raises:
        CallbackError: for anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise CallbackError(f"{callback}({name}={value!r}): expected a whole number >= {least}")
    return value


def require_number(callback: str, name: str, value: Any, least: float = 0.0, *, above: bool = False) -> float:
    """Return a finite number that is at least `least`, or with `above` larger.

    Raises:
        CallbackError: for anything else.
    """
    if (
        not isinstance(value, (int, float))
        or isinstance(value, bool)
        or not math.isfinite(value)
        or value < least
        or (above and value == least)
    ):
        raise CallbackError(
            f"{callback}({name}={value!r}): expected a number {'>' if above else '>='} {least:g}"
        )
    return float(value)
