"""Scenes of drawn motifs, made while a network is pretrained on them: as many as are asked for, none is stored.

A scene is a function of a seed and an index. It has 1 to 25 objects on a background, lit, blurred, noisy and
compressed as images of cameras are. Boxes are tight to what is visible of an object; an object of which less than
`MIN_VISIBLE` is left after others cover it, or after the edge of the image cuts it, has no label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.data.motifs import NUM_MOTIFS, Motif, Part, bend, motif_of
from detector.data.painting import TEXTURES, Field, Image, draw_texture, fractal_noise, pick_colour

SCENES_VERSION = 1  # raised when the same seed gives other scenes than before
MAX_OBJECTS = 25
MIN_SIDE, MAX_SIDE = 0.05, 0.9  # longer side of an object, as a part of the image's shorter side
MIN_VISIBLE = 0.3  # part of an object's area that is in sight, of those with a label
MIN_BOX = 3  # px of a box's shorter side

_SUBPIXEL_BITS = 4


def draw_motif_scene(
    seed: int, index: int, size: tuple[int, int], classes: int = NUM_MOTIFS
) -> tuple[Image, Field, NDArray[np.int64]]:
    """Draw one scene; the same arguments give the same scene, whatever was drawn before.

    Args:
        seed: not negative.
        index: number of the scene, not negative.
        size: height and width, px.
        classes: class ids are below this number; at most `NUM_MOTIFS`.

    Returns:
        The image (H, W, 3) uint8 BGR, the boxes (N, 4) float32 xyxy in image px and the labels (N,) int64.
    """
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
    canvas = _background(rng, *size)
    _clutter(rng, canvas)
    boxes, labels = _objects(rng, canvas, classes)
    return _camera(rng, canvas), boxes, labels


@dataclass(frozen=True)
class FreshScene:
    """Draw a scene in place of a training sample: a transform, as `transforms=` takes it.

    `Transforms` sets NumPy's random state from the run's seed, the epoch and the sample's position before every
    sample: the scene is a function of these. What it is given counts only for its shape.

    Attributes:
        classes: class ids are below this number.
    """

    classes: int = NUM_MOTIFS

    def __call__(
        self, image: Image, boxes: Field, labels: NDArray[np.int64]
    ) -> tuple[Image, Field, NDArray[np.int64]]:
        seed, index = np.random.randint(0, 1 << 62, 2).tolist()
        height, width = image.shape[:2]
        drawn, boxes, labels = draw_motif_scene(seed, index, (height, width), self.classes)
        return drawn[..., ::-1], boxes, labels


# ---- the image around the objects --------------------------------------------------------------------------


def _palette(rng: np.random.Generator) -> Image:
    """Return a smooth row of colours, (256, 1, 3) uint8 BGR."""
    count = int(rng.integers(2, 6))
    stops = np.stack([pick_colour(rng, None, (0.0, 0.7)) for _ in range(count)])[:, None]
    return np.asarray(cv2.resize(stops, (1, 256), interpolation=cv2.INTER_LINEAR), np.uint8)


def _surface(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return one material, (H, W, 3) uint8 BGR: noise, a pattern and a slope of light in a palette's colours."""
    field = rng.uniform(0.1, 0.6) * fractal_noise(
        rng, height, width, int(rng.integers(2, 9)), int(rng.integers(1, 6))
    )
    if rng.random() < 0.6:
        kind = TEXTURES[1 + rng.integers(len(TEXTURES) - 1)]
        field += rng.uniform(0.05, 0.4) * draw_texture(rng, kind, height, width, rng.uniform(4, 80))
    corners = rng.uniform(-0.5, 0.5, (2, 2)).astype(np.float32)
    field += cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    levels = cv2.convertScaleAbs(np.clip(field + 1, 0, 2), alpha=127)
    return np.asarray(cv2.applyColorMap(levels, _palette(rng)), np.uint8)


def _background(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return one material, or two that meet at a line or at the edge of a blot."""
    canvas = _surface(rng, height, width)
    if rng.random() < 0.5:
        field = np.linspace(-1, 1, height, dtype=np.float32)[:, None] + np.float32(rng.uniform(-0.7, 0.7))
        field = np.repeat(field, width, 1)
        if rng.random() < 0.5:
            field = fractal_noise(rng, height, width, int(rng.integers(1, 5)), 3)
        cv2.copyTo(_surface(rng, height, width), (field > 0).astype(np.uint8), canvas)
    return canvas


def _clutter(rng: np.random.Generator, canvas: Image) -> None:
    """Draw unlabelled shards, ellipses, bars and lines, many of them cut by the edge."""
    height, width = canvas.shape[:2]
    for _ in range(int(rng.integers(0, 13))):
        colour = pick_colour(rng, None, (0.0, 0.9)).tolist()
        centre = rng.uniform(-0.1, 1.1, 2) * (width, height)
        reach = np.exp(rng.uniform(np.log(0.03), np.log(0.5))) * max(height, width)
        kind = rng.random()
        if kind < 0.4:
            shard = centre + rng.normal(0, 0.6, (int(rng.integers(4, 8)), 2)) * reach  # no regular polygon
            cv2.fillPoly(canvas, [shard.round().astype(np.int32)], colour, cv2.LINE_AA)
        elif kind < 0.6:
            box = centre.tolist(), (2 * reach * rng.uniform(0.2, 0.6, 2)).tolist(), rng.uniform(0, 180)
            cv2.ellipse(canvas, box, colour, -1, cv2.LINE_AA)
        else:
            start, end = (centre + rng.normal(0, 1, (2, 2)) * reach).astype(int).tolist()
            thick = int(rng.integers(1, max(2, reach / 4)))
            cv2.line(canvas, start, end, colour, thick, cv2.LINE_AA)


def _camera(rng: np.random.Generator, canvas: Image) -> Image:
    """Light, blur, add noise to and compress (H, W, 3) uint8."""
    height, width = canvas.shape[:2]
    light = rng.uniform(0.6, 1.25) * (1 + rng.uniform(0, 0.3) * rng.uniform(-1, 1, (3, 3, 1)))
    light = light * rng.uniform(0.88, 1.12, 3)  # a tint
    gain = cv2.resize(light.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    image: NDArray[Any] = cv2.multiply(canvas, gain, dtype=cv2.CV_8U)
    if rng.random() < 0.5:
        image = cv2.convertScaleAbs(image, alpha=rng.uniform(0.6, 1.0), beta=rng.uniform(0, 50))  # haze
    blur = rng.random()
    if blur < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.4))
    elif blur < 0.5:
        image = _shaken(rng, image)
    if rng.random() < 0.7:
        grains = np.frombuffer(rng.bytes(2 * image.size), np.uint8).reshape(2, *image.shape)
        strength = rng.uniform(0, 12) / 104.5  # the deviation of the difference of two bytes
        grain = cv2.addWeighted(grains[0], strength, grains[1], -strength, 0, dtype=cv2.CV_16S)
        image = cv2.add(image, grain, dtype=cv2.CV_8U)
    if rng.random() < 0.06:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < 0.6:
        written = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 96))])[1]
        return np.asarray(cv2.imdecode(written, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(image, np.uint8)


def _shaken(rng: np.random.Generator, image: NDArray[Any]) -> NDArray[Any]:
    """Blur along a line of 3 to 7 px."""
    reach = int(rng.integers(1, 4))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    angle = rng.uniform(0, np.pi)
    tip = np.array([np.cos(angle), np.sin(angle)]) * reach
    cv2.line(
        kernel, (reach - tip).round().astype(int).tolist(), (reach + tip).round().astype(int).tolist(), 1
    )
    return cv2.filter2D(image, -1, kernel / kernel.sum())


# ---- the objects -------------------------------------------------------------------------------------------


def _objects(rng: np.random.Generator, canvas: Image, classes: int) -> tuple[Field, NDArray[np.int64]]:
    """Draw objects back to front, mostly the large ones first, and find what is visible of each."""
    height, width = canvas.shape[:2]
    side = min(height, width)
    count = int(np.exp(rng.uniform(0, np.log(MAX_OBJECTS + 1))))
    low, high = max(MIN_SIDE, 8 / side), min(MAX_SIDE, 1.8 / np.sqrt(count))
    sizes = np.exp(rng.uniform(np.log(low), np.log(high), count)) * side
    sizes = sizes[np.argsort(-sizes * np.exp(rng.normal(0, 0.4, count)))]
    kinds = rng.integers(classes, size=int(rng.integers(1, 1 + min(count, 8))))  # images repeat their classes
    owner = np.zeros((height, width), np.uint8)  # which object is in sight, 0 for none
    placed: list[tuple[int, int, tuple[slice, slice]]] = []
    for length in sizes.tolist():
        class_id = int(kinds[rng.integers(len(kinds))])
        motif = motif_of(class_id)
        parts = bend(motif.form(rng), motif, length, rng)
        body, marks = (_rasterise(parts, is_mark) for is_mark in (False, True))
        found = _place(rng, owner, body)
        if found is None:
            continue
        window, cut = found
        _paint(rng, canvas[window], motif, body[cut], marks[cut], length)
        owner[window][body[cut] > 127] = len(placed) + 1
        placed.append((class_id, cv2.countNonZero((body > 127).astype(np.uint8)), window))
    boxes, labels = [], []
    for number, (class_id, area, (rows, columns)) in enumerate(placed, 1):
        seen = (owner[rows, columns] == number).astype(np.uint8)
        x, y, w, h = cv2.boundingRect(seen)
        if cv2.countNonZero(seen) >= MIN_VISIBLE * area and min(w, h) >= MIN_BOX:
            boxes.append((columns.start + x, rows.start + y, columns.start + x + w, rows.start + y + h))
            labels.append(class_id)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64)


def _rasterise(parts: Sequence[Part], is_mark: bool) -> Image:
    """Return the coverage of an instance's body or marks, (H, W) uint8, averaged from twice the size."""
    points = np.concatenate([contour for part in parts if not part.is_mark for contour in part.contours])
    width, height = (np.ceil(points.max(0)).astype(int) + 1).tolist()
    large = np.zeros((2 * height, 2 * width), np.uint8)
    for part in parts:
        if part.is_mark == is_mark:
            # a pixel's centre is a whole number in OpenCV and lies at +0.5 in box coordinates
            fixed = [np.rint((c - 0.25) * (2 << _SUBPIXEL_BITS)).astype(np.int32) for c in part.contours]
            cv2.fillPoly(large, fixed, 255, cv2.LINE_8, _SUBPIXEL_BITS)
    return np.asarray(cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _place(
    rng: np.random.Generator, owner: Image, body: Image
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Choose a place: of three, the first that covers little of the objects that are there, or else the last.

    Returns:
        The window in the image, and the part of the body that is in it; None if nothing is.
    """
    (height, width), (rows, columns) = owner.shape, body.shape
    for _ in range(3):
        # up to a third of an object is outside
        left = int(rng.uniform(-columns / 3, width - 2 * columns / 3))
        top = int(rng.uniform(-rows / 3, height - 2 * rows / 3))
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + columns, width), min(top + rows, height)
        if x2 - x1 < 2 or y2 - y1 < 2:
            return None
        window = slice(y1, y2), slice(x1, x2)
        if np.count_nonzero(owner[window]) < 0.3 * owner[window].size:
            break
    return window, (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))


def _paint(
    rng: np.random.Generator, region: Image, motif: Motif, body: Image, marks: Image, length: float
) -> None:
    """Blend an instance into a region of the canvas: shadow, body, texture, marks, outline, shading."""
    height, width = body.shape
    free = rng.random() < motif.free_colour
    colour = _visible(rng, region, None if free else motif.hue)
    mark = pick_colour(rng, None if free else motif.mark_hue, (0.3, 1.0))
    if np.abs(mark - colour).max() < 70:
        mark = 255 - colour
    field = draw_texture(rng, motif.texture, height, width, max(3.0, length * motif.period))
    field *= np.float32(rng.uniform(0.05, 0.3))
    corners = rng.uniform(-0.3, 0.3, (2, 2)).astype(np.float32)
    field += cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.4:  # round: darker towards the edge
        depth = cv2.distanceTransform((body > 127).astype(np.uint8), cv2.DIST_L2, 3)
        field += np.minimum(depth * np.float32(8 / max(length, 1)), 1) * np.float32(0.5) - np.float32(0.4)
    fill: NDArray[Any] = np.empty((height, width, 3), np.uint8)
    fill[:] = colour
    fill[marks > 127] = mark
    if rng.random() < 0.3 and length > 20:
        edge = cv2.morphologyEx(body, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        fill[edge > 127] = mark * np.float32(0.4)
    fill = cv2.multiply(fill, cv2.merge([field + 1] * 3), dtype=cv2.CV_8U)
    if rng.random() < 0.3:
        _shade(rng, region, body, length)
    opacity = body.astype(np.float32) * np.float32(rng.uniform(0.85, 1.0) / 255)
    region[:] = cv2.blendLinear(fill, np.ascontiguousarray(region), opacity, 1 - opacity)


def _visible(rng: np.random.Generator, region: Image, hue: float | None) -> Field:
    """Pick a colour that differs from what is there, in eight tries."""
    around = np.array(cv2.mean(region)[:3], np.float32)
    for _ in range(8):
        colour = pick_colour(rng, hue, (0.1, 1.0))
        if np.abs(colour - around).max() > 60:
            break
    return colour


def _shade(rng: np.random.Generator, region: Image, body: Image, length: float) -> None:
    """Darken a region by the soft shadow of a body, moved aside."""
    shift = np.array([[1, 0, rng.uniform(-0.1, 0.1) * length], [0, 1, rng.uniform(0, 0.12) * length]])
    soft = cv2.warpAffine(cv2.blur(body, (1 + int(length / 8),) * 2), shift, body.shape[::-1])
    factor = 1 - soft.astype(np.float32) * np.float32(rng.uniform(0.2, 0.6) / 255)
    region[:] = cv2.multiply(region, cv2.merge([factor] * 3), dtype=cv2.CV_8U)
