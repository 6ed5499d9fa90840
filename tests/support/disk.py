"""Watch, and make fail, what the package does to files: used by the crash test and by the tests of failing disks."""

from __future__ import annotations

import errno
import io
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

Hook = Callable[[str, str], "OSError | None"]
KINDS = ("ENOSPC", "EIO", "short write")


class CrashError(OSError):
    """An answer of a hook: the process and all of its session die within the operation."""


def fail(problem: OSError) -> None:
    if isinstance(problem, CrashError):
        os.killpg(0, signal.SIGKILL)
    raise problem


class WatchedFile(io.FileIO):
    """A file whose every write is announced; on an answer, half of the bytes go in and then the write fails."""

    def __init__(self, path: Path, mode: str, hook: Hook) -> None:
        super().__init__(path, mode)
        self.hook, self.path = hook, str(path)

    def write(self, data: Any) -> int | None:
        if (problem := self.hook("write", self.path)) is None:
            return super().write(data)
        half = memoryview(data).cast("B")
        if len(half) > 1 and problem.errno != errno.EIO:
            super().write(half[: len(half) // 2])
        return fail(problem)


@contextmanager
def watched(hook: Hook) -> Iterator[None]:
    """Ask `hook(operation, path)` before every write, fsync, rename, link, unlink and open-for-writing.

    It returns the error the operation is to fail with, or None to let it happen.
    """

    def wrap(operation: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def ask(first: Any, *rest: Any, **options: Any) -> Any:
            if (problem := hook(operation, str(first))) is not None:
                fail(problem)
            return function(first, *rest, **options)

        return ask

    plain_open = Path.open

    def open_watched(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if not set(mode) & set("wax+"):
            return plain_open(self, mode, *rest, **options)
        if (problem := hook("open", str(self))) is not None:
            fail(problem)
        raw = WatchedFile(self, mode.replace("b", ""), hook)
        file = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return file
        return io.TextIOWrapper(file, options.get("encoding"), newline=options.get("newline"))

    with mock.patch.multiple(
        Path, open=open_watched, replace=wrap("rename", Path.replace), unlink=wrap("unlink", Path.unlink)
    ), mock.patch.multiple(
        os, fsync=wrap("fsync", os.fsync), link=wrap("link", os.link), open=wrap("open", os.open)
    ):  # fmt: skip
        yield


def count_operations(action: Callable[[], Any]) -> list[str]:
    """Return the operations of an action, in order."""
    seen: list[str] = []
    with watched(lambda operation, _: seen.append(operation)):
        action()
    return seen


@contextmanager
def failing(at: int, kind: str, lasting: bool = False) -> Iterator[list[str]]:
    """Let operation number `at` (from 0) fail, and if it is `lasting` every later write and open as well.

    Yields:
        A list in which the operation that failed is put.
    """
    counter, failed = iter(range(1 << 30)), []

    def hook(operation: str, _: str) -> OSError | None:
        number = next(counter)
        if number == at or (lasting and number > at and operation in ("write", "open", "link")):
            failed.append(operation)
            code = errno.EIO if kind == "EIO" else errno.ENOSPC
            return OSError(code, os.strerror(code))
        return None

    with watched(hook):
        yield failed


def damaged(content: bytes, random_: random.Random) -> bytes:
    """Return a file's content cut at a random place, or with one bit of it turned."""
    place = random_.randrange(len(content))
    if random_.random() < 0.5:
        return content[:place]
    turned = bytearray(content)
    turned[place] ^= 1 << random_.randrange(8)
    return bytes(turned)
