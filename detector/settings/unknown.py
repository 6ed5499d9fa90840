"""What is said of a setting that a command does not have."""

from __future__ import annotations

from typing import Any

from detector.errors import nearest
from detector.fields import plain_value, show_given
from detector.settings import EXTENDS, SETTINGS_OF, CommandSettings
from detector.unsupported import ABSENT, RENAMED


def is_unused(key: str, value: Any, in_file: bool) -> bool:
    """Return whether a setting that an engine does not have may be left out, as it asks for nothing.

    Args:
        key: its name.
        value: what was given.
        in_file: it comes from a file that holds the settings of other commands, too.
    """
    if key in ABSENT and ABSENT[key].is_off(value):
        return True
    fields = [cls.model_fields[key] for cls in _own_classes().values() if key in cls.model_fields]
    if not fields or in_file or key in ABSENT:
        return bool(fields) and in_file
    plain = [(plain_value(key, value, field), field.default) for field in fields]
    return any(
        value == default and isinstance(value, bool) == isinstance(default, bool) for value, default in plain
    )


def _own_classes() -> dict[str, type[CommandSettings]]:
    """Return the settings by command, of those commands that have their own."""
    return {name: cls for name, cls in SETTINGS_OF.items() if name not in EXTENDS}


def unknown_setting(key: str, engine: str, value: Any = None) -> str:
    """Return one sentence: `key` is not a setting of `engine`, and what to use instead if that is known."""
    allowed = SETTINGS_OF[engine].model_fields
    if key in RENAMED:
        return f"setting {key!r} is called {RENAMED[key]!r} here"
    if key in ABSENT and ABSENT[key].instead:
        return f"{key}={show_given(value)}: not available in {engine}; {ABSENT[key].instead}"
    others = [name for name, cls in _own_classes().items() if key in cls.model_fields]
    if others:
        return f"setting {key!r} belongs to {' and '.join(others)}, not to {engine}; leave it out"
    return f"unknown setting {key!r}{nearest(key, allowed) or f'; see: detector {engine} --help'}"
