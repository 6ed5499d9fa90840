"""Callbacks named by text, as the command line and YAML files do, and those of plug-in packages.

| text | what is registered |
|---|---|
| `hooks.py` | every function of the file that is named as an event, and every `Callback` object in it |
| `hooks.py:name`, `package.module:name` | that function (named as an event) or that object |
| `hooks.py:Name(patience=3)`, `package.module:Name(...)` | an object made with these arguments |
| `TimeLimit(hours=2)` | a ready-made callback of `detector.callbacks` |

Modules of the current folder are found, too. Arguments are plain literals; nothing else in the text is evaluated.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import logging
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from detector.callbacks import READY_MADE
from detector.callbacks.callback import Callback
from detector.callbacks.events import EVENTS, resolve_event
from detector.callbacks.registry import CallbackRegistry
from detector.errors import CallbackError, error_text, nearest
from detector.files.code import import_file, load_attribute

log = logging.getLogger(__name__)

PLUGIN_GROUP = "detector.callbacks"


def load_callbacks(texts: str | Iterable[str] | None) -> list[Any]:
    """Return what some texts name, each fit for `CallbackRegistry.add_any`.

    Args:
        texts: one text, several separated by commas, or a list of texts.

    Raises:
        CallbackError: naming the part that can't be loaded.
    """
    found = []
    for part in _parts(texts):
        for value in _load(part):
            try:
                CallbackRegistry().add_any(value)
            except CallbackError as error:
                raise CallbackError(f"callbacks={part}: {error}") from None
            found.append(value)
    return found


def restorable_callbacks(texts: str | Iterable[str] | None) -> list[str]:
    """Return those texts of a saved run that resuming restores: ready-made callbacks.

    A run folder may come from someone else, so it can't name code to run, or an address to send messages to
    (whose secrets it does not hold anyway, see `mask_callbacks`). A warning names what is left out.
    """
    parts = _parts(texts)
    taken = [part for part in parts if _is_restorable(part)]
    if left := [part for part in parts if part not in taken]:
        log.warning("not restored from the saved run: callbacks=%s; to use it, pass it again", ",".join(left))
    return taken


def _is_restorable(text: str) -> bool:
    """Return whether a text is a ready-made callback with plain arguments, none of which is an address."""
    if text.partition("(")[0] not in READY_MADE:
        return False
    try:
        positional, keywords = read_arguments(text)
    except ValueError:
        return False
    return all(map(_names_no_address, (*positional, *keywords.values())))


def _names_no_address(value: Any) -> bool:
    """Judge the value and not how it was written: `'http:' '//host'` is one, and URL parsers leave out white space."""
    if isinstance(value, (list, tuple)):
        return all(map(_names_no_address, value))
    if isinstance(value, dict):
        return all(_names_no_address(part) for pair in value.items() for part in pair)
    if isinstance(value, str):
        plain = without_spaces(value)
        return ":/" not in plain and ":\\" not in plain and not plain.startswith("//")
    return value is None or isinstance(value, (int, float))


def without_spaces(text: str) -> str:
    """Return a text without white space and control characters."""
    return "".join(char for char in text if char.isprintable() and not char.isspace())


def read_arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the literal arguments of a text such as `Name(3, mode='max')`: by position, and by name.

    Raises:
        ValueError: if they are anything else.
    """
    _, bracket, rest = text.partition("(")
    try:
        call = ast.parse(f"_{bracket}{rest}" if bracket else "_()", mode="eval").body
        if not isinstance(call, ast.Call) or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("no call")
        positional = [ast.literal_eval(part) for part in call.args]
        return positional, {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError("not literals") from error


def _parts(texts: str | Iterable[str] | None) -> list[str]:
    texts = [texts] if isinstance(texts, str) else texts or []
    return [part for text in texts for part in split_texts(text)]


def split_texts(text: str) -> list[str]:
    """Split at commas outside brackets and quotes; brackets around the whole may be there."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    parts, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        else:
            depth += (char in "([{") - (char in ")]}")
        if char == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def _load(text: str) -> Iterator[Any]:
    head, bracket, rest = text.partition("(")
    _, colon, name = head.rpartition(":")
    if head.endswith(".py") and not bracket:
        yield from _all_of(import_file(Path(head), f"callbacks={text}", CallbackError), text)
    elif colon and name:
        found = load_attribute(head, f"callbacks={text}", CallbackError)
        yield _make(found, f"{bracket}{rest}", text)
    elif name in READY_MADE:
        yield _make(getattr(importlib.import_module("detector.callbacks"), name), f"{bracket}{rest}", text)
    else:
        raise CallbackError(
            f"callbacks={text}: expected a file such as hooks.py, package.module:name, or a ready-made "
            f"callback ({', '.join(READY_MADE)}){nearest(name, READY_MADE)}"
        )


def _all_of(module: ModuleType, text: str) -> Iterator[Any]:
    """Yield a file's own functions named as events, and its callback objects."""
    found = False
    for name, value in list(vars(module).items()):
        own_function = inspect.isfunction(value) and value.__module__ == module.__name__
        if isinstance(value, Callback) or (own_function and (name.startswith("on_") or name in EVENTS)):
            if own_function:
                try:
                    resolve_event(name)
                except CallbackError as error:
                    raise CallbackError(f"callbacks={text}: {error}") from None
            found = True
            yield value
    if not found:
        classes = [
            n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__
        ]
        hint = f"; for a class write callbacks={text}:{classes[0]}()" if classes else ""
        raise CallbackError(
            f"callbacks={text}: no function in it is named as an event, such as on_fit_epoch_end{hint}"
        )


def _make(value: Any, arguments: str, text: str) -> Any:
    """Create an object of a class, with the literal arguments of a text; return a function or an object unchanged."""
    if not arguments:
        if not isinstance(value, type):
            return value
        arguments = "()"
    if not isinstance(value, type):
        raise CallbackError(f"callbacks={text}: only a class takes arguments; leave the brackets out")
    try:
        positional, keywords = read_arguments(arguments)
    except ValueError:
        raise CallbackError(
            f"callbacks={text}: {arguments} are not plain arguments; write them as in (patience=3, mode='max')"
        ) from None
    try:
        return value(*positional, **keywords)
    except (TypeError, ValueError) as error:
        raise CallbackError(f"callbacks={text}: {error}") from error


def add_plugins(registry: CallbackRegistry) -> list[str]:
    """Register the callbacks of installed packages: entry points of the group `detector.callbacks`.

    An entry point names a callback object, a class without needed arguments, or a function named as an
    event. One that can't be loaded is left out with a warning.

    Returns:
        What was registered: `name (package version)`.
    """
    named = []
    for entry in entry_points(group=PLUGIN_GROUP):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown package"
        try:
            value = entry.load()
            registry.add_any(value() if isinstance(value, type) else value)
        except Exception as error:  # not our code: an installed plug-in must not end a run
            log.warning(
                "plug-in %s (%s) is left out: %s; plugins=false leaves out all",
                entry.name,
                package,
                error_text(error),
            )
        else:
            named.append(f"{entry.name} ({package})")
    return named
