"""A small detection data set of synthetic images, drawn on first use: no download, no licence, the same everywhere.

A scene is a textured background with a handful of shapes in it. A class is known by its *form* only (a
ring, a star, a cross ...): colour, texture, size, rotation and proportions vary freely. Shapes overlap
and leave the image, there are thin lines and specks without labels, and the image is shaded, blurred and
noisy as if a cheap camera had taken it.

Boxes are tight to the whole shape, its hidden part included (amodal), clipped to the image. A shape is
only drawn where every shape keeps at least `MIN_VISIBLE` of its area in sight, so nothing visible is
unlabelled and nothing labelled is invisible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.data.painting import (
    TEXTURES,
    Field,
    Image,
    cast_shadow,
    draw_clutter,
    draw_texture,
    paint_background,
    photograph,
    pick_colour,
)
from detector.errors import DataError

FORMS = ("disc", "square", "triangle", "star", "ring", "cross", "crescent", "arrow", "heart", "bolt")
DRAWING_VERSION = 3  # raised when the same seed gives other scenes than before
MIN_VISIBLE = 0.7  # part of a shape's area that stays uncovered and inside the image
SPLIT_START = {"train": 0, "val": 1 << 32, "test": 1 << 33}  # first scene index: splits never share a scene

_ASPECTS = (1.0, 1.0, 0.75, 0.8)  # short side / long side
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Look:
    """How the shapes of one class are drawn; None leaves the choice to chance.

    Attributes:
        form: One of `FORMS`.
        hue: Degrees, 0-360.
        texture: One of plain, stripes, checks, dots, mottle, waves.
    """

    form: str
    hue: float | None = None
    texture: str | None = None


def looks_of(names: Sequence[str]) -> list[Look]:
    """Choose a look for each class.

    Class names that are all `FORMS` are drawn as those forms. Any other list of names (the 80 of COCO,
    say) gets combinations of form, colour and texture that are distinct for up to 240 classes.

    Args:
        names: Class names, in the order of their ids.

    Returns:
        One look per class.

    Raises:
        DataError: If there are no names, or more than there are combinations.
    """
    if names and all(name in FORMS for name in names):
        return [Look(form=name) for name in names]
    hues = 4
    max_classes = len(FORMS) * hues * len(TEXTURES)
    if not 0 < len(names) <= max_classes:
        raise DataError(
            f"{len(names)} class names: synthetic images have between 1 and {max_classes} classes."
        )
    looks = []
    for number in range(len(names)):
        rest, form = divmod(number, len(FORMS))
        texture, hue = divmod(rest, hues)
        looks.append(Look(FORMS[form], hue * 360.0 / hues, TEXTURES[texture]))
    return looks


def draw_scene(
    seed: int, index: int, size: int = 320, classes: Sequence[str] = FORMS[:6]
) -> tuple[Image, Field, NDArray[np.int64]]:
    """Draw one scene; the same arguments give the same scene, whatever was drawn before.

    Args:
        seed: Seed of the data set, not negative.
        index: Number of the scene; one Philox stream each (Salmon et al., "Parallel random numbers: as
            easy as 1, 2, 3", SC 2011).
        size: Long side, image px; the short side is 0.75 to 1 of it.
        classes: Class names, in the order of their ids (see `looks_of`).

    Returns:
        The image (H, W, 3) uint8 BGR, the boxes (N, 4) float32 xyxy in image px and the labels (N,) int64.
        N is 0 for about one scene in thirty.

    Raises:
        DataError: If `size` is below 64, or the class names can't be drawn.
    """
    if size < 64:
        raise DataError(f"size={size}: a synthetic image needs at least 64 pixels.")
    looks = looks_of(classes)
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
    short = round(size * _ASPECTS[rng.integers(len(_ASPECTS))])
    height, width = (short, size) if rng.random() < 0.5 else (size, short)
    canvas = paint_background(rng, height, width)
    draw_clutter(rng, canvas, int(rng.integers(0, 7)))
    boxes, labels = _shapes(rng, canvas, looks)
    if rng.random() < 0.3:
        draw_clutter(rng, canvas, 1)
    return photograph(rng, canvas), boxes, labels


def make_drawn_dataset(
    folder: Path, splits: Mapping[str, int], names: Sequence[str], seed: int = 0, size: int = 320
) -> Path:
    """Write synthetic images as `images/<split>/*.jpg` and `labels/<split>/*.txt` (YOLO rows).

    The same arguments give byte-identical files with the same versions of NumPy and OpenCV on the same
    kind of processor. `folder` appears only when it is whole.

    Args:
        folder: The folder to make; must not exist or be empty.
        splits: Number of scenes of "train", "val" and "test". A split's scenes do not depend on how many
            the others have.
        names: Class names, in the order of their ids.
        seed: Seed of the data set.
        size: Long side of the images, px.

    Returns:
        `folder`.

    Raises:
        DataError: If a split has another name or a negative count, or `folder` has other files in it.
    """
    from tqdm import tqdm

    from detector.files.atomic import move_into_place, staging_folder

    for split, count in splits.items():
        if split not in SPLIT_START or count < 0:
            raise DataError(f"drawn split {split}: {count}; draw 0 or more of train, val and test.")
    scenes = [(split, number) for split, count in splits.items() for number in range(count)]
    with staging_folder(folder) as staging:
        for split in splits:
            (staging / "images" / split).mkdir(parents=True)
            (staging / "labels" / split).mkdir(parents=True)
        few = True if len(scenes) < 100 else None  # None: a bar only on a terminal
        for split, number in tqdm(scenes, desc=f"drawing {folder.name}", disable=few, leave=False):
            image, boxes, labels = draw_scene(seed, SPLIT_START[split] + number, size, names)
            write_scene(staging, split, f"{number:06d}", image, boxes, labels)
        move_into_place(staging, folder)
    return folder


def write_scene(
    folder: Path, split: str, stem: str, image: Image, boxes: Field, labels: NDArray[np.int64]
) -> None:
    """Write an image and its labels to the folders of a split, which exist.

    Args:
        folder: of the data set.
        split: its name.
        stem: the names of both files.
        image: (H, W, 3) uint8 BGR.
        boxes: (N, 4) xyxy, image px.
        labels: (N,).
    """
    path = folder / "images" / split / f"{stem}.jpg"
    path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    height, width = image.shape[:2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / (width, height)
    extents = (boxes[:, 2:] - boxes[:, :2]) / (width, height)
    rows = [
        f"{label} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}\n"
        for label, (cx, cy), (w, h) in zip(labels.tolist(), centres.tolist(), extents.tolist(), strict=True)
    ]
    (folder / "labels" / split / f"{stem}.txt").write_text("".join(rows), encoding="utf-8")


# ---- the shapes ----------------------------------------------------------------------------------------


def _circle(radius: float = 1.0, points: int = 48) -> Field:
    angles = np.arange(points, dtype=np.float32) * np.float32(2 * np.pi / points)
    return (np.stack([np.cos(angles), np.sin(angles)], 1) * radius).astype(np.float32)


def _star() -> Field:
    points = _circle(points=10)
    points[1::2] *= 0.42
    return points


def _crescent() -> Field:
    outer = np.linspace(0.62, 2 * np.pi - 0.62, 36, dtype=np.float32)
    tip = (np.cos(0.62), np.sin(0.62))
    centre, radius = 0.45, float(np.hypot(tip[0] - 0.45, tip[1]))
    edge = float(np.arctan2(tip[1], tip[0] - centre))
    inner = np.linspace(2 * np.pi - edge, edge, 28, dtype=np.float32)[1:-1]
    arcs = [np.stack([np.cos(outer), np.sin(outer)], 1)]
    arcs.append(np.stack([centre + radius * np.cos(inner), radius * np.sin(inner)], 1))
    return np.concatenate(arcs).astype(np.float32)


def _heart() -> Field:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False, dtype=np.float32)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return (np.stack([x, -y], 1) / 16).astype(np.float32)


def _polygon(*points: tuple[float, float]) -> Field:
    return np.array(points, dtype=np.float32)


def _contours(form: str) -> list[Field]:
    """Return the curves of a form, (P, 2) float32 each, in about the unit circle; the second is a hole."""
    a = 0.3
    outlines: dict[str, list[Field]] = {
        "disc": [_circle()],
        "ring": [_circle(), _circle(0.55)],
        "star": [_star()],
        "crescent": [_crescent()],
        "heart": [_heart()],
        "triangle": [_circle(points=3)],
        "square": [_polygon((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8))],
        "cross": [
            _polygon(
                *[(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a)],
                *[(a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)],
            )
        ],
        "arrow": [
            _polygon((-1, -0.25), (0.1, -0.25), (0.1, -0.75), (1, 0), (0.1, 0.75), (0.1, 0.25), (-1, 0.25))
        ],
        "bolt": [
            _polygon(
                *[(0.1, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.25, 1)],
                *[(0.6, -0.25), (0.05, -0.25), (0.5, -1)],
            )
        ],
    }
    return outlines[form]


_OUTLINES: Mapping[str, list[Field]] = {form: _contours(form) for form in FORMS}


def _place(rng: np.random.Generator, form: str, height: int, width: int) -> list[Field]:
    """Return the contours of a form at a random place, size, rotation and proportion, image px."""
    radius = 0.5 * min(height, width) * np.exp(rng.uniform(np.log(0.22), np.log(0.65)))
    stretch = np.exp(rng.uniform(-0.2, 0.2))
    angle = np.radians(rng.uniform(-40, 40))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[stretch, rng.uniform(-0.15, 0.15)], [0, 1 / stretch]]) * radius
    centre = rng.uniform(0, 1, 2) * (width, height)
    return [(contour @ matrix.T + centre).astype(np.float32) for contour in _OUTLINES[form]]


def _shapes(
    rng: np.random.Generator, canvas: Field, looks: Sequence[Look]
) -> tuple[Field, NDArray[np.int64]]:
    """Draw shapes back to front until the wanted number lie there or there is no room for more."""
    height, width = canvas.shape[:2]
    wanted = 0 if rng.random() < 1 / 30 else int(rng.integers(1, 7))
    owner = np.zeros((height, width), np.uint8)  # which shape is in sight, 0 for none
    in_sight = np.zeros(1)  # px of each shape that are in sight; the background comes first
    required = np.full(1, -np.inf)  # px of each shape that must stay in sight
    boxes: list[Field] = []
    labels: list[int] = []
    for _ in range(3 * wanted):
        if len(labels) == wanted:
            break
        label = int(rng.integers(len(looks)))
        contours = _place(rng, looks[label].form, height, width)
        points = np.concatenate(contours)
        x1, y1 = np.maximum(np.floor(points.min(0)).astype(int), 0).tolist()
        x2, y2 = np.minimum(np.ceil(points.max(0)).astype(int), (width, height)).tolist()
        if x2 - x1 < 8 or y2 - y1 < 8:
            continue
        mask = _mask(contours, x1, y1, x2, y2)
        area = _area(contours)
        solid = mask > 127
        region = owner[y1:y2, x1:x2]
        count = np.count_nonzero(solid)
        after = in_sight - np.bincount(region[solid], minlength=len(in_sight))
        if count < MIN_VISIBLE * area or (after < required).any():
            continue
        _paint(rng, canvas, looks[label], contours, mask, (x1, y1, x2, y2))
        region[solid] = len(in_sight)
        in_sight = np.append(after, count)
        required = np.append(required, MIN_VISIBLE * area)
        labels.append(label)
        low, high = points.min(0), points.max(0)
        boxes.append(np.clip(np.concatenate([low, high]), 0, (width, height, width, height)))
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64)


def _area(contours: Sequence[Field]) -> float:
    outer, *holes = [float(cv2.contourArea(contour)) for contour in contours]
    return outer - sum(holes)


def _mask(contours: Sequence[Field], x1: int, y1: int, x2: int, y2: int) -> Image:
    """Rasterise contours into the window: (y2-y1, x2-x1) uint8 coverage, averaged from twice the size."""
    scale = 2 << _SUBPIXEL_BITS
    # a pixel's centre is a whole number in OpenCV and lies at +0.5 in box coordinates
    offset = np.array([x1, y1], np.float32) + 0.25
    fixed = [np.rint((contour - offset) * scale).astype(np.int32) for contour in contours]
    large = np.zeros((2 * (y2 - y1), 2 * (x2 - x1)), np.uint8)
    cv2.fillPoly(large, fixed, 255, cv2.LINE_8, _SUBPIXEL_BITS)
    return np.asarray(cv2.resize(large, (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA), np.uint8)


def _paint(
    rng: np.random.Generator,
    canvas: Field,
    look: Look,
    contours: Sequence[Field],
    mask: Image,
    window: tuple[int, int, int, int],
) -> None:
    """Blend one shape into the canvas: shadow, body colour, texture, shading, outline."""
    x1, y1, x2, y2 = window
    height, width = y2 - y1, x2 - x1
    if rng.random() < 0.35:
        cast_shadow(rng, canvas, mask, window)
    region = canvas[y1:y2, x1:x2]
    around = np.array(cv2.mean(region)[:3], np.float32)
    body = pick_colour(rng, look.hue, (0.6, 1.0) if look.hue is not None else (0.0, 1.0))
    for _ in range(8):  # stay visible: differ from the colour of the background
        if np.abs(body - around).max() > 90:
            break
        body = pick_colour(rng, look.hue, (0.6, 1.0) if look.hue is not None else (0.0, 1.0))
    kind = look.texture or TEXTURES[max(0, int(rng.integers(-3, len(TEXTURES))))]  # often plain
    pattern = draw_texture(rng, kind, height, width, max(5.0, max(height, width) * rng.uniform(0.12, 0.4)))
    tone = rng.uniform(15, 50) * np.sign(128 - body.mean())
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    slope = rng.uniform(-28, 28, 2)
    surface = pattern * np.float32(tone / 2) + x * np.float32(slope[0]) + y * np.float32(slope[1])
    fill = body + surface[..., None]
    if rng.random() < 0.4:
        edge = np.zeros((height, width), np.uint8)
        offset = np.array([x1, y1], np.float32) + 0.5
        lines = [np.rint((contour - offset) * (1 << _SUBPIXEL_BITS)).astype(np.int32) for contour in contours]
        thickness = int(rng.integers(2, max(3, min(height, width) // 12) + 1))
        cv2.polylines(edge, lines, True, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        ink = pick_colour(rng, None, (0.0, 0.6)) * np.float32(0.6)
        fill += (edge.astype(np.float32) / 255)[..., None] * (ink - fill)
    opacity = (mask.astype(np.float32) / 255)[..., None] * np.float32(rng.uniform(0.88, 1.0))
    region += opacity * (fill - region)
