"""Python code that the user names: a file, or a module and an attribute of it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from detector.errors import DetectorError, error_text, nearest


def load_attribute(text: str, given: str, refusal: type[DetectorError]) -> Any:
    """Return what a text such as `hooks.py:name` or `package.module:name` names.

    Args:
        text: the place and the name.
        given: the setting as the user wrote it, for messages: `callbacks=hooks.py:name`.
        refusal: the kind of error to raise.

    Raises:
        DetectorError: of that kind, if it can't be imported or there is no such name.
    """
    place, _, name = text.rpartition(":")
    module = (
        import_file(Path(place), given, refusal)
        if place.endswith(".py")
        else import_module(place, given, refusal)
    )
    if not hasattr(module, name):
        hint = nearest(name, [key for key in vars(module) if not key.startswith("_")])
        raise refusal(f"{given}: {place} has no {name!r}{hint}")
    return getattr(module, name)


def import_file(path: Path, given: str, refusal: type[DetectorError]) -> ModuleType:
    """Import a file as a module; it may import modules from its folder. Arguments as of `load_attribute`."""
    if not path.is_file():
        raise refusal(f"{given}: {path.absolute()} does not exist")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        with _importable(path.absolute().parent):
            spec.loader.exec_module(module)
    except Exception as error:
        raise refusal(f"{given}: importing {path} failed: {error_text(error)}") from error
    return module


def import_module(name: str, given: str, refusal: type[DetectorError]) -> ModuleType:
    """Import a module, of the current folder first: the command's own folder is what Python looks in."""
    try:
        with _importable(Path.cwd()):
            return importlib.import_module(name)
    except Exception as error:
        also = f" (looked in {Path.cwd()}, too)" if isinstance(error, ModuleNotFoundError) else ""
        raise refusal(f"{given}: importing {name} failed: {error_text(error)}{also}") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()  # the folder may have new files
    try:
        yield
    finally:
        sys.path.remove(str(folder))
