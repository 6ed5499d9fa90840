"""Plots of a training and of a validation, as image files. matplotlib is imported here and in `label_plots` only."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from detector.drawing import Image, class_color, write_image, writing
from detector.errors import DataError
from detector.files.atomic import atomic_write
from detector.metrics.curves import Array, ConfusionMatrix, Curves, smooth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_COLORS = (4, 5, 2, 6, 0, 1)  # class ids: blue, vermilion, green ...
INK, FAINT = "#222222", "#b8c0c8"
GRID = "#e6e9ec"
MARGIN = 0.08  # inches around each panel
DPI = 160  # a panel of 3.6 inches is 576 px wide; all sizes of panels are inches
MAX_LEGEND = 20  # classes named one by one in a legend
LOWEST = 6  # of more classes, those with the lowest values
LINE_STYLES = ("-", "--", "-.")  # after as many colours as everyone can tell apart, the next style
COLORS_PER_STYLE = 7
MAX_LUMINANCE = 0.62  # of a line, 0 black to 1 white
MAX_MATRIX = 100  # classes in a confusion matrix; of more those with the most labels
MAX_CELL_TEXT = 30  # classes up to which the cells of a confusion matrix carry their number
MARKERS_BELOW = 10  # points: series with fewer are not smoothed, and each point is marked
OUTLIER = 20  # times the median: a value above it would flatten the others on a linear axis
AXIS_COLUMNS = ("epoch", "time")  # of results.csv


class Evaluated(Protocol):
    """What the plots need of `detector.metrics.metrics.Metrics`."""

    names: dict[int, str]
    detection_curves: Curves
    confusion_matrix: ConfusionMatrix | None


def new_figure(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure of `rows` x `columns` panels, `width` x `height` inches each."""
    figure = empty_figure(columns * width, rows * height)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels:
        style_panel(panel)
    return figure, panels


def empty_figure(width: float, height: float) -> Figure:
    """Make a figure of a size in inches, free of global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=MARGIN, h_pad=MARGIN)  # type: ignore[union-attr,call-arg]
    FigureCanvasAgg(figure)
    return figure


def style_panel(panel: Axes) -> None:
    """Give a panel the look of all of them."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color=GRID, linewidth=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8, color=FAINT)


def write_figure(figure: Figure, path: Path) -> Path:
    """Save a figure in the format its suffix names.

    Raises:
        DataError: the file can't be written.
    """
    if path.suffix in (".png", ".jpg"):
        return write_image(path, pixels_of(figure))  # savefig would draw everything twice
    with writing(path, "figure"), atomic_write(path, flush=False) as file:
        figure.savefig(file, format=path.suffix[1:] or "png")
    return path


def pixels_of(figure: Figure) -> Image:
    """Draw a figure; return it as (H, W, 3) uint8 BGR."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba(), np.uint8)[..., 2::-1])


def rgb(number: int) -> tuple[float, ...]:
    """Return the colour of a class for matplotlib."""
    return tuple(channel / 255 for channel in reversed(class_color(number)))


def line_color(number: int) -> tuple[float, ...]:
    """Return the colour of a class for a line on white: bright ones are darkened."""
    color = rgb(number)
    luminance = 0.2126 * color[0] + 0.7152 * color[1] + 0.0722 * color[2]
    return tuple(channel * min(1, MAX_LUMINANCE / luminance) for channel in color)


def caption(number: int, names: dict[int, str], longest: int = 24, kind: str = "class") -> str:
    """Return a name matplotlib can show: shortened, without formulas, `class 3` for scripts its font lacks."""
    from matplotlib.font_manager import findfont, get_font

    name = names[number]
    font = get_font(findfont("DejaVu Sans"))
    if not all(font.get_char_index(ord(letter)) for letter in name):
        name = f"{kind} {number}"
    name = name if len(name) <= longest else name[: longest - 3] + "..."
    return name.replace("$", r"\$")


def plot_results(csv_path: str | Path, path: str | Path | None = None) -> Path:
    """Draw the columns of a results.csv over the epochs; train and validation loss share a panel.

    A loss that once was far above its usual values gets a logarithmic axis; learning rates that are equal are drawn
    once, and columns without a number not at all.

    Args:
        csv_path: the table, with a column `epoch`; cells may be empty or nan.
        path: the image file; by default results.png next to the table.

    Returns:
        Path of the image file.

    Raises:
        DataError: the table can't be read, has no rows or no epochs, or the image can't be written.
    """
    csv_path = Path(csv_path)
    figure = draw_results(*read_results(csv_path))
    return write_figure(figure, Path(path) if path else csv_path.with_name("results.png"))


def draw_results(epochs: Array, columns: Mapping[str, Array]) -> Figure:
    """Draw columns of metrics (N,) over epochs (N,); see `plot_results`."""
    from matplotlib.ticker import MaxNLocator

    columns = {key: values for key, values in columns.items() if np.isfinite(values).any()}
    panels = group_columns(list(columns))
    across = columns_for(len(panels))
    figure, axes = new_figure(math.ceil(len(panels) / across) or 1, across, 3.6, 2.7)
    for panel, (title, members) in zip(axes, panels.items(), strict=False):
        for i, (key, same) in enumerate(group_equal(members, columns, title == "learning rate").items()):
            label = key.split("/")[0] if title.endswith("loss") else ", ".join(k.split("/")[-1] for k in same)
            noisy = title != "learning rate"
            draw_series(panel, epochs, columns[key], label, rgb(LINE_COLORS[i % len(LINE_COLORS)]), noisy)
        panel.set_title(title, fontsize=10, color=INK)
        panel.set_xlabel("epoch", fontsize=8)
        panel.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if title in ("AP", "precision and recall"):
            panel.set_ylim(bottom=0)
        if title.endswith("loss"):
            spread_losses(panel, np.concatenate([columns[key] for key in members]))
        if len(members) > 1 or title.endswith("loss"):
            panel.legend(fontsize=7, frameon=False)
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    return figure


def columns_for(count: int) -> int:
    """Return how many of some panels to put next to each other, so that few places of the last row are empty."""
    return min((4, 3, 5), key=lambda columns: -count % columns) if count > 4 else max(count, 1)


def group_equal(keys: list[str], columns: dict[str, Array], enabled: bool) -> dict[str, list[str]]:
    """Return the first of each group of equal columns, with all of the group; each alone unless `enabled`."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        equal = (first for first in groups if np.array_equal(columns[first], columns[key], equal_nan=True))
        groups.setdefault(next(equal, key) if enabled else key, []).append(key)
    return groups


def spread_losses(panel: Axes, values: Array) -> None:
    """Make the axis logarithmic if a few large losses, of young weights, would flatten the rest; from 0 up if one is 0.

    Args:
        panel: the panel.
        values: (N,), what is drawn in it.
    """
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if not len(positive) or values.max() <= OUTLIER * np.median(positive):
        return
    if len(positive) == len(values):
        panel.set_yscale("log")
    elif values.min() == 0:
        panel.set_yscale("symlog", linthresh=float(np.median(positive)))


def read_results(path: Path) -> tuple[Array, dict[str, Array]]:
    """Read a results.csv: the epochs (N,) and every other column (N,), NaN where there is no number.

    Raises:
        DataError: the file can't be read, has no rows or no column `epoch`.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except OSError as error:
        raise DataError(f"{path}: can't read the results ({error.strerror}).") from error
    rows = [row for row in rows if math.isfinite(to_number(row.get("epoch")))]
    if not rows:
        raise DataError(f"{path}: no rows with an 'epoch'; expected the results.csv of a training.")
    table = {key: np.array([to_number(row[key]) for row in rows]) for key in rows[0] if key}
    return table["epoch"], {key: table[key] for key in table if key not in AXIS_COLUMNS}


def to_number(text: str | None) -> float:
    """Return a cell as a number, NaN if it is not one."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def group_columns(keys: list[str]) -> dict[str, list[str]]:
    """Sort columns into panels: train with val loss, precision with recall, all APs, all learning rates."""
    panels: dict[str, list[str]] = {}
    for key in keys:
        prefix, _, name = key.rpartition("/")
        bare = name.removesuffix("(B)")
        if prefix == "lr":
            title = "learning rate"
        elif prefix == "metrics" and bare in ("precision", "recall"):
            title = "precision and recall"
        elif prefix == "metrics" and bare.startswith("mAP"):
            title = "AP"
        elif prefix in ("train", "val"):
            title = "total loss" if name == "loss" else name.replace("_", " ")
        elif "/" in prefix:  # many of a kind, such as one metric per layer
            title = prefix
        else:
            title = key
        panels.setdefault(title, []).append(key)
    order = {"learning rate": 3, "AP": 1, "precision and recall": 1}
    return dict(sorted(panels.items(), key=lambda p: 0 if p[0].endswith("loss") else order.get(p[0], 2)))


def draw_series(panel: Axes, x: Array, y: Array, label: str, color: Any, noisy: bool) -> None:
    """Draw a series, and of many noisy values their smoothed course; NaNs are left out."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(y) < MARKERS_BELOW or not noisy:
        marker = "o" if len(y) < MARKERS_BELOW else ""
        panel.plot(x, y, color=color, linewidth=1.6, marker=marker, markersize=3, label=label)
        return
    width = max(len(y) // 25, 1) * 2 + 1  # odd, about a twelfth of the run
    panel.plot(x, y, color=color, linewidth=0.8, alpha=0.35)
    panel.plot(x, smooth(smooth(y, width), width), color=color, linewidth=1.8, label=label)


def plot_curves(metrics: Evaluated, folder: str | Path) -> list[Path]:
    """Draw BoxPR_curve.png, BoxF1_curve.png, BoxP_curve.png and BoxR_curve.png.

    Returns:
        Paths of the image files.

    Raises:
        DataError: an image can't be written.
    """
    curves, folder = metrics.detection_curves, Path(folder)
    best = curves.best
    plots = {
        "BoxPR": (curves.recall_points, curves.precision_at_recall, "recall", "precision"),
        "BoxF1": (curves.confidence, curves.f1, "confidence", "F1"),
        "BoxP": (curves.confidence, curves.precision, "confidence", "precision"),
        "BoxR": (curves.confidence, curves.recall, "confidence", "recall"),
    }
    written = []
    for name, (x, y, x_name, y_name) in plots.items():
        figure, (panel,) = new_figure(1, 1, 8, 5)
        values = y.mean(1) if name == "BoxPR" else y[:, best]
        draw_classes(panel, x, y, values, curves.classes.tolist(), metrics.names)
        what = "AP50" if name == "BoxPR" else f"{y_name} at confidence {curves.best_confidence:.2f}"
        if name != "BoxPR" and len(y):
            panel.axvline(curves.best_confidence, color=INK, linewidth=0.8, linestyle=":")
        panel.set(xlim=(0, 1), ylim=(0, 1.01), xlabel=x_name, ylabel=y_name)
        panel.set_title(f"{y_name.capitalize()} over {x_name}, IoU 0.5", fontsize=11, color=INK)
        if len(curves.classes) > MAX_LEGEND:
            what += f"\nthe {LOWEST} lowest, and all"
        panel.legend(
            title=what, fontsize=8, title_fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1)
        )
        written.append(write_figure(figure, folder / f"{name}_curve.png"))
    return written


def draw_classes(
    panel: Axes, x: Array, y: Array, values: Array, classes: list[int], names: dict[int, str]
) -> None:
    """Draw a curve for each class, and their mean. Of many classes those with the lowest values are named."""
    named = list(range(len(classes)))
    if len(classes) > MAX_LEGEND:
        panel.plot(x, y.T, color=FAINT, linewidth=0.6)
        named = np.argsort(values, kind="stable")[:LOWEST].tolist()
    if len(classes) > 1:
        for place, row in enumerate(named):
            panel.plot(
                x,
                y[row],
                color=line_color(classes[row]),
                linestyle=LINE_STYLES[place // COLORS_PER_STYLE % len(LINE_STYLES)],
                linewidth=1.2,
                label=f"{caption(classes[row], names)}  {values[row]:.3f}",
            )
    if len(classes):
        name = f"all {len(classes)} classes" if len(classes) > 1 else caption(classes[0], names)
        panel.plot(x, y.mean(0), color=INK, linewidth=2.6, label=f"{name}  {values.mean():.3f}")
    else:
        panel.plot([], [], label="no labels")


def plot_confusion_matrix(metrics: Evaluated, folder: str | Path) -> list[Path]:
    """Draw confusion_matrix.png (counts) and confusion_matrix_normalized.png (shares of the true class).

    Cells are coloured by their share of the true class in both.

    Returns:
        Paths of the image files.

    Raises:
        DataError: the metrics hold no confusion matrix, or an image can't be written.
    """
    confusion, folder = metrics.confusion_matrix, Path(folder)
    if confusion is None:
        raise DataError("no confusion matrix to plot; compute the metrics with full=True.")
    confusion = confusion.largest(MAX_MATRIX)
    labels = [caption(n, confusion.names, 16) for n in confusion.names] + ["background"]
    shares = confusion.normalized()
    side = min(max(5.0, 2.2 + 0.42 * len(labels)), 14.0)  # inches: per class; names and colour bar
    size = float(np.clip(40 * side / len(labels), 3.5, 9))  # points; a cell has some 72 * side / classes
    figure, (panel,) = new_figure(1, 1, side * 1.1, side)
    panel.grid(False)
    cells = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = np.arange(len(labels))
    panel.set_xticks(ticks, labels, rotation=90 if len(labels) > 6 else 0, fontsize=size)
    panel.set_yticks(ticks, labels, fontsize=size)
    panel.set_xlabel(f"true class\n(confidence > {confusion.conf:g}, IoU > {confusion.iou:g})")
    panel.set_ylabel("predicted class")
    figure.colorbar(cells, ax=panel, fraction=0.045, pad=0.02, label="share of the true class")
    written = []
    for name, numbers in (("confusion_matrix", confusion.matrix), ("confusion_matrix_normalized", shares)):
        kind = "shares" if numbers is shares else "counts"
        panel.set_title(f"Confusion matrix: {kind}", fontsize=11, color=INK)
        for text in list(panel.texts):
            text.remove()
        if len(labels) <= MAX_CELL_TEXT:
            write_cells(panel, numbers, shares, size)
        written.append(write_figure(figure, folder / f"{name}.png"))
        figure.set_layout_engine("none")  # the second one has the same places
    return written


def write_cells(panel: Axes, numbers: Any, shares: Array, size: float) -> None:
    """Write every number that is not 0 into its cell."""
    for row, column in zip(*(side.tolist() for side in np.nonzero(numbers)), strict=True):
        value = numbers[row, column]
        text = f"{value:.2f}" if numbers is shares else str(value)
        color = "white" if shares[row, column] > 0.55 else INK  # "Blues" is dark from there on
        panel.text(column, row, text, ha="center", va="center", color=color, fontsize=size * 0.9)


def plot_speed_accuracy(points: Sequence[tuple[str, float, float]], path: str | Path) -> Path:
    """Draw accuracy over speed, one point per format; those that no other beats in both are joined.

    Args:
        points: name, ms per image, mAP50-95.
        path: the image file.

    Returns:
        Path of the image file.

    Raises:
        DataError: the image can't be written.
    """
    figure, (panel,) = new_figure(1, 1, 8, 5)
    front: list[tuple[float, float]] = []
    for _, milliseconds, accuracy in sorted(points, key=lambda point: (point[1], -point[2])):
        if not front or accuracy > front[-1][1]:
            front.append((milliseconds, accuracy))
    panel.plot(*zip(*front, strict=True), color=FAINT, linewidth=1.2, zorder=1)
    kinds = list(dict.fromkeys(name.split()[0] for name, _, _ in points))
    for number, (name, milliseconds, accuracy) in enumerate(sorted(points, key=lambda point: point[1]), 1):
        color = rgb(LINE_COLORS[kinds.index(name.split()[0]) % len(LINE_COLORS)])
        panel.scatter([milliseconds], [accuracy], color=[color], s=40, zorder=2, label=f"{number}  {name}")
        place = (0, 6 + 9 * (number % 3))  # points above; neighbours at different heights, a line apart
        panel.annotate(
            str(number), (milliseconds, accuracy), place, textcoords="offset points", fontsize=7, ha="center"
        )
    panel.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    low, high = min(point[2] for point in points), max(point[2] for point in points)
    spare = (
        max(0.02 - (high - low), 0) / 2 + 0.003
    )  # at least 0.026 of AP is shown, so that the third decimal looks small
    panel.set_ylim(low - spare, high + spare)
    panel.set_xlim(0, 1.1 * max(point[1] for point in points))
    panel.set_xlabel("ms per image, from image to results", fontsize=9)
    panel.set_ylabel("mAP50-95", fontsize=9)
    panel.set_title("Speed and accuracy by format", fontsize=11, color=INK)
    return write_figure(figure, Path(path))
