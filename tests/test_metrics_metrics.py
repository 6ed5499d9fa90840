from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import json

import numpy as np
import pytest

from detector.boxes import CROWD, DIFFICULT, OBJECT
from detector.errors import DataError, MissingPackageError, SettingsError
from detector.metrics.cocoeval import COCO_CATEGORY_IDS
from detector.metrics.evaluator import CocoEvaluator

NAMES = {0: "person", 1: "car", 2: "dog", 3: "never"}
BACKENDS = ("pycocotools", "faster_coco_eval")


def drawn_cases(seed, images=12, detections=40, labels=6, classes=3):
    """Images of labels and of noisy, often doubled or mistaken detections with tied scores."""
    rng = np.random.default_rng(seed)
    for image_id in range(images):
        count = int(rng.integers(0, labels + 1))
        corner, size = rng.uniform(0, 500, (count, 2)), np.exp(rng.uniform(2, 5.3, (count, 2)))
        boxes, true = np.concatenate([corner, corner + size], 1), rng.integers(0, classes, count)
        source = rng.integers(0, max(count, 1), detections if count else 2)
        near = boxes[source] if count else rng.uniform(0, 100, (2, 4)).cumsum(1)[:, [0, 1, 2, 3]]
        near = near + rng.normal(0, 0.08, near.shape) * np.tile(near[:, 2:] - near[:, :2], 2)
        guess = true[source] if count else np.zeros(2, np.int64)
        guess = np.where(rng.uniform(size=len(guess)) < 0.8, guess, rng.integers(0, classes, len(guess)))
        scores = rng.uniform(0, 1, len(guess)).round(2)
        yield image_id, (640, 640), np.concatenate([near, scores[:, None], guess[:, None]], 1), boxes, true


def with_ignored(cases, seed):
    """Make a third of the labels difficult objects or groups of objects."""
    rng = np.random.default_rng(seed + 100)
    return [(*case, rng.choice([OBJECT, OBJECT, OBJECT, DIFFICULT, CROWD], len(case[4]))) for case in cases]


def evaluate(cases, backend="pycocotools", full=True):
    evaluator = CocoEvaluator(NAMES, backend)
    for case in cases:
        evaluator.add(*case)
    return evaluator.compute(full)


def plain_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def is_ignored(pred, box, kind, threshold):
    if kind == DIFFICULT:
        return plain_iou(pred, box) >= threshold
    width, height = (min(pred[n + 2], box[n + 2]) - max(pred[n], box[n]) for n in (0, 1))
    shared, area = max(width, 0) * max(height, 0), (pred[2] - pred[0]) * (pred[3] - pred[1])
    return kind == CROWD and shared / area >= threshold


def plain_ap(cases, number, threshold):
    """AP of one class from the definition: greedy matching, then 101 points of the precision envelope."""
    outcomes, total = [], 0
    for _, _, preds, boxes, labels, *kinds in cases:
        kinds = kinds[0] if kinds else [OBJECT] * len(labels)
        own = [(b, kind) for b, label, kind in zip(boxes, labels, kinds, strict=True) if label == number]
        mine = [box for box, kind in own if kind == OBJECT]
        total += len(mine)
        free = list(range(len(mine)))
        for pred in sorted((p for p in preds if p[5] == number), key=lambda p: -p[4])[:100]:
            best = max(free, key=lambda g: plain_iou(pred, mine[g]), default=None)
            hit = best is not None and plain_iou(pred, mine[best]) >= threshold
            if hit:
                free.remove(best)
            elif any(is_ignored(pred, box, kind, threshold) for box, kind in own):
                continue
            outcomes.append((pred[4], hit))
    outcomes.sort(key=lambda outcome: -outcome[0])
    points, found = [], 0
    for rank, (_, hit) in enumerate(outcomes, 1):
        found += hit
        points.append((found / total, found / rank))
    envelope = [max((p for r, p in points if r >= recall), default=0) for recall in np.linspace(0, 1, 101)]
    return sum(envelope) / 101


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("some_ignored", [False, True])
def test_ap_equals_the_plain_definition(backend, seed, some_ignored):
    cases = list(drawn_cases(seed))
    cases = with_ignored(cases, seed) if some_ignored else cases
    box = evaluate(cases, backend).box
    assert box.ap_class_index.tolist() == [0, 1, 2]
    expected = [[plain_ap(cases, n, t) for t in np.linspace(0.5, 0.95, 10)] for n in range(3)]
    np.testing.assert_allclose(box.all_ap, expected, atol=1e-9)
    assert box.map == pytest.approx(np.mean(expected), abs=1e-9)
    np.testing.assert_allclose(box.maps, [*np.mean(expected, axis=1), np.mean(expected)], atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_backends_give_equal_metrics(seed):
    cases = list(drawn_cases(seed, detections=300))  # over 100 of one class in one image
    slow, fast = (evaluate(cases, backend) for backend in BACKENDS)
    assert (slow.backend, fast.backend) == BACKENDS
    np.testing.assert_allclose(slow.box.all_ap, fast.box.all_ap, rtol=0, atol=1e-9)
    assert slow.coco == pytest.approx(fast.coco, abs=1e-9)
    curves = [m.detection_curves.precision_at_recall for m in (slow, fast)]
    np.testing.assert_allclose(*curves, rtol=0, atol=1e-9)
    assert slow.results_dict == pytest.approx(fast.results_dict, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_what_pycocotools_prints_for_the_exported_detections(seed, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    evaluator = CocoEvaluator(NAMES, "pycocotools")
    for case in drawn_cases(seed):
        evaluator.add(*case)
    (tmp_path / "truth.json").write_text(json.dumps(evaluator.ground_truth()))
    (tmp_path / "found.json").write_text(json.dumps(evaluator.detections()))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(tmp_path / "truth.json")
        run = COCOeval(truth, truth.loadRes(str(tmp_path / "found.json")), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    metrics = evaluator.compute()
    assert list(metrics.coco.values()) == pytest.approx(run.stats.tolist(), abs=1e-9)
    assert [metrics.box.map, metrics.box.map50, metrics.box.all_ap[:, 5].mean()] == pytest.approx(
        run.stats[:3], abs=1e-9
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("some_ignored", [False, True])
def test_curve_matching_agrees_with_coco_at_iou_50(seed, some_ignored, monkeypatch):
    cases = list(drawn_cases(seed, detections=300))
    cases = with_ignored(cases, seed) if some_ignored else cases
    seen = {}

    def spy(scores, classes, hits, num_labels):
        seen.update(classes=classes, hits=hits, num_labels=num_labels)
        return compute_curves(scores, classes, hits, num_labels)

    from detector.metrics.curves import compute_curves

    monkeypatch.setattr("detector.metrics.evaluator.compute_curves", spy)
    box = evaluate(cases).box
    for row, number in enumerate(box.ap_class_index):
        found = np.cumsum(seen["hits"][seen["classes"] == number])
        precision = found / np.arange(1, len(found) + 1)
        recall = found / seen["num_labels"][number]
        envelope = [precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]
        assert np.mean(envelope) == pytest.approx(box.ap50[row], abs=1e-9)


def test_order_of_images_does_not_matter():
    cases = list(drawn_cases(1))
    forward, backward = evaluate(cases), evaluate(cases[::-1])
    assert forward.results_dict == backward.results_dict
    assert forward.coco == backward.coco
    assert (forward.confusion_matrix.matrix == backward.confusion_matrix.matrix).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_quick_metrics_equal_the_full_ones(backend):
    cases = list(drawn_cases(2))
    full, quick = evaluate(cases, backend), evaluate(cases, backend, full=False)
    assert quick.results_dict == full.results_dict
    assert quick.coco == {} and quick.confusion_matrix is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_perfect_detections_score_one(backend):
    boxes = [[10, 10, 30, 30], [100, 100, 200, 220]]
    preds = [[*boxes[0], 0.9, 0], [*boxes[1], 0.8, 2]]
    metrics = evaluate([(7, (240, 320), preds, boxes, [0, 2])], backend)
    assert metrics.results_dict == pytest.approx(
        {
            "metrics/precision": 1,
            "metrics/recall": 1,
            "metrics/mAP50": 1,
            "metrics/mAP50-95": 1,
            "fitness": 1,
        }
    )
    assert [metrics.coco[key] for key in ("APs", "APm", "APl")] == pytest.approx([1, -1, 1])
    assert metrics.nt_per_class.tolist() == [1, 0, 1, 0]
    assert metrics.box.ap_class_index.tolist() == [0, 2]
    assert 0 <= metrics.detection_curves.best_confidence <= 0.8


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "cases",
    [
        [],
        [(0, (64, 64), np.zeros((0, 6)), np.zeros((0, 4)), [])],
        [(0, (64, 64), [[1, 1, 9, 9, 0.5, 0]], np.zeros((0, 4)), [])],
        [(0, (64, 64), np.zeros((0, 6)), [[1, 1, 9, 9]], [1])],
    ],
    ids=["no images", "empty image", "no labels", "no detections"],
)
def test_nothing_to_find_or_nothing_found_gives_zeros(backend, cases):
    for full in (True, False):
        metrics = evaluate(cases, backend, full)
        assert set(metrics.results_dict.values()) == {0.0}
        assert metrics.box.maps.tolist() == [0, 0, 0, 0]
        curves = metrics.detection_curves
        for values in (curves.precision, curves.recall, curves.f1, curves.precision_at_recall):
            assert not np.isnan(values).any()
        assert metrics.table().splitlines()[1].split()[0] == "all"


def test_confusions_are_greedy_by_confidence_and_across_classes():
    boxes = [[0, 0, 100, 100], [200, 200, 300, 300], [400, 400, 500, 500]]
    preds = [
        [0, 0, 100, 100, 0.6, 1],  # a person taken for a car
        [0, 0, 100, 95, 0.5, 0],  # too late: the label is gone
        [200, 200, 300, 300, 0.9, 1],  # right
        [200, 200, 300, 300, 0.2, 2],  # below the confidence threshold
        [0, 400, 50, 450, 0.8, 2],  # background
    ]
    confusion = evaluate([(0, (640, 640), preds, boxes, [0, 1, 2])]).confusion_matrix
    expected = np.zeros((5, 5), int)
    expected[1, 0] = expected[0, 4] = expected[1, 1] = expected[2, 4] = expected[4, 2] = 1
    assert confusion.matrix.tolist() == expected.tolist()


def test_exports_name_each_class_with_its_metrics():
    metrics = evaluate(drawn_cases(0))
    rows = metrics.summary()
    assert [row["class"] for row in rows] == ["person", "car", "dog"]
    assert rows[0]["instances"] == metrics.nt_per_class[0]
    assert json.loads(metrics.to_json()) == rows
    header, *lines = metrics.to_csv().splitlines()
    assert header == "class,images,instances,precision,recall,f1,mAP50,mAP50-95"
    assert len(lines) == 3 and lines[1].startswith("car,")
    assert [row["mAP50-95"] for row in rows] == metrics.box.ap.round(5).tolist()


def test_the_metrics_of_one_class_and_of_all_are_tuples():
    box = evaluate(drawn_cases(0)).box
    assert box.class_result(1) == (box.p[1], box.r[1], box.ap50[1], box.ap[1])
    assert box.mean_results() == (box.mp, box.mr, box.map50, box.map)
    assert box.map75 == box.all_ap[:, 5].mean()


def test_a_notebook_shows_the_metrics_as_a_table():
    evaluator = CocoEvaluator({0: "<b>", 1: "car"}, "pycocotools")
    evaluator.add(0, (64, 64), [[0, 0, 10, 10, 0.9, 0]], [[0, 0, 10, 10], [20, 20, 40, 40]], [0, 1])
    lines = evaluator.compute()._repr_html_().split("<tr>")
    assert lines[1].startswith("<th>class</th><th>images</th><th>instances</th><th>precision</th>")
    assert lines[2].startswith("<td>all</td><td>1</td><td>2</td><td>0.5</td>")
    assert lines[3].startswith("<td>&lt;b&gt;</td><td>1</td><td>1</td><td>1.0</td>") and len(lines) == 5
    assert CocoEvaluator({0: "car"}, "pycocotools").compute()._repr_html_() == ""


def test_table_columns_line_up():
    evaluator = CocoEvaluator({0: "犬", 1: "traffic light"}, "pycocotools")
    evaluator.add(0, (64, 64), [[0, 0, 10, 10, 0.9, 0]], [[0, 0, 10, 10], [20, 20, 40, 40]], [0, 1])
    assert evaluator.compute().table().splitlines() == [
        "class          images  instances      P      R     F1  mAP50  mAP50-95",
        "all                 1          2  0.500  0.500  0.500  0.500     0.500",
        "犬                  1          1  1.000  1.000  1.000  1.000     1.000",
        "traffic light       1          1  0.000  0.000  0.000  0.000     0.000",
    ]


def test_exported_detections_may_carry_official_category_ids():
    evaluator = CocoEvaluator({n: f"class_{n}" for n in range(80)})
    evaluator.add(139, (64, 64), [[0.5, 1, 10.5, 21, 0.9, 79]], [[0, 0, 10, 10]], [12])
    assert (len(COCO_CATEGORY_IDS), COCO_CATEGORY_IDS[12], COCO_CATEGORY_IDS[79]) == (80, 14, 90)
    assert evaluator.detections(COCO_CATEGORY_IDS) == [
        {"image_id": 139, "category_id": 90, "bbox": [0.5, 1, 10, 20], "score": 0.9}
    ]
    assert evaluator.ground_truth()["annotations"][0]["category_id"] == 13


def test_faster_coco_eval_is_chosen_where_installed(monkeypatch):
    assert CocoEvaluator(NAMES).backend == "faster_coco_eval"
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda n: None if "faster" in n else find(n))
    assert CocoEvaluator(NAMES).backend == "pycocotools"
    with pytest.raises(MissingPackageError, match="pip install faster-coco-eval"):
        CocoEvaluator(NAMES, "faster_coco_eval")


def test_wrong_input_is_named():
    with pytest.raises(SettingsError, match="backend='lvis'"):
        CocoEvaluator(NAMES, "lvis")
    evaluator = CocoEvaluator(NAMES)
    evaluator.add(3, (9, 9), [], [], [])
    with pytest.raises(DataError, match="image id 3 was added twice"):
        evaluator.add(3, (9, 9), [], [], [])
    with pytest.raises(DataError, match="a detection has class 4, but 4 classes are named"):
        evaluator.add(4, (9, 9), [[0, 0, 1, 1, 0.5, 4]], [], [])
    with pytest.raises(DataError, match="a label has class -1"):
        evaluator.add(4, (9, 9), [], [[0, 0, 1, 1]], [-1])


def test_evaluation_prints_nothing(capsys):
    for backend in BACKENDS:
        evaluate(drawn_cases(0), backend)
    assert capsys.readouterr().out == ""


def test_evaluation_leaves_the_garbage_collector_as_it_was():
    gc.disable()
    try:
        evaluate(drawn_cases(0))
        assert not gc.isenabled()
    finally:
        gc.enable()
    evaluate(drawn_cases(0))
    assert gc.isenabled()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_crowd_beyond_cocos_100_detections_can_be_found_whole(backend, full, caplog):
    caplog.set_level("INFO")
    corners = np.stack(np.meshgrid(np.arange(15), np.arange(10)), -1).reshape(-1, 2) * 40.0
    boxes = np.concatenate([corners, corners + 30], 1)
    scores = np.linspace(0.9, 0.5, 150)[:, None]
    found = np.concatenate([boxes, scores, np.zeros((150, 1))], 1)
    metrics = evaluate([(0, (400, 600), found, boxes, np.zeros(150, np.int64))], backend, full)
    assert metrics.box.map == pytest.approx(1.0)
    assert metrics.box.mr == pytest.approx(1.0)
    said = [text for text in caplog.messages if "150 objects of one class" in text]
    assert len(said) == int(full)
    if full:
        assert metrics.coco["AR100"] == pytest.approx(100 / 150)  # the twelve numbers stay COCO's
        assert metrics.coco["AP"] < 0.7


def test_the_confusion_matrix_leaves_out_what_is_ignored():
    box, away = [10, 10, 60, 60], [200, 200, 260, 260]
    preds = [[*box, 0.9, 0], [*away, 0.8, 1]]
    metrics = evaluate([(1, (300, 300), preds, [box, away], [1, 1], [DIFFICULT, OBJECT])])
    assert metrics.confusion_matrix.matrix.sum() == 1
    assert metrics.confusion_matrix.matrix[1, 1] == 1


def test_the_exported_truth_marks_what_is_ignored():
    evaluator = CocoEvaluator(NAMES)
    evaluator.add(1, (300, 300), [], [[1, 2, 4, 6]] * 3, [0, 1, 2], [OBJECT, CROWD, DIFFICULT])
    truth = evaluator.ground_truth()["annotations"]
    assert [(a["category_id"], a["iscrowd"], a.get("difficult", 0)) for a in truth] == [
        (1, 0, 0),
        (2, 1, 0),
        (3, 1, 1),
    ]
