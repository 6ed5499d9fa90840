"""The state of callback objects, as a checkpoint holds it.

An object with `state_dict` and `load_state_dict` is saved under its class name, a second one of its class
as `Name#2`. A state is plain data and tensors, so that reading it can't run code.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from detector.errors import CallbackError, error_text

log = logging.getLogger(__name__)


def gather_states(objects: Iterable[object]) -> dict[str, Any]:
    """Return name -> state of every object that has one.

    Raises:
        CallbackError: if a state is more than plain data and tensors.
    """
    states = {}
    for name, obj in _stateful(objects):
        state = obj.state_dict()
        if (problem := find_unserializable(state, "its state_dict()")) is not None:
            raise CallbackError(
                f"the state of the callback {name} can't be saved: {problem}; "
                "expected None, numbers, strings, lists, dicts and tensors"
            )
        states[name] = state
    return states


def restore_states(objects: Iterable[object], states: Mapping[str, Any]) -> None:
    """Restore the state of every object; warn of what is on one side only."""
    known = dict(_stateful(objects))
    for name, state in states.items():
        if name in known:
            load_state(name, known[name], state)
        else:
            log.warning("the saved run holds the state of a callback %s, but none is registered now", name)
    for name in known:
        if name not in states:
            log.warning("the saved run holds no state of the callback %s: it starts from scratch", name)


def load_state(name: str, obj: Any, state: Any) -> None:
    """Restore the state of one object.

    Raises:
        CallbackError: if it does not fit the object; a run folder may come from someone else.
    """
    try:
        obj.load_state_dict(state)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise CallbackError(
            f"the saved state of the callback {name} can't be restored ({error_text(error)}); resume with the "
            "version of the callback that wrote it, or without the callback"
        ) from error


def state_of(obj: object, objects: Iterable[object], states: Mapping[str, Any]) -> Any:
    """Return the state of one object among all that are registered, or None if it has none."""
    return next((states.get(name) for name, known in _stateful(objects) if known is obj), None)


def _stateful(objects: Iterable[object]) -> Iterator[tuple[str, Any]]:
    counts: dict[str, int] = {}
    for obj in objects:
        if hasattr(obj, "state_dict") and hasattr(obj, "load_state_dict"):
            name = type(obj).__name__
            number = counts[name] = counts.get(name, 0) + 1
            yield (name if number == 1 else f"{name}#{number}"), obj


def find_unserializable(value: object, place: str) -> str | None:
    """Say where a value holds more than plain data and tensors, or return None."""
    kind = type(value)
    if (
        value is None
        or kind in (bool, int, float, str)
        or (kind.__module__ == "torch" and kind.__name__ == "Tensor")
    ):
        return None
    if kind is dict:
        items = value.items()  # type: ignore[attr-defined]
        if (odd := next((key for key, _ in items if type(key) not in (str, int)), None)) is not None:
            return f"{place} has the key {odd!r}"
        parts = [(item, f"{place}[{key!r}]") for key, item in items]
    elif kind in (list, tuple):
        parts = [(item, f"{place}[{number}]") for number, item in enumerate(value)]  # type: ignore[arg-type, var-annotated]
    else:
        return f"{place} is a {kind.__name__}"
    return next((problem for part in parts if (problem := find_unserializable(*part)) is not None), None)
