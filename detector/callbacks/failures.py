"""Naming a callback that failed: which function, where it is, on which event."""

from __future__ import annotations

import inspect
from contextlib import suppress


def describe(fn: object) -> str:
    """Name a function with its file and line, for messages."""
    name = getattr(fn, "__qualname__", None) or type(fn).__name__
    with suppress(TypeError, OSError):
        code = inspect.unwrap(fn)  # type: ignore[arg-type]
        return f"{name} ({inspect.getsourcefile(code)}:{inspect.getsourcelines(code)[1]})"
    return name


def short_name(fn: object) -> str:
    """Name a function as `Class.method`, by the class of its object and without where it was defined."""
    owner = getattr(fn, "__self__", None)
    if owner is not None and not isinstance(owner, type):
        return f"{type(owner).__name__}.{getattr(fn, '__name__', '?')}"
    name = getattr(fn, "__qualname__", None) or type(fn).__name__
    return name.rpartition("<locals>.")[2]


def add_note(error: BaseException, note: str) -> None:
    """Attach a line to an exception; tracebacks show it from Python 3.11 on."""
    error.__notes__ = [*getattr(error, "__notes__", []), note]


def failure_note(error: BaseException) -> str | None:
    """Return the note that says in which callback an exception arose, or None."""
    return next(
        (note for note in getattr(error, "__notes__", []) if note.startswith("in the callback ")), None
    )
