from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detector.boxes import (
    MAX_CANDIDATES,
    NMSParams,
    aspect_angle,
    box_iou,
    ciou,
    clip_boxes,
    cxcywh_to_xyxy,
    iou,
    nms_free_detections,
    non_max_suppression,
    scale_boxes,
    top_detections,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "vectors.json").read_text())


def greedy_nms(boxes: Tensor, scores: Tensor, labels: Tensor, limit: float) -> list[int]:
    """The textbook loop: take the best box, drop its overlaps of the same class, repeat."""
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        rivals = [j for j in kept if labels[j] == labels[i]]
        if not rivals or box_iou(boxes[i : i + 1], boxes[rivals]).max() <= limit:
            kept.append(i)
    return kept


def random_preds(batch: int, num_classes: int, anchors: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(batch, 2, anchors, generator=generator) * 60
    size = 5 + torch.rand(batch, 2, anchors, generator=generator) * 30
    scores = torch.rand(batch, num_classes, anchors, generator=generator)
    return torch.cat((centre, size, scores), 1)


def test_centre_and_size_become_corners() -> None:
    assert cxcywh_to_xyxy(torch.tensor([[20.0, 40.0, 20.0, 40.0]])).tolist() == [[10.0, 20.0, 30.0, 60.0]]


def test_clip_moves_corners_to_the_border_and_leaves_the_argument_alone() -> None:
    boxes = torch.tensor([[-5.0, 2.0, 50.0, 90.0]])
    assert clip_boxes(boxes, height=40, width=30).tolist() == [[0.0, 2.0, 30.0, 40.0]]
    assert boxes.tolist() == [[-5.0, 2.0, 50.0, 90.0]]


def test_scaling_back_to_the_image_matches_the_reference() -> None:
    given = VECTORS["scale_boxes"]
    boxes = torch.tensor(given["in"], dtype=torch.float64)
    (height, width), (image_height, image_width) = given["img1"], given["img0"]
    gain = min(height / image_height, width / image_width)
    result = clip_boxes(scale_boxes(boxes, (gain, gain), (0, 0)), image_height, image_width)
    torch.testing.assert_close(result, torch.tensor(given["out"], dtype=torch.float64))


def test_scaling_removes_the_padding_before_the_ratio_and_does_not_clip() -> None:
    boxes = torch.tensor([[10.0, 100.0, 300.0, 480.0], [-10.0, 70.0, 700.0, 900.0]])
    result = scale_boxes(boxes, ratio=(0.5, 2.0), pad=(10, 80))
    assert result.tolist() == [[0.0, 10.0, 580.0, 200.0], [-40.0, -5.0, 1380.0, 410.0]]


def test_overlaps_match_the_reference() -> None:
    given = VECTORS["ciou"]
    a, b = (torch.tensor(given[key], dtype=torch.float64) for key in ("box1", "box2"))
    expected_iou, expected_ciou = (torch.tensor(given[key], dtype=torch.float64) for key in ("iou", "ciou"))
    torch.testing.assert_close(iou(a, b), expected_iou, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ciou(a, b), expected_ciou, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        ciou(a, b, aspect_angle(a), aspect_angle(b)), expected_ciou, rtol=1e-9, atol=1e-12
    )


def test_pairwise_iou_is_the_elementwise_one_of_every_pair() -> None:
    a, b = (
        cxcywh_to_xyxy(random_preds(1, 1, 7)[0, :4].T),
        cxcywh_to_xyxy(random_preds(1, 1, 5, seed=1)[0, :4].T),
    )
    torch.testing.assert_close(box_iou(a, b), iou(a[:, None], b))


def test_aspect_weight_of_ciou_is_constant_for_the_gradient() -> None:
    a = torch.tensor([[0.0, 0.0, 4.0, 8.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[1.0, 1.0, 9.0, 4.0]], dtype=torch.float64)
    shape = (4 / torch.pi**2) * (aspect_angle(a) - aspect_angle(b)).square()
    weight = (shape / (shape - iou(a, b) + 1)).detach()
    span = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    offset = (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2
    plain = iou(a, b) - offset.square().sum(-1) / span.square().sum(-1) - shape * weight
    (expected,) = torch.autograd.grad(plain.sum(), a)
    (actual,) = torch.autograd.grad(ciou(a, b).sum(), a)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("conf.25_iou.7", {"conf": 0.25, "iou": 0.7}),
        ("conf.001_iou.7_multilabel", {"conf": 0.001, "iou": 0.7, "multi_label": True}),
        ("conf.25_iou.45_agnostic", {"conf": 0.25, "iou": 0.45, "agnostic": True}),
    ],
)
def test_suppression_matches_the_reference(key: str, options: dict[str, float]) -> None:
    preds = torch.tensor(VECTORS["nms"]["pred_4+2_by_8"])[None]
    (result,) = non_max_suppression(preds, NMSParams(**options))
    torch.testing.assert_close(result, torch.tensor(VECTORS["nms"][key]))


@pytest.mark.parametrize("agnostic", [False, True])
def test_suppression_equals_the_textbook_loop(agnostic: bool) -> None:
    preds = random_preds(2, 3, 60)
    for image, result in zip(
        preds,
        non_max_suppression(preds, NMSParams(0.3, 0.5, multi_label=True, agnostic=agnostic)),
        strict=True,
    ):
        labels, anchors = (image[4:] > 0.3).nonzero(as_tuple=True)
        boxes, scores = cxcywh_to_xyxy(image[:4].T)[anchors], image[4 + labels, anchors]
        kept = greedy_nms(boxes, scores, labels * 0 if agnostic else labels, 0.5)
        expected = torch.cat((boxes, scores[:, None], labels[:, None]), 1)[kept]
        torch.testing.assert_close(result, expected)


def test_a_prefix_gives_the_same_detections_as_all_candidates() -> None:
    preds = random_preds(1, 2, 4000)
    (few,) = non_max_suppression(preds, NMSParams(0.001, 0.3, max_det=20, multi_label=True))
    (many,) = non_max_suppression(preds, NMSParams(0.001, 0.3, max_det=100_000, multi_label=True))
    assert 20 < len(many) < 8000
    assert few.tolist() == many[:20].tolist()


def test_only_the_best_candidates_enter() -> None:
    anchors = MAX_CANDIDATES + 500
    preds = torch.zeros(1, 5, anchors)
    preds[0, 0] = torch.arange(anchors) * 20.0
    preds[0, 2:4] = 10.0
    preds[0, 4] = torch.linspace(0.1, 0.9, anchors)
    (result,) = non_max_suppression(preds, NMSParams(0.05, 0.7, max_det=anchors))
    assert len(result) == MAX_CANDIDATES
    assert result[0, 0] == preds[0, 0, -1] - 5


def test_class_filter_drops_an_anchor_whose_best_class_is_not_wanted() -> None:
    preds = torch.tensor([[20.0, 20, 10, 10, 0.9, 0.6], [80.0, 80, 10, 10, 0.2, 0.5]]).T[None]
    (single,) = non_max_suppression(preds, NMSParams(0.25, 0.7, classes=[1]))
    assert single[:, 4:].tolist() == [[0.5, 1.0]]
    (multi,) = non_max_suppression(preds, NMSParams(0.25, 0.7, classes=[1], multi_label=True))
    assert multi[:, 5].tolist() == [1.0, 1.0] and len(multi) == 2


def test_images_without_detections_give_empty_rows() -> None:
    preds = random_preds(2, 3, 10)
    preds[0, 4:] = 0
    for empty, found in (
        non_max_suppression(preds, NMSParams(0.25, 0.7)),
        nms_free_detections(preds, NMSParams(0.25)),
    ):
        assert empty.shape == (0, 6) and found.shape[0] > 0


def test_half_precision_scores_give_float32_detections() -> None:
    preds = random_preds(1, 3, 10).bfloat16()
    assert non_max_suppression(preds, NMSParams(0.25, 0.7))[0].dtype == torch.float32
    assert nms_free_detections(preds, NMSParams(0.25))[0].dtype == torch.float32


def test_two_stage_selection_ranks_pairs_of_the_best_anchors() -> None:
    preds = torch.zeros(1, 6, 3)
    preds[0, :4] = torch.tensor([[10.0, 20, 30], [10, 20, 30], [4, 4, 4], [4, 4, 4]])
    preds[0, 4:] = torch.tensor([[0.9, 0.3, 0.5], [0.8, 0.2, 0.1]])
    rows = top_detections(preds, max_det=2)
    torch.testing.assert_close(rows[0], torch.tensor([[8.0, 8, 12, 12, 0.9, 0], [8.0, 8, 12, 12, 0.8, 1]]))
    agnostic = top_detections(preds, max_det=2, agnostic=True)
    torch.testing.assert_close(
        agnostic[0], torch.tensor([[8.0, 8, 12, 12, 0.9, 0], [28.0, 28, 32, 32, 0.5, 0]])
    )


def test_wanted_classes_are_not_crowded_out_of_the_top() -> None:
    preds = torch.zeros(1, 6, 3)
    preds[0, 4:] = torch.tensor([[0.9, 0.8, 0.1], [0.3, 0.1, 0.5]])
    (rows,) = nms_free_detections(preds, NMSParams(0.25, max_det=2, classes=[1]))
    assert rows[:, 5].tolist() == [1.0, 1.0]
    torch.testing.assert_close(rows[:, 4], torch.tensor([0.5, 0.3]))
    (agnostic,) = nms_free_detections(preds, NMSParams(0.25, max_det=2, agnostic=True, classes=[1]))
    torch.testing.assert_close(agnostic[:, 4], torch.tensor([0.5]))


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.float32,) * 2, (torch.float64,) * 2, (torch.bfloat16, torch.float32)]
)
def test_an_image_without_detections_gives_no_rows(dtype: torch.dtype, expected: torch.dtype) -> None:
    preds = torch.zeros(2, 7, 20, dtype=dtype)
    preds[1, :, 3] = torch.tensor([5, 5, 4, 4, 0.1, 0.9, 0.2])
    none, one = non_max_suppression(preds, NMSParams(0.5, 0.7))
    assert none.shape == (0, 6) and one.shape == (1, 6)
    assert none.dtype == one.dtype == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e12, 3e37])
@pytest.mark.parametrize("agnostic", [False, True])
def test_one_box_that_is_no_box_leaves_the_suppression_of_the_others_as_it_is(bad, agnostic):
    good = torch.tensor([[100.0, 100, 50, 50], [101, 100, 50, 50], [300, 100, 50, 50], [301, 100, 50, 50]])
    scores = torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.0, 0.7], [0.0, 0.6]])
    params = NMSParams(0.25, 0.5, agnostic=agnostic)
    plain = non_max_suppression(torch.cat((good, scores), 1).T[None], params)[0]
    odd = torch.cat((good, torch.tensor([[bad, 100.0, 50, 50]])))
    preds = torch.cat((odd, torch.cat((scores, torch.tensor([[0.0, 0.5]])))), 1).T[None]
    found = non_max_suppression(preds, params)[0]
    assert len(plain) == 2 and torch.equal(found[:2], plain) and found.isfinite().all()
    assert found.dtype == torch.float32 and len(found) == (2 if bad in (float("inf"),) or bad != bad else 3)


def test_an_nms_free_head_gives_no_box_that_is_not_finite():
    preds = torch.tensor([[100.0, 100, 50, 50, 0.9], [float("nan"), 100, 50, 50, 0.8]]).T[None]
    assert len(nms_free_detections(preds, NMSParams(0.25, None))[0]) == 1
