"""Rows of metrics as CSV, as a data frame and as aligned text."""

from __future__ import annotations

import csv
import html
import importlib
import io
import unicodedata
from collections.abc import Sequence
from typing import Any

from detector.errors import MissingPackageError


def rows_to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows with equal keys as CSV with a header line; an empty string for no rows."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def rows_to_df(rows: Sequence[dict[str, Any]]) -> Any:
    """Return rows as a polars DataFrame.

    Raises:
        MissingPackageError: polars is not installed.
    """
    try:
        polars = importlib.import_module("polars")
    except ImportError as error:
        raise MissingPackageError("to_df needs the polars package: pip install polars.") from error
    return polars.DataFrame(list(rows))


def rows_to_html(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows with equal keys as an HTML table; an empty string for no rows."""
    if not rows:
        return ""
    lines = [[f"<th>{html.escape(str(key))}</th>" for key in rows[0]]]
    lines += [[f"<td>{html.escape(str(value))}</td>" for value in row.values()] for row in rows]
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
    return f"<table>{body}</table>"


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of equal length as lines, the first column flush left and the others flush right."""
    widths = [max(terminal_width(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [" " * (width - terminal_width(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [row[0] + gaps[0], *(gap + cell for gap, cell in zip(gaps[1:], row[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def terminal_width(text: str) -> int:
    """Count the columns a text takes: two for a Chinese, Japanese or Korean letter, none for an accent."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )
