"""Ctrl-C, SIGTERM and SIGHUP: they end a training between two steps, never within one or within a save."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that end a training; the last when its terminal is closed, or the connection to it lost."""

CHILD: Any = getattr(signal, "SIGCHLD", None)  # not on Windows


class Terminated(SystemExit):
    """SIGTERM or SIGHUP arrived; the process ends with the code shells expect, 143 or 129."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(128 + number)
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        """Arrive in another process as the same signal."""
        return Terminated, (self.number,)

    def __str__(self) -> str:
        return f"terminated ({signal.Signals(self.number).name})"


class Interrupts:
    """Raises `KeyboardInterrupt` or `Terminated` in the main thread, but waits for the end of a `deferred` block.

    A second signal of the same kind is not deferred; one that the process was started to ignore stays ignored.
    Outside the main thread nothing is changed, since signals arrive there only.

    Attributes:
        shared: whether processes train together; one then waits for the others, whose signals may arrive later.
    """

    def __init__(self) -> None:
        self.shared = False
        self._pending: BaseException | None = None
        self._deferring = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: it is handled by something other than Python
                    self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _arrived(self, number: int, _: FrameType | None) -> None:
        error = KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
        again = type(self._pending) is type(error) and self._pending.args == error.args
        self._pending = error
        if (again and not self.shared) or not self._deferring:
            raise error

    @property
    def pending_number(self) -> int:
        """The number of the signal that waits, 0 without one."""
        if self._pending is None:
            return 0
        return self._pending.number if isinstance(self._pending, Terminated) else int(signal.SIGINT)

    def take(self) -> BaseException | None:
        """Return the signal that arrived, once.

        Python loses what is raised within some of its own callbacks, such as those around a fork, so that an
        interruption may show later, and as another error.
        """
        pending, self._pending = self._pending, None
        return pending

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal wait until the end of the block, and torch's error about a worker process that was killed."""
        self._deferring += 1
        try:
            with _children_waiting() as ended:
                yield
        finally:
            self._deferring -= 1
        if not self._deferring and (pending := self.take()) is not None:
            raise pending
        for handler in ended[:1]:
            handler(CHILD, None)


@contextmanager
def _children_waiting() -> Iterator[list[Any]]:
    """Put off what is called when a child process ends; torch raises an error there if it was one of its workers.

    Yields:
        A list that is given the handler, once for every child that ended.
    """
    ended: list[Any] = []
    before = signal.getsignal(CHILD) if CHILD is not None else None
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield ended
        return

    def wait(*_: Any) -> None:
        ended.append(before)

    signal.signal(CHILD, wait)
    try:
        yield ended
    finally:
        if signal.getsignal(CHILD) is wait:  # else someone has set another one meanwhile
            signal.signal(CHILD, before)
