"""The reference of events and ready-made callbacks, generated from `EVENTS` and the classes themselves."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from pydantic.fields import FieldInfo

from detector.callbacks import READY_MADE
from detector.callbacks.events import ALIASES, EVENTS
from detector.fields import format_value, type_text
from detector.settings import EXTENDS, SETTINGS_OF
from detector.unsupported import ABSENT

HEADER = ["event", "engine", "when", "how often", "available attributes"]
OFTEN = {
    "once": "once per run",
    "epoch": "every epoch",
    "batch": "every batch",
    "step": "every optimizer step",
    "change": "every change",
}


def event_rows() -> list[list[str]]:
    """Return one row per event: name, engine, when, how often, available attributes."""
    return [[name, e.engine, e.when, OFTEN[e.often], e.sees] for name, e in EVENTS.items()]


def ready_made_rows() -> list[list[str]]:
    """Return one row per ready-made callback: its call with the defaults, and its first line."""
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
    return (
        f"{_columns([HEADER, *event_rows()])}\n\naliases: {aliases}\n\n{processes_text()}\n\n{ready_made}\n"
    )


def processes_text() -> str:
    """Return in which processes callbacks are called."""
    module = import_module("detector.callbacks")
    marked = ", ".join(name for name in READY_MADE if getattr(getattr(module, name), "every_rank", False))
    return (
        "in several processes: called in the main one, rank 0, unless marked with @every_rank; loggers there always\n"
        f"marked so: {marked}"
    )


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


def settings_by_theme(engine: str) -> dict[str, dict[str, FieldInfo]]:
    """Group the settings of an engine: theme -> name -> field; without those that it takes from another one."""
    grouped: dict[str, dict[str, FieldInfo]] = {}
    inherited = SETTINGS_OF[EXTENDS[engine]].model_fields if engine in EXTENDS else {}
    for name, field in SETTINGS_OF[engine].model_fields.items():
        if name in inherited:
            continue
        extra = field.json_schema_extra
        theme = str(extra["theme"]) if isinstance(extra, dict) else "other"
        grouped.setdefault(theme, {})[name] = field
    return grouped


def default_yaml() -> str:
    """Return `cfg/default.yaml`: every setting by theme, with its help line and the engines it belongs to.

    An engine whose default differs from that of the first one is followed by its own.
    """
    lines = [
        "# Every setting and its default. Written by `make cfg` from detector/settings/.",
        "# Copy the lines you want to change into a new file and pass it as cfg=file.yaml.",
    ]
    themes: dict[str, dict[str, tuple[FieldInfo, list[str]]]] = {}
    for engine in SETTINGS_OF:
        for theme, fields in settings_by_theme(engine).items():
            for name, field in fields.items():
                entry = themes.setdefault(theme, {}).setdefault(name, (field, []))
                differs = field.default != entry[0].default
                entry[1].append(f"{engine}: {_yaml_value(field.default)}" if differs else engine)
    for theme, entries in themes.items():
        lines += ["", f"# {theme}"]
        for name, (field, engines) in entries.items():
            unit = unit_of(field)
            note = f"{field.description}" + (f", {unit}" if unit else "")
            lines.append(f"{f'{name}: {_yaml_value(field.default)}':<26} # {note} ({', '.join(engines)})")
    return "\n".join(lines) + "\n"


def unit_of(field: FieldInfo) -> str:
    """Return the unit of a setting, or an empty string."""
    extra = field.json_schema_extra
    return str(extra["unit"]) if isinstance(extra, dict) else ""


def _yaml_value(value: Any) -> str:
    return "null" if value is None else format_value(value)


def settings_markdown() -> str:
    """Return `docs/settings.md`: one table per engine and theme."""
    lines = ["# Settings", "", "Written by `make docs` from `detector/settings/`.", ""]
    for engine in SETTINGS_OF:
        lines += [f"## {engine}", ""]
        if engine in EXTENDS:
            lines += [f"All settings of {EXTENDS[engine]}, and:", ""]
        for theme, fields in settings_by_theme(engine).items():
            lines += [
                f"### {engine}: {theme}",
                "",
                "| setting | default | allowed | meaning |",
                "|---|---|---|---|",
            ]
            for name, field in fields.items():
                unit = unit_of(field)
                allowed = type_text(field).replace("|", "\\|") + (f" ({unit})" if unit else "")
                lines.append(
                    f"| `{name}` | `{format_value(field.default)}` | {allowed} | {field.description} |"
                )
            lines.append("")
    return "\n".join(lines + _absent_markdown())


def _absent_markdown() -> list[str]:
    """Return the lines on settings that only files of other trainers hold."""
    idle = ", ".join(f"`{name}`" for name, absent in ABSENT.items() if absent.off is None)
    return [
        "## Settings files and calls of other trainers",
        "",
        "`cfg=file.yaml`, also from Python, reads a file of settings; it may hold those of all commands, as the "
        "args.yaml of a run does. What is not available here is taken as long as it is switched off, and listed in one "
        "line; what is switched on is refused with what to use instead.",
        "",
        f"Of other tasks than detection, or without effect on it, whatever their value: {idle}.",
        "",
        "| setting | switched off | instead |",
        "|---|---|---|",
        *(
            f"| `{name}` | {', '.join(f'`{format_value(off)}`' for off in absent.off)} | {absent.instead} |"
            for name, absent in ABSENT.items()
            if absent.off is not None
        ),
        "",
    ]


def help_text(engine: str) -> str:
    """Return a table of an engine's settings by theme."""
    from detector.fields import format_value, type_text
    from detector.reference import settings_by_theme, unit_of

    lines = [f"detector {engine} key=value ..."]
    if engine in EXTENDS:
        lines.append(f"\nall settings of {EXTENDS[engine]} (detector {EXTENDS[engine]} --help), and:")
    for theme, fields in settings_by_theme(engine).items():
        lines.append(f"\n{theme}")
        for name, field in fields.items():
            unit = unit_of(field)
            value = type_text(field) + (f" ({unit})" if unit else "")
            lines.append(f"  {f'{name}={format_value(field.default)}':<24} {field.description}")
            lines.append(f"  {'':<24} [{value}]")
    return "\n".join(lines) + "\n"
