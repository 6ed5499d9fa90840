"""Events and the registry: a dict that maps each event name to a list of functions of one argument.

The model and every engine hold a `CallbackRegistry`; an engine is given a copy of the model's, so that
what one run adds does not leak into the next. The engine fires an event by calling the functions in
order with itself as the argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from detector.errors import CallbackError, nearest

CallbackFn = Callable[[Any], object]
FnT = TypeVar("FnT", bound=CallbackFn)


class Event(NamedTuple):
    """One event: which engine fires it, when, how often, and what is new on the engine by then."""

    engine: str
    when: str
    often: str
    sees: str


EVENTS: Mapping[str, Event] = MappingProxyType(
    {
        "on_pretrain_routine_start": Event("train", "before set-up", "once", "settings, save_dir"),
        "on_pretrain_routine_end": Event(
            "train", "after set-up", "once", "model, ema, optimizer, device, validator"
        ),
        "on_train_start": Event("train", "before the first epoch", "once", "epochs"),
        "on_train_epoch_start": Event("train", "before the first batch of an epoch", "epoch", "epoch, lr"),
        "on_train_batch_start": Event("train", "before the forward pass", "batch", "batch, batch_index"),
        "optimizer_step": Event("train", "after each optimizer step", "step", "optimizer, ema"),
        "on_before_zero_grad": Event("train", "before gradients are cleared", "step", "gradients on model"),
        "on_train_batch_end": Event("train", "after the step", "batch", "preds, loss, loss_items"),
        "on_train_epoch_end": Event("train", "after the last batch of an epoch", "epoch", "mean losses"),
        "on_fit_epoch_end": Event("train", "after validation", "epoch", "metrics, fitness"),
        "on_model_save": Event("train", "after a checkpoint is in place", "epoch", "last, best"),
        "on_params_update": Event("train", "when the trainer changes a setting", "change", "settings"),
        "on_final_eval_end": Event("train", "after the best weights are validated", "once", "metrics"),
        "on_train_end": Event("train", "after training went well", "once", "everything"),
        "on_exception": Event("train", "when training fails", "once", "exception"),
        "teardown": Event("train", "last of all, always", "once", "exception, or None"),
        "on_val_start": Event("val", "before the first batch", "once", "save_dir"),
        "on_val_batch_start": Event("val", "before the forward pass", "batch", "batch, batch_index"),
        "on_val_batch_end": Event("val", "after post-processing", "batch", "preds"),
        "on_val_end": Event("val", "after the figures are there", "once", "metrics, speed"),
        "on_predict_start": Event("predict", "before the first image", "once", "save_dir"),
        "on_predict_batch_start": Event("predict", "before the forward pass", "batch", "batch"),
        "on_predict_postprocess_end": Event("predict", "when results are made", "batch", "results"),
        "on_predict_batch_end": Event("predict", "before results are handed out", "batch", "results"),
        "on_predict_end": Event("predict", "after the last image, or when closed early", "once", "speed"),
        "on_export_start": Event("export", "before the export", "once", "settings"),
        "on_export_end": Event("export", "after the file is in place", "once", "path"),
    }
)
"""Every event, in the order of a run."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "on_epoch_start": "on_train_epoch_start",
        "on_epoch_end": "on_fit_epoch_end",
        "on_batch_start": "on_train_batch_start",
        "on_batch_end": "on_train_batch_end",
    }
)
"""Names people bring along, resolved when a callback is registered."""


def resolve_event(name: str) -> str:
    """Return the event that a name or alias stands for.

    Raises:
        CallbackError: if there is no such event, with the nearest name.
    """
    name = ALIASES.get(name, name)
    if name not in EVENTS:
        hint = nearest(name, [*EVENTS, *ALIASES]) or f"; expected one of {', '.join(EVENTS)}"
        raise CallbackError(f"unknown event {name!r}{hint}")
    return name


class CallbackRegistry(dict[str, list[CallbackFn]]):
    """A dict of lists: event name -> functions, called in order with the engine as their argument."""

    def __init__(self) -> None:
        super().__init__((name, []) for name in EVENTS)

    def add(self, event: str | object, fn: CallbackFn | None = None, *, first: bool = False) -> Any:
        """Register a function for an event, or every event method of an object.

        Args:
            event: an event's name or alias; or an object of the class form (`callbacks.Callback`).
            fn: function of one argument, the engine. Without it a decorator is returned.
            first: put it before those already there.

        Returns:
            The function, or the object, so that this also serves as a decorator. The same function
            twice on one event stays once.

        Raises:
            CallbackError: unknown event, or `fn` can't be called with one argument.
        """
        if not isinstance(event, str):
            for name, method in event_methods(event):
                self.add(name, method, first=first)
            return event
        name = resolve_event(event)
        if fn is None:
            return lambda function: self.add(name, function, first=first)
        require_one_argument(fn, name)
        if fn not in self[name]:
            self[name].insert(0 if first else len(self[name]), fn)
        return fn

    def remove(self, event: str | object, fn: CallbackFn | None = None) -> None:
        """Take a function off an event, or an object off all its events; absent ones are an error."""
        pairs = event_methods(event) if not isinstance(event, str) else [(resolve_event(event), fn)]
        for name, function in pairs:
            if function not in self[name]:
                raise CallbackError(f"{describe(function)} is not registered for {name}")
            self[name].remove(function)

    def fire(self, event: str, engine: object) -> None:
        """Call the functions registered for an event, in order."""
        for fn in tuple(self[event]):
            fn(engine)

    def copy(self) -> CallbackRegistry:
        """Return a registry with copies of the lists."""
        twin = CallbackRegistry()
        for name, functions in self.items():
            twin[name] = list(functions)
        return twin


def event_methods(obj: object) -> Iterator[tuple[str, CallbackFn]]:
    """Yield (event, bound method) for every method of a callback object that is named as an event.

    Methods that only a base class declares as empty (see `Callback`) are left out.

    Raises:
        CallbackError: for a method that looks like an event (`on_...`) but is none, or if none is found.
    """
    found = False
    for name in dir(obj):
        if not (name.startswith("on_") or name in EVENTS) or not callable(method := getattr(obj, name)):
            continue
        event = resolve_event(name)
        if not getattr(method, "is_empty_event", False):
            found = True
            yield event, method
    if not found:
        raise CallbackError(f"{describe(obj)} has no method named as an event, such as on_fit_epoch_end")


def require_one_argument(fn: CallbackFn, event: str) -> None:
    """Refuse a function that can't be called with one positional argument, naming its place."""
    if not callable(fn):
        raise CallbackError(f"{event}: expected a function of one argument, the engine; got {fn!r}")
    try:
        signature = inspect.signature(fn)
    except ValueError:  # some built-ins have none to look at
        return
    try:
        signature.bind(None)
    except TypeError:
        raise CallbackError(
            f"{event}: {describe(fn)} takes {signature}, but is called with one argument, the engine"
        ) from None


def describe(fn: object) -> str:
    """Name a function with its file and line, for messages."""
    name = getattr(fn, "__qualname__", None) or type(fn).__name__
    with suppress(TypeError, OSError):
        code = inspect.unwrap(fn)  # type: ignore[arg-type]
        return f"{name} ({inspect.getsourcefile(code)}:{inspect.getsourcelines(code)[1]})"
    return name
