"""A lock between processes that want to write the same files."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOGGER = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(path: Path, seconds: float = -1) -> Iterator[None]:
    """Hold the lock file `path`; wait while another process holds it. The system releases it when the process dies.

    Args:
        path: the lock file; its folder is made.
        seconds: to wait; below 0 for ever.

    Raises:
        TimeoutError: if it is still held after that time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        LOGGER.info("waiting for another process that prepares %s", path.parent)
        lock.acquire(timeout=seconds)
    try:
        yield
    finally:
        lock.release()
