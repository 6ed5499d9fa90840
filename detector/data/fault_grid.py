"""An image grid of what the doctor found: the worst first, with the boxes at fault."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.data.findings import Case, Finding, Report
from detector.data.images import read_image
from detector.drawing import PAPER, mosaic, write_image
from detector.errors import DataError

MAX_CASES = 24
TILE = 480  # px


def require_new_image(path: str | Path) -> Path:
    """Return a path that an image can be written to and nothing is at.

    Raises:
        DataError: there is something, or images of that suffix can't be written.
    """
    path = Path(path)
    if path.exists():
        raise DataError(f"grid={path}: it is there already; nothing is overwritten, name another file.")
    if not path.suffix or not cv2.haveImageWriter(str(path)):
        raise DataError(f"grid={path}: images of suffix {path.suffix!r} can't be written; try faults.jpg.")
    return path


def draw_faults(report: Report, path: str | Path) -> Path | None:
    """Draw the images of a report's findings: the first one of each, errors first, then the second ones, up to 24.

    Returns:
        The path; None if no finding has an image to show, as those of classes.

    Raises:
        DataError: there is something at the path, or it can't be written.
    """
    path = require_new_image(path)
    chosen = choose_cases(report)
    if not chosen:
        return None
    names = dict(enumerate(dict.fromkeys(finding.kind for finding, _ in chosen)))
    numbers = {kind: number for number, kind in names.items()}
    tiles, boxes, labels, titles = [], [], [], []
    for finding, case in chosen:
        tile, corners = _tile(case)
        tiles.append(tile[..., ::-1].transpose(2, 0, 1))
        boxes.append(corners)
        labels.append(np.full(len(corners), numbers[finding.kind]))
        titles.append(f"{finding.severity} {finding.kind}: {Path(case.path).name}")
    return write_image(path, mosaic(tiles, boxes, labels, None, names, titles, MAX_CASES, size=5 * TILE))


def choose_cases(report: Report) -> list[tuple[Finding, Case]]:
    """Return the cases to draw, by severity and kind."""
    by_turn = zip_longest(*([(finding, case) for case in finding.cases] for finding in report.findings))
    chosen = [pair for turn in by_turn for pair in turn if pair is not None][:MAX_CASES]
    place = {id(finding): n for n, finding in enumerate(report.findings)}
    return sorted(chosen, key=lambda pair: place[id(pair[0])])


def _tile(case: Case) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return an image centred on paper, (TILE, TILE, 3) BGR, and its boxes (N, 4) xyxy, px."""
    tile = np.full((TILE, TILE, 3), PAPER, np.uint8)
    try:
        image = read_image(case.path, quiet=True)
    except DataError:
        return tile, np.zeros((0, 4))
    scale = TILE / max(image.shape[:2])
    width, height = (max(round(side * scale), 1) for side in image.shape[1::-1])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    left, top = (TILE - width) // 2, (TILE - height) // 2
    tile[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=method)
    cxcywh = np.asarray(case.boxes, np.float64).reshape(-1, 4) * [width, height, width, height]
    corners = np.concatenate([cxcywh[:, :2] - cxcywh[:, 2:] / 2, cxcywh[:, :2] + cxcywh[:, 2:] / 2], 1)
    return tile, corners + np.array([left, top] * 2)
