"""Checks of the arguments of the ready-made callbacks, with the same messages everywhere."""

from __future__ import annotations

import math
from typing import Any

from detector.errors import CallbackError


def require_whole(callback: str, name: str, value: Any, minimum: int) -> int:
    """Return a whole number >= `minimum`.

    Raises:
        CallbackError: for anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise CallbackError(f"{callback}({name}={value!r}): expected a whole number >= {minimum}")
    return value


def require_number(
    callback: str, name: str, value: Any, minimum: float = 0.0, *, above: bool = False
) -> float:
    """Return a finite number >= `minimum`, or > `minimum` with `above`.

    Raises:
        CallbackError: for anything else.
    """
    if (
        not isinstance(value, (int, float))
        or isinstance(value, bool)
        or not math.isfinite(value)
        or value < minimum
        or (above and value == minimum)
    ):
        limit = (
            f"a number {'>' if above else '>='} {minimum:g}" if math.isfinite(minimum) else "a finite number"
        )
        raise CallbackError(f"{callback}({name}={value!r}): expected {limit}")
    return float(value)
