"""Several runs next to each other: what differs in their settings, their curves, and what each class reaches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.errors import DataError, SettingsError
from detector.fields import format_value
from detector.files.names import shortened
from detector.runs.listing import differing_settings, setting_of
from detector.runs.record import Run, read_classes, read_metrics, read_run
from detector.tables import align

CURVES = ("metrics/mAP50-95", "metrics/mAP50", "metrics/precision", "metrics/recall", "val/loss", "train/box_loss",
          "train/cls_loss", "train/dfl_loss")  # fmt: skip
"""What is drawn, as far as the runs have it."""

CHART = ("metrics/mAP50-95", "val/loss")  # of these the first that there is, on a terminal
CLASS_METRIC = "mAP50-95"
SHOWN_CLASSES = 20  # on a terminal, and on the image
WIDTH, HEIGHT = 64, 14  # letters of the chart
MAX_RUNS = 12  # letters of one alphabet and colours that can be distinguished set a limit


@dataclass(frozen=True)
class Comparison:
    """Runs, and what they are compared by.

    Attributes:
        names: short names of the runs, none twice.
        runs: their status.
        rows: per run its epochs, see `read_metrics`.
        classes: per run: class name -> metrics.
        problems: sentences on what could not be read, or compared fairly.
    """

    names: list[str]
    runs: list[Run]
    rows: list[list[dict[str, Any]]]
    classes: list[dict[str, dict[str, Any]]]
    problems: list[str]

    def curve(self, number: int, key: str) -> tuple[list[int], list[float]]:
        """Return the epochs and values of a metric of a run."""
        rows = [row for row in self.rows[number] if key in row]
        return [int(row["epoch"]) for row in rows], [float(row[key]) for row in rows]

    def settings(self) -> dict[str, list[Any]]:
        """Return the settings that differ: name -> value per run."""
        return {name: [setting_of(run, name) for run in self.runs] for name in differing_settings(self.runs)}

    def facts(self) -> dict[str, list[Any]]:
        """Return what else differs: data, commit, versions and hardware."""
        found: dict[str, list[Any]] = {}
        for group, keys in (
            ("data", ("name", "fingerprint", "train_images", "val_images", "classes")),
            ("git", ("commit", "dirty")),
            ("versions", ("detector", "torch")),
            ("hardware", ("device", "gpu")),
        ):
            for key in keys:
                values = [(run.status[group] or {}).get(key) for run in self.runs]
                if len(set(map(str, values))) > 1:
                    found[f"{group} {key}"] = values
        return found

    def best(self) -> dict[str, list[float | None]]:
        """Return the metrics of the best epochs: name -> value per run."""
        names = dict.fromkeys(
            name for run in self.runs for name in run.best if name.startswith(("metrics/", "val/"))
        )
        return {name: [run.best.get(name) for run in self.runs] for name in ("epoch", *names)}

    def class_values(self, metric: str = CLASS_METRIC) -> dict[str, list[float | None]]:
        """Return a metric of every class per run, those first that differ the most."""
        names = dict.fromkeys(name for found in self.classes for name in found)
        table = {name: [found.get(name, {}).get(metric) for found in self.classes] for name in names}
        return dict(sorted(table.items(), key=lambda item: -spread(item[1])))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {
            "runs": [
                {"name": n, "folder": str(r.folder), "state": r.state}
                for n, r in zip(self.names, self.runs, strict=True)
            ],
            "settings": self.settings(),
            "facts": self.facts(),
            "best": self.best(),
            "classes": self.class_values(),
            "curves": {
                key: [dict(zip(*self.curve(n, key), strict=True)) for n in range(len(self.runs))]
                for key in CURVES
            },
            "problems": self.problems,
        }


def spread(values: Sequence[float | None]) -> float:
    """Return the difference between the highest and the lowest of some values; 0 of fewer than two."""
    known = [value for value in values if value is not None]
    return max(known) - min(known) if len(known) > 1 else 0.0


def compare_runs(folders: Sequence[str | Path]) -> Comparison:
    """Read the runs to compare.

    Raises:
        SettingsError: for fewer than two folders, or too many.
        DataError: if one of them is not a run folder.
    """
    if not 2 <= len(folders) <= MAX_RUNS:
        raise SettingsError(
            f"compare: {len(folders)} runs were given; expected 2 to {MAX_RUNS}, as in detector compare runs/a runs/b"
        )
    runs = [read_run(folder) for folder in folders]
    problems: list[str] = []
    rows: list[list[dict[str, Any]]] = []
    classes: list[dict[str, dict[str, Any]]] = []
    for run in runs:
        found: dict[str, Any] = {"rows": [], "classes": []}
        for key, read in (("rows", read_metrics), ("classes", read_classes)):
            try:
                found[key] = read(run.folder)
            except DataError as error:
                problems.append(str(error))
        rows.append(found["rows"])
        classes.append({row["class"]: row for row in found["classes"]})
    prints = {(run.status["data"] or {}).get("fingerprint") for run in runs}
    if len(prints) > 1:
        problems.append(
            "the runs were trained on different data: their metrics are not those of the same images"
        )
    return Comparison(short_names(folders), runs, rows, classes, problems)


def short_names(folders: Sequence[str | Path]) -> list[str]:
    """Return names for folders: as much of the end of each path as makes it different from the others."""
    parts = [Path(folder).absolute().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            break
    else:  # the same folder twice
        names = [f"{name} ({number})" for number, name in enumerate(names, 1)]
    return [shortened(name, 40) for name in names]


# ------------------------------------------------------------------ text


def comparison_text(found: Comparison) -> str:
    """Return a comparison for a terminal, without control characters: letters name the runs in heads and chart."""
    letters = [chr(ord("A") + number) for number in range(len(found.runs))]
    heads = [
        f"{letter}  {name}  {run.state}, {run.status['epoch']} of {run.status['epochs']} epochs"
        for letter, name, run in zip(letters, found.names, found.runs, strict=True)
    ]
    parts = ["\n".join(heads)]
    differing = {**found.settings(), **found.facts()}
    if differing:
        rows = [["differs", *letters]]
        rows += [
            [shortened(k), *(shortened(format_value(v), 28) for v in values)]
            for k, values in differing.items()
        ]
        parts.append(align(rows))
    else:
        parts.append("no setting differs")
    best = found.best()
    if len(best) > 1:
        parts.append(align([["best epoch", *letters], *_number_rows(best)]))
    if chart := chart_text(found, letters):
        parts.append(chart)
    classes = found.class_values()
    if classes and spread_of(classes):
        shown = dict(list(classes.items())[:SHOWN_CLASSES])
        head = [f"{CLASS_METRIC} per class", *letters, *(["B - A"] if len(letters) == 2 else [])]
        rows = [head]
        for name, values in shown.items():
            cells = [_number(value) for value in values]
            if len(values) == 2:
                a, b = values
                cells.append("-" if a is None or b is None else f"{b - a:+.3f}")
            rows.append([shortened(name, 28), *cells])
        parts.append(align(rows))
        if len(classes) > len(shown):
            parts.append(f"{len(classes) - len(shown)} more classes differ by less; json=true shows all")
    return "\n\n".join(parts)


def spread_of(table: Mapping[str, Sequence[float | None]]) -> float:
    """Return the largest difference within a row of a table."""
    return max((spread(values) for values in table.values()), default=0.0)


def _number_rows(table: Mapping[str, Sequence[float | None]]) -> list[list[str]]:
    return [[shortened(name), *(_number(value, name) for value in values)] for name, values in table.items()]


def _number(value: float | None, name: str = "") -> str:
    return "-" if value is None else f"{value:.0f}" if name == "epoch" else f"{value:.3f}"


def chart_text(found: Comparison, letters: Sequence[str]) -> str:
    """Draw the curves of one metric as letters over the epochs; `*` where several meet. "" if no run has it."""
    for key in CHART:
        curves = [found.curve(number, key) for number in range(len(found.runs))]
        if any(epochs for epochs, _ in curves):
            break
    else:
        return ""
    values = [value for _, ys in curves for value in ys]
    low, high = min(values), max(values)
    last = max(epoch for epochs, _ in curves for epoch in epochs)
    first = min(epoch for epochs, _ in curves for epoch in epochs)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for letter, (epochs, ys) in zip(letters, curves, strict=True):
        for column in range(WIDTH):
            epoch = first + (last - first) * column / (WIDTH - 1)
            if not epochs or not epochs[0] - 0.5 <= epoch <= epochs[-1] + 0.5:
                continue
            value = ys[min(range(len(epochs)), key=lambda i: abs(epochs[i] - epoch))]
            part = (value - low) / (high - low) if high > low else 0.5
            row = HEIGHT - 1 - min(math.floor(part * HEIGHT), HEIGHT - 1)
            grid[row][column] = letter if grid[row][column] == " " else "*"
    labels = [f"{high:.4g}", *[""] * (HEIGHT - 2), f"{low:.4g}"]
    width = max(map(len, labels))
    lines = [f"{label:>{width}} |{''.join(row).rstrip()}" for label, row in zip(labels, grid, strict=True)]
    axis = f"{first}{str(last).rjust(WIDTH - len(str(first)))}"
    return "\n".join(
        [f"{key} over epochs", *lines, f"{'':>{width}} +{'-' * WIDTH}", f"{'':>{width}}  {axis}"]
    )
