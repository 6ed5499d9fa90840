"""What a validation leaves for the report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.evaluations import evaluation_of

from detector.metrics.evaluation import MAX_CLASSES, describe_evaluation
from detector.metrics.evaluator import CocoEvaluator

FOUND = (10, 10, 110, 110)


def small() -> dict:
    """Two images: one found, one with a wrong class, a miss and a false positive."""
    evaluator = CocoEvaluator({0: "cat", 1: "dog", 2: "bird"})
    evaluator.add(3, (200, 300), [[*FOUND, 0.9, 0]], [FOUND], [0])
    evaluator.add(
        7,
        (200, 300),
        [[*FOUND, 0.8, 1], [200, 10, 230, 40, 0.7, 0], [200, 10, 230, 40, 0.001, 1]],
        [FOUND, (0, 150, 20, 170)],
        [0, 1],
    )
    paths = [f"folder/{number}.jpg" for number in range(8)]
    return describe_evaluation(evaluator.compute(), evaluator, paths)


def test_the_table_of_classes_is_that_of_the_metrics() -> None:
    content = small()
    assert [row["name"] for row in content["classes"]] == ["cat", "dog"]
    assert (content["classes"][0]["images"], content["classes"][0]["instances"]) == (2, 2)
    assert (content["images"], content["instances"], content["final"]) == (2, 3, True)
    assert content["overall"]["ap50"] == pytest.approx(
        np.mean([row["ap50"] for row in content["classes"]]), abs=1e-4
    )


def test_errors_are_counted_over_confidence() -> None:
    counts = small()["errors"]["counts"]
    assert {kind: row[50] for kind, row in counts.items()} == {
        "classification": 1, "localisation": 0, "both": 0, "duplicate": 0, "background": 1, "correct": 1, "missed": 1,
    }  # fmt: skip
    assert counts["background"][0] == 2  # the one of 0.001
    assert [row[100] for row in counts.values()] == [0, 0, 0, 0, 0, 0, 3]


def test_worst_and_best_images_have_their_boxes() -> None:
    worst, best = small()["samples"]
    assert (worst["rank"], worst["name"], worst["index"], worst["size"]) == ("worst", "7.jpg", 7, [200, 300])
    assert worst["truth"] == [[[10, 10, 110, 110], 0, 0.8], [[0, 150, 20, 170], 1, 0.0]]
    assert worst["found"] == [
        [[10, 10, 110, 110], 1, 0.8, "classification"],
        [[200, 10, 230, 40], 0, 0.7, "background"],
    ]
    assert (best["rank"], best["name"], best["found"][0][3]) == ("best", "3.jpg", "correct")
    assert small()["best_confidence"] > 0.8  # where its table of images is taken
    assert small()["by_image"] == [["7.jpg", 0, 0, 0, 0, 0, 0, 2]]


def test_sizes_are_cocos() -> None:
    sizes = small()["sizes"]
    assert [sizes[size]["instances"] for size in ("small", "medium", "large")] == [1, 0, 2]
    assert sizes["medium"]["ap"] is None
    assert sizes["small"]["ap"] == 0.0


def test_curves_have_the_classes_with_labels_and_their_mean() -> None:
    curves = small()["curves"]
    assert [row["name"] for row in curves["classes"]] == ["cat", "dog"]
    mean = np.mean([row["f1"] for row in curves["classes"]], axis=0)
    assert curves["all"]["f1"] == pytest.approx(mean.tolist(), abs=1e-4)
    assert (len(curves["confidence"]), len(curves["recall"])) == (101, 101)


def test_many_classes_are_cut_to_those_with_the_most_labels() -> None:
    content = evaluation_of([f"class {number}" for number in range(130)], images=60, side=200)
    confusion = content["confusion"]
    assert confusion["names"][-2:] == ["30 other classes", "background"]
    assert np.shape(confusion["matrix"]) == (MAX_CLASSES + 2, MAX_CLASSES + 2)
    whole = evaluation_of([f"class {number}" for number in range(90)], images=60, side=200)["confusion"]
    assert np.shape(whole["matrix"]) == (91, 91)
    assert len(content["curves"]["classes"]) == MAX_CLASSES
    assert content["curves"]["left_out"] == len(content["classes"]) - MAX_CLASSES


def test_a_validation_of_nothing_is_described() -> None:
    evaluator = CocoEvaluator({0: "cat"})
    evaluator.add(0, (10, 10), [], [], [])
    content = describe_evaluation(evaluator.compute(), evaluator, ["a.jpg"])
    assert (content["samples"], content["by_image"], content["curves"]["all"]) == ([], [], None)
    json.dumps(content, allow_nan=False)


def test_names_of_a_megabyte_are_shortened() -> None:
    content = evaluation_of(["x" * 1_000_000, "\x1b[31mred"])
    assert len(json.dumps({key: value for key, value in content.items() if key != "samples"})) < 100_000
    assert {row["name"] for row in content["classes"]} == {"x" * 57 + "...", "\\x1b[31mred"}
