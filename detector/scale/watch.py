"""Who waits for what: a thread in each process says to the others what its process does."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from time import monotonic, time
from typing import Any

log = logging.getLogger(__name__)

PERIOD = 0.5  # seconds


class Watch:
    """Knows what this process waits for, and what the others did when last heard of.

    A thread puts what this process does into the group's store, twice a second, and ends the process if the launcher
    that started it is gone.

    Attributes:
        describe: returns what this process does when it waits for nothing, such as the callback it calls.

    Args:
        rank: of this process.
        size: how many there are.
        limit: seconds after which a wait is reported.
        store: of the group; `set`, `get` and `check` are used.
    """

    def __init__(self, rank: int, size: int, limit: float, store: Any) -> None:
        self.rank, self.size, self.limit = rank, size, limit
        self.describe: Callable[[], str] = lambda: "its work"
        self._waits: tuple[str, float, float] | None = None
        self._done = "the beginning", time()
        self._reported = False
        self._parent = os.getppid()
        self._store = store
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="detector-watch", daemon=True)
        self._thread.start()

    def begin(self, what: str) -> tuple[str, float, float] | None:
        """Say what this process waits for from now on; returns what it waited for before."""
        before, self._waits = self._waits, (what, monotonic(), time())
        return before

    def end(self, before: tuple[str, float, float] | None) -> None:
        """Say that the wait is over."""
        if self._waits is not None:
            self._done = self._waits[0], time()
        self._waits = before

    def late(self) -> str | None:
        """Return what to say of a wait that took longer than the limit, or None."""
        if (waits := self._waits) is None or monotonic() - waits[1] < 0.95 * self.limit:
            return None
        others = "; ".join(self._others())
        return (
            f"rank {self.rank} has waited {monotonic() - waits[1]:.0f} s for {waits[0]}, since {_clock(waits[2])}: "
            f"{others}; wait_limit= sets how long is too long"
        )

    def _others(self) -> list[str]:
        """Say of every other process what it did when last heard of; those that wait as well come last."""
        found = []
        for rank in range(self.size):
            if rank == self.rank:
                continue
            try:
                key = f"doing/{rank}"
                known = json.loads(self._store.get(key)) if self._store.check([key]) else None
            except (RuntimeError, ValueError):
                known = None
            if known is None:
                found.append((0, f"nothing was heard of rank {rank}"))
            elif known["waits"]:
                found.append((1, f"rank {rank} waits for {known['waits']}"))
            else:
                found.append((0, f"rank {rank} is in {known['does']} since {_clock(known['since'])}"))
        return [text for _, text in sorted(found)]

    def _run(self) -> None:
        while not self._stop.wait(min(PERIOD, self.limit / 4)):
            if os.getppid() != self._parent:  # the launcher is gone: save, and end
                self._parent = os.getppid()
                os.kill(os.getpid(), signal.SIGTERM)
            waits, done = self._waits, self._done
            doing = {"waits": waits and waits[0], "does": self.describe(), "since": done[1]}
            with suppress(RuntimeError):  # the group is about to end
                self._store.set(f"doing/{self.rank}", json.dumps(doing))
            if waits is not None and not self._reported and monotonic() - waits[1] > self.limit:
                self._reported = True
                log.error("%s", self.late())

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
