"""Base of the engines: it has callbacks, registers more and calls them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from detector.callbacks.registry import CallbackRegistry
from detector.errors import CallbackError, excerpt, nearest


class Engine:
    """Base of the train, val, predict and export engines.

    Attributes:
        callbacks: event name -> list of functions, called in order with this engine.
        settable: attributes that callbacks set, for hints.
        hints: attribute that can't be set -> what to do instead; "" for all others.
    """

    settable: ClassVar[tuple[str, ...]] = ()
    hints: ClassVar[Mapping[str, str]] = MappingProxyType({"": "give it another name"})
    ELSEWHERE: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Attributes that callbacks written for other trainers read -> what to use here."""

    if not TYPE_CHECKING:  # mypy is to know which attributes there are

        def __getattr__(self, name: str) -> Any:
            """Answer for an attribute that is not there: with what to use, the nearest one, or when there is one."""
            if (instead := self.ELSEWHERE.get(name)) is not None:
                raise AttributeError(f"{self.title}.{name}: there is no such attribute here; use {instead}")
            known = [*vars(self), *(each for each in dir(type(self)) if not each.startswith("_"))]
            raise AttributeError(f"{self.title}.{name}: there is no such attribute now{nearest(name, known)}")

    def __init__(self, callbacks: CallbackRegistry | None = None) -> None:
        self.callbacks = callbacks or CallbackRegistry()

    @property
    def title(self) -> str:
        """What messages call it."""
        return type(self).__name__.lower()

    def __setattr__(self, name: str, value: Any) -> None:
        known = getattr(type(self), name, None)
        if (callable(known) and not isinstance(known, type)) or (
            isinstance(known, property) and not known.fset
        ):
            what = "a method" if callable(known) else "read only"
            raise CallbackError(
                f"{self.title}.{name} = {excerpt(value, 60)}: {name} is {what}; {self.hints.get(name, self.hints[''])}"
            )
        if known is None and name not in self.__dict__:
            self._refuse_misspelt(name, value)
        super().__setattr__(name, value)

    def _refuse_misspelt(self, name: str, value: Any) -> None:
        """Refuse a new attribute that a callback sets, if its name is almost that of one that callbacks set."""
        callbacks = self.__dict__.get("callbacks")
        if callbacks is None or callbacks.running is None or name.startswith("_"):
            return
        if hint := nearest(name, self.settable, 0.85):
            raise CallbackError(
                f"{self.title}.{name} = {excerpt(value, 60)}: there is no attribute {name!r}{hint} What a callback "
                "keeps for itself belongs to the callback, or gets a name that begins with _"
            )

    def add_callback(self, event: Any, fn: Any = None, **options: Any) -> Any:
        """Register a callback on this engine; see `CallbackRegistry.add`."""
        return self.callbacks.add(event, fn, **options)

    def fire(self, event: str) -> None:
        """Call the callbacks of an event."""
        self.callbacks.fire(event, self)
