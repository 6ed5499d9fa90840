"""Training augmentation, first step: draw what to do; `detector.data.warp` then does it.

`sample_augment_params` turns (seed, epoch, position) into a `AugmentParams`, a small record of numbers; it looks at
image sizes and labels, never at pixels. Nothing else is random, so any worker, in any order, after any restart,
makes the same sample.

Mosaic: Bochkovskiy et al., YOLOv4, arXiv:2004.10934. MixUp: Zhang et al., arXiv:1710.09412. CutMix: Yun et al.,
arXiv:1905.04899. Copy-paste: Ghiasi et al., arXiv:2012.07177; soft edges: Dwibedi et al., arXiv:1708.01642.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.data.donors import Donors

NUMBERS = 24  # uniform in 0..1, per image of a blend; `sample_augment_params` says what each decides
WINDOW = 256  # partners come from this many samples before the current one, so that they are cached
MAX_PASTES = 3  # objects pasted into one sample
PLACES = 20  # that are tried for each
PASTE_ZOOM = 1.25  # largest change of a pasted object's size, either way, relative to the sample's objects

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training sample; probabilities, ranges and gains.

    Attributes:
        mosaic: probability of joining four images.
        copy_paste: probability of pasting 1 to `MAX_PASTES` objects of other images.
        mixup: probability of blending with a second sample.
        cutmix: probability of a rectangle that shows a second sample.
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
    copy_paste: float = 0.0
    cutmix: float = 0.0


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
class Paste:
    """An object to paste, and where.

    Attributes:
        index: its image, as a position in the annotations.
        row: its row in that image.
        scale: px of the sample per px of the loaded image.
        places: (P, 2) float64, 0..1, parts of the free width and height; the first one where it hides little counts.
    """

    index: int
    row: int
    scale: float
    places: NDArray[np.float64]


@dataclass(frozen=True)
class Cut:
    """A rectangle that shows another sample.

    Attributes:
        geometry: of the other sample.
        extent: x1, y1, x2, y2, px of either sample.
    """

    geometry: GeometryDraw
    extent: Box


@dataclass(frozen=True)
class AugmentParams:
    """Everything that is random about one sample.

    Attributes:
        geometry: images and where they go.
        partner: a second geometry to blend with, or None.
        ratio: weight of the first one in the blend.
        hsv: shift of hue in OpenCV's half degrees, gains of saturation and value.
        flipud: flip top and bottom.
        fliplr: flip left and right.
        bgr: give the image in BGR.
        pastes: objects to paste, before the blend.
        cut: the rectangle to replace, after the blend, or None.
    """

    geometry: GeometryDraw
    partner: GeometryDraw | None
    ratio: float
    hsv: tuple[float, float, float]
    flipud: bool
    fliplr: bool
    bgr: bool
    pastes: tuple[Paste, ...] = ()
    cut: Cut | None = None


def generator(seed: int, epoch: int, position: int, purpose: int = 0) -> np.random.Generator:
    """The random numbers of one sample: a Philox stream named by these four numbers.

    Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, position, epoch, purpose]))


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """(count,) int64, the order in which an epoch visits the images."""
    return generator(seed, epoch, 0, purpose=1).permutation(count)


def sample_augment_params(
    augmentation: Augmentation,
    seed: int,
    epoch: int,
    position: int,
    order: NDArray[np.int64],
    sizes_hw: NDArray[np.int64],
    out_hw: tuple[int, int],
    mixes: bool = True,
    donors: Donors | None = None,
) -> AugmentParams:
    """Decide about sample ``position`` of an epoch.

    Partners of a mosaic or mixup are the images of the ``WINDOW`` samples before this one in the
    epoch's order, counted around its start: a random subset, and one that was decoded a moment ago.

    Two rows of `NUMBERS` uniform numbers decide all but the ratio of a blend, the first row for the sample, the
    second for its mixup partner. Each number has its place, whether it is needed or not, so that no setting
    changes what another one draws:

    ======  ============================================  ===========
    number  decides                                       row
    ======  ============================================  ===========
    0       mosaic or a single image                      both
    1, 2    point where the four images meet: x, y        both
    3-5     the three other images of the mosaic          both
    6       zoom                                          both
    7       rotation                                      both
    8, 9    shear along x, y                              both
    10, 11  shift along x, y                              both
    12, 13  perspective along x, y                        both
    14-16   nothing                                       both
    17      mixup or not; in the second row which image   first, second
    18-20   hue, saturation, brightness                   first
    21, 22  vertical flip, horizontal flip                first
    23      swapped red and blue                          first
    ======  ============================================  ===========

    Copy-paste and cutmix have streams of random numbers of their own, so that they change nothing above.

    Args:
        augmentation: probabilities and ranges.
        seed: of the run.
        epoch: from 0.
        position: from 0, in the epoch's order.
        order: (n,) int64 from `epoch_order`.
        sizes_hw: (n, 2) int64, loaded size of every image, px.
        out_hw: height and width of the sample, px.
        mixes: False turns mosaic, copy-paste, mixup and cutmix off.
        donors: objects to paste; needed for copy-paste.
    """
    rng = generator(seed, epoch, position)
    first, second = rng.random((2, NUMBERS)).tolist()
    window = max(1, min(WINDOW, len(order) - 1))

    def pick(u: float) -> int:
        return int(order[(position - 1 - int(u * window)) % len(order)])

    geometry = _draw_geometry(augmentation, first, int(order[position]), pick, sizes_hw, out_hw, mixes)
    partner, ratio = None, 1.0
    if mixes and first[17] < augmentation.mixup:
        partner = _draw_geometry(augmentation, second, pick(second[17]), pick, sizes_hw, out_hw, mixes)
        ratio = float(rng.beta(32.0, 32.0))  # 0.5 with a standard deviation of 0.06: both stay visible
    pastes: tuple[Paste, ...] = ()
    if mixes and augmentation.copy_paste:
        assert donors is not None
        window_images = order[(position - 1 - np.arange(window)) % len(order)]
        pastes = _draw_pastes(
            augmentation.copy_paste,
            generator(seed, epoch, position, purpose=2),
            geometry.scale,
            donors,
            window_images,
            int(order[position]),
        )
    cut = None
    if mixes and augmentation.cutmix:
        u = generator(seed, epoch, position, purpose=3).random(NUMBERS).tolist()
        extent = _draw_rectangle(u[18:21], out_hw)
        if u[21] < augmentation.cutmix and extent[2] > extent[0] and extent[3] > extent[1]:
            other = _draw_geometry(augmentation, u, pick(u[17]), pick, sizes_hw, out_hw, mixes)
            cut = Cut(other, extent)
    hue, saturation, value = (2 * u - 1 for u in first[18:21])
    return AugmentParams(
        geometry,
        partner,
        ratio,
        hsv=(
            hue * augmentation.hsv_h * 180,  # OpenCV's circle
            1 + saturation * augmentation.hsv_s,
            1 + value * augmentation.hsv_v,
        ),
        flipud=first[21] < augmentation.flipud,
        fliplr=first[22] < augmentation.fliplr,
        bgr=first[23] < augmentation.bgr,
        pastes=pastes,
        cut=cut,
    )


def _draw_pastes(
    probability: float,
    rng: np.random.Generator,
    zoom: float,
    donors: Donors,
    window_images: NDArray[np.int64],
    own: int,
) -> tuple[Paste, ...]:
    """Choose objects for a sample that zooms its own by ``zoom``."""
    happens, count = rng.random(2).tolist()
    if happens >= probability:
        return ()
    near, pastes = donors.near(window_images), []
    for numbers in rng.random((1 + int(count * MAX_PASTES), 3 + 2 * PLACES)):
        label, which, size = numbers[:3].tolist()
        row = donors.choose((label, which), near, own)
        if row is not None:
            scale = zoom * PASTE_ZOOM ** (2 * size - 1)
            pastes.append(Paste(*donors.place(row), scale, numbers[3:].reshape(PLACES, 2)))
    return tuple(pastes)


def _draw_rectangle(u: Sequence[float], out_hw: tuple[int, int]) -> Box:
    """Place the rectangle of a cutmix: its area is uniform, its centre anywhere, and it is cut at the edges.

    Yun et al., arXiv:1905.04899, equation 2, with lambda from Beta(1, 1).
    """
    side, (height, width) = math.sqrt(u[0]) / 2, out_hw
    x1, x2 = (round(min(max(u[1] + half, 0), 1) * width) for half in (-side, side))
    y1, y2 = (round(min(max(u[2] + half, 0), 1) * height) for half in (-side, side))
    return x1, y1, x2, y2


def _draw_geometry(
    augmentation: Augmentation,
    u: Sequence[float],
    index: int,
    pick: Callable[[float], int],
    sizes_hw: NDArray[np.int64],
    out_hw: tuple[int, int],
    mixes: bool,
) -> GeometryDraw:
    """Place one image or four by numbers 0 to 13 of `sample_augment_params`'s table."""
    if mixes and u[0] < augmentation.mosaic:
        out_h, out_w = out_hw
        canvas = 2 * out_w, 2 * out_h
        centre = int(out_w * (0.5 + u[1])), int(out_h * (0.5 + u[2]))  # in the canvas' middle half
        chosen = [index, *(pick(v) for v in u[3:6])]
        tiles = mosaic_tiles(chosen, [sizes_hw[i].tolist() for i in chosen], centre, canvas)
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
    indices: Sequence[int],
    sizes_hw: Sequence[Sequence[int]],
    centre: tuple[int, int],
    canvas_wh: tuple[int, int],
) -> tuple[Tile, ...]:
    """Put four images around a point of a canvas: top left, top right, bottom left, bottom right."""
    (cx, cy), (right, bottom) = centre, canvas_wh
    tiles = []
    for place, (index, (h, w)) in enumerate(zip(indices, sizes_hw, strict=True)):
        x = cx - w if place % 2 == 0 else cx
        y = cy - h if place < 2 else cy
        tiles.append(Tile(index, (x, y), (max(x, 0), max(y, 0), min(x + w, right), min(y + h, bottom))))
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
