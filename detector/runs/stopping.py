"""Ending a run from outside: a file in its folder, which works over a network and from a notebook as well."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic, sleep

from detector.errors import SettingsError, cannot_write
from detector.files.names import shortened
from detector.runs.record import STOP, Run, read_run

POLL = 0.2  # seconds


def request_stop(folder: str | Path) -> Run:
    """Ask a run to end after its current batch.

    Returns:
        The run, as it is now.

    Raises:
        DataError: if it is not a run folder.
        SettingsError: if it does not run, or its folder can't be written to.
    """
    run = read_run(folder)
    if run.state != "running":
        why = run.note or run.status["error"] or run.status["stop_reason"] or "it has ended"
        raise SettingsError(
            f"{shortened(str(folder), 200)} does not run: {run.state}, {shortened(why, 200)}; there is nothing to stop"
        )
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        os.close(os.open(run.folder / STOP, flags, 0o666))
    except OSError as error:
        raise cannot_write(f"to {run.folder}", error) from None
    return run


def stop_run(folder: str | Path, wait: float) -> str:
    """Ask a run to end, wait until it has noticed, and return in a sentence what happened.

    Args:
        folder: the run folder.
        wait: seconds; 0 does not wait.

    Raises:
        DataError: if it is not a run folder.
        SettingsError: if it does not run, or its folder can't be written to.
    """
    run, name = request_stop(folder), shortened(str(folder), 200)
    end = monotonic() + wait
    while (is_left := os.path.lexists(run.folder / STOP)) and monotonic() < end:
        sleep(min(POLL, wait))
    run = read_run(folder)
    done = f"{run.status['epoch']} of {run.status['epochs']} epochs are done"
    if run.state == "running" and is_left:
        return (
            f"{name}: asked to stop, not noticed within {wait:g} s, as in set-up, a long batch or a network folder; "
            f"it ends after the current batch; {done}"
        )
    if run.state == "running":
        return f"{name}: stops; it validates and saves now, {done}"
    return f"{name}: {run.state}, {done}"
