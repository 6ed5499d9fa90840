"""The state of callback objects, as a checkpoint holds it.

An object with `state_dict` and `load_state_dict` is saved under its class name, a second one of its class
as `Name#2`. A state is plain data and tensors, so that reading it can't run code.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from detector.callbacks.registry import describe
from detector.errors import CallbackError, error_text
from detector.plain_data import EXPECTED, NotPlainDataError, to_plain

log = logging.getLogger(__name__)


def gather_states(objects: Iterable[object]) -> dict[str, Any]:
    """Return name -> state of every object that has one, as plain data: see `to_plain`.

    Raises:
        CallbackError: if a state is more than plain data and tensors, with the callback and its place.
    """
    states = {}
    for name, obj in _stateful(objects):
        try:
            states[name] = to_plain(obj.state_dict(), "its state_dict()")
        except NotPlainDataError as problem:
            raise CallbackError(
                f"the state of the callback {name} can't be saved: {problem}; expected {EXPECTED}: "
                f"{describe(obj.state_dict)}"
            ) from None
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


def is_stateful(obj: object) -> bool:
    """Return whether an object has a state to save."""
    return hasattr(obj, "state_dict") and hasattr(obj, "load_state_dict")


def _stateful(objects: Iterable[object]) -> Iterator[tuple[str, Any]]:
    counts: dict[str, int] = {}
    for obj in objects:
        if is_stateful(obj):
            name = type(obj).__name__
            number = counts[name] = counts.get(name, 0) + 1
            yield (name if number == 1 else f"{name}#{number}"), obj
