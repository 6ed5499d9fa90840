"""What is drawn of a batch: its boxes and its detections, as `drawing.mosaic` takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def true_boxes(batch: Any) -> tuple[list[Any], list[Any]]:
    """Return, for each image, its boxes (M, 4) xyxy, input px, and its labels (M,), without padding."""
    keep = batch.labels >= 0
    boxes = [rows[real].numpy() for rows, real in zip(batch.boxes, keep, strict=True)]
    return boxes, [rows[real].numpy() for rows, real in zip(batch.labels, keep, strict=True)]


def found_boxes(batch: Any, preds: Any, conf: float) -> tuple[list[Any], list[Any], list[Any]]:
    """Return, for each image, boxes (n, 4) xyxy, input px, labels (n,) and scores (n,) of its detections.

    Args:
        batch: whose `ratios` and `pads` lead from image px to input px.
        preds: for each image (N, 6): x1, y1, x2, y2 in image px, confidence, class.
        conf: detections below are left out.
    """
    boxes, labels, scores = [], [], []
    for rows, ratio, pad in zip(preds, batch.ratios, batch.pads, strict=True):
        kept = rows[rows[:, 4] >= conf]
        boxes.append((kept[:, :4] * ratio.repeat(2) + pad.repeat(2)).numpy())
        labels.append(kept[:, 5].long().numpy())
        scores.append(kept[:, 4].numpy())
    return boxes, labels, scores


def file_names(batch: Any) -> list[str]:
    """Return the name of each image's file, without its folder."""
    return [Path(path).name for path in batch.paths]
