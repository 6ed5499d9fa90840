"""Base of the engines: it has callbacks, registers more and calls them."""

from __future__ import annotations

from typing import Any

from detector.callbacks.registry import CallbackRegistry


class Engine:
    """Base of the train, val, predict and export engines.

    Attributes:
        callbacks: event name -> list of functions, called in order with this engine.
    """

    def __init__(self, callbacks: CallbackRegistry | None = None) -> None:
        self.callbacks = callbacks or CallbackRegistry()

    def add_callback(self, event: Any, fn: Any = None, **options: Any) -> Any:
        """Register a callback on this engine; see `CallbackRegistry.add`."""
        return self.callbacks.add(event, fn, **options)

    def fire(self, event: str) -> None:
        """Call the callbacks of an event."""
        self.callbacks.fire(event, self)
