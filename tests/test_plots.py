from __future__ import annotations

import cv2
import numpy as np
import pytest

from detector import plots
from detector.errors import DataError
from detector.metrics.evaluator import CocoEvaluator
from detector.plots import (
    caption,
    group_columns,
    line_color,
    plot_confusion_matrix,
    plot_curves,
    plot_results,
    rgb,
)

HEADER = (
    "epoch,time,train/box_loss,train/cls_loss,val/loss,val/box_loss,val/cls_loss,"
    "metrics/precision,metrics/recall,metrics/mAP50,metrics/mAP50-95,lr/pg0,lr/pg1"
)


@pytest.fixture
def plotted(monkeypatch):
    """The plots by file name, instead of image files."""
    drawn = {}

    def keep(figure, path):
        drawn[path.name] = figure
        drawn[f"{path.stem} texts"] = [text.get_text() for text in figure.axes[0].texts]  # of this moment
        figure.canvas.draw()
        return path

    monkeypatch.setattr(plots, "write_figure", keep)
    return drawn


def measured(names, full=True):
    rng = np.random.default_rng(0)
    evaluator = CocoEvaluator(dict(enumerate(names)), "pycocotools")
    for image_id in range(6):
        corner = rng.uniform(0, 300, (8, 2))
        boxes = np.concatenate([corner, corner + 60], 1)
        labels = rng.integers(0, len(names), 8)
        preds = np.concatenate(
            [boxes + rng.normal(0, 6, (8, 4)), rng.uniform(size=(8, 1)), labels[:, None]], 1
        )
        evaluator.add(image_id, (400, 400), preds, boxes, labels)
    return evaluator.compute(full)


def write_table(path, rows):
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_results_of_many_epochs_are_drawn_raw_and_smoothed(tmp_path, plotted):
    rows = [f"{e},{e},2,1,3,{2 + e % 2},1,.5,.4,.3,.2,.01,.01" for e in range(1, 31)]
    assert plot_results(write_table(tmp_path / "results.csv", rows)) == tmp_path / "results.png"
    panels = {panel.get_title(): panel for panel in plotted["results.png"].axes if panel.get_visible()}
    assert list(panels) == [
        "box loss",
        "cls loss",
        "total loss",
        "precision and recall",
        "AP",
        "learning rate",
    ]
    _, _, raw, smoothed = (line.get_ydata() for line in panels["box loss"].lines)
    assert raw.tolist()[:4] == [3, 2, 3, 2] and np.ptp(smoothed[5:-5]) < np.ptp(raw) / 3
    assert len(panels["learning rate"].lines) == 1


def test_learning_rates_that_are_equal_are_drawn_once(tmp_path, plotted):
    head = "epoch,lr/pg0,lr/pg1,lr/pg2,lr/pg3"
    rows = [f"{e},{1 / e},{2 / e},{1 / e},{2 / e}" for e in range(1, 13)]
    (tmp_path / "results.csv").write_text("\n".join([head, *rows]))
    plot_results(tmp_path / "results.csv")
    (panel,) = [axes for axes in plotted["results.png"].axes if axes.get_visible()]
    assert [line.get_label() for line in panel.lines] == ["pg0, pg2", "pg1, pg3"]
    assert panel.lines[1].get_ydata()[0] == 2


def test_a_column_without_a_number_has_no_panel(tmp_path, plotted):
    (tmp_path / "results.csv").write_text("epoch,train/box_loss,my/empty,my/nan\n1,2,,nan\n2,1,,nan\n")
    plot_results(tmp_path / "results.csv")
    assert [axes.get_title() for axes in plotted["results.png"].axes if axes.get_visible()] == ["box loss"]


@pytest.mark.parametrize(
    ("values", "scale"),
    [([500, 5, 4, 3], "log"), ([500, 5, 0, 3], "symlog"), ([8, 5, 4, 3], "linear"), ([-500, 5, 0, 3], "linear"),
     ([0, 0, 0, 0], "linear"), (["nan", 900, 5, 4, 4], "log")],
)  # fmt: skip
def test_a_first_loss_does_not_flatten_the_rest(tmp_path, plotted, values, scale):
    rows = [f"{e},{value}" for e, value in enumerate(values, 1)]
    (tmp_path / "results.csv").write_text("\n".join(["epoch,train/cls_loss", *rows]))
    plot_results(tmp_path / "results.csv")
    (panel,) = [axes for axes in plotted["results.png"].axes if axes.get_visible()]
    assert panel.get_yscale() == scale


def test_a_loss_with_an_outlier_gets_a_logarithmic_axis(tmp_path, plotted):
    rows = [f"{n},9,1,1,1,{2 if n != 3 else 1000},nan,.1,.1,.1,.1,.01,.01" for n in range(1, 13)]
    plot_results(write_table(tmp_path / "results.csv", rows))
    scales = {panel.get_title(): panel.get_yscale() for panel in plotted["results.png"].axes}
    assert [title for title, scale in scales.items() if scale == "log"] == ["box loss"]


@pytest.mark.parametrize("cell", ["1.5", "nan", ""])
def test_results_of_one_epoch_and_empty_cells_are_drawn(tmp_path, cell):
    table = write_table(tmp_path / "results.csv", [f"1,9,{cell},1,{cell},1,1,0,0,0,0,.01,.01"])
    image = cv2.imread(str(plot_results(table)))
    assert image.min() < 60 and image.max() == 255


def test_results_that_are_none_are_named(tmp_path):
    with pytest.raises(DataError, match="can't read the results"):
        plot_results(tmp_path / "none.csv")
    with pytest.raises(DataError, match="no rows with an 'epoch'"):
        plot_results(write_table(tmp_path / "empty.csv", []))


def test_columns_find_their_panels():
    assert group_columns(
        ["lr/pg0", "metrics/mAP50(B)", "speed/inference", "val/l1_loss", "train/l1_loss"]
    ) == {
        "l1 loss": ["val/l1_loss", "train/l1_loss"],
        "AP": ["metrics/mAP50(B)"],
        "speed/inference": ["speed/inference"],
        "learning rate": ["lr/pg0"],
    }


@pytest.mark.parametrize("count", [1, 3, 80])
def test_curves_of_any_number_of_classes(plotted, tmp_path, count):
    metrics = measured([f"class {n}" for n in range(count)])
    paths = plot_curves(metrics, tmp_path)
    assert [path.name for path in paths] == [f"Box{name}_curve.png" for name in ("PR", "F1", "P", "R")]
    (panel,) = plotted["BoxPR_curve.png"].axes
    with_labels = len(metrics.box.ap_class_index)
    assert len(panel.lines) == {1: 1, 3: 4, 80: with_labels + 7}[count]
    legend = [text.get_text() for text in panel.get_legend().get_texts()]
    assert len(legend) == {1: 1, 3: 4, 80: 7}[count]
    assert legend[-1].endswith(f"{metrics.box.map50:.3f}")
    (panel,) = plotted["BoxP_curve.png"].axes
    assert panel.get_legend().get_texts()[-1].get_text().endswith(f"{metrics.box.mp:.3f}")


def test_the_classes_with_the_lowest_values_are_named(plotted, tmp_path):
    metrics = measured([f"class {n}" for n in range(80)])
    plot_curves(metrics, tmp_path)
    legend = plotted["BoxPR_curve.png"].axes[0].get_legend()
    values = [float(text.get_text().split()[-1]) for text in legend.get_texts()]
    assert values[:-1] == sorted(metrics.box.ap50.round(3).tolist())[:6]
    assert "the 6 lowest" in legend.get_title().get_text()


def test_curves_of_many_named_classes_differ_without_colours(plotted, tmp_path):
    metrics = measured([f"class {n}" for n in range(20)])
    plot_curves(metrics, tmp_path)
    *lines, _ = plotted["BoxPR_curve.png"].axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines) > 14
    assert [line.get_linestyle() for line in lines[:15:7]] == ["-", "--", "-."]


def test_lines_are_dark_enough_for_white():
    weights = np.array((0.2126, 0.7152, 0.0722))
    assert max(weights @ line_color(number) for number in range(48)) < 0.63
    assert line_color(4) == rgb(4)


def test_curves_without_labels_say_so(plotted, tmp_path):
    plot_curves(CocoEvaluator({0: "dog"}).compute(), tmp_path)
    (panel,) = plotted["BoxF1_curve.png"].axes
    assert panel.get_legend().get_texts()[0].get_text() == "no labels"


@pytest.mark.parametrize("count", [1, 3, 40])
def test_confusion_matrix_of_any_number_of_classes(plotted, tmp_path, count):
    metrics = measured([f"class {n}" for n in range(count)])
    paths = plot_confusion_matrix(metrics, tmp_path)
    assert [path.name for path in paths] == ["confusion_matrix.png", "confusion_matrix_normalized.png"]
    cells = plotted["confusion_matrix texts"]
    matrix = metrics.confusion_matrix.matrix
    assert sorted(cells) == ([] if count == 40 else sorted(str(n) for n in matrix[matrix > 0]))
    with pytest.raises(DataError, match="full=True"):
        plot_confusion_matrix(measured(["a"], full=False), tmp_path)


def test_a_confusion_matrix_of_many_classes_has_those_with_the_most_labels(plotted, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "MAX_MATRIX", 5)
    plot_confusion_matrix(measured([f"class {n}" for n in range(12)]), tmp_path)
    ticks = [text.get_text() for text in plotted["confusion_matrix.png"].axes[0].get_yticklabels()]
    assert len(ticks) == 7 and ticks[-2:] == ["7 other classes", "background"]


def test_captions_are_what_matplotlib_can_draw():
    names = {0: "犬", 1: "a $ b", 2: "x" * 60, 3: "Größe"}
    assert [caption(n, names) for n in names] == ["class 0", r"a \$ b", "x" * 21 + "...", "Größe"]


def test_unwritable_plots_are_a_data_error(tmp_path):
    (tmp_path / "file").write_text("")
    table = write_table(tmp_path / "results.csv", ["1,9,1,1,1,1,1,0,0,0,0,.01,.01"])
    for name in ("results.png", "results.svg"):
        with pytest.raises(DataError, match="can't write the"):
            plot_results(table, tmp_path / "file" / name)


def test_plots_of_other_formats_are_written(tmp_path):
    table = write_table(tmp_path / "results.csv", ["1,9,1,1,1,1,1,0,0,0,0,.01,.01"])
    assert b"<svg" in plot_results(table, tmp_path / "results.svg").read_bytes()


def test_plots_leave_no_global_state(tmp_path):
    import sys

    plot_curves(measured(["a"]), tmp_path)
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
