"""What a run writes about itself into its folder, and how it is read again.

| file | content |
|---|---|
| `status.json` | state, epoch, progress, best epoch, why it ended, where it runs; replaced whole |
| `metrics.jsonl` | one line per epoch: `epoch` (from 1), `time` (ISO 8601), `seconds` of training, and every metric |
| `classes.json` | the metrics of each class with labels, of the best weights; written at the end |
| `train.log` | what the terminal showed |
| `STOP` | put there by whoever wants the run to end; the run removes it |

docs/runs.md has the keys. A reader may be handed any folder: sizes are bounded, links are not followed, what has
another type than it should is left out.
"""

from __future__ import annotations

import json
import math
import os
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from detector.errors import DataError, first_line
from detector.files.bounds import LIMITS, BoundsError, require_bounded
from detector.files.names import shortened
from detector.runs.process import is_alive, runs_here

STATUS, METRICS, CLASSES = "status.json", "metrics.jsonl", "classes.json"
LOG, STOP = "train.log", "STOP"

STATES = ("running", "finished", "stopped", "failed")
"""What a run writes; readers add "interrupted": it says that it runs, but its process is gone."""

MAX_STATUS = 1 << 20  # bytes of a status.json
MAX_METRICS = 64 << 20  # bytes of a metrics.jsonl: 100,000 epochs of 600 bytes
MAX_LINE = 1 << 20  # bytes of one of its lines
SILENCE = 15 * 60  # seconds after which a run on another machine counts as interrupted

TEXTS = ("stop_reason", "error", "host", "started", "updated", "ended", "command")
NUMBERS = ("progress", "eta_s", "seconds")
COUNTS = ("epoch", "epochs", "pid")
TABLES = ("best", "hardware", "versions", "git", "data", "settings", "process")


@dataclass(frozen=True)
class Run:
    """A run folder, as its status.json describes it.

    Attributes:
        folder: where it is.
        state: one of `STATES`, or "interrupted".
        note: how that is known, where it is not what the run wrote; else "".
        status: its status.json: all keys of the format, None in place of what is missing or of another type.
    """

    folder: Path
    state: str
    note: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> Mapping[str, float]:
        """The metrics of the best epoch, by name, with its number as `epoch`; empty if there is none."""
        return numbers_of(self.status.get("best"))

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that differ from the defaults."""
        return self.status.get("settings") or {}


def now() -> str:
    """Return the time as ISO 8601, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def to_json(value: Any) -> Any:
    """Return plain data as JSON can hold it: None for NaN and infinity, text for what has no form there."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def numbers_of(value: Any) -> dict[str, float]:
    """Return those entries of a table that are finite numbers."""
    if not isinstance(value, Mapping):
        return {}
    return {key: number for key, number in value.items() if is_number(number)}


def is_number(value: Any) -> bool:
    """Return whether a value of JSON is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


# ------------------------------------------------------------------ reading


def read_bounded(path: Path, limit: int, *, tail: bool = False) -> bytes:
    """Return the bytes of a regular file; a link, a pipe or a folder in its place is refused.

    Args:
        path: the file.
        limit: the most bytes that are read.
        tail: return the last `limit` bytes of a longer file, in place of refusing it.

    Raises:
        DataError: in one sentence, if there is no such file, or it can't be read.
    """
    flags = (
        os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    try:
        if sys.platform == "win32" and path.is_symlink():
            raise DataError(f"{path}: is a link; expected a file of the run")
        with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 - of a descriptor
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise DataError(f"{path}: expected a file")
            if tail:
                file.seek(max(found.st_size - limit, 0))
            content = file.read(limit if tail else limit + 1)
    except OSError as error:
        what = "is a link" if path.is_symlink() else f"can't be read ({error.strerror})"
        raise DataError(f"{path}: {what}; expected a file of the run") from None
    if len(content) > limit:
        raise DataError(f"{path}: has more than {limit:,} bytes")
    return content


def parse_json(content: bytes) -> Any:
    """Parse JSON of a stranger.

    Raises:
        ValueError: if it is not JSON, or asks for more than `LIMITS` allows; the text is a clause.
    """
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({first_line(error)})") from None
    is_small = (
        len(content) <= LIMITS["values"] and content.count(b"[") + content.count(b"{") <= LIMITS["levels"]
    )
    if not is_small:  # a value takes a byte, a level a bracket
        try:
            require_bounded(value)
        except BoundsError as error:
            raise ValueError(f"it has {error}") from None
    return value


def read_run(folder: str | Path) -> Run:
    """Read the status of a run, and whether it still runs.

    Raises:
        DataError: in one sentence, if the folder has no status.json that can be read.
    """
    folder = Path(folder)
    path = folder / STATUS
    if not path.exists() and not path.is_symlink():
        raise DataError(
            f"{shortened(str(folder), 200)}: has no {STATUS}; expected a folder that a training wrote"
        )
    try:
        value = parse_json(read_bounded(path, MAX_STATUS))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: {error}") from None
    if not isinstance(value, dict) or value.get("state") not in STATES:
        raise DataError(f"{path}: expected a table with a state: {', '.join(STATES)}")
    status = checked_status(value)
    state, note = current_state(status)
    return Run(folder, state, note, status)


def checked_status(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the format, None in place of what is missing or of another type; unknown keys are left out."""
    status: dict[str, Any] = {"state": value["state"]}
    for names, fits in ((TEXTS, _is_text), (NUMBERS, is_number), (COUNTS, _is_count), (TABLES, _is_table)):
        status |= {name: value[name] if name in value and fits(value[name]) else None for name in names}
    return status


def current_state(status: Mapping[str, Any]) -> tuple[str, str]:
    """Return the state of a run now, and how it is known if that is not what the run wrote.

    On the machine that runs it its process is looked for; elsewhere a run that has written nothing for `SILENCE`
    seconds counts as interrupted, which the note says.
    """
    if status["state"] != "running":
        return status["state"], ""
    if runs_here(status):
        return ("running", "") if is_alive(status) else ("interrupted", "its process is gone")
    silent = age(status["updated"])
    host = shortened(status["host"] or "another machine")
    if silent is None:
        return "interrupted", "it does not say when it was updated"
    if silent > SILENCE:
        return "interrupted", f"nothing written for {duration(silent)}, on {host}; it may still run there"
    return "running", f"on {host}"


def age(time: str | None) -> float | None:
    """Return the seconds since a time of the format, or None if it is none."""
    moment = moment_of(time)
    return None if moment is None else (datetime.now(timezone.utc) - moment).total_seconds()


def moment_of(time: str | None) -> datetime | None:
    """Return a time of the format, or None if it is none."""
    try:
        moment = datetime.fromisoformat(time or "")
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        return None


def duration(seconds: float) -> str:
    """Return a time span in words: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes = int(seconds // 60)
    if minutes < 2:
        return f"{max(round(seconds), 0)} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def read_metrics(folder: str | Path, before: int | None = None) -> list[dict[str, Any]]:
    """Read metrics.jsonl: a table per epoch, in order; of two of one epoch the later one counts.

    A line that is not whole, such as the last one of a process that was killed, is left out, and so are values that are
    not finite numbers; `time` is a text.

    Args:
        folder: the run folder.
        before: leave out epochs after this one.

    Raises:
        DataError: if the file can't be read. A run that has not ended an epoch has none.
    """
    path = Path(folder) / METRICS
    if not path.exists() and not path.is_symlink():
        return []
    return parse_metrics(read_bounded(path, MAX_METRICS).split(b"\n"), before)


def parse_metrics(lines: Iterable[bytes], before: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of lines of metrics.jsonl; see `read_metrics`."""
    rows: dict[int, dict[str, Any]] = {}
    for line in lines:
        if not line or len(line) > MAX_LINE:
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        epoch = row.get("epoch") if isinstance(row, dict) else None
        if not isinstance(epoch, int) or isinstance(epoch, bool) or not 0 < epoch < 1 << 31:
            continue
        if before is None or epoch <= before:
            time = row.get("time")
            rows[epoch] = numbers_of(row) | ({"time": time} if isinstance(time, str) else {})
    return [rows[epoch] for epoch in sorted(rows)]


def read_classes(folder: str | Path) -> list[dict[str, Any]]:
    """Read classes.json: a table per class with labels, `class` being its name and the rest finite numbers.

    Raises:
        DataError: if it can't be read. A run that has not ended has none.
    """
    path = Path(folder) / CLASSES
    if not path.exists() and not path.is_symlink():
        return []
    content = read_bounded(path, MAX_METRICS)
    try:
        value = parse_json(content)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
    return [numbers_of(row) | {"class": row["class"]} for row in rows if isinstance(row.get("class"), str)]


def read_log(folder: str | Path, limit: int = 1 << 16) -> str:
    """Return the last `limit` bytes of train.log as text, from the start of a line; "" if there is none.

    Raises:
        DataError: if it can't be read.
    """
    path = Path(folder) / LOG
    if not path.exists() and not path.is_symlink():
        return ""
    content = read_bounded(path, limit, tail=True)
    if len(content) == limit:
        content = content.partition(b"\n")[2] or content
    return content.decode("utf-8", "replace")
