"""The plot of what the labels of a data set are like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from detector.errors import listed
from detector.metrics.curves import Array, Index
from detector.plots import INK, LINE_COLORS, OUTLIER, caption, empty_figure, rgb, style_panel, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 13.8, 8.4  # inches
MAX_NAMES = 100  # classes named below their bars
RARE = 10  # objects: classes with fewer of them are named
MAX_RARE = 8  # of these classes
DENSITY_CELLS = 50  # along each side
MAX_BARS = 40  # of the objects per image


class Split(Protocol):
    """What the plot needs of `detector.data.annotations.Annotations`."""

    labels: Index
    boxes: Any
    offsets: Index


def plot_labels(splits: Mapping[str, Split], names: dict[int, str], path: str | Path) -> Path:
    """Draw the objects of each class, where their centres are, their sizes, and how many an image has.

    Args:
        splits: by name, the one that is trained on first: centres and sizes are its.
        names: class id -> name.
        path: the image file.

    Returns:
        Path of the image file.

    Raises:
        DataError: the image can't be written.
    """
    figure = empty_figure(WIDTH, HEIGHT)
    panels = figure.subplot_mosaic([["classes"] * 3, ["centres", "sizes", "images"]])
    for panel in panels.values():
        style_panel(panel)
    draw_classes(panels["classes"], splits, names)
    name, train = next(iter(splits.items()))
    boxes = np.asarray(train.boxes, np.float64).reshape(-1, 4)
    draw_density(panels["centres"], boxes[:, :2], 1.0)
    panels["centres"].set(xlabel="x, share of the image", ylabel="y, share of the image")
    panels["centres"].invert_yaxis()
    largest = boxes[:, 2:].max(initial=0.1)
    draw_density(panels["sizes"], boxes[:, 2:], float(np.ceil(10 * largest - 1e-6)) / 10)
    panels["sizes"].set(xlabel="width, share of the image", ylabel="height, share of the image")
    for what in ("centres", "sizes"):
        panels[what].set_title(f"{name}: {what} of the boxes", fontsize=10, color=INK)
    draw_objects_per_image(panels["images"], splits)
    return write_figure(figure, Path(path))


def count_objects(splits: Mapping[str, Split], names: dict[int, str]) -> dict[str, Index]:
    """Return, for each split, the number of objects of each class (C,), in the order of `names`."""
    size = max(names, default=-1) + 1
    return {
        name: np.bincount(np.asarray(split.labels, np.int64).reshape(-1), minlength=size)[list(names)]
        for name, split in splits.items()
    }


def draw_classes(panel: Axes, splits: Mapping[str, Split], names: dict[int, str]) -> None:
    """Draw the objects of each class, the most frequent first; those with few are named above."""
    counts, ids = count_objects(splits, names), list(names)
    first = next(iter(counts.values()))
    order = np.argsort(-first, kind="stable")
    place, width = np.arange(len(order)), 0.8 / len(counts)
    many = len(order) > MAX_NAMES
    for number, (name, values) in enumerate(counts.items()):
        label, color = f"{name}: {values.sum():,} objects", rgb(LINE_COLORS[number])
        if many:
            panel.plot(place, values[order], "-" if number == 0 else ".", color=color, label=label)
        else:
            panel.bar(place + (number + 0.5) * width - 0.4, values[order], width, color=color, label=label)
    positive = first[first > 0]
    if len(positive) and positive.max() > OUTLIER * positive.min():
        panel.set_yscale("symlog", linthresh=1)
    else:
        panel.locator_params(axis="y", integer=True)
    panel.grid(axis="x", visible=False)
    panel.set_ylabel("objects")
    panel.set_ylim(bottom=0)
    panel.set_xlim(-0.6, max(len(order), 1) - 0.4)
    if many:
        panel.set_xlabel("classes, the most frequent first")
    else:
        longest = 24 if len(order) > 12 else 12
        texts = [caption(ids[row], names, longest) for row in order]
        size = float(np.clip(450 / max(len(order), 1), 6.5, 9))
        panel.set_xticks(place, texts, rotation=90 if len(order) > 12 else 0, fontsize=size)
    panel.legend(fontsize=8, frameon=False)
    panel.set_title(
        "\n".join([f"{len(names)} class{'es' * (len(names) != 1)}", *rare_classes(counts, names)]),
        fontsize=10,
        color=INK,
    )


def rare_classes(counts: Mapping[str, Index], names: dict[int, str]) -> list[str]:
    """Return a line on the classes that are rare in the first split, and on those that another one lacks."""
    lines = []
    for number, (split, values) in enumerate(counts.items()):
        rare = np.flatnonzero(values < (RARE if number == 0 else 1))
        rare = rare[np.argsort(values[rare], kind="stable")]
        shown = [caption(list(names)[row], names, 16) for row in rare]
        if number == 0:
            shown = [f"{text} ({values[row]})" for text, row in zip(shown, rare, strict=True)]
        what = f"fewer than {RARE} objects" if number == 0 else "no objects"
        if shown:
            lines.append(f"{split}, {what}: {listed(shown, MAX_RARE)}")
    return lines


def draw_density(panel: Axes, points: Array, side: float) -> None:
    """Draw how many points (N, 2) fall into each cell of a grid from 0 to `side`, on a logarithmic scale."""
    cells, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=DENSITY_CELLS, range=((0, side), (0, side)))
    panel.imshow(np.log1p(cells), cmap="Blues", origin="lower", extent=(0, side, 0, side), vmin=0)
    panel.grid(False)


def draw_objects_per_image(panel: Axes, splits: Mapping[str, Split]) -> None:
    """Draw which share of the images has how many objects."""
    from matplotlib.ticker import MaxNLocator

    numbers = {name: np.diff(split.offsets) for name, split in splits.items()}
    largest = max((int(values.max(initial=0)) for values in numbers.values()), default=0)
    step = -(-(largest + 1) // MAX_BARS)  # objects per bar
    edges = np.arange(0, largest + step + 1, step) - 0.5
    for number, (name, values) in enumerate(numbers.items()):
        share = np.histogram(values, edges)[0] / max(len(values), 1)
        label, color = f"{name}: {len(values):,} images", rgb(LINE_COLORS[number])
        panel.stairs(
            share,
            edges,
            color=color,
            fill=number == 0,
            alpha=0.5 if number == 0 else 1,
            linewidth=1.6,
            label=label,
        )
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_title("Objects per image", fontsize=10, color=INK)
    panel.set(xlabel="objects", ylabel="share of the images")
    panel.legend(fontsize=8, frameon=False)
