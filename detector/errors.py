"""The exceptions of this package, and the sentence-building they share.

::

    DetectorError                      exit code of the command line
    ├── SettingsError(ValueError)      2  a setting is unknown, mistyped or out of range
    ├── CallbackError(ValueError)      2  a callback or an event name can't be used
    ├── DataError(ValueError)          3  a data set, an image or a source can't be used
    ├── ModelError(ValueError)         4  an architecture can't be built
    ├── CheckpointError(RuntimeError)  4  weights can't be read or do not fit
    │   └── RunCompleteError           0  a run that is to be resumed has come to its end
    ├── ExportError(RuntimeError)      5  a model can't be exported
    ├── TrainingError(RuntimeError)    1  training went wrong (a non-finite loss)
    └── MissingPackageError(ImportError)  1  an optional package is needed

Every message says what was given, what is allowed and what to do.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence


class DetectorError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1
    of_main = False
    """Whether the main process of a training has raised and reported it, and others of it only end as well."""


class SettingsError(DetectorError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = 2


class CallbackError(DetectorError, ValueError):
    """A callback can't be registered, or an event does not exist."""

    exit_code = 2


class DataError(DetectorError, ValueError):
    """A data set, a label file, an image or a prediction source can't be used."""

    exit_code = 3


class ModelError(DetectorError, ValueError):
    """An architecture file is wrong or a model can't be built from it."""

    exit_code = 4


class CheckpointError(DetectorError, RuntimeError):
    """A weights file can't be read, or does not fit the model or the data."""

    exit_code = 4


class RunCompleteError(CheckpointError):
    """A run that is to be resumed has come to its end: nothing is left to do, and nothing went wrong."""

    exit_code = 0


class ExportError(DetectorError, RuntimeError):
    """A model can't be exported."""

    exit_code = 5


class TrainingError(DetectorError, RuntimeError):
    """Training can't continue."""


class MissingPackageError(DetectorError, ImportError):
    """An optional package is needed for what was asked."""


def nearest(name: str, allowed: Iterable[str], cutoff: float = 0.6) -> str:
    """Return "; did you mean 'x'?" for the closest allowed name, or an empty string.

    Args:
        name: what was given.
        allowed: what could have been meant.
        cutoff: how alike the two must be, in 0..1.
    """
    from difflib import get_close_matches

    found = get_close_matches(name, list(allowed), n=1, cutoff=cutoff)
    return f"; did you mean {found[0]!r}?" if found else ""


def first_line(error: BaseException) -> str:
    """Return the start of an error's text, for a message of one sentence: its first line, 200 letters at most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200].rstrip(".:")


def excerpt(value: object, limit: int = 200) -> str:
    """Return a value as Python shows it, on one line of at most `limit` letters; bytes by their number."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value):,} bytes"
    try:
        return shorten(" ".join(repr(value).split()), limit)
    except Exception:  # it is a stranger's object, or a number of thousands of digits
        return f"a {type(value).__name__}"


def shorten(text: str, limit: int = 200) -> str:
    """Return text, cut to `limit` letters: what a user gave may be of any length."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def listed(names: Sequence[str], count: int = 10) -> str:
    """Join the first `count` names of a long list and count the others."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def error_text(error: BaseException) -> str:
    """Return an exception as `ValueError: what was wrong`, its first line only."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def ending(error: BaseException) -> str:
    """Return what ended a run: Ctrl-C, a signal, or an exception as `error_text` has it."""
    if isinstance(error, KeyboardInterrupt):
        return "Ctrl-C"
    return str(error) if isinstance(error, SystemExit) and str(error) else error_text(error)


def cannot_write(what: str, error: OSError) -> SettingsError:
    """Return the error to raise where the system does not allow to write `what`."""
    reason = error.strerror or str(error)
    return SettingsError(f"can't write {what} ({reason}); {write_remedy(error)}")


def write_remedy(error: BaseException) -> str:
    """Return what to do about a failed write; only a full disk, or a writer that does not say why, asks for space."""
    code = error.errno if isinstance(error, OSError) else None
    full = code in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return f"{'free some space or ' if full else ''}choose another project="
