"""Events and the registry: a dict that maps each event name to a list of functions of one argument.

The model and every engine hold a `CallbackRegistry`; an engine is given a copy of the model's, so that
what one run adds does not leak into the next. The engine fires an event by calling the functions in
order with itself as the argument.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from time import perf_counter
from types import BuiltinMethodType, MethodType, MethodWrapperType
from typing import Any

from detector.callbacks.callback import Callback
from detector.callbacks.elsewhere import KERAS_ARGUMENTS, described_elsewhere
from detector.callbacks.events import EVENTS, resolve_event
from detector.errors import CallbackError, error_text

log = logging.getLogger(__name__)

CallbackFn = Callable[[Any], object]


class CallbackRegistry(dict[str, list[CallbackFn]]):
    """A dict of lists: event name -> functions, called in order with the engine as their argument.

    Attributes:
        objects: the callback objects among what was added, in order.
        seconds: (event, name of the function) -> time spent in it.
        running: the event and the function that is being called, or None.
    """

    def __init__(self) -> None:
        super().__init__((name, []) for name in EVENTS)
        self.objects: list[object] = []
        self.seconds: dict[tuple[str, str], float] = {}
        self.running: tuple[str, CallbackFn] | None = None
        self._once: list[tuple[str, CallbackFn]] = []

    # ------------------------------------------------------------------ registering

    def add(
        self, event: str | object, fn: CallbackFn | None = None, *, first: bool = False, once: bool = False
    ) -> Any:
        """Register a function for an event, or every event method of an object.

        Args:
            event: an event's name or alias; or an object of the class form (`callbacks.Callback`).
            fn: function of one argument, the engine. Without it a decorator is returned.
            first: put it before those already there.
            once: call it the first time only, then remove it. Every run starts from the model's own
                list, so it is called once in each of them.

        Returns:
            The function, or the object, so that this also serves as a decorator. The same function
            twice on one event stays once; what only compares equal to another is not the same.

        Raises:
            CallbackError: unknown event, or `fn` can't be called with one argument, or a call would run nothing
                of it (see `require_runnable`).
        """
        if not isinstance(event, str):
            if not isinstance(event, Callback) and (origin := described_elsewhere(event)) is not None:
                raise CallbackError(origin)
            pairs = list(event_methods(event))
            for name, method in pairs:
                require_runnable(method, name)
            for name, method in pairs:
                self.add(name, method, first=first, once=once)
            if not any(known is event for known in self.objects):
                self.objects.append(event)
            return event
        name = resolve_event(event)
        if fn is None:
            return lambda function: self.add(name, function, first=first, once=once)
        require_runnable(fn, name)
        if _position(self[name], fn) is None:
            self[name].insert(0 if first else len(self[name]), fn)
            if once:
                self._once.append((name, fn))
        return fn

    def remove(self, event: str | object, fn: CallbackFn | None = None) -> None:
        """Remove a function from an event, or an object from all its events; absent ones are an error."""
        if isinstance(event, str):
            pairs: list[tuple[str, Any]] = [(resolve_event(event), fn)]
        else:
            pairs = list(event_methods(event))
        missing = [(name, function) for name, function in pairs if _position(self[name], function) is None]
        if missing:
            name, function = missing[0]
            raise CallbackError(f"{describe(function)} is not registered for {name}")
        for name, function in pairs:
            self._take_off(name, function)
        self.objects = [known for known in self.objects if known is not event]

    def clear(self, event: str | None = None) -> None:
        """Remove all functions from one event; without a name, from all events."""
        for name in [resolve_event(event)] if event is not None else list(self):
            for fn in tuple(self[name]):
                self._take_off(name, fn)
        left = [fn for functions in self.values() for fn in functions]
        self.objects = [o for o in self.objects if any(getattr(fn, "__self__", None) is o for fn in left)]

    @contextmanager
    def added(self, *callbacks: object) -> Iterator[None]:
        """Register callback objects (or functions named as their event) for a `with` block only."""
        before = self.copy()
        try:
            for callback in callbacks:
                self.add_any(callback)
            yield
        finally:
            self._become(before)

    def add_any(self, item: Any) -> None:
        """Register what a list of callbacks may hold.

        Args:
            item: a callback object; a function named as an event; an (event, function) pair; or a
                mapping of events to a function or a list of functions.

        Raises:
            CallbackError: for anything else.
        """
        if isinstance(item, Mapping):
            for event, functions in item.items():
                for fn in functions if isinstance(functions, (list, tuple)) else [functions]:
                    self.add(event, fn)
        elif isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
            self.add(*item)
        elif inspect.isroutine(item):
            self.add(item.__name__, item)
        elif isinstance(item, type):
            raise CallbackError(
                f"{item.__name__} is a class; give an object of it, such as {item.__name__}()"
            )
        elif isinstance(item, (str, bytes, int, float, list)) or item is None:
            raise CallbackError(
                f"{item!r} is not a callback; expected an object with event methods, a function named as an "
                "event, an (event, function) pair or a dict of events"
            )
        else:
            self.add(item)

    def has_kind(self, kind: type) -> bool:
        """Return whether an object of a class, or of one derived from it, is registered."""
        return any(isinstance(known, kind) for known in self.objects)

    def copy(self) -> CallbackRegistry:
        """Return a registry with copies of the lists."""
        twin = CallbackRegistry()
        twin._become(self)
        return twin

    def _become(self, other: CallbackRegistry) -> None:
        for name, functions in other.items():
            self[name] = list(functions)
        self.objects, self._once = list(other.objects), list(other._once)

    def _take_off(self, event: str, fn: CallbackFn) -> None:
        if (position := _position(self[event], fn)) is not None:
            del self[event][position]
        self._once = [pair for pair in self._once if not (pair[0] == event and is_same(pair[1], fn))]

    # ------------------------------------------------------------------ firing

    def fire(self, event: str, engine: object) -> None:
        """Call the functions registered for an event, in order.

        An exception leaves with a note that names the event, the function and its place.
        """
        functions = self[event]
        if functions:
            for fn in tuple(functions):
                self._call(event, fn, engine)

    def fire_every(self, event: str, engine: object) -> Exception | None:
        """Call all functions of an event, even when one of them fails.

        Returns:
            The first exception; the others are logged.
        """
        first: Exception | None = None
        for fn in tuple(self[event]):
            try:
                self._call(event, fn, engine)
            except Exception as error:
                log.error("%s: %s", failure_note(error), error_text(error))
                first = first or error
        return first

    def _call(self, event: str, fn: CallbackFn, engine: object) -> None:
        if self._once and any(name == event and is_same(once, fn) for name, once in self._once):
            self._take_off(event, fn)
        start, outer, self.running = perf_counter(), self.running, (event, fn)
        try:
            result = fn(engine)
            if result is not None:
                _require_no_unrun_code(result)
        except Exception as error:
            add_note(error, f"in the callback {describe(fn)} on {event}")
            raise
        finally:
            self.running = outer
            key = (event, short_name(fn))
            self.seconds[key] = self.seconds.get(key, 0.0) + perf_counter() - start

    def running_text(self) -> str | None:
        """Name the function that is being called, with its place and its event, or return None."""
        return f"the callback {describe(self.running[1])} on {self.running[0]}" if self.running else None

    def slow_callbacks(self, seconds: float, share: float = 0.01) -> list[tuple[str, str, float]]:
        """Return (event, function, its seconds) of all that took more than this share of `seconds`, slowest first."""
        found = [(*key, spent) for key, spent in self.seconds.items() if spent > share * seconds]
        return sorted(found, key=lambda row: -row[2])

    def slow_callbacks_text(self, seconds: float) -> str | None:
        """Name the functions that took more than 1 % of a run, slowest first, or return None if there are none.

        Args:
            seconds: of the whole run.
        """
        rows = [
            f"{fn}{'' if fn.endswith(event) else f' on {event}'} {spent:.1f} s ({spent / seconds:.0%})"
            for event, fn, spent in self.slow_callbacks(seconds)
        ]
        return f"callbacks that took over 1 % of the run: {', '.join(rows)}" if rows else None


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


def is_same(one: object, other: object) -> bool:
    """Return whether two callables are the same one; every access to a method makes a new object of it.

    `==` is not asked: objects of a data class are equal without being the same, and arrays among attributes
    can't be compared.
    """
    if isinstance(one, MethodType) and isinstance(other, MethodType):
        return one.__self__ is other.__self__ and one.__func__ is other.__func__
    if isinstance(one, (BuiltinMethodType, MethodWrapperType)) and type(one) is type(other):
        return one.__self__ is other.__self__ and one.__name__ == other.__name__
    return one is other


def _position(functions: list[CallbackFn], fn: object) -> int | None:
    return next((index for index, known in enumerate(functions) if is_same(known, fn)), None)


def require_runnable(fn: CallbackFn, event: str) -> None:
    """Refuse what can't be called with one positional argument, or whose call runs nothing, naming its place."""
    if not callable(fn):
        raise CallbackError(f"{event}: expected a function of one argument, the engine; got {fn!r}")
    code: Any = fn
    while isinstance(code, partial):
        code = code.func
    if not inspect.isroutine(code) and not isinstance(code, type):
        code = type(code).__call__
    if inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code):
        raise CallbackError(
            f"{event}: {describe(fn)} is an async function, and nothing awaits a callback: it would never run; "
            "write def, and asyncio.run(...) inside it"
        )
    if inspect.isgeneratorfunction(code):
        raise CallbackError(
            f"{event}: {describe(fn)} is a generator function, whose call runs nothing; write it without yield"
        )
    try:
        signature = inspect.signature(fn)
    except ValueError:  # some built-ins have no signature
        return
    try:
        signature.bind(None)
    except TypeError:
        raise CallbackError(
            f"{event}: {describe(fn)} takes {signature}, but is called with one argument, the engine"
        ) from None
    if tuple(signature.parameters) in KERAS_ARGUMENTS:
        raise CallbackError(
            f"{event}: {describe(fn)} takes {signature}, as in Keras; here it is called with one argument, "
            "the engine: write (trainer), and trainer.epoch, trainer.batch_index and trainer.metrics"
        )


def _require_no_unrun_code(result: object) -> None:
    """Refuse what a wrapped async or generator function returns: none of its code has run."""
    if inspect.iscoroutine(result):
        result.close()
    elif not (inspect.isgenerator(result) or inspect.isasyncgen(result)):
        return
    raise CallbackError(
        f"a callback returned a {type(result).__name__}, of which nothing has run; write it without async and "
        "yield, or run it inside the callback"
    )


# ------------------------------------------------------------------ naming functions and failures


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
    error.__notes__ = [*getattr(error, "__notes__", []), note]  # type: ignore[attr-defined]


def failure_note(error: BaseException) -> str | None:
    """Return the note that says in which callback an exception arose, or None."""
    return next(
        (note for note in getattr(error, "__notes__", []) if note.startswith("in the callback ")), None
    )
