"""All runs below a folder as a table: which there are, how far they are, and what differs between them."""

from __future__ import annotations

import operator
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from detector.errors import DataError, SettingsError, nearest, shorten
from detector.fields import format_value
from detector.files.names import shortened
from detector.runs.record import STATUS, Run, duration, moment_of, read_run
from detector.settings import TrainSettings
from detector.tables import align

MAX_DEPTH = 6  # folders within folders
MAX_ENTRIES = 200_000  # files and folders that are looked at
SHOWN_SETTINGS = 6  # columns of the table on a terminal
SHOWN_LETTERS = 28  # of a value there
PLACES = frozenset(
    {"project", "name", "exist_ok", "resume", "verbose", "plots", "loggers", "device", "workers"}
)
"""Settings that say where and with which messages a run is made, not what is trained."""

METRICS = ("mAP50", "mAP50-95")  # columns; of the best epoch
OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType(
    {
        "!=": operator.ne,
        ">=": operator.ge,
        "<=": operator.le,
        "=": operator.eq,
        ">": operator.gt,
        "<": operator.lt,
    }
)
CONDITION = re.compile(r"\s*(.+?)\s*(!=|>=|<=|=|>|<)\s*(.*?)\s*")

Row = dict[str, Any]


def find_runs(folder: Path) -> tuple[list[Path], list[str]]:
    """Find the run folders at and below a folder; links are not followed.

    Returns:
        The folders with a status.json, and a sentence on each that holds a run without one, or can't be looked at.

    Raises:
        SettingsError: if there is no such folder.
    """
    if not folder.is_dir():
        raise SettingsError(
            f"folder={shortened(str(folder), 200)}: there is no such folder; name the one that holds the runs"
        )
    found: list[Path] = []
    problems: list[str] = []
    left = MAX_ENTRIES

    def look(place: Path, depth: int) -> None:
        nonlocal left
        try:
            with os.scandir(place) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(f"{place}: can't be looked at ({error.strerror})")
            return
        left -= len(listed)
        names = {entry.name for entry in listed}
        if STATUS in names:
            found.append(place)
        elif "args.yaml" in names and "weights" in names:
            problems.append(
                f"{place}: has no {STATUS}; it was trained by an older version, or without RunStatus"
            )
        elif depth < MAX_DEPTH and left > 0:
            for entry in listed:
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    look(Path(entry.path), depth + 1)

    look(folder, 0)
    if left <= 0:
        problems.append(f"{folder}: has more than {MAX_ENTRIES:,} entries; the rest was not looked at")
    return found, problems


def read_runs(folders: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """Read the status of runs; a sentence says what is wrong with each that can't be read."""
    runs, problems = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except DataError as error:
            problems.append(str(error))
    return runs, problems


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """Return the names of the settings in which runs differ, in the order of the settings."""
    names = {name for run in runs for name in run.settings} - PLACES
    differing = {name for name in names if len({_text(setting_of(run, name)) for run in runs}) > 1}
    return sorted(differing, key=lambda name: (_ORDER.get(name, len(_ORDER)), name))


def setting_of(run: Run, name: str) -> Any:
    """Return a setting of a run: as it was given, or its default."""
    field = TrainSettings.model_fields.get(name)
    return run.settings.get(name, None if field is None else field.default)


def rows_of(runs: Sequence[Run], folder: Path) -> list[Row]:
    """Return a table row per run, with plain values; see docs/runs.md for the keys."""
    differing = differing_settings(runs)
    rows = []
    for run in runs:
        status, relative = run.status, os.path.relpath(run.folder, folder)
        rows.append(
            {
                "run": run.folder.name if relative == "." else Path(relative).as_posix(),
                "folder": str(run.folder),
                "state": run.state,
                "note": run.note,
                **{key: status[key] for key in ("epoch", "epochs", "progress", "eta_s")},
                "best": dict(run.best),
                "settings": {name: setting_of(run, name) for name in differing},
                "seconds": status["seconds"],
                "bytes": folder_size(run.folder),
                **{
                    key: status[key]
                    for key in ("started", "updated", "ended", "stop_reason", "error", "command")
                },
            }
        )
    return rows


def folder_size(folder: Path) -> int:
    """Return the bytes of the files in a folder and below; those of links are not counted."""
    total, left, waiting = 0, MAX_ENTRIES, [folder]
    while waiting and left > 0:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    left -= 1
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(Path(entry.path))
                    elif stat.S_ISREG(found.st_mode):
                        total += found.st_size
        except OSError:  # it was removed meanwhile, or is not ours
            continue
    return total


# ------------------------------------------------------------------ sorting and filtering


def value_of(row: Row, column: str) -> Any:
    """Return what a row has in a column: a key of the row, a metric of its best epoch, or a setting that differs."""
    if column in row and column not in ("best", "settings"):
        return row[column]
    for name in (column, f"metrics/{column}", f"val/{column}"):
        if name in row["best"]:
            return row["best"][name]
    return row["settings"].get(column)


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Return the names by which rows can be sorted and filtered."""
    own = [key for key in rows[0] if key not in ("best", "settings")] if rows else []
    metrics = [name.removeprefix("metrics/") for row in rows for name in row["best"] if name != "epoch"]
    return list(dict.fromkeys([*own, *metrics, *(name for name in (rows[0]["settings"] if rows else ()))]))


def _require_column(rows: Sequence[Row], column: str, given: str) -> None:
    if any(column in row["settings"] or column in row["best"] for row in rows):
        return
    known = columns_of(rows)
    if column not in known:
        hint = nearest(column, known) or f"; expected one of {', '.join(known)}"
        raise SettingsError(shorten(f"{given}: there is no column {column!r}{hint}", 600))


def sort_rows(rows: Sequence[Row], by: str) -> list[Row]:
    """Return rows in the order of a column, numbers before texts; with a minus sign in front the highest comes first.

    Rows without a value come last.

    Raises:
        SettingsError: if there is no such column.
    """
    column = by.removeprefix("-")
    if not rows:
        return []
    _require_column(rows, column, f"sort={by}")

    def order(row: Row) -> tuple[bool, float, str]:
        value = value_of(row, column)
        is_number = isinstance(value, (int, float))
        return not is_number, float(value) if is_number else 0.0, "" if is_number else _text(value)

    present = [row for row in rows if value_of(row, column) is not None]
    missing = [row for row in rows if value_of(row, column) is None]
    return [*sorted(present, key=order, reverse=by.startswith("-")), *missing]


def filter_rows(rows: Sequence[Row], conditions: str) -> list[Row]:
    """Return the rows that meet conditions: `state=failed`, `mAP50-95>0.4`, several separated by commas.

    Raises:
        SettingsError: for a condition of another form, or a column that there is not.
    """
    kept = list(rows)
    for text in conditions.split(","):
        found = CONDITION.fullmatch(text)
        if found is None:
            raise SettingsError(
                f"filter={conditions}: {text!r} is not a condition; expected a column, one of "
                f"{' '.join(OPERATORS)} and a value, as in state=failed or mAP50>0.5"
            )
        column, sign, wanted = found.groups()
        if rows:
            _require_column(rows, column, f"filter={conditions}")
        kept = [row for row in kept if _meets(value_of(row, column), sign, wanted)]
    return kept


def _meets(value: Any, sign: str, wanted: str) -> bool:
    try:
        both: tuple[Any, Any] = float(value), float(wanted)
    except (TypeError, ValueError):
        both = _text(value), wanted
        if sign not in ("=", "!="):  # texts have no order here: none is above 0.5
            return False
    return OPERATORS[sign](*both)


# ------------------------------------------------------------------ text


def table_text(rows: Sequence[Row]) -> str:
    """Return rows as an aligned table for a terminal, without control characters."""
    names = list(dict.fromkeys(name for row in rows for name in row["settings"]))
    shown, left = names[:SHOWN_SETTINGS], names[SHOWN_SETTINGS:]
    cells = [["run", "state", "epoch", *METRICS, *map(_cell, shown), "time", "size", "started"]]
    for row in rows:
        best = [row["best"].get(f"metrics/{name}") for name in METRICS]
        cells.append(
            [
                shortened(row["run"]),
                row["state"],
                progress_text(row),
                *("-" if value is None else f"{value:.3f}" for value in best),
                *(_cell(_text(row["settings"].get(name))) for name in shown),
                "-" if row["seconds"] is None else duration(row["seconds"]),
                size_text(row["bytes"]),
                started_text(row["started"]),
            ]
        )
    lines = [align(cells)]
    if left:
        lines.append(
            f"{len(left)} more settings differ: {shortened(', '.join(left), 200)}; json=true shows all"
        )
    for row in rows:
        why = row["note"] or row["error"] or (row["stop_reason"] if row["state"] == "stopped" else None)
        if why:
            lines.append(f"{shortened(row['run'])}: {row['state']}, {shortened(why, 160)}")
    return "\n".join(lines)


def progress_text(row: Mapping[str, Any]) -> str:
    """Return how far a run is: 12/100, while it runs with the part that is done and the time that is left."""
    text = f"{_count(row['epoch'])}/{_count(row['epochs'])}"
    if row["state"] == "running" and row["progress"] is not None:
        text += f" {row['progress']:.0%}"
        if row["eta_s"] is not None:
            text += f", {duration(row['eta_s'])} left"
    return text


def size_text(size: int) -> str:
    """Return bytes as MB or GB (10^6 and 10^9 bytes)."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def started_text(time: str | None) -> str:
    """Return when a run was started in the time of this place, and without the seconds."""
    moment = moment_of(time)
    try:
        return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):  # such as year 1
        return "-"


def _count(value: int | None) -> str:
    return "?" if value is None else str(value)


def _text(value: Any) -> str:
    return format_value(value)


def _cell(text: str) -> str:
    return shortened(text, SHOWN_LETTERS)


_ORDER: Mapping[str, int] = MappingProxyType(
    {name: number for number, name in enumerate(TrainSettings.model_fields)}
)
