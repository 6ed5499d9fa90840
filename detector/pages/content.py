"""What a page shows of a run: its files, read within bounds, of the types that the scripts expect."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detector.errors import DataError, shorten
from detector.files.names import printable
from detector.runs.record import Run, is_number, parse_json, read_bounded, read_log, read_metrics, read_run

EVALUATION = "evaluation.json"  # as in detector.metrics, which imports numpy

MAX_EVALUATION = 16 << 20  # bytes
MAX_TEXT = 400  # letters of a text of a run
MAX_JPEG = 1 << 20  # bytes of an image, in base64
MAX_KEYS = 400  # metrics of a run
MAX_POINTS = 2000  # of a curve in a report
LOG_TAIL = 1 << 15  # bytes in a report

COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
"""Control sequences of terminals in a log: colours, and where to write."""


def shown(value: Any, limit: int = MAX_TEXT) -> Any:
    """Return plain data for a page: texts shortened and without control characters, keys likewise."""
    if isinstance(value, str):
        return printable(shorten(value, limit))
    if isinstance(value, Mapping):
        return {str(shown(str(key), limit)): shown(item, limit) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(item, limit) for item in value]
    return value


def describe_run(run: Run, name: str) -> dict[str, Any]:
    """Return what a page shows of a run's status.

    Args:
        run: as `read_run` returns it.
        name: what the page calls it.
    """
    from detector.runs.listing import setting_of

    status = {key: value for key, value in run.status.items() if key not in ("process", "settings")}
    command = status.pop("command", None)
    return {
        "name": shown(name),
        "state": run.state,
        "note": shown(run.note),
        "status": shown(status) | {"command": shown(command, 4000)},
        "seed": shown(setting_of(run, "seed")),
        "settings": shown(
            [
                {"name": key, "value": _text(value), "default": _text(default_of(key))}
                for key, value in list(run.settings.items())[:MAX_KEYS]
            ]
        ),
    }


def default_of(setting: str) -> Any:
    """Return the default of a setting of a training; None if there is no such setting."""
    from detector.settings import TrainSettings

    field = TrainSettings.model_fields.get(setting)
    return None if field is None else field.default


def _text(value: Any) -> str:
    from detector.fields import format_value

    return format_value(value) if not isinstance(value, dict) else json.dumps(value)


def metric_columns(rows: Sequence[Mapping[str, Any]], points: int | None = None) -> dict[str, list[Any]]:
    """Return rows of metrics.jsonl as columns, `epoch` first; None where a row has no number.

    Args:
        rows: of epochs in order.
        points: leave out rows in between, so that about this number is left.
    """
    if points is not None and len(rows) > points:
        step = -(-len(rows) // points)
        rows = [row for number, row in enumerate(rows, 1) if number % step == 1 or number == len(rows)]
    keys = dict.fromkeys(key for row in rows for key in row if key not in ("time", "epoch"))
    columns: dict[str, list[Any]] = {"epoch": [row["epoch"] for row in rows]}
    for key in list(keys)[:MAX_KEYS]:
        name = str(shown(key, 100))
        columns[name] = [float(f"{row[key]:.6g}") if is_number(row.get(key)) else None for row in rows]
    return columns


def log_text(text: str) -> str:
    """Return a log without colours; of a line that was written over, as progress bars are, the last state."""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in COLOURS.sub("", text).split("\n")]
    return printable("\n".join(shorten(line, 2000) for line in lines))


# ------------------------------------------------------------------ evaluation.json


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """Read evaluation.json; None if there is none.

    Raises:
        DataError: if it can't be read, or is not what the `Report` callback writes.
    """
    path = folder / EVALUATION
    if not path.exists() and not path.is_symlink():
        return None
    content = read_bounded(path, MAX_EVALUATION)
    try:
        value = parse_json(content)
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: {error}") from None
    if (wrong := _fault(value)) is not None:
        raise DataError(f"{path}: {wrong}; expected what a validation of this version writes")
    for sample in value.get("samples", []):
        sample["jpeg"] = checked_jpeg(sample.get("jpeg"))
    jpegs = [sample.pop("jpeg") for sample in value.get("samples", [])]
    value = shown(value)
    for sample, jpeg in zip(value.get("samples", []), jpegs, strict=True):
        sample["jpeg"] = jpeg
    return value  # type: ignore[no-any-return]


def checked_jpeg(text: Any) -> str | None:
    """Return base64 of a JPEG, None for anything else."""
    if not isinstance(text, str) or len(text) > MAX_JPEG:
        return None
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return text if content.startswith(b"\xff\xd8\xff") else None


Check = Callable[[Any], bool]


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(is_number(item) for item in value)


def _table(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(check(item) for item in value.values())


def _list(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(check(item) for item in value)


def _has(**keys: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(check(value.get(key)) for key, check in keys.items())


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_box(value: Any) -> bool:
    return _numbers(value) and len(value) == 4


KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
FOUND: tuple[Check, ...] = (
    _is_box,
    is_number,
    is_number,
    lambda kind: kind == "correct" or kind in KINDS[:-1],
)
_curve = _has(precision=_numbers, recall=_numbers, f1=_numbers, precision_at_recall=_numbers)
LIGHT = {
    "final": lambda value: isinstance(value, bool),
    "best_confidence": is_number,
    "speed": _table(is_number),
    "classes": _list(
        _has(
            name=_is_text,
            **dict.fromkeys(("images", "instances", "precision", "recall", "f1", "ap50", "ap"), is_number),
        )
    ),
}
FULL = {
    "sizes": _table(_has(instances=is_number, ap=_or_none(is_number), ar=_or_none(is_number))),
    "curves": _has(
        confidence=_numbers,
        recall=_numbers,
        all=_or_none(_curve),
        classes=_list(lambda one: _curve(one) and _is_text(one.get("name"))),
        left_out=is_number,
    ),
    "confusion": _or_none(
        lambda value: (
            _has(names=_texts, matrix=_list(_numbers), conf=is_number, iou=is_number)(value)
            and len(value["matrix"]) == len(value["names"])
            and all(len(row) == len(value["names"]) for row in value["matrix"])
        )
    ),
    "errors": _has(confidence=_numbers, counts=_table(_numbers), gain=_table(is_number)),
    "kinds": lambda value: value == list(KINDS),
    "by_image": _list(
        lambda row: isinstance(row, list) and len(row) == 8 and _is_text(row[0]) and _numbers(row[1:])
    ),
    "images_with_errors": is_number,
    "samples": _list(
        _has(
            rank=_is_text,
            name=_is_text,
            size=lambda value: _numbers(value) and len(value) == 2,
            truth=_list(
                lambda row: isinstance(row, list) and len(row) == 3 and _is_box(row[0]) and _numbers(row[1:])
            ),
            found=_list(
                lambda row: (
                    isinstance(row, list)
                    and len(row) == 4
                    and all(check(item) for check, item in zip(FOUND, row, strict=True))
                )
            ),
        )
    ),
    "sample_names": _table(_is_text),
}


def _fault(value: Any) -> str | None:
    """Return in a clause what is wrong with the content of an evaluation.json, or None."""
    if not isinstance(value, dict):
        return "it is not a table"
    expected = LIGHT | (FULL if value.get("final") is True else {})
    wrong = [key for key, check in expected.items() if not check(value.get(key))]
    return f"{wrong[0]} is not as expected" if wrong else None


def read_content(folder: Path, name: str, points: int | None = None) -> dict[str, Any]:
    """Return all that a page shows of a run: status, settings, metrics, evaluation, the end of the log.

    Files that can't be read are named in `problems`; the others are shown.

    Raises:
        DataError: if it is not a run folder.
    """
    content = describe_run(read_run(folder), name)
    problems = []
    parts: dict[str, Callable[[], Any]] = {
        "metrics": lambda: metric_columns(read_metrics(folder), points),
        "evaluation": lambda: read_evaluation(folder),
        "log": lambda: log_text(read_log(folder, LOG_TAIL)),
    }
    for key, read in parts.items():
        try:
            content[key] = read()
        except DataError as error:
            content[key] = {"epoch": []} if key == "metrics" else None
            problems.append(shown(str(error)))
    return content | {"problems": problems}
