"""Training augmentation in two steps: draw what to do, then do it.

`draw_sample` turns (seed, epoch, position) into a `SampleDraw`, a small record of numbers; it looks at
image sizes, never at pixels. `apply_sample` carries a record out. Nothing else is random, so any
worker, in any order, after any restart, makes the same sample.

Mosaic: Bochkovskiy et al., YOLOv4, arXiv:2004.10934. MixUp: Zhang et al., arXiv:1710.09412.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.data.annotations import Annotations
from detector.data.letterbox import GREY, resize_into

WINDOW = 256  # partners come from this many samples before the current one, so that they are cached
MIN_SIDE = 2.0  # px; a box must stay wider and higher than this
MIN_AREA = 0.10  # share of its area that a box must keep
MAX_ASPECT = 100.0

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training sample; probabilities, ranges and gains.

    Attributes:
        mosaic: probability of joining four images.
        mixup: probability of blending with a second sample.
        degrees: largest rotation, degrees.
        translate: largest shift, parts of the image side.
        scale: zoom by 1 - scale to 1 + scale, or by (smallest, largest).
        shear: largest shear along each axis, degrees.
        perspective: largest perspective entry of the homography, 1 / px.
        flipud: probability of a vertical flip.
        fliplr: probability of a horizontal flip.
        bgr: probability of swapping red and blue.
        hsv_h: largest change of hue, parts of the circle.
        hsv_s: largest relative change of saturation.
        hsv_v: largest relative change of brightness.
        close_mosaic: mosaic and mixup stop for this many last epochs.
        epochs: epochs of the training; 0 never closes the mosaic.
    """

    mosaic: float = 1.0
    mixup: float = 0.0
    degrees: float = 0.0
    translate: float = 0.1
    scale: float | tuple[float, float] = 0.5
    shear: float = 0.0
    perspective: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.5
    bgr: float = 0.0
    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    close_mosaic: int = 10
    epochs: int = 0

    def mixes(self, epoch: int) -> bool:
        """Whether mosaic and mixup are still on in this epoch (from 0)."""
        return not self.epochs or epoch < self.epochs - self.close_mosaic


@dataclass(frozen=True)
class Tile:
    """One source image on the virtual canvas.

    Attributes:
        index: position in the annotations.
        origin: canvas coordinates of the image's top left corner, px; may lie outside.
        extent: x1, y1, x2, y2 of its visible part on the canvas, px.
    """

    index: int
    origin: tuple[int, int]
    extent: Box


@dataclass(frozen=True)
class GeometryDraw:
    """Tiles on a virtual canvas, and the map from there to the output.

    Attributes:
        tiles: one image, or four that meet in a point.
        canvas_wh: size of the canvas, px.
        matrix: (3, 3) float64, canvas px to output px, corner of the first pixel at (0, 0).
        scale: the zoom that ``matrix`` contains.
    """

    tiles: tuple[Tile, ...]
    canvas_wh: tuple[int, int]
    matrix: NDArray[np.float64]
    scale: float


@dataclass(frozen=True)
class SampleDraw:
    """Everything that is random about one sample.

    Attributes:
        geometry: images and where they go.
        partner: a second geometry to blend with, or None.
        ratio: weight of the first one in the blend.
        hsv: shift of hue in OpenCV's half degrees, gains of saturation and value.
        flipud: flip top and bottom.
        fliplr: flip left and right.
        bgr: give the image in BGR.
    """

    geometry: GeometryDraw
    partner: GeometryDraw | None
    ratio: float
    hsv: tuple[float, float, float]
    flipud: bool
    fliplr: bool
    bgr: bool


def generator(seed: int, epoch: int, position: int, purpose: int = 0) -> np.random.Generator:
    """The random numbers of one sample: a Philox stream named by these four numbers.

    Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, position, epoch, purpose]))


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """(count,) int64, the order in which an epoch visits the images."""
    return generator(seed, epoch, 0, purpose=1).permutation(count)


def draw_sample(
    augmentation: Augmentation,
    seed: int,
    epoch: int,
    position: int,
    order: NDArray[np.int64],
    sizes_hw: NDArray[np.int64],
    out_hw: tuple[int, int],
    mixes: bool = True,
) -> SampleDraw:
    """Decide about sample ``position`` of an epoch.

    Partners of a mosaic or mixup are the images of the ``WINDOW`` samples before this one in the
    epoch's order, counted around its start: a random subset, and one that was decoded a moment ago.

    Args:
        augmentation: probabilities and ranges.
        seed: of the run.
        epoch: from 0.
        position: from 0, in the epoch's order.
        order: (n,) int64 from `epoch_order`.
        sizes_hw: (n, 2) int64, loaded size of every image, px.
        out_hw: height and width of the sample, px.
        mixes: False turns mosaic and mixup off.
    """
    rng = generator(seed, epoch, position)
    first, second = rng.random((2, 24)).tolist()
    window = max(1, min(WINDOW, len(order) - 1))

    def pick(u: float) -> int:
        return int(order[(position - 1 - int(u * window)) % len(order)])

    geometry = _draw_geometry(augmentation, first, int(order[position]), pick, sizes_hw, out_hw, mixes)
    partner, ratio = None, 1.0
    if mixes and first[17] < augmentation.mixup:
        partner = _draw_geometry(augmentation, second, pick(second[17]), pick, sizes_hw, out_hw, mixes)
        ratio = float(rng.beta(32.0, 32.0))
    hue, saturation, value = ((2 * u - 1) ** 3 for u in first[18:21])
    return SampleDraw(
        geometry,
        partner,
        ratio,
        hsv=(
            hue * augmentation.hsv_h * 180,
            1 + saturation * augmentation.hsv_s,
            1 + value * augmentation.hsv_v,
        ),
        flipud=first[21] < augmentation.flipud,
        fliplr=first[22] < augmentation.fliplr,
        bgr=first[23] < augmentation.bgr,
    )


def _draw_geometry(
    augmentation: Augmentation,
    u: Sequence[float],
    index: int,
    pick: Callable[[float], int],
    sizes_hw: NDArray[np.int64],
    out_hw: tuple[int, int],
    mixes: bool,
) -> GeometryDraw:
    """Place one image or four from uniform numbers ``u`` (17 of them are used)."""
    if mixes and u[0] < augmentation.mosaic:
        side = max(out_hw)
        centre = int(side * (0.5 + u[1])), int(side * (0.5 + u[2]))
        chosen = [index, *(pick(v) for v in u[3:6])]
        tiles = mosaic_tiles(chosen, [sizes_hw[i].tolist() for i in chosen], centre, side)
        canvas = 2 * side, 2 * side
    else:
        height, width = sizes_hw[index].tolist()
        tiles, canvas = (Tile(index, (0, 0), (0, 0, width, height)),), (width, height)
    low, high = _scale_range(augmentation.scale)
    scale = low + (high - low) * u[6]
    signed = [2 * v - 1 for v in u[7:14]]
    matrix = affine_matrix(
        canvas,
        out_hw,
        angle=signed[0] * augmentation.degrees,
        scale=scale,
        shear=(signed[1] * augmentation.shear, signed[2] * augmentation.shear),
        centre=(0.5 + signed[3] * augmentation.translate, 0.5 + signed[4] * augmentation.translate),
        perspective=(signed[5] * augmentation.perspective, signed[6] * augmentation.perspective),
    )
    return GeometryDraw(tiles, canvas, matrix, scale)


def _scale_range(scale: float | tuple[float, float]) -> tuple[float, float]:
    return (1 - scale, 1 + scale) if isinstance(scale, int | float) else scale


def mosaic_tiles(
    indices: Sequence[int], sizes_hw: Sequence[Sequence[int]], centre: tuple[int, int], side: int
) -> tuple[Tile, ...]:
    """Put four images around a point of a canvas of twice the side: top left, top right, bottom left, bottom right."""
    cx, cy = centre
    tiles = []
    for place, (index, (h, w)) in enumerate(zip(indices, sizes_hw, strict=True)):
        x = cx - w if place % 2 == 0 else cx
        y = cy - h if place < 2 else cy
        tiles.append(Tile(index, (x, y), (max(x, 0), max(y, 0), min(x + w, 2 * side), min(y + h, 2 * side))))
    return tuple(tiles)


def affine_matrix(
    canvas_wh: tuple[int, int],
    out_hw: tuple[int, int],
    angle: float,
    scale: float,
    shear: tuple[float, float],
    centre: tuple[float, float],
    perspective: tuple[float, float],
) -> NDArray[np.float64]:
    """The map from canvas to output: Translate @ Shear @ RotateScale @ Perspective @ Centre.

    Args:
        canvas_wh: size of the canvas, px.
        out_hw: size of the output, px.
        angle: counter-clockwise rotation, degrees.
        scale: zoom.
        shear: along x and y, degrees.
        centre: where the canvas' centre goes, parts of the output's width and height.
        perspective: entries of the homography's last row, 1 / px.

    Returns:
        (3, 3) float64.
    """
    half_w, half_h = canvas_wh[0] / 2, canvas_wh[1] / 2
    out_x, out_y = centre[0] * out_hw[1], centre[1] * out_hw[0]
    if angle == shear[0] == shear[1] == perspective[0] == perspective[1] == 0:
        return np.array([[scale, 0, out_x - scale * half_w], [0, scale, out_y - scale * half_h], [0, 0, 1.0]])
    move = np.array([[1, 0, -half_w], [0, 1, -half_h], [0, 0, 1.0]])
    tilt = np.array([[1, 0, 0], [0, 1, 0], [*perspective, 1.0]])
    cos, sin = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1.0]])
    slant = np.eye(3)
    slant[0, 1], slant[1, 0] = math.tan(math.radians(shear[0])), math.tan(math.radians(shear[1]))
    place = np.array([[1, 0, out_x], [0, 1, out_y], [0, 0, 1.0]])
    result: NDArray[np.float64] = place @ slant @ turn @ tilt @ move
    return result


Loader = Callable[[int], NDArray[np.uint8]]


def apply_sample(
    draw: SampleDraw,
    load: Loader,
    annotations: Annotations,
    sizes_hw: NDArray[np.int64],
    out: NDArray[np.uint8],
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


def to_planes(image: NDArray[np.uint8], out: NDArray[np.uint8], bgr: bool = False) -> None:
    """Write an (H, W, 3) BGR image into (3, H, W), as RGB unless ``bgr``."""
    cv2.split(image, [out[0], out[1], out[2]] if bgr else [out[2], out[1], out[0]])


def apply_geometry(
    draw: GeometryDraw,
    load: Loader,
    annotations: Annotations,
    sizes_hw: NDArray[np.int64],
    out_hw: tuple[int, int],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
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
        grown = np.float32(draw.scale**2)
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
        grown: area of the output per area of the input, a number or (N,) float32.

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
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
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


def _warp_canvas(draw: GeometryDraw, load: Loader, out_hw: tuple[int, int]) -> NDArray[np.uint8]:
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
        return cv2.warpAffine(canvas, matrix[:2], size, flags=cv2.INTER_LINEAR, borderValue=border)  # type: ignore[no-any-return]
    return cv2.warpPerspective(canvas, matrix, size, flags=cv2.INTER_LINEAR, borderValue=border)  # type: ignore[no-any-return]


def shift_hsv(image: NDArray[np.uint8], hue: float, saturation: float, value: float) -> NDArray[np.uint8]:
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
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)  # type: ignore[no-any-return]
