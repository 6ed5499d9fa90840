from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from detector.errors import MissingPackageError
from detector.metrics.curves import compute_curves, count_confusions, match, overlaps, smooth

VECTORS = json.loads((Path(__file__).parent / "vectors" / "vectors.json").read_text())


def take_turns(detection, label, iou):
    """The plain reference of `match`: detections one after another, ties go to the later label."""
    taken = {}
    for turn in sorted(set(detection.tolist())):
        best, best_iou = None, 0.0
        for d, g, value in sorted(zip(detection.tolist(), label.tolist(), iou.tolist(), strict=True)):
            if d == turn and g not in taken.values() and value >= best_iou:
                best, best_iou = g, value
        if best is not None:
            taken[turn] = best
    return taken


@pytest.mark.parametrize("seed", range(20))
def test_match_equals_taking_turns(seed):
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(12 * 8)[: rng.integers(1, 90)]
    detection, label = pairs // 8, pairs % 8
    iou = rng.integers(1, 6, len(pairs)) / 5  # many ties
    found = dict(zip(*(side.tolist() for side in match(detection, label, iou)), strict=True))
    assert found == take_turns(detection, label, iou)


def test_match_of_no_pairs_is_empty():
    none = np.zeros(0, np.int64)
    detections, labels = match(none, none, np.zeros(0))
    assert len(detections) == len(labels) == 0


def test_match_reproduces_the_recorded_matches():
    case = VECTORS["match"]
    iou = np.array(case["iou_gt_by_pred"]).T  # detections x labels
    for column, threshold in enumerate(np.linspace(0.5, 0.95, 10)):
        detection, label = np.nonzero(iou >= threshold)
        hits = np.zeros(len(iou), bool)
        hits[match(detection, label, iou[detection, label])[0]] = True
        assert hits.tolist() == np.array(case["correct"])[:, column].astype(bool).tolist()


def test_curves_reproduce_the_recorded_values():
    case = VECTORS["ap"]
    curves = compute_curves(
        np.array(case["conf"]),
        np.array(case["pred_cls"]),
        np.array(case["tp"])[:, 0].astype(bool),
        np.bincount(case["target_cls"]),
    )
    assert curves.classes.tolist() == case["classes"]
    np.testing.assert_allclose(curves.precision[:, curves.best], case["p"], atol=1e-12)
    np.testing.assert_allclose(curves.recall[:, curves.best], case["r"], atol=1e-12)
    np.testing.assert_allclose(curves.f1[:, curves.best], case["f1"], atol=1e-12)


def test_smoothing_keeps_constants_and_length():
    np.testing.assert_allclose(smooth(np.full(1000, 0.3)), np.full(1000, 0.3))
    assert smooth(np.eye(1, 9, 4)[0], 3).tolist() == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 1 / 3, 0, 0, 0])


def test_overlaps_of_known_boxes():
    a = np.array([[0.0, 0, 10, 10], [20, 20, 0, 0]])
    b = np.array([[0.0, 0, 10, 10], [5, 0, 10, 10], [10, 0, 5, 5], [20, 20, 0, 0]])
    assert overlaps(a, b).tolist() == [[1, 50 / 150, 0, 0], [0, 0, 0, 0]]


def test_confusions_are_counted_by_predicted_row_and_true_column():
    confusion = count_confusions(np.array([0, 1, 1, 2]), np.array([0, 0, 2, 1]), {0: "cat", 1: "dog"})
    assert confusion.matrix.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert confusion.normalized().tolist() == [[0.5, 0, 0], [0.5, 0, 1], [0, 1, 0]]


def test_a_confusion_matrix_is_rows_by_predicted_class():
    names = {0: "cat", 1: "background"}
    confusion = count_confusions(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), names)
    assert confusion.summary() == [
        {"predicted": "cat", "cat": 1, "background 1": 1, "background 2": 0},
        {"predicted": "background 1", "cat": 0, "background 1": 1, "background 2": 0},
        {"predicted": "background 2", "cat": 1, "background 1": 0, "background 2": 0},
    ]
    assert confusion.summary(normalize=True)[0] == {
        "predicted": "cat", "cat": 0.5, "background 1": 0.5, "background 2": 0.0,
    }  # fmt: skip
    assert confusion.to_csv().splitlines()[1] == "cat,1,1,0"


def test_a_confusion_matrix_as_a_data_frame_needs_polars(monkeypatch):
    confusion = count_confusions(np.array([0]), np.array([0]), {0: "cat"})
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingPackageError, match="pip install polars"):
        confusion.to_df()
    monkeypatch.setitem(sys.modules, "polars", SimpleNamespace(DataFrame=list))
    assert confusion.to_df() == confusion.summary()
