from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from detector import label_plots
from detector.errors import DataError
from detector.label_plots import plot_labels


def split_of(labels, images=4, side=0.2):
    """A split whose objects all lie in its first image."""
    boxes = np.full((len(labels), 4), side)
    return SimpleNamespace(labels=labels, boxes=boxes, offsets=np.array([0] + [len(labels)] * images))


@pytest.fixture
def plotted(monkeypatch):
    """The plots, instead of image files."""
    drawn = []
    monkeypatch.setattr(label_plots, "write_figure", lambda figure, path: drawn.append(figure))
    return drawn


def panels_of(figure):
    figure.canvas.draw()
    return figure.axes


@pytest.mark.parametrize("count", [0, 1, 500])
def test_labels_are_drawn(tmp_path, count):
    random = np.random.default_rng(0)
    names = {0: "犬", 1: "a $ b", 2: "x" * 60}
    splits = {"train": split_of(random.integers(0, 3, count)), "val": split_of([])}
    path = plot_labels(splits, names, tmp_path / "new" / "labels.jpg")
    image = cv2.imread(str(path))
    assert image.shape == (1344, 2208, 3) and image.min() < 80


def test_classes_are_drawn_the_most_frequent_first(plotted, tmp_path):
    splits = {"train": split_of([0] * 20 + [1] * 30 + [2] * 10), "val": split_of([2, 2, 0])}
    plot_labels(splits, {0: "cat", 1: "dog", 2: "cow"}, tmp_path / "labels.jpg")
    classes = panels_of(plotted[0])[0]
    assert [text.get_text() for text in classes.get_xticklabels()] == ["dog", "cat", "cow"]
    assert [bar.get_height() for bar in classes.patches] == [30, 20, 10, 0, 1, 2]
    assert classes.get_title() == "3 classes\nval, no objects: dog"
    assert classes.get_yscale() == "linear"


def test_classes_with_few_objects_are_named(plotted, tmp_path):
    names = {number: f"n{number}" for number in range(12)}
    plot_labels({"train": split_of([0] * 300 + [1] * 9 + [2])}, names, tmp_path / "labels.jpg")
    classes = panels_of(plotted[0])[0]
    rare = "n3 (0), n4 (0), n5 (0), n6 (0), n7 (0), n8 (0), n9 (0), n10 (0) and 3 more"
    assert classes.get_title() == f"12 classes\ntrain, fewer than 10 objects: {rare}"
    assert classes.get_yscale() == "symlog", "one object is visible next to 300"


@pytest.mark.parametrize("count", [2, 80])
def test_names_of_classes_do_not_overlap(plotted, tmp_path, count):
    names = {number: f"a long name {number}" for number in range(count)}
    plot_labels({"train": split_of(list(range(count)))}, names, tmp_path / "labels.jpg")
    boxes = [text.get_window_extent() for text in panels_of(plotted[0])[0].get_xticklabels()]
    assert len(boxes) == count
    assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))


def test_hundreds_of_classes_are_a_curve(plotted, tmp_path):
    names = {number: f"class {number}" for number in range(300)}
    plot_labels({"train": split_of([0, 0, 1, 7]), "val": split_of([1])}, names, tmp_path / "labels.jpg")
    train, val = panels_of(plotted[0])[0].lines
    assert train.get_ydata()[:4].tolist() == [2, 1, 1, 0] and val.get_ydata()[:3].tolist() == [0, 1, 0]


def test_sizes_of_small_objects_fill_their_panel(plotted, tmp_path):
    plot_labels({"train": split_of([0] * 5, side=0.04)}, {0: "cat"}, tmp_path / "labels.jpg")
    _, centres, sizes, _ = panels_of(plotted[0])
    assert centres.get_xlim() == (0, 1) and sizes.get_xlim() == (0, 0.1)


def test_objects_per_image_are_shares_of_each_split(plotted, tmp_path):
    splits = {"train": split_of([0] * 3), "val": split_of([0] * 100, images=2)}
    plot_labels(splits, {0: "cat"}, tmp_path / "labels.jpg")
    images = panels_of(plotted[0])[3]
    train, val = (patch.get_data() for patch in images.patches)
    assert train.values[:2].tolist() == [0.75, 0.25] and val.values[[0, -1]].tolist() == [0.5, 0.5]
    assert len(train.values) <= 40


def test_unwritable_plots_are_a_data_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't write the image"):
        plot_labels({"train": split_of([])}, {0: "a"}, tmp_path / "file" / "labels.jpg")
