"""Training augmentation, second step: carry out a `AugmentParams` on pixels and boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.data.annotations import Annotations
from detector.data.augment import AugmentParams, Box, GeometryDraw, Paste
from detector.data.letterbox import GREY, image_shape, resize_into

MIN_SIDE = 2.0  # px; a box must stay wider and higher than this
MIN_AREA = 0.10  # share of its area that a box must keep
MAX_ASPECT = 100.0  # longer side by shorter; thinner boxes are slivers that clipping left
MAX_HIDDEN = 0.3  # share of an object's area that one pasted object may hide
MAX_PASTE = 0.5  # largest width and height of a pasted object, part of the sample's
FEATHER = 0.1  # width of a pasted object's soft edge, part of its shorter side
MIN_FEATHER = 2  # px of the image it comes from

Image: TypeAlias = NDArray[Any]  # (H, W, 3), (H, W) or (C, H, W) uint8; OpenCV's stubs know no narrower type
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
        load: gives the (H, W, 3) uint8 BGR, or (H, W) grey, image of an index, at its loaded size.
        annotations: boxes.
        sizes_hw: (n, 2) int64, loaded size of every image, px.
        out: (3, H, W) uint8, filled with the image, RGB; (1, H, W), grey.

    Returns:
        Boxes (N, 4) float32 xyxy in px of the sample, and labels (N,) int64.
    """
    channels, height, width = out.shape
    image, boxes, labels = apply_geometry(
        draw.geometry, load, annotations, sizes_hw, (height, width), channels
    )
    for paste in draw.pastes:
        boxes, labels = paste_object(paste, image, boxes, labels, load, annotations)
    if draw.partner is not None:
        other, more_boxes, more_labels = apply_geometry(
            draw.partner, load, annotations, sizes_hw, (height, width), channels
        )
        image = cv2.addWeighted(image, draw.ratio, other, 1 - draw.ratio, 0)
        boxes, labels = np.concatenate([boxes, more_boxes]), np.concatenate([labels, more_labels])
    if draw.cut is not None:
        other, more_boxes, more_labels = apply_geometry(
            draw.cut.geometry, load, annotations, sizes_hw, (height, width), channels
        )
        x1, y1, x2, y2 = draw.cut.extent
        image[y1:y2, x1:x2] = other[y1:y2, x1:x2]
        boxes, keep = uncovered(boxes, draw.cut.extent)
        shown = clip_boxes(more_boxes, draw.cut.extent)
        more = box_candidates(more_boxes, shown)
        boxes = np.concatenate([boxes[keep], shown[more]])
        labels = np.concatenate([labels[keep], more_labels[more]])
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
    """Write an (H, W, 3) BGR image into (3, H, W), as RGB unless ``bgr``; an (H, W) one into (1, H, W)."""
    if image.ndim == 2:
        out[0] = image
        return
    cv2.split(image, [out[0], out[1], out[2]] if bgr else [out[2], out[1], out[0]])


def apply_geometry(
    draw: GeometryDraw,
    load: Loader,
    annotations: Annotations,
    sizes_hw: NDArray[np.int64],
    out_hw: tuple[int, int],
    channels: int = 3,
) -> tuple[Image, NDArray[np.float32], NDArray[np.int64]]:
    """Compose and warp the tiles; transform, clip and select their boxes.

    Returns:
        Image (H, W, 3) uint8 BGR, or (H, W) grey, boxes (N, 4) float32 xyxy in px of the output, labels (N,) int64.
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
        image, maps = _resize_tiles(draw, load, out_hw, channels)
        maps = maps.repeat(counts, 0)
        moved = boxes * maps[:, [0, 1, 0, 1]] + maps[:, [2, 3, 2, 3]]
        grown = maps[:, 0] * maps[:, 1]
    else:
        image = _warp_canvas(draw, load, out_hw, channels)
        moved = transform_boxes(boxes, m)
        grown = np.full(len(boxes), draw.scale**2)
    moved = moved.clip(0, np.array([out_hw[1], out_hw[0]] * 2, np.float32))
    keep = box_candidates(boxes, moved, grown)
    return image, moved[keep], labels[keep]


def paste_object(
    paste: Paste,
    image: Image,
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    load: Loader,
    annotations: Annotations,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Copy an object into a sample, unless it is too small or hides too much wherever it is tried.

    There are no masks, so its box is copied, with a margin that fades out from the box's edge on: the object stays
    whole, and no edge of the copy can be learnt (Dwibedi et al., Cut, Paste and Learn, arXiv:1708.01642, section
    5.2). Other objects that the box shows come along, as far as `box_candidates` keeps them.

    Args:
        paste: what to copy.
        image: (H, W, 3) or (H, W) uint8, changed in place.
        boxes: (N, 4) float32 xyxy, px, of the sample.
        labels: (N,) int64.
        load: gives the (h, w, 3) or (h, w) uint8 image of an index.
        annotations: boxes.

    Returns:
        Boxes and labels with those of the copy: where it hides an object partly, the box of what is left; objects of
        which less than `MIN_AREA` is left are dropped.
    """
    source, (height, width) = load(paste.index), image.shape[:2]
    normalised, classes = annotations.rows(paste.index)
    centres, halves = normalised[:, :2], normalised[:, 2:] / 2
    source_wh = np.array(source.shape[1::-1], np.float32)
    corners = np.stack([centres - halves, centres + halves], 1) * source_wh  # (N, 2, 2)
    low = np.floor(corners[paste.row, 0] + 0.01).clip(0, source_wh - 1)  # whole px that hold the object
    high = np.ceil(corners[paste.row, 1] - 0.01).clip(low + 1, source_wh)
    margin = max(MIN_FEATHER, round(FEATHER * float((high - low).min())))
    padded = high - low + 2 * margin
    size = np.round(padded * min(paste.scale, *(MAX_PASTE * np.array([width, height]) / padded).tolist()))
    size = size.clip(1)
    factors = np.float32(size / padded)  # px of the sample per px of the image

    moved = ((corners - low + margin) * factors).reshape(-1, 4)  # on the copy
    whole = (np.stack([np.full(2, margin), high - low + margin]) * factors).astype(np.float32).ravel()
    shown = clip_boxes(moved, whole)
    keep = box_candidates(moved, shown)
    starts = np.round(paste.places * ([width, height] - size)).astype(np.float32)  # (P, 2)
    hidden = hidden_shares(boxes, whole + np.tile(starts, 2)).max(1, initial=0)
    free = np.flatnonzero(hidden <= MAX_HIDDEN)
    if not keep[paste.row] or not len(free):
        return boxes, labels

    start = np.tile(starts[free[0]], 2)
    (x, y), (w, h) = starts[free[0]].astype(int).tolist(), size.astype(int).tolist()
    (x1, y1), (x2, y2) = low.astype(int).tolist(), high.astype(int).tolist()
    part = _cut_with_margin(source, x1, y1, x2, y2, margin)
    weights = np.outer(_ramp(h, margin * factors[1]), _ramp(w, margin * factors[0]))
    area = image[y : y + h, x : x + w]
    copy = cv2.resize(part, (w, h), interpolation=cv2.INTER_LINEAR)
    area[...] = cv2.blendLinear(copy, area, weights, 1 - weights).reshape(area.shape)
    left, seen = uncovered(boxes, whole + start)
    return np.concatenate([left[seen], shown[keep] + start]), np.concatenate([labels[seen], classes[keep]])


def _ramp(side: int, width: float) -> NDArray[np.float32]:
    """(side,) float32: rises from 0 to 1 over a width, px, and falls likewise at the end."""
    at = np.arange(side) + 0.5
    ramp: NDArray[np.float32] = (np.minimum(at, side - at) / width).clip(max=1).astype(np.float32)
    return ramp


def _cut_with_margin(source: Image, x1: int, y1: int, x2: int, y2: int, margin: int) -> Image:
    """A part of an image with a margin around, mirrored where the image ends."""
    height, width = source.shape[:2]
    left, top, right, bottom = (max(margin - room, 0) for room in (x1, y1, width - x2, height - y2))
    part = source[y1 - margin + top : y2 + margin - bottom, x1 - margin + left : x2 + margin - right]
    return cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_REFLECT)


def clip_boxes(boxes: NDArray[np.float32], extent: Box | NDArray[np.float32]) -> NDArray[np.float32]:
    """The parts of boxes (N, 4) inside of one box, xyxy; without width or height where there is none."""
    low, high = np.array(extent, np.float32).reshape(2, 2)
    return np.concatenate([boxes[:, :2].clip(low, high), boxes[:, 2:].clip(low, high)], 1)


def hidden_shares(boxes: NDArray[np.float32], covers: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P, N) float32, the share of the area of each of N boxes that each of P boxes covers, all xyxy."""
    low = np.maximum(boxes[:, :2], covers[:, None, :2])
    high = np.minimum(boxes[:, 2:], covers[:, None, 2:])
    shares: NDArray[np.float32] = (high - low).clip(0).prod(2) / (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return shares


def uncovered(
    boxes: NDArray[np.float32], cover: Box | NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What a rectangle that is put over boxes leaves of them.

    Args:
        boxes: (N, 4) float32 xyxy.
        cover: x1, y1, x2, y2.

    Returns:
        (N, 4) float32, the boxes around what is still seen: shorter where the rectangle hides a whole end. And (N,)
        bool, which of them are still worth learning: `box_candidates`, and at least `MIN_AREA` of the area is seen.
    """
    cover = np.array(cover, np.float32)
    low = np.array([True, True, False, False])  # x1 and y1
    beyond = np.where(low, cover <= boxes, cover >= boxes)  # (N, 4): the rectangle hides this edge
    spans = (beyond[:, :2] & beyond[:, 2:])[
        :, [1, 0, 1, 0]
    ]  # all of it: both edges of the other direction, too
    far = cover[[2, 3, 0, 1]]  # where the rectangle ends, seen from each edge
    left = np.where(beyond & spans, np.where(low, np.maximum(boxes, far), np.minimum(boxes, far)), boxes)
    seen = 1 - hidden_shares(boxes, cover[None])[0]
    return left, box_candidates(boxes, left) & (seen > MIN_AREA)


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
    draw: GeometryDraw, load: Loader, out_hw: tuple[int, int], channels: int
) -> tuple[Image, NDArray[np.float32]]:
    """Resize each tile straight to its place, for maps without rotation, shear or perspective.

    Tiles are cut and placed at whole pixels, which moves their content by less than a pixel; the maps
    returned are those the pixels followed, so boxes stay exact.

    Returns:
        Image (H, W, 3) or (H, W) uint8, and (tiles, 4) float32: factors and offsets along x and y, canvas to output px.
    """
    height, width = out_hw
    image = np.full(image_shape(out_hw, channels), GREY, np.uint8)
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


def _warp_canvas(draw: GeometryDraw, load: Loader, out_hw: tuple[int, int], channels: int) -> Image:
    """Paint the canvas and warp it once, for any homography."""
    canvas_w, canvas_h = draw.canvas_wh
    canvas = np.full(image_shape((canvas_h, canvas_w), channels), GREY, np.uint8)
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
    """Change the colours of a BGR image in OpenCV's 8-bit HSV; a grey one has only a value.

    Args:
        image: (H, W, 3) uint8, BGR, or (H, W), grey.
        hue: added to the hue, half degrees, modulo 180.
        saturation: factor, clipped at 255.
        value: factor of the brightness, clipped at 255.
    """
    if image.ndim == 2:
        return image if value == 1 else cv2.convertScaleAbs(image, alpha=value)
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
