"""How the processes of a group find out that all of them are there, whatever earlier groups left in the store.

A group that is restarted may get the store of the one before, with what lost processes wrote there. So each process
says hello by a word nobody else knows; rank 0 invites those whose words it reads, by a token of its own, and again if a
word changes; and only when all have answered with this token, it lets them begin.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

PERIOD = 0.05  # seconds


def meet(store: Any, rank: int, size: int, limit: float) -> str:
    """Wait for the other processes of a group.

    Args:
        store: what they share; `set`, `get` and `check` are used.
        rank: of this process.
        size: how many there are.
        limit: seconds to wait.

    Returns:
        A text that only those know that have met.

    Raises:
        TimeoutError: naming the ranks that rank 0 did not hear of, or that it was not heard of itself.
    """
    end = time.monotonic() + limit
    return _invite(store, size, end) if rank == 0 else _accept(store, rank, size, end)


def _invite(store: Any, size: int, end: float) -> str:
    others = range(1, size)
    token, invited = uuid.uuid4().hex, [""] * (size - 1)
    while True:
        words = [_read(store, f"hello-{rank}") for rank in others]
        if all(words) and words != invited:
            token, invited = uuid.uuid4().hex, words
            store.set("invitation", json.dumps([token, *words]))
        answers = [_read(store, f"answer-{rank}") == token for rank in others]
        if all(answers):
            store.set("begin", token)
            return token
        missing = [
            f"rank {r}" for r, here in zip(others, answers if all(words) else words, strict=True) if not here
        ]
        _wait(end, f"no answer of {', '.join(missing)}")


def _accept(store: Any, rank: int, size: int, end: float) -> str:
    word, answered = uuid.uuid4().hex, ""
    store.set(f"hello-{rank}", word)
    while True:
        token, *words = json.loads(_read(store, "invitation") or '[""]')
        if len(words) == size - 1 and words[rank - 1] == word:
            if token != answered:
                answered = str(token)
                store.set(f"answer-{rank}", answered)
            if _read(store, "begin") == answered:
                return answered
        _wait(end, "rank 0 waits for others" if answered else "no invitation of rank 0")


def _read(store: Any, key: str) -> str:
    """Return what is in the store, without waiting for it; "" for nothing."""
    if not store.check([key]):
        return ""
    value = store.get(key)
    return value.decode() if isinstance(value, bytes) else str(value)


def _wait(end: float, problem: str) -> None:
    """Let some time pass.

    Raises:
        TimeoutError: saying the problem, at the end.
    """
    if time.monotonic() > end:
        raise TimeoutError(problem)
    time.sleep(PERIOD)
