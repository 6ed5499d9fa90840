"""Parity check of an exported file: its predictions against those of the model, on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.boxes import NMSParams, box_iou, to_detections
from detector.data.drawn import FORMS, draw_scene
from detector.runtimes.contract import Contract

PARITY_IMAGES = 4  # that a file is compared on
CONFIDENT, OVERLAP = 0.25, 0.7  # detections that are compared: minimum score, maximum IoU with each other
SAME = 0.9  # minimum IoU of the same detection of file and model
ANCHORS = 100  # of an image whose boxes are compared, the best


@dataclass(frozen=True)
class Tolerance:
    """How far a file may be from its model.

    Attributes:
        box: greatest difference of a coordinate, input px.
        score: greatest difference of a probability.
        agreement: minimum share of detections that both have.
    """

    box: float
    score: float
    agreement: float


TOLERANCES: Mapping[str, Tolerance] = MappingProxyType(
    {
        "fp32": Tolerance(0.1, 1e-3, 0.9),
        "fp16": Tolerance(4.0, 0.03, 0.85),
        "bf16": Tolerance(24.0, 0.2, 0.75),
        "int8": Tolerance(96.0, 0.5, 0.6),
    }
)
"""By precision, a few times what trained networks show. Boxes and scores verify a file; detections that are close to a
threshold may appear or vanish with the last digit, so their agreement catches gross errors only."""


def synthetic_images(imgsz: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Return synthetic images for an input of this size: (H, W, 3) uint8 BGR."""
    size = max(max(imgsz), 64)
    return [draw_scene(0, number, size, FORMS)[0] for number in range(PARITY_IMAGES)]


def compare(expected: Tensor, found: Tensor, contract: Contract) -> dict[str, float]:
    """Compare a file's predictions with the model's.

    Args:
        expected: (N, 4 + C, A) float, the model's raw predictions.
        found: the file's, as its contract has them.
        contract: of the file.

    Returns:
        `box`: greatest difference of a coordinate, input px: of the best 100 anchors per image, or of the
        detections that both have. `score`: greatest difference of a probability, likewise of all anchors.
        `agreement`: share of detections that both have. `detections`: how many the model has.
    """
    theirs = detections_of(found, contract)
    mine = detections_of(expected, contract, raw=True)
    pairs = [match(a, b) for a, b in zip(mine, theirs, strict=True)]
    count, other = sum(map(len, mine)), sum(map(len, theirs))
    agreement = 2 * sum(len(a) for a, _ in pairs) / max(count + other, 1) if count + other else 1.0
    if contract.kind == "raw":
        gap = (expected - found).abs().nan_to_num(nan=float("inf"))
        best = expected[:, 4:].amax(1).topk(min(ANCHORS, expected.shape[2])).indices  # (N, k)
        box = float(gap[:, :4].gather(2, best[:, None].expand(-1, 4, -1)).max())
        score = float(gap[:, 4:].max())
    else:
        gaps = [(a - b).abs().nan_to_num(nan=float("inf")) for a, b in pairs if len(a)]
        joined = torch.cat(gaps) if gaps else torch.zeros(1, 6)
        box, score = float(joined[:, :4].max()), float(joined[:, 4].max())
    return {"box": box, "score": score, "agreement": agreement, "detections": count}


def detections_of(preds: Tensor, contract: Contract, raw: bool | None = None) -> list[Tensor]:
    """Return the detections in predictions that a user would see: for each image (n, 6)."""
    params = contract.suppression or NMSParams(CONFIDENT, OVERLAP)
    iou = OVERLAP if params.iou is None else params.iou
    params = replace(params, conf=max(CONFIDENT, params.conf), iou=iou)
    if contract.suppression is not None and not raw:
        return [rows[rows[:, 4] > params.conf] for rows in preds]
    return to_detections(preds, params, nms=contract.head == "one2many")


def match(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Pair the detections of model and file, (n, 6) and (m, 6): one to one, of one class, best overlap first.

    Returns:
        The rows of both that belong together, (k, 6) each.
    """
    overlap = box_iou(a[:, :4], b[:, :4]) * (a[:, None, 5] == b[None, :, 5])
    left, right = [], []
    while overlap.numel() and float(overlap.max()) >= SAME:
        i, j = divmod(int(overlap.argmax()), overlap.shape[1])
        left.append(i)
        right.append(j)
        overlap[i], overlap[:, j] = 0, 0
    return a[left], b[right]


def exceeded_tolerances(parity: Mapping[str, float], precision: str) -> list[str]:
    """Return what is beyond the tolerance of a precision, in words."""
    limit = TOLERANCES[precision]
    wrong = []
    if not parity["box"] <= limit.box:
        wrong.append(f"boxes by {parity['box']:.3g} px (at most {limit.box:g})")
    if not parity["score"] <= limit.score:
        wrong.append(f"scores by {parity['score']:.2g} (at most {limit.score:g})")
    if parity["agreement"] < limit.agreement:
        wrong.append(f"{1 - parity['agreement']:.1%} of the detections (at most {1 - limit.agreement:.0%})")
    return wrong


def format_parity(parity: Mapping[str, Any]) -> str:
    """Return the metrics of `compare` as text."""
    count = int(parity["detections"])
    found = (
        f"{parity['agreement']:.1%} of {count} detections agree"
        if count
        else "the model finds nothing on them"
    )
    origin = "synthetic" if parity["of"] == "drawn" else parity["of"]
    return (
        f"on {parity['pictures']} {origin} images boxes differ by at most {parity['box']:.2g} px, scores by "
        f"{parity['score']:.2g}; {found}"
    )
