"""The curves of several runs over each other, as an image file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from detector.errors import SettingsError
from detector.plots import (
    FAINT,
    INK,
    caption,
    columns_for,
    draw_series,
    new_figure,
    rgb,
    spread_losses,
    write_figure,
)
from detector.runs.comparison import CLASS_METRIC, CURVES, SHOWN_CLASSES, Comparison, spread

COLORS = (4, 5, 2, 6, 0, 1, 3, 7, 8, 9, 10, 11)  # class ids
STYLES: tuple[Literal["-", "--", "-.", ":"], ...] = (
    "-",
    "--",
    "-.",
    ":",
)  # so that lines differ without colours as well


def plot_comparison(found: Comparison, path: str | Path) -> Path:
    """Draw a panel per metric with a line per run, and the classes that differ the most.

    Args:
        found: the runs.
        path: the image file; its suffix names the format.

    Returns:
        Path of the image file.

    Raises:
        SettingsError: if no run has ended an epoch.
        DataError: if the image can't be written.
    """
    path = Path(path)
    keys = [key for key in CURVES if any(found.curve(n, key)[0] for n in range(len(found.runs)))]
    if not keys:
        raise SettingsError("compare: no run has ended an epoch, so there are no curves; out=none draws none")
    classes = {k: v for k, v in list(found.class_values().items())[:SHOWN_CLASSES] if spread(v) > 0}
    count = len(keys) + bool(classes)
    names = [caption(n, dict(enumerate(found.names)), 40, "run") for n in range(len(found.runs))]
    across = columns_for(count)
    figure, axes = new_figure(-(-count // across), across, 3.8, 3.0)
    for panel, key in zip(axes, keys, strict=False):
        drawn = []
        for number in range(len(found.runs)):
            epochs, values = (np.array(part, dtype=float) for part in found.curve(number, key))
            before = len(panel.lines)
            draw_series(panel, epochs, values, names[number], rgb(COLORS[number % len(COLORS)]), False)
            for line in panel.lines[before:]:
                line.set_linestyle(STYLES[number % len(STYLES)])
            drawn.append(values)
        panel.set_title(key, fontsize=10, color=INK)
        panel.set_xlabel("epoch", fontsize=8)
        if key.endswith("loss"):
            spread_losses(panel, np.concatenate(drawn))
    if classes:
        panel = axes[len(keys)]
        rows = np.arange(len(classes))[::-1]
        for number in range(len(found.runs)):
            reached = np.array([row[number] for row in classes.values()], dtype=float)  # None becomes nan
            panel.plot(
                reached, rows, "osD^vP*X"[number % 8], color=rgb(COLORS[number % len(COLORS)]), markersize=5
            )
        panel.set_yticks(
            rows, [caption(n, dict(enumerate(classes)), 20) for n in range(len(classes))], fontsize=7
        )
        for row, each in zip(rows, classes.values(), strict=True):
            known = [value for value in each if value is not None]
            panel.hlines(row, min(known), max(known), color=FAINT, linewidth=1, zorder=1)
        panel.set_ylim(-0.6, len(classes) - 0.4)
        panel.locator_params(axis="x", nbins=6)
        panel.set_title(f"{CLASS_METRIC} per class, largest differences", fontsize=10, color=INK)
    for panel in axes[count:]:
        panel.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return write_figure(figure, path)
