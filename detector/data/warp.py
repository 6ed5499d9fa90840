"""Training augmentation, second step: carry out a `AugmentParams` on pixels and boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.data.annotations import Annotations
from detector.data.augment import AugmentParams, GeometryDraw
from detector.data.letterbox import GREY, resize_into

MIN_SIDE = 2.0  # px; a box must stay wider and higher than this
MIN_AREA = 0.10  # share of its area that a box must keep
MAX_ASPECT = 100.0  # longer side by shorter; thinner boxes are slivers that clipping left

Image: TypeAlias = NDArray[Any]  # (H, W, 3) or (3, H, W) uint8; OpenCV's stubs know no narrower type
Loader: TypeAlias = Callable[[int], Image]


def apply_augmentation(
    draw: AugmentParams,
    load: Loader,
    annotations: Annotations,
    sizes_hw: NDArray[np.int64],
    out: Image,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Make the sample.

    Args:
        draw: what to do.
        load: gives the (H, W, 3) uint8 BGR image of an index, at its loaded size.
        annotations: boxes.
        sizes_hw: (n, 2) int64, loaded size of every image, px.
        out: (3, H, W) uint8, filled with the image, RGB.

    Returns:
        Boxes (N, 4) float32 xyxy in px of the sample, and labels (N,) int64.
    """
    _, height, width = out.shape
    image, boxes, labels = apply_geometry(draw.geometry, load, annotations, sizes_hw, (height, width))
    if draw.partner is not None:
        other, more_boxes, more_labels = apply_geometry(
            draw.partner, load, annotations, sizes_hw, (height, width)
        )
        image = cv2.addWeighted(image, draw.ratio, other, 1 - draw.ratio, 0)
        boxes, labels = np.concatenate([boxes, more_boxes]), np.concatenate([labels, more_labels])
    image = shift_hsv(image, *draw.hsv)
    if draw.flipud:
        boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
    if draw.fliplr:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    if draw.flipud or draw.fliplr:
        image = cv2.flip(image, 1 if not draw.flipud else -1 if draw.fliplr else 0)
    to_planes(image, out, bgr=draw.bgr)
    return boxes, labels


def to_planes(image: Image, out: Image, bgr: bool = False) -> None:
    """Write an (H, W, 3) BGR image into (3, H, W), as RGB unless ``bgr``."""
    cv2.split(image, [out[0], out[1], out[2]] if bgr else [out[2], out[1], out[0]])


def apply_geometry(
    draw: GeometryDraw,
    load: Loader,
    annotations: Annotations,
    sizes_hw: NDArray[np.int64],
    out_hw: tuple[int, int],
) -> tuple[Image, NDArray[np.float32], NDArray[np.int64]]:
    """Compose and warp the tiles; transform, clip and select their boxes.

    Returns:
        Image (H, W, 3) uint8 BGR, boxes (N, 4) float32 xyxy in px of the output, labels (N,) int64.
    """
    rows = [annotations.rows(tile.index) for tile in draw.tiles]
    labels = np.concatenate([row[1] for row in rows])
    counts = [len(row[1]) for row in rows]
    tiles = np.array(
        [
            (sizes_hw[tile.index, 1], sizes_hw[tile.index, 0], *tile.origin, *tile.extent)
            for tile in draw.tiles
        ],
        np.float32,
    ).repeat(counts, 0)
    normalised = np.concatenate([row[0] for row in rows])
    centres, halves = normalised[:, :2] * tiles[:, :2] + tiles[:, 2:4], normalised[:, 2:] * tiles[:, :2] / 2
    boxes = np.concatenate([centres - halves, centres + halves], 1)  # on the canvas
    boxes = np.concatenate(
        [np.maximum(boxes[:, :2], tiles[:, 4:6]), np.minimum(boxes[:, 2:], tiles[:, 6:8])], 1
    )
    m = draw.matrix
    if m[0, 1] == m[1, 0] == m[2, 0] == m[2, 1] == 0:
        image, maps = _resize_tiles(draw, load, out_hw)
        maps = maps.repeat(counts, 0)
        moved = boxes * maps[:, [0, 1, 0, 1]] + maps[:, [2, 3, 2, 3]]
        grown = maps[:, 0] * maps[:, 1]
    else:
        image = _warp_canvas(draw, load, out_hw)
        moved = transform_boxes(boxes, m)
        grown = np.full(len(boxes), draw.scale**2)
    moved = moved.clip(0, np.array([out_hw[1], out_hw[0]] * 2, np.float32))
    keep = box_candidates(boxes, moved, grown)
    return image, moved[keep], labels[keep]


def transform_boxes(boxes: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """The upright boxes (N, 4) around boxes (N, 4), xyxy, whose corners went through a (3, 3) homography."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) @ matrix[:, :2].T + matrix[:, 2]
    points = corners[..., :2] / corners[..., 2:]
    return np.concatenate([points.min(1), points.max(1)], 1).astype(np.float32)


def box_candidates(
    before: NDArray[np.float32], after: NDArray[np.float32], grown: Any = 1.0
) -> NDArray[np.bool_]:
    """Tell which boxes are still worth learning after a transform.

    Args:
        before: (N, 4) float32 xyxy.
        after: (N, 4) float32 xyxy, transformed and clipped.
        grown: area of the output per area of the input, a number or (N,).

    Returns:
        (N,) bool.
    """
    w0, h0 = before[:, 2] - before[:, 0], before[:, 3] - before[:, 1]
    w, h = after[:, 2] - after[:, 0], after[:, 3] - after[:, 1]
    large = (w > MIN_SIDE) & (h > MIN_SIDE) & (w0 > 0) & (h0 > 0)
    whole = w * h > MIN_AREA * (w0 * h0 * grown)
    result: NDArray[np.bool_] = large & whole & (np.maximum(w, h) < MAX_ASPECT * np.minimum(w, h))
    return result


def _resize_tiles(
    draw: GeometryDraw, load: Loader, out_hw: tuple[int, int]
) -> tuple[Image, NDArray[np.float32]]:
    """Resize each tile straight to its place, for maps without rotation, shear or perspective.

    Tiles are cut and placed at whole pixels, which moves their content by less than a pixel; the maps
    returned are those the pixels followed, so boxes stay exact.

    Returns:
        Image (H, W, 3) uint8, and (tiles, 4) float32: factors and offsets along x and y, canvas to output px.
    """
    height, width = out_hw
    image = np.full((height, width, 3), GREY, np.uint8)
    maps = np.empty((len(draw.tiles), 4), np.float32)
    (sx, _, tx), (_, sy, ty) = draw.matrix[:2].tolist()
    for row, tile in enumerate(draw.tiles):
        x1, y1, x2, y2 = tile.extent
        u1, u2, a1, a2 = _snap(x1, x2, sx, tx, width)
        v1, v2, b1, b2 = _snap(y1, y2, sy, ty, height)
        if u2 <= u1 or v2 <= v1:  # outside of the output: its boxes have no area left
            maps[row] = sx, sy, tx, ty
            continue
        ox, oy = tile.origin
        resize_into(load(tile.index)[b1 - oy : b2 - oy, a1 - ox : a2 - ox], image[v1:v2, u1:u2])
        fx, fy = (u2 - u1) / (a2 - a1), (v2 - v1) / (b2 - b1)
        maps[row] = fx, fy, u1 - fx * a1, v1 - fy * b1
    return image, maps


def _snap(start: int, stop: int, scale: float, offset: float, size: int) -> tuple[int, int, int, int]:
    """Output range (whole px, inside 0..size) of a canvas range, and the part of the canvas range it shows."""
    first, last = round(start * scale + offset), round(stop * scale + offset)
    low, high = max(first, 0), min(last, size)
    if low > first:
        start_shown = min(max(round((low - offset) / scale), start), stop - 1)
    else:
        start_shown = start
    stop_shown = stop if high == last else max(min(round((high - offset) / scale), stop), start_shown + 1)
    return low, high, start_shown, stop_shown


def _warp_canvas(draw: GeometryDraw, load: Loader, out_hw: tuple[int, int]) -> Image:
    """Paint the canvas and warp it once, for any homography."""
    canvas_w, canvas_h = draw.canvas_wh
    canvas = np.full((canvas_h, canvas_w, 3), GREY, np.uint8)
    for tile in draw.tiles:
        x1, y1, x2, y2 = tile.extent
        ox, oy = tile.origin
        canvas[y1:y2, x1:x2] = load(tile.index)[y1 - oy : y2 - oy, x1 - ox : x2 - ox]
    # OpenCV puts pixel centres at whole numbers, the matrix has them at halves
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    matrix = np.linalg.inv(half) @ draw.matrix @ half
    size, border = (out_hw[1], out_hw[0]), (GREY, GREY, GREY)
    if matrix[2, 0] == matrix[2, 1] == 0:
        return cv2.warpAffine(canvas, matrix[:2], size, flags=cv2.INTER_LINEAR, borderValue=border)
    return cv2.warpPerspective(canvas, matrix, size, flags=cv2.INTER_LINEAR, borderValue=border)


def shift_hsv(image: Image, hue: float, saturation: float, value: float) -> Image:
    """Change the colours of a BGR image in OpenCV's 8-bit HSV.

    Args:
        image: (H, W, 3) uint8, BGR.
        hue: added to the hue, half degrees, modulo 180.
        saturation: factor, clipped at 255.
        value: factor of the brightness, clipped at 255.
    """
    shift = round(hue) % 180
    if shift == 0 and saturation == 1 and value == 1:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    planes = list(np.empty((3, *image.shape[:2]), np.uint8))
    cv2.split(hsv, planes)
    if shift:
        cv2.LUT(planes[0], ((np.arange(256) + shift) % 180).astype(np.uint8), dst=planes[0])
    cv2.convertScaleAbs(planes[1], dst=planes[1], alpha=saturation)
    cv2.convertScaleAbs(planes[2], dst=planes[2], alpha=value)
    cv2.merge(planes, dst=hsv)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
