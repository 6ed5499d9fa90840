from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.vector_fill import VECTORS, hashed
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DynamicOutputShapeException
from torch.nn.functional import binary_cross_entropy_with_logits

from detector.boxes import ciou
from detector.nn.config import load_model_config
from detector.nn.heads import HeadPreds, make_anchors
from detector.nn.losses import DetectionLoss, DualHeadLoss, SingleHeadLoss, build_loss
from detector.nn.model import DetectionModel

SHAPES = ((8, 12), (4, 6), (2, 3))
ANCHORS = 126
OBJECTS = (
    (0, 0, 0.3, 0.4, 0.25, 0.5),
    (0, 1, 0.5, 0.5, 0.9, 0.9),
    (0, 1, 0.8, 0.2, 0.03, 0.04),
    (1, 2, 0.55, 0.55, 0.4, 0.3),
    (1, 0, 0.2, 0.75, 0.1, 0.15),
    (1, 2, 0.6, 0.5, 0.4, 0.35),
)


def targets(empty: bool = False) -> tuple[Tensor, Tensor]:
    boxes, labels = torch.zeros(2, 3, 4), torch.full((2, 3), -1)
    for row, (image, label, x, y, w, h) in enumerate(() if empty else OBJECTS):
        corners = [(x - w / 2) * 96, (y - h / 2) * 64, (x + w / 2) * 96, (y + h / 2) * 64]
        boxes[image, row % 3], labels[image, row % 3] = torch.tensor(corners), label
    return boxes, labels


def head_preds(reg_max: int) -> HeadPreds:
    count = 2 * 4 * reg_max * ANCHORS
    raw = 4 * hashed(count, 21) - 2 if reg_max > 1 else 3 * hashed(count, 21) - 0.5
    scores = 6 * hashed(2 * 3 * ANCHORS, 22) - 4
    return HeadPreds(
        raw.float().view(2, -1, ANCHORS).requires_grad_(),
        scores.float().view(2, 3, ANCHORS).requires_grad_(),
        *make_anchors([torch.empty(1, 1, h, w) for h, w in SHAPES], (8, 16, 32)),
    )


def assert_positives(loss: DetectionLoss, preds: HeadPreds, empty: bool, expected: dict[str, Any]) -> None:
    found = loss.assign(preds, *targets(empty))
    assert found.scores.sum().item() == pytest.approx(expected["target_score_sum"], rel=1e-5)
    for image, want in enumerate(expected["positives_with_score"]):
        rows = zip(*(value[image].tolist() for value in found), strict=True)
        actual = {(anchor, gt): score for anchor, gt, score in rows if score > 1e-5}
        wanted = {
            (anchor, gt): score
            for anchor, gt, score in zip(want["anchor"], want["gt"], want["score"], strict=True)
            if score > 1e-5
        }
        assert actual.keys() == wanted.keys()
        assert actual == pytest.approx(wanted, abs=2e-6)


def grad_sums(preds: HeadPreds) -> list[float]:
    return [value.grad.abs().sum().item() for value in (preds.boxes, preds.scores) if value.grad is not None]


@pytest.mark.parametrize("empty", [False, True])
def test_single_head_matches_the_reference(empty: bool) -> None:
    expected = VECTORS["loss"]["v8_empty" if empty else "v8"]
    loss, preds = DetectionLoss(3, 16), head_preds(16)
    items = loss(preds, *targets(empty))
    (items.sum() * 2).backward()
    assert dict(zip(loss.names, items.tolist(), strict=True)) == pytest.approx(expected["items"], rel=1e-5)
    assert (items * 2).tolist() == pytest.approx(expected["loss_times_B"], rel=1e-5)
    wanted = [expected["grad_boxes_abs_sum"], expected["grad_scores_abs_sum"]]
    assert grad_sums(preds) == pytest.approx(wanted, rel=1e-5)
    assert_positives(loss, preds, empty, expected)


@pytest.mark.parametrize("empty", [False, True])
def test_dual_head_matches_the_reference(empty: bool) -> None:
    expected = VECTORS["loss"]["y26_empty" if empty else "y26"]
    loss = DualHeadLoss(DetectionLoss(3, 1), DetectionLoss(3, 1, topk=7, topk2=1))
    loss.set_epoch(0, 10)
    preds = {"one2many": head_preds(1), "one2one": head_preds(1)}
    total, items = loss(preds, *targets(empty))
    (total.sum() * 2).backward()
    assert (total * 2).tolist() == pytest.approx(expected["total_times_B"], rel=1e-5)
    for head in ("one2many", "one2one"):
        want = expected[head]
        assert dict(zip(loss.names, items[head].tolist(), strict=True)) == pytest.approx(
            want["items"], rel=1e-5
        )
        assert torch.equal(items[head], loss.items(head, preds[head], *targets(empty)))
        sums = [want["grad_boxes_abs_sum"], want["grad_scores_abs_sum"]]
        assert grad_sums(preds[head]) == pytest.approx(sums, rel=1e-5)
        assert_positives(loss.losses[head], preds[head], empty, want)


def test_batch_padded_to_no_boxes_at_all_is_background() -> None:
    loss, preds = DetectionLoss(3, 16), head_preds(16)
    none = loss(preds, torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64))
    torch.testing.assert_close(none, loss(preds, *targets(empty=True)))


def test_weight_moves_from_one_to_many_to_one_to_one() -> None:
    loss = DualHeadLoss(DetectionLoss(3, 1), DetectionLoss(3, 1))
    for epoch, one2many, one2one in VECTORS["progloss_epochs10"]:
        loss.set_epoch(epoch, 10)
        assert loss.weights == pytest.approx({"one2many": one2many, "one2one": one2one})


def test_distribution_loss_matches_the_reference() -> None:
    from detector.nn.losses import _distribution_loss

    given = VECTORS["dfl"]
    logits = (4 * hashed(128, 7) - 2).view(1, 2, 64)
    target = torch.tensor(given["target"], dtype=torch.float64).view(1, 2, 4)
    result = _distribution_loss(logits, target, torch.arange(16).double())
    torch.testing.assert_close(result[0], torch.tensor(given["loss_per_box"], dtype=torch.float64).flatten())


@pytest.mark.parametrize("reg_max", [1, 16])
def test_loss_on_slots_equals_the_loss_over_all_anchor_points(reg_max: int) -> None:
    weights = torch.tensor([0.5, 1.0, 1.5])
    loss, preds = DetectionLoss(3, reg_max, class_weights=weights), head_preds(reg_max)
    boxes, labels = targets()
    found = loss.assign(preds, boxes, labels)
    total = max(1.0, found.scores.sum().item())
    points, strides = preds.anchor_points, preds.strides[:, None]
    raw = preds.boxes.transpose(1, 2).reshape(2, ANCHORS, 4, reg_max)
    distances = (raw.softmax(-1) * torch.arange(16)).sum(-1) if reg_max > 1 else raw[..., 0]
    wanted_scores, box, distance = torch.zeros(2, 3, ANCHORS), torch.zeros(()), torch.zeros(())
    for image in range(2):
        for anchor, gt, score in zip(*(value[image].tolist() for value in found), strict=True):
            if score == 0:
                continue
            wanted_scores[image, labels[image, gt], anchor] = score
            corners = boxes[image, gt] / strides[anchor]
            point, (left, top, right, bottom) = points[anchor], distances[image, anchor].unbind()
            predicted = torch.stack((point[0] - left, point[1] - top, point[0] + right, point[1] + bottom))
            box = box + (1 - ciou(predicted, corners)) * score
            wanted = torch.cat((point - corners[:2], corners[2:] - point))
            if reg_max > 1:
                low = wanted.clamp(0, 14.99).floor().long()
                high_share = wanted.clamp(0, 14.99) - low
                logs = raw[image, anchor].log_softmax(-1)
                side = torch.arange(4)
                errors = -(1 - high_share) * logs[side, low] - high_share * logs[side, low + 1]
            else:
                size = torch.tensor([96.0, 64, 96, 64])
                errors = (distances[image, anchor] - wanted).abs() * strides[anchor] / size
            distance = distance + errors.mean() * score
    cross_entropy = binary_cross_entropy_with_logits(preds.scores, wanted_scores, reduction="none")
    plain = torch.stack((7.5 * box, 0.5 * (cross_entropy * weights[:, None]).sum(), 1.5 * distance)) / total
    actual = loss(preds, boxes, labels)
    torch.testing.assert_close(actual, plain, rtol=1e-5, atol=1e-6)
    expected_grads = torch.autograd.grad(plain.sum(), preds[:2])
    for grad, expected in zip(torch.autograd.grad(actual.sum(), preds[:2]), expected_grads, strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reg_max", [1, 16])
def test_autocast_does_not_round_the_loss(reg_max: int) -> None:
    loss, preds = DetectionLoss(3, reg_max), head_preds(reg_max)
    exact = loss(preds, *targets())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(preds, *targets()), exact)


@pytest.mark.parametrize("reg_max", [1, 16])
def test_shapes_never_depend_on_values(reg_max: int) -> None:
    """Fake tensors have no values: anything that reads one, or whose shape follows from one, raises."""
    with FakeTensorMode():
        raw = torch.zeros(2, 4 * reg_max, ANCHORS, requires_grad=True)
        scores = torch.zeros(2, 3, ANCHORS, requires_grad=True)
        anchors = make_anchors([torch.empty(1, 1, h, w) for h, w in SHAPES], (8, 16, 32))
        preds = HeadPreds(raw, scores, *anchors)
        boxes, labels = torch.zeros(2, 5, 4), torch.zeros(2, 5, dtype=torch.int64)
        head_losses = [DetectionLoss(3, reg_max, class_weights=[1.0, 1.0, 1.0], topk2=k) for k in (None, 1)]
        total, _ = DualHeadLoss(*head_losses)({"one2many": preds, "one2one": preds}, boxes, labels)
        total.sum().backward()
        assert raw.grad is not None and raw.grad.shape == raw.shape
        with pytest.raises(DynamicOutputShapeException):
            boxes[labels >= 0]


def test_loss_follows_from_the_network() -> None:
    single = build_loss(DetectionModel(load_model_config("yolo11n", 3)), box=1.0, cls=2.0, dfl=3.0)
    assert isinstance(single, SingleHeadLoss)
    assert single.names == ("box_loss", "cls_loss", "dfl_loss")
    assert (single.one2many.gains, single.one2many.topk, single.one2many.topk2) == ((1.0, 2.0, 3.0), 10, None)
    dual = build_loss(DetectionModel(load_model_config("yolo26n", 3)))
    assert isinstance(dual, DualHeadLoss)
    assert dual.names == ("box_loss", "cls_loss", "l1_loss")
    assert [(part.topk, part.topk2, part.min_side) for part in dual.losses.values()] == [
        (10, None, 16),
        (7, 1, 16),
    ]


def test_small_network_learns_one_image() -> None:
    torch.manual_seed(0)
    model = DetectionModel(load_model_config("yolo26n", 3)).train()
    loss = build_loss(model)
    images = torch.rand(2, 3, 64, 96)
    totals = []
    for _ in range(15):
        total, _ = loss(model(images), *targets())
        grads = torch.autograd.grad(total.sum(), list(model.parameters()))
        for parameter, grad in zip(model.parameters(), grads, strict=True):
            parameter.data -= 1e-3 * grad.sign()
        totals.append(total.sum().item())
    assert min(totals[-3:]) < 0.8 * totals[0]


def test_the_one_to_many_loss_keeps_its_weight_where_that_head_is_the_one_in_use() -> None:
    loss = DualHeadLoss(DetectionLoss(3, 1), DetectionLoss(3, 1, topk=7, topk2=1), keep_one2many=True)
    for epoch, one2one in ((0, 0.2), (9, 0.9)):
        loss.set_epoch(epoch, 10)
        assert loss.weights == pytest.approx({"one2many": 0.8, "one2one": one2one})


@pytest.mark.parametrize(("nms", "keeps"), [(None, True), (True, True), (False, False)])
def test_build_loss_favours_the_selected_head(nms: bool | None, keeps: bool) -> None:
    model = DetectionModel(replace(load_model_config("yolo26n"), names=("a",)))
    model.select_head(nms)
    loss = build_loss(model)
    assert isinstance(loss, DualHeadLoss) and loss.keep_one2many is keeps


@pytest.mark.parametrize(
    ("name", "shares"),
    [("yolov8n", (0.36, 0.31, 0.33)), ("yolo11n", (0.38, 0.31, 0.31)), ("yolo26n", (0.456, 0.528, 0.0165))],
)
def test_the_terms_of_a_fresh_network_have_their_shares(
    name: str, shares: tuple[float, float, float]
) -> None:
    """Of box, class and distance loss with the default gains; a gain or a normalisation that slips changes them."""
    torch.manual_seed(0)
    model = DetectionModel(load_model_config(name, 3)).train()
    images = hashed(2 * 3 * 64 * 96, 7).float().view(2, 3, 64, 96)
    total, _ = build_loss(model)(model(images), *targets())
    assert (total / total.sum()).tolist() == pytest.approx(shares, rel=0.05)
