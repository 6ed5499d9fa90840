"""Ctrl-C and SIGTERM: they end a training between two steps, never within one or within a save."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Terminated(SystemExit):
    """SIGTERM arrived; the process ends with the code shells expect, 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)

    def __str__(self) -> str:
        return "terminated (SIGTERM)"


class Interrupts:
    """Raises `KeyboardInterrupt` or `Terminated` in the main thread, but waits for the end of a `deferred` block.

    A second signal of the same kind is not deferred; one that the process was started to ignore stays ignored.
    Outside the main thread nothing is changed, since signals arrive there only.
    """

    def __init__(self) -> None:
        self._pending: BaseException | None = None
        self._deferring = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: it is handled by something other than Python
                    self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _arrived(self, number: int, _: FrameType | None) -> None:
        error = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
        again = type(self._pending) is type(error)
        self._pending = error
        if again or not self._deferring:
            raise error

    def take(self) -> BaseException | None:
        """Return the signal that arrived, once.

        Python loses what is raised within some of its own callbacks, such as those around a fork, so that an
        interruption may show later, and as another error.
        """
        pending, self._pending = self._pending, None
        return pending

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal wait until the end of the block."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if (pending := self.take()) is not None:
            raise pending
