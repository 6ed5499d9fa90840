"""The package's messages: where they go when a program has not set up logging itself."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from detector.files.names import printable
from detector.settings import Settings

log = logging.getLogger("detector")


def announce(settings: Settings) -> None:
    """Send this package's messages to stderr, and say which of the settings have no effect."""
    configure_logging(settings.verbose)
    if settings.unused:
        log.info("no effect here: %s", ", ".join(settings.unused))


def configure_logging(verbose: bool = True) -> None:
    """Send this package's messages to stderr, unless the program has set up logging itself."""
    if log.handlers or logging.getLogger().handlers:
        return
    handler = StderrHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO if verbose else logging.WARNING)
    log.propagate = False


@contextmanager
def first_warnings_only(speaker: str, shown: set[str]) -> Iterator[None]:
    """Show on the terminal, for the length of a `with` block, what one logger says, and each warning of others once.

    Handlers other than the terminal's, such as those a program has set up itself, get everything.

    Args:
        speaker: name of the logger.
        shown: texts that were shown, also in earlier blocks; more are added.
    """

    def passes(record: logging.LogRecord) -> bool:
        if record.name == speaker:
            return True
        text = record.getMessage()
        is_new = record.levelno >= logging.WARNING and text not in shown
        shown.add(text)
        return is_new

    handlers = [handler for handler in log.handlers if isinstance(handler, StderrHandler)]
    for handler in handlers:
        handler.addFilter(passes)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(passes)


class StderrHandler(logging.Handler):
    """Writes messages to whatever `sys.stderr` is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is not None:  # a windowed program has none
            sys.stderr.write(printable(self.format(record)) + "\n")
            sys.stderr.flush()
