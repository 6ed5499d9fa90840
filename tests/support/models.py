"""Model files for tests: a tiny architecture, and untrained weights that find different things."""

from __future__ import annotations

from pathlib import Path

import torch

from detector import YOLO
from detector.data.drawn import FORMS
from detector.data.letterbox import letterbox_batch
from detector.exporters.parity import synthetic_images
from detector.results import Results

TINY = """
scales:
  n: [1.0, 1.0, 64]
reg_max: {reg_max}
dual_head: {dual_head}
class_branch: depthwise
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [24, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [[2, 3, 4], 1, Detect, []]
"""


def write_tiny(path: Path, dual: bool = False, first: str = "") -> Path:
    """Write the tiny architecture: one head, or two with plain distances, as in YOLO26.

    Args:
        path: where to.
        dual: whether it has two heads.
        first: what the file begins with.
    """
    text = TINY.format(reg_max=1 if dual else 16, dual_head=str(dual).lower())
    path.write_text(first + text, encoding="utf-8")
    return path


def make_finder(folder: Path, dual: bool = False) -> Path:
    """Save a tiny untrained model that finds different things in different places; returns the path."""
    torch.manual_seed(0)
    yolo = YOLO(write_tiny(folder / "tiny.yaml", dual, first=f"names: [{', '.join(FORMS[:6])}]\n"))
    head = yolo.model.head
    for name, branch in head.named_children():
        for level in branch if name.endswith("cv3") else ():
            torch.nn.init.normal_(level[-1].weight)
            torch.nn.init.constant_(level[-1].bias, -6)
        for level in branch if name.endswith("cv2") else ():
            torch.nn.init.normal_(level[-1].weight, std=0.2)
    for module in yolo.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # averages over all that follows
    with torch.no_grad():
        yolo.model.train()(drawn_inputs(192, 192).float() / 255)
    return yolo.save(folder / "best.pt")


def drawn_inputs(height: int, width: int) -> torch.Tensor:
    """Four synthetic scenes, (4, 3, H, W) uint8 RGB."""
    images, _ = letterbox_batch(synthetic_images((height, width)), (height, width))
    return images.contiguous()


def assert_same_boxes(a: Results, b: Results, pixels: float = 0.05) -> None:
    """Assert that two results of one image hold the same boxes, scores and classes, and more than three."""
    rows = [torch.cat((r.boxes.xyxy, r.boxes.conf[:, None], r.boxes.cls[:, None]), 1) for r in (a, b)]
    assert len(rows[0]) == len(rows[1]) > 3, (len(rows[0]), len(rows[1]))
    assert torch.allclose(rows[0], rows[1], atol=pixels), (rows[0] - rows[1]).abs().max()
