"""The mark of callbacks that are called in every process of a training, and not in the main one only."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


def every_rank(callback: T) -> T:
    """Mark a function, a method or a class of callbacks: it is called in every process of a training.

    Whatever changes weights, gradients or the loss has to be, or the processes would train different networks. All
    other callbacks are called in the main process, rank 0.

    Example:
        >>> @every_rank
        ... def on_before_optimizer_step(trainer): ...
    """
    callback.every_rank = True  # type: ignore[attr-defined]
    return callback


def is_every_rank(callback: Any) -> bool:
    """Return whether a function, or the object whose method it is, is marked."""
    while isinstance(callback, partial):
        callback = callback.func
    owner = getattr(callback, "__self__", None)
    return bool(getattr(callback, "every_rank", False) or getattr(owner, "every_rank", False))
