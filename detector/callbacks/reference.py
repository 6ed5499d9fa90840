"""The reference of events and ready-made callbacks, written from `EVENTS` and the classes themselves."""

from __future__ import annotations

import inspect
from importlib import import_module

from detector.callbacks import READY_MADE
from detector.callbacks.registry import ALIASES, EVENTS

HEADER = ["event", "engine", "when", "how often", "what is there"]
OFTEN = {
    "once": "once a run",
    "epoch": "every epoch",
    "batch": "every batch",
    "step": "every optimizer step",
    "change": "every change",
}


def event_rows() -> list[list[str]]:
    """Return a row an event: name, engine, when, how often, what is there."""
    return [[name, e.engine, e.when, OFTEN[e.often], e.sees] for name, e in EVENTS.items()]


def ready_made_rows() -> list[list[str]]:
    """Return a row a ready-made callback: its call with the defaults, and its first line."""
    rows = []
    for name in READY_MADE:
        kind = getattr(import_module("detector.callbacks"), name)
        parameters = inspect.signature(kind).parameters.values()
        arguments = [p.replace(annotation=p.empty) for p in parameters]
        rows.append(
            [f"{name}({', '.join(map(str, arguments))})", (inspect.getdoc(kind) or "").split("\n")[0]]
        )
    return rows


def callbacks_text() -> str:
    """Return what `detector callbacks` prints."""
    aliases = ", ".join(f"{alias} = {event}" for alias, event in ALIASES.items())
    ready_made = _columns([["ready-made callback", "what it does"], *ready_made_rows()])
    return f"{_columns([HEADER, *event_rows()])}\n\naliases: {aliases}\n\n{ready_made}\n"


def _columns(rows: list[list[str]]) -> str:
    """Join cells into left-aligned columns; cells of the last one may be of any length."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join(row).rstrip() for row in padded)


def events_markdown() -> str:
    """Return the table of docs/callbacks.md."""
    return _markdown(HEADER, event_rows())


def ready_made_markdown() -> str:
    """Return the list of ready-made callbacks of docs/callbacks.md."""
    return _markdown(["callback", "what it does"], ready_made_rows())


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *([f"`{row[0]}`", *row[1:]] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
