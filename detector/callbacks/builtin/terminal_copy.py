"""A copy of what a run shows on the terminal, as plain lines in a file."""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from detector.callbacks.secrets import mask_urls
from detector.files.names import printable
from detector.messages import StderrHandler

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""ANSI escape sequences: control sequences, window titles and the like (ECMA-48)."""

MAX_LINE = 1 << 16  # letters; a longer one is broken


class TerminalCopy:
    """Writes to a file what is printed, logged and warned of while it is open.

    Of a progress bar only its last state is written, colours are left out, and addresses lose their secrets. Programs
    that have set up logging themselves may show the package's messages anywhere: they are written nevertheless.

    Args:
        path: the file; lines are added to those it has.

    Raises:
        OSError: if it can't be written.
    """

    def __init__(self, path: Path) -> None:
        if path.is_symlink():  # it may lead to any file of this machine
            path.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        self._file: int | None = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
        self._streams: dict[str, _Stream] = {}
        for name in ("stdout", "stderr"):
            if (stream := getattr(sys, name)) is not None:  # a windowed program has none
                self._streams[name] = _Stream(stream, self)
                setattr(sys, name, self._streams[name])
        self._log, self._handler = logging.getLogger("detector"), _Handler(self)
        if not any(isinstance(known, StderrHandler) for known in self._log.handlers):
            self._log.addHandler(self._handler)

    def write_line(self, line: str) -> None:
        """Write a line; when the disk is full, or the file closed, it is lost: the terminal has it."""
        if self._file is not None:
            text = mask_urls(printable(ESCAPES.sub("", line)).rstrip(), paths=False)
            with suppress(OSError):
                os.write(self._file, f"{text}\n".encode("utf-8", "replace"))

    def close(self) -> None:
        """Put the streams back, and write what has no end of line yet."""
        self._log.removeHandler(self._handler)
        for name, copied in self._streams.items():
            copied.end()
            copied.is_closed = True
            # while another run has put its own there since, this one stays below it, until that one is closed
            while isinstance(top := getattr(sys, name), _Stream) and top.is_closed:
                setattr(sys, name, top.stream)
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _Handler(logging.Handler):
    """Takes the package's messages where nothing brings them to stderr."""

    def __init__(self, copy: TerminalCopy) -> None:
        super().__init__()
        self.copy = copy

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            self.copy.write_line(line)


class _Stream:
    """A stream that also gives its lines to a copy; all else is the stream's own."""

    def __init__(self, stream: Any, copy: TerminalCopy) -> None:
        self.stream, self._copy, self._line = stream, copy, ""
        self.is_closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        count = self.stream.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._copy.write_line(_visible(line))
        start = self._line.rfind("\r", 0, len(self._line) - 1) + 1  # at the end it may belong to a line end
        self._line = self._line[start:]
        if len(self._line) > MAX_LINE:
            self.end()
        return int(count) if isinstance(count, int) else len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def end(self) -> None:
        """Write the line that has no end yet, if there is one."""
        line, self._line = self._line, ""
        if line.strip():
            self._copy.write_line(_visible(line))


def _visible(line: str) -> str:
    """Return what is left of a line that was written over from its start."""
    return line.rstrip("\r").rpartition("\r")[2]
