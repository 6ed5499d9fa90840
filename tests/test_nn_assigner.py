from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from detector.boxes import ciou
from detector.nn.assigner import assign
from detector.nn.heads import make_anchors


def plain_assign(
    scores: Tensor, preds: Tensor, points: Tensor, boxes: Tensor, labels: Tensor, topk: int, topk2: int | None
) -> dict[tuple[int, int], float]:
    """One image, step by step in float64: (anchor point, ground truth) to target score."""
    num_anchors, valid = len(points), (labels >= 0).nonzero().flatten().tolist()
    metrics, overlaps = torch.zeros(2, len(labels), num_anchors, dtype=torch.float64)
    for g in valid:
        x1, y1, x2, y2 = boxes[g].tolist()
        if x2 - x1 < 16:
            x1, x2 = (x1 + x2) / 2 - 8, (x1 + x2) / 2 + 8
        if y2 - y1 < 16:
            y1, y2 = (y1 + y2) / 2 - 8, (y1 + y2) / 2 + 8
        for a in range(num_anchors):
            x, y = points[a].tolist()
            if min(x - x1, y - y1, x2 - x, y2 - y) > 1e-9:
                overlaps[g, a] = ciou(boxes[g].double(), preds[a].double()).clamp(min=0)
                metrics[g, a] = scores[labels[g], a].double().sigmoid() ** 0.5 * overlaps[g, a] ** 6
    takers: dict[int, list[int]] = {}
    for g in valid:
        for a in metrics[g].argsort(descending=True)[:topk].tolist():
            if metrics[g, a] > 0:
                takers.setdefault(a, []).append(g)
    owner = {a: g[0] if len(g) == 1 else int(overlaps[:, a].argmax()) for a, g in takers.items()}
    if topk2 is not None:
        ranked = sorted(owner, key=lambda a: -metrics[owner[a], a])
        mine = {g: [a for a in ranked if owner[a] == g][:topk2] for g in valid}
        owner = {a: g for g, anchors in mine.items() for a in anchors}
    result = {}
    for a, g in owner.items():
        own = [b for b in owner if owner[b] == g]
        scale = overlaps[g, own].max() / (metrics[g, own].max() + 1e-9)
        result[a, g] = float(metrics[g, a] * scale)
    return result


def scene(seed: int, batch: int = 3, num_boxes: int = 7, num_classes: int = 3) -> tuple[Tensor, ...]:
    """Crowded images of 96 px whose predictions lie around their cells; some boxes are tiny, some padding."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    anchors, strides = make_anchors([torch.empty(1, 1, n, n) for n in (12, 6, 3)], (8, 16, 32))
    points = anchors * strides[:, None]
    reach = rand(batch, len(points), 4) * 30
    preds = torch.cat((points - reach[..., :2], points + reach[..., 2:]), -1)
    centre, size = 20 + rand(batch, num_boxes, 2) * 50, 4 + rand(batch, num_boxes, 2) ** 2 * 60
    boxes = torch.cat((centre - size / 2, centre + size / 2), -1)
    labels = torch.randint(0, num_classes, (batch, num_boxes), generator=generator)
    labels[0, 4:] = -1
    boxes[0, 4:] = 0
    return rand(batch, num_classes, len(points)) * 6 - 4, preds, points, boxes, labels


@pytest.mark.parametrize(("topk", "topk2"), [(10, None), (7, 1), (7, 2), (3, None)])
@pytest.mark.parametrize("seed", range(3))
def test_assignment_equals_the_plain_procedure(seed: int, topk: int, topk2: int | None) -> None:
    scores, preds, points, boxes, labels = scene(seed)
    result = assign(scores, preds, points, boxes, labels, topk, topk2)
    for image in range(len(labels)):
        expected = plain_assign(scores[image], preds[image], points, boxes[image], labels[image], topk, topk2)
        used = result.scores[image] > 0
        pairs = zip(result.anchors[image, used].tolist(), result.gts[image, used].tolist(), strict=True)
        actual = dict(zip(pairs, result.scores[image, used].tolist(), strict=True))
        assert len(actual) == used.sum() > 3
        assert actual.keys() == expected.keys()
        assert actual == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_contested_anchor_points_occur_in_these_scenes() -> None:
    """Without conflicts the comparison above would say little."""
    scores, preds, points, boxes, labels = scene(0)
    alone = [assign(scores, preds, points, boxes[:, g : g + 1], labels[:, g : g + 1]) for g in range(7)]
    apart = sum(int((result.scores > 0).sum()) for result in alone)
    assert apart > int((assign(scores, preds, points, boxes, labels).scores > 0).sum()) + 10


@pytest.mark.parametrize("topk2", [None, 1])
def test_result_does_not_depend_on_the_chunk_size(topk2: int | None) -> None:
    inputs = scene(5)
    whole = assign(*inputs, topk2=topk2, pairs=10**9)
    for pairs in (1, 3 * 189 * 2, 3 * 189 * 5):
        part = assign(*inputs, topk2=topk2, pairs=pairs)
        used = whole.scores > 0
        assert torch.equal(part.scores, whole.scores)
        assert torch.equal(part.anchors[used], whole.anchors[used]) and torch.equal(
            part.gts[used], whole.gts[used]
        )


def test_memory_layout_of_the_scores_does_not_matter() -> None:
    scores, *rest = scene(1)
    transposed = scores.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(assign(scores, *rest).scores, assign(transposed, *rest).scores)


def test_padding_changes_nothing() -> None:
    scores, preds, points, boxes, labels = scene(2)
    before = assign(scores, preds, points, boxes, labels)
    boxes = torch.cat((boxes, torch.zeros(3, 4, 4)), 1)
    labels = torch.cat((labels, torch.full((3, 4), -1)), 1)
    after = assign(scores, preds, points, boxes, labels)
    assert torch.equal(after.scores[:, :70], before.scores)
    assert not after.scores[:, 70:].any()


@pytest.mark.parametrize("num_boxes", [0, 2])
def test_images_without_boxes_get_no_targets(num_boxes: int) -> None:
    scores, preds, points, *_ = scene(0)
    result = assign(
        scores, preds, points, torch.zeros(3, num_boxes, 4), torch.full((3, num_boxes), -1, dtype=torch.int64)
    )
    assert result.scores.shape == (3, 10 * num_boxes) and not result.scores.any()


def test_box_smaller_than_a_cell_finds_anchor_points() -> None:
    points = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0]])
    box = torch.tensor([[[7.0, 3.0, 9.0, 5.0]]])  # between the first two points
    preds = box.expand(1, 3, 4).contiguous()
    found = assign(torch.zeros(1, 1, 3), preds, points, box, torch.zeros(1, 1, dtype=torch.int64))
    assert sorted(found.anchors[found.scores > 0].tolist()) == [0, 1]
    missed = assign(
        torch.zeros(1, 1, 3), preds, points, box, torch.zeros(1, 1, dtype=torch.int64), min_side=0
    )
    assert not missed.scores.any()


MEASURE = """
import resource, torch
from detector.nn.assigner import PAIRS_ON_ACCELERATOR, assign
torch.set_num_threads(1)
B, M, A, C = 16, 300, 8400, 3
def boxes(n):
    corner = torch.rand(B, n, 2) * 600
    return torch.cat((corner, corner + 8 + torch.rand(B, n, 2) * 60), -1)
inputs = torch.randn(B, C, A), boxes(A), torch.rand(A, 2) * 640, boxes(M), torch.randint(0, C, (B, M))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
for pairs in (None, PAIRS_ON_ACCELERATOR):
    found = assign(*inputs, pairs=pairs)
    print(peak() - before, int((found.scores > 0).sum()))
"""


def test_memory_stays_bounded_for_many_boxes() -> None:
    """16 images of 640 px with 300 boxes: a dense float tensor over all pairs alone would take 154 MiB."""
    pytest.importorskip("resource")
    out = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True).stdout
    (cpu, used), (accelerator, used_again) = ([float(v) for v in line.split()] for line in out.splitlines())
    assert used == used_again > 500
    assert cpu < 100  # MiB
    assert accelerator < 1000
