"""Evaluations as the `Report` callback writes them, without a training."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from detector.metrics.evaluation import describe_evaluation
from detector.metrics.evaluator import CocoEvaluator


def evaluation_of(
    names: Sequence[str], images: int = 6, seed: int = 0, side: int = 480, pixels: Any = None
) -> dict[str, Any]:
    """Return the content of an evaluation.json: random boxes, some well found, some of each kind of error."""
    random = np.random.default_rng(seed)
    evaluator = CocoEvaluator(dict(enumerate(names)))
    for number in range(images):
        corners = random.integers(0, side - 150, (8, 2))
        boxes = np.concatenate([corners, corners + random.integers(20, 150, (8, 2))], 1).astype(float)
        labels = random.integers(0, len(names), 8)
        moved = np.repeat(boxes, 2, 0) + random.normal(0, 12, (16, 1))
        classes = np.where(random.random(16) < 0.7, np.repeat(labels, 2), random.integers(0, len(names), 16))
        preds = np.column_stack([moved, random.random(16), classes])
        evaluator.add(number, (side, side), preds, boxes, labels)
    content = describe_evaluation(
        evaluator.compute(), evaluator, [f"image{number}.jpg" for number in range(images)]
    )
    for sample in content["samples"]:
        sample.pop("index")
        sample["jpeg"] = jpeg_of(
            random.integers(0, 255, (side, side, 3)).astype(np.uint8) if pixels is None else pixels
        )
    return content


def jpeg_of(image: Any) -> str:
    """Return an image as JPEG in base64."""
    return base64.b64encode(cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 80))[1].tobytes()).decode()
