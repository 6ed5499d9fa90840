"""Plain data: all that the files of this package hold. Numbers of every library become Python's own."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

EXPECTED = "None, numbers, texts, lists, dicts and tensors"

MAX_DEPTH = 50
MAX_INTEGER_BITS = 2000  # torch reads integers of up to 255 bytes


class NotPlainDataError(ValueError):
    """A value holds more than plain data; the text names the place."""


def to_number(value: Any) -> bool | int | float | None:
    """Return a number of any library as Python's, or None if it is not one.

    Args:
        value: a number of Python, a numpy scalar, an array or tensor without dimensions, a `Fraction`, a `Decimal`,
            or whatever else says that it is a number. Texts, dates, complex numbers and vectors are none.
    """
    kind = type(value)
    if kind is float or kind is int or kind is bool:
        return value  # type: ignore[no-any-return]
    if isinstance(value, (str, bytes, bytearray)):
        return None
    try:
        if hasattr(value, "shape") and (value.shape != () or getattr(value.dtype, "kind", "") in ("M", "m")):
            return None  # M, m: the dates and times of numpy, which can be integers
        if hasattr(value, "item"):
            value = value.item()
        if isinstance(value, bool):
            return value
        if hasattr(value, "__index__"):
            return int(operator.index(value))
        return float(value) if hasattr(value, "__float__") else None
    except (TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError):
        return None  # such as numpy's NaT, a signalling NaN, a tensor without memory


def to_float(value: Any) -> float | None:
    """Return a number of any library as a float, or None if it is not one or is too large for a float."""
    number = to_number(value)
    try:
        return None if number is None else float(number)
    except OverflowError:
        return None


def to_plain(value: Any, place: str, depth: int = 0) -> Any:
    """Return a value as plain data that a checkpoint can hold and give back.

    Numbers and texts of subclasses become Python's own, mappings dicts, named tuples tuples. Tensors lose their
    history, and come to the CPU: a file is to open on machines without a GPU.

    Args:
        value: anything.
        place: what messages call it.
        depth: how deep in `place` it lies.

    Raises:
        NotPlainDataError: naming the place of what is not plain data.
    """
    kind = type(value)
    if value is None or kind is str or kind is float or kind is bool:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if kind.__module__.partition(".")[0] == "torch" and kind.__name__ in ("Tensor", "Parameter"):
        if value.is_meta:
            raise NotPlainDataError(f"{place} is a tensor without memory (device meta)")
        return (value.detach() if value.requires_grad else value).cpu()
    if depth > MAX_DEPTH:
        raise NotPlainDataError(
            f"{place[:80]}... is nested more than {MAX_DEPTH} levels deep, or contains itself"
        )
    if isinstance(value, Mapping):
        return {
            _to_key(key, place): to_plain(item, f"{place}[{key!r}]", depth + 1) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        parts = (to_plain(item, f"{place}[{number}]", depth + 1) for number, item in enumerate(value))
        return list(parts) if isinstance(value, list) else tuple(parts)
    number = to_number(value)
    if number is None:
        raise NotPlainDataError(f"{place} is a {kind.__name__}")
    if isinstance(number, int) and number.bit_length() > MAX_INTEGER_BITS:
        digits = math.ceil(number.bit_length() * math.log10(2))
        raise NotPlainDataError(f"{place} is a whole number of {digits} digits")
    return number


def _to_key(key: Any, place: str) -> str | int:
    if isinstance(key, str):
        return str.__str__(key)
    number = to_number(key)
    if type(number) is not int:
        raise NotPlainDataError(f"{place} has the key {repr(key)[:80]}")
    if number.bit_length() > MAX_INTEGER_BITS:
        raise NotPlainDataError(f"{place} has a key of {number.bit_length()} bits")
    return number
