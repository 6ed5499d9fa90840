"""The kinds of errors, on cases small enough to work out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.boxes import CROWD, DIFFICULT, OBJECT
from detector.metrics.evaluator import CocoEvaluator
from detector.metrics.tide import CORRECT, IGNORED, KINDS, Errors, find_errors

CAT, DOG = 0, 1
BOX = (100, 100, 200, 200)
HALF = (150, 100, 250, 200)  # IoU 1/3 with BOX
CLOSE = (110, 100, 210, 200)  # IoU 9/11
FAR = (300, 300, 400, 400)

Rows = list[tuple[tuple[int, ...], float, int]]


def evaluator_of(*images: tuple[Rows, list[tuple[tuple[int, ...], int]]], kinds: Any = None) -> CocoEvaluator:
    evaluator = CocoEvaluator({CAT: "cat", DOG: "dog"})
    for number, (found, labels) in enumerate(images):
        preds = [[*box, score, label] for box, score, label in found]
        evaluator.add(number, (500, 500), preds, [b for b, _ in labels], [c for _, c in labels], kinds)
    return evaluator


def errors_of(*images: tuple[Rows, list[tuple[tuple[int, ...], int]]], kinds: Any = None) -> Errors:
    return find_errors(evaluator_of(*images, kinds=kinds).records())


def kinds_of(found: Rows, *labels: tuple[tuple[int, ...], int], kinds: Any = None) -> list[str]:
    words = {CORRECT: "correct", IGNORED: "ignored", **dict(enumerate(KINDS))}
    return [words[kind] for kind in errors_of((found, list(labels)), kinds=kinds).kind.tolist()]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((CLOSE, 0.9, CAT), "correct"),
        ((CLOSE, 0.9, DOG), "classification"),
        ((HALF, 0.9, CAT), "localisation"),
        ((HALF, 0.9, DOG), "both"),
        ((FAR, 0.9, CAT), "background"),
    ],
)
def test_one_detection_near_one_label(found: Any, expected: str) -> None:
    assert kinds_of([found], (BOX, CAT)) == [expected]


def test_the_second_detection_of_a_label_is_a_duplicate_whatever_its_overlap() -> None:
    assert kinds_of([(BOX, 0.5, CAT), (CLOSE, 0.9, CAT)], (BOX, CAT)) == ["duplicate", "correct"]


def test_a_loose_box_is_a_localisation_error_though_it_lies_well_on_another_class() -> None:
    assert kinds_of([(BOX, 0.9, CAT)], (HALF, CAT), (BOX, DOG)) == ["localisation"]


def test_an_image_without_labels_has_background_only() -> None:
    assert kinds_of([(BOX, 0.9, CAT), (HALF, 0.8, DOG)]) == ["background", "background"]


def test_detections_on_what_is_ignored_are_no_errors() -> None:
    kinds = [OBJECT, CROWD, DIFFICULT]
    found: Rows = [((320, 320, 340, 340), 0.9, CAT), ((0, 0, 50, 50), 0.8, CAT), ((0, 0, 50, 50), 0.7, DOG)]
    labels = [(BOX, CAT), (FAR, CAT), ((0, 0, 50, 50), CAT)]
    assert kinds_of(found, *labels, kinds=kinds) == ["ignored", "ignored", "background"]


def test_a_label_is_missed_unless_an_error_of_class_or_place_covers_it() -> None:
    errors = errors_of(
        ([(CLOSE, 0.9, DOG), ((280, 300, 380, 400), 0.3, CAT)], [(BOX, CAT), (FAR, CAT), ((0, 0, 9, 9), DOG)])
    )
    assert errors.cover.tolist() == [0.9, 0.3, 0.0]
    assert errors.counts(0.0, 1).tolist() == [[1, 0, 0, 0, 0, 1, 1]]
    assert errors.counts(0.5, 1).tolist() == [[1, 0, 0, 0, 0, 2, 0]]


def test_counts_are_those_of_each_image() -> None:
    errors = errors_of(([(FAR, 0.9, CAT)], []), ([], [(BOX, DOG)]), ([(BOX, 0.4, CAT)], [(BOX, CAT)]))
    assert errors.counts(0.25, 3).tolist() == [[0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1, 0], [0] * 6 + [1]]


def test_mending_a_class_gains_what_it_cost() -> None:
    d_ap = errors_of(([(BOX, 0.9, DOG), (FAR, 0.8, DOG)], [(BOX, CAT), (FAR, DOG)])).d_ap(2)
    # dog: a false positive before the hit, AP 0.5; cat: nothing, AP 0
    assert d_ap["AP50"] == pytest.approx(0.25)
    assert d_ap["classification"] == pytest.approx(0.75)
    assert d_ap["false positives"] == pytest.approx(0.25)
    assert d_ap["false negatives"] == pytest.approx(
        0.25
    )  # cat is not demanded any more; dog has its AP of 0.5
    assert {d_ap[kind] for kind in ("localisation", "both", "duplicate", "background", "missed")} == {0.0}


def test_a_mended_detection_of_a_label_that_is_found_goes() -> None:
    lower = errors_of(([(BOX, 0.9, CAT), (HALF, 0.8, CAT), (FAR, 0.7, CAT)], [(BOX, CAT), (FAR, CAT)])).d_ap(
        2
    )
    assert lower["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert lower["localisation"] == pytest.approx(1 - lower["AP50"])
    higher = errors_of(([(HALF, 0.9, CAT), (BOX, 0.8, CAT)], [(BOX, CAT)])).d_ap(2)
    assert (higher["AP50"], higher["localisation"]) == (
        pytest.approx(0.5),
        pytest.approx(0.5),
    )  # the box that found it stays


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("both", (HALF, 0.9, DOG)),
        ("background", ((0, 0, 50, 50), 0.9, DOG)),
        ("duplicate", (CLOSE, 0.85, DOG)),
    ],
)
def test_other_detections_are_left_out(kind: str, wrong: Any) -> None:
    labels = [(BOX, CAT if kind != "duplicate" else DOG), (FAR, DOG)]
    first: Rows = [(BOX, 0.9, labels[0][1])]
    d_ap = errors_of(([*first, wrong, (FAR, 0.1, DOG)], labels)).d_ap(2)
    assert d_ap[kind] == pytest.approx(1 - d_ap["AP50"])
    assert d_ap[kind] > 0.1


def test_missed_labels_are_not_demanded() -> None:
    d_ap = errors_of(([(BOX, 0.9, CAT)], [(BOX, CAT), (FAR, CAT)])).d_ap(2)
    assert (d_ap["AP50"], d_ap["missed"]) == (pytest.approx(51 / 101), pytest.approx(50 / 101))


def test_ap_without_mending_is_cocos() -> None:
    random = np.random.default_rng(0)
    images = []
    for _ in range(12):
        corners = random.integers(0, 300, (6, 2))
        labels = [((x, y, x + 60, y + 60), int(random.integers(2))) for x, y in corners.tolist()]
        moved = [
            tuple(int(v) for v in np.add(box, random.integers(-60, 60)))
            for box, _ in labels
            for _ in range(3)
        ]
        images.append(([(box, float(random.random()), int(random.integers(2))) for box in moved], labels))
    evaluator = evaluator_of(*images)
    errors = find_errors(evaluator.records())
    assert errors.d_ap(2)["AP50"] == pytest.approx(evaluator.compute().box.map50, abs=1e-9)
    assert set(errors.kind.tolist()) == {CORRECT, 0, 1, 2, 3, 4}


def test_nothing_at_all_has_no_errors() -> None:
    assert errors_of().d_ap(2) == {"AP50": 0.0} | dict.fromkeys(
        [*KINDS, "false positives", "false negatives"], 0.0
    )
