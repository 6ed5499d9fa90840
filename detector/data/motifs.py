"""Classes of drawn motifs, which networks are pretrained on: each a fixed function of its class id.

A class has a form and a look (colours, texture); an instance of it is bent, stretched, turned and tinted. Forms come in
five families, one after the other by class id, so that any first n classes are of all of them:

* `contour`: concentric radial contours (Kataoka et al., "Replacing labeled real-image datasets with auto-generated
  contours", CVPR 2022: RCDB)
* `polygon`: polygons and stars with several kinds of holes
* `fractal`: attractors of iterated function systems (Kataoka et al., "Pre-training without natural images", ACCV 2020:
  FractalDB; few of them suffice: Nakamura et al., arXiv:2307.14710)
* `creature`: bodies with heads, limbs and tails, in any pose
* `glyph`: letters, digits and signs, from thin to thick

Coordinates are about -1 to 1, y down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.data.painting import TEXTURES, Field

FAMILIES = ("contour", "polygon", "fractal", "creature", "glyph")
GLYPHS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghmnqrty23456789?&%$#@+*=<!~^"
NUM_MOTIFS = len(FAMILIES) * len(GLYPHS)

_RASTER = 96  # px, of what is made of pixels before it is made of contours
_TILTS = {"contour": 180.0, "polygon": 180.0, "fractal": 180.0, "creature": 35.0, "glyph": 25.0}


@dataclass(frozen=True)
class Part:
    """A piece of a motif.

    Attributes:
        contours: (P, 2) float32 each; one inside another is a hole.
        is_mark: whether it is drawn on the body in the second colour, and adds nothing to the silhouette.
    """

    contours: list[Field]
    is_mark: bool = False


@dataclass(frozen=True)
class Motif:
    """A class.

    Attributes:
        family: one of `FAMILIES`.
        number: from 0, in its family.
        hue: of the body, degrees.
        mark_hue: of its marks, degrees.
        texture: of the body, one of `TEXTURES`.
        period: of the texture, as a part of the motif's longer side.
        free_colour: probability that an instance has any hue.
        tilt: maximum rotation of an instance, degrees.
    """

    family: str
    number: int
    hue: float
    mark_hue: float
    texture: str
    period: float
    free_colour: float
    tilt: float

    @property
    def name(self) -> str:
        """The family and what it is in it: `contour-07`, `glyph-A`."""
        return f"{self.family}-{GLYPHS[self.number] if self.family == 'glyph' else f'{self.number:02d}'}"

    def form(self, rng: np.random.Generator) -> list[Part]:
        """Return the parts of an instance, the silhouette first."""
        return _FORMS[self.family](self.number, rng)


@lru_cache(maxsize=NUM_MOTIFS)
def motif_of(class_id: int) -> Motif:
    """Return a class.

    Args:
        class_id: from 0, below `NUM_MOTIFS`.
    """
    number, family = divmod(class_id, len(FAMILIES))
    rng = _class_generator(len(FAMILIES), class_id)
    return Motif(
        FAMILIES[family],
        number,
        hue=rng.uniform(0, 360),
        mark_hue=rng.uniform(0, 360),
        texture=TEXTURES[rng.integers(len(TEXTURES))],
        period=rng.uniform(0.1, 0.4),
        free_colour=rng.uniform(0.2, 0.8),
        tilt=_TILTS[FAMILIES[family]],
    )


def bend(parts: Sequence[Part], motif: Motif, side: float, rng: np.random.Generator) -> list[Part]:
    """Bend, stretch, turn and scale the parts of an instance.

    Args:
        parts: as `Motif.form` returns them.
        motif: their class.
        side: the longer side of the silhouette's box in the result, px.
        rng: what the variation is drawn from.

    Returns:
        The parts in px; the silhouette's box starts at (0, 0).
    """
    contours = [contour for part in parts for contour in part.contours]
    points = np.concatenate(contours).astype(np.float64)
    waves = np.sin(points[:, ::-1] * rng.uniform(1, 2.5, 2) + rng.uniform(0, 2 * np.pi, 2))
    points = points + waves * rng.uniform(0, 0.14, 2)
    stretch, angle = np.exp(rng.uniform(-0.25, 0.25)), np.radians(rng.uniform(-motif.tilt, motif.tilt))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = points @ (turn @ np.array([[stretch, rng.uniform(-0.2, 0.2)], [0, 1 / stretch]])).T
    body = np.concatenate([np.full(len(c), not part.is_mark) for part in parts for c in part.contours])
    low = points[body].min(0)
    points = (points - low) * (side / np.ptp(points[body], 0).max())
    pieces = iter(np.split(points.astype(np.float32), np.cumsum([len(c) for c in contours])[:-1]))
    return [Part([next(pieces) for _ in part.contours], part.is_mark) for part in parts]


def _class_generator(family: int, number: int) -> np.random.Generator:
    return np.random.default_rng((family, number))


# ---- the families ----------------------------------------------------------------------------------------


def _radial(radii: NDArray[np.float64], scale: float = 1.0) -> Field:
    """Return a closed curve (P, 2) with these radii at equal angles, the first upwards."""
    angles = np.arange(len(radii)) * (2 * np.pi / len(radii))
    return (np.stack([np.sin(angles), -np.cos(angles)], 1) * (radii[:, None] * scale)).astype(np.float32)


def _ellipse(x: float, y: float, width: float, height: float) -> Field:
    return np.asarray(_radial(np.ones(24)) * (width, height) + (x, y), np.float32)


def _contour(number: int, rng: np.random.Generator) -> list[Part]:
    fixed = _class_generator(0, number)
    harmonics = fixed.choice(np.arange(2, 13), 3, replace=False)
    amplitudes = fixed.uniform(0.06, 0.32, 3) / np.sqrt(harmonics / 2)
    phases = fixed.uniform(0, 2 * np.pi, 3)
    rings = np.sort(fixed.uniform(0.2, 0.9, fixed.integers(0, 4)))[::-1]
    amplitudes = amplitudes * rng.uniform(0.8, 1.2, 3)
    phases = phases + rng.uniform(-0.15, 0.15, 3)
    angles = np.arange(96) * (2 * np.pi / 96)
    radii = 1 + (amplitudes[:, None] * np.cos(harmonics[:, None] * angles + phases[:, None])).sum(0)
    marks = [_radial(radii, scale) for scale in rings.tolist()]  # inside each other: rings of both colours
    return [Part([_radial(radii)])] + ([Part(marks, is_mark=True)] if marks else [])


def _polygon(number: int, rng: np.random.Generator) -> list[Part]:
    rest, sides = divmod(number, 6)
    hole, depth = divmod(rest, 3)
    sides += 3
    radii = np.ones(2 * sides)
    radii[1::2] = np.cos(np.pi / sides) * (1.0, 0.72, 0.45)[depth] * rng.uniform(0.93, 1.07)
    body, size = _radial(radii), float(radii[1] * rng.uniform(0.5, 0.7))
    if hole == 0:
        return [Part([body])]
    if hole == 1:
        return [Part([body, _radial(np.ones(24), size)])]
    if hole == 2:
        return [Part([body]), Part([_radial(radii, 0.75), _radial(radii, 0.5)], is_mark=True)]
    dots = [_ellipse(x, y, 0.1, 0.1) for x, y in (0.75 * body[::2]).tolist()]
    return [Part([body]), Part(dots, is_mark=True)]


def _fractal(number: int, rng: np.random.Generator) -> list[Part]:
    return list(_attractor(number))


@lru_cache(maxsize=len(GLYPHS))
def _attractor(number: int) -> tuple[Part, ...]:
    """Draw attractors until one fills half of its box, and return its silhouette and its dense parts."""
    fixed = _class_generator(2, number)
    while True:
        maps = int(fixed.integers(2, 5))
        matrices = fixed.uniform(-1, 1, (maps, 2, 2))
        lengths = np.linalg.svd(matrices, compute_uv=False)[:, 0]
        matrices *= (fixed.uniform(0.55, 0.85, maps) / lengths)[:, None, None]  # contractions
        shifts = fixed.uniform(-1, 1, (maps, 2))
        points, seen = np.zeros((500, 2)), []
        for step in range(24):
            chosen = fixed.integers(maps, size=len(points))
            points = np.einsum("nij,nj->ni", matrices[chosen], points) + shifts[chosen]
            if step >= 12:
                seen.append(points)
        cloud = np.concatenate(seen)
        cloud = (cloud - cloud.min(0)) / np.ptp(cloud, 0).max()
        columns, rows = (cloud * (_RASTER - 9) + 4).astype(int).T
        counts = np.zeros((_RASTER, _RASTER), np.float32)
        np.add.at(counts, (rows, columns), 1)
        solid = cv2.morphologyEx((counts > 0).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        _, components, stats, _ = cv2.connectedComponentsWithStats(solid)
        largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        _, _, width, height, area = stats[largest].tolist()
        if min(width, height) > 0.4 * _RASTER and 0.35 < area / (width * height) < 0.8:
            break
    body = (components == largest).astype(np.uint8)
    dense = cv2.GaussianBlur(counts, (0, 0), 2) > 1.4 * counts[body > 0].mean()
    marks = _traced(body * dense * np.uint8(255))
    return Part(_traced(body * np.uint8(255))), *([Part(marks, is_mark=True)] if marks else [])


def _traced(mask: NDArray[np.uint8]) -> list[Field]:
    """Return the contours of what is above 127, but for specks."""
    large = cv2.resize(mask, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    found, _ = cv2.findContours((large > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    kept = [cv2.approxPolyDP(c, 1.2, True)[:, 0] for c in found if cv2.contourArea(c) > 40]
    return [(contour / (1.5 * _RASTER) - 1).astype(np.float32) for contour in kept]


def _strip(points: NDArray[np.float64], start: float, end: float) -> Field:
    """Return the outline (P, 2) of a limb along points, (n, 2), from one half width to another."""
    ways = np.gradient(points, axis=0)
    sides = np.stack([-ways[:, 1], ways[:, 0]], 1) / np.linalg.norm(ways, axis=1, keepdims=True)
    sides *= np.linspace(start, end, len(points))[:, None]
    return np.concatenate([points + sides, (points - sides)[::-1]]).astype(np.float32)


def _limb(x: float, y: float, angle: float, curl: float, length: float, width: float) -> Part:
    """Return a limb from (x, y); angles in radians, 0 to the right, clockwise."""
    angles = angle + np.linspace(0, curl, 8)
    steps = np.stack([np.cos(angles), np.sin(angles)], 1) * (length / 8)
    points = np.array([x, y]) + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
    return Part([_strip(points, width, 0.6 * width)])


def _creature(number: int, rng: np.random.Generator) -> list[Part]:
    fixed = _class_generator(3, number)
    width, height = fixed.uniform(0.3, 0.62), fixed.uniform(0.22, 0.5)
    head, neck = fixed.uniform(0.14, 0.32), fixed.uniform(0.0, 0.35)
    pairs, length, thick = int(fixed.integers(1, 5)), fixed.uniform(0.3, 0.75), fixed.uniform(0.05, 0.12)
    curl, spread = fixed.uniform(-1.4, 1.4), fixed.uniform(0.2, 1.0)
    tail, ears, spots = fixed.uniform(-0.3, 1.0), int(fixed.integers(0, 3)), int(fixed.integers(0, 6))
    upright = bool(fixed.random() < 0.3)  # limbs on both sides, as of an insect, instead of below
    parts = [Part([_ellipse(0, 0, width, height)])]
    for place in np.linspace(-0.8, 0.8, 2 * pairs).tolist() if not upright else []:
        swing = rng.uniform(-0.4, 0.4) - spread * place * 0.5
        parts.append(_limb(place * width, height * 0.5, np.pi / 2 + swing, curl * 0.6, length, thick))
    for place in np.linspace(-0.8, 0.8, pairs).tolist() if upright else []:
        for sign in (-1.0, 1.0):
            swing = rng.uniform(-0.3, 0.3) - spread * place
            parts.append(
                _limb(place * width, 0, sign * (np.pi / 2 + swing), sign * curl, length + height, thick)
            )
    nod = rng.uniform(-0.5, 0.3)
    x, y = (width + neck) * np.cos(nod), (width + neck) * np.sin(nod)
    parts.append(_limb(0.4 * width, 0, nod, 0.0, float(np.hypot(x - 0.4 * width, y)), 0.6 * head))
    for side in range(ears):
        parts.append(_limb(x, y, nod - np.pi / 2 + (side - 0.5) * 0.9, 0.2, 2.1 * head, 0.35 * head))
    parts.append(Part([_ellipse(x, y, head, 0.85 * head)]))
    if tail > 0:
        parts.append(
            _limb(-0.8 * width, 0, np.pi + rng.uniform(-0.4, 0.7), curl, 0.4 + 0.6 * tail, 0.7 * thick)
        )
    marks = [_ellipse(x + 0.3 * head, y - 0.2 * head, 0.22 * head, 0.22 * head)]
    at = fixed.uniform(-0.6, 0.6, (spots, 2)) * (width, height)
    marks += [_ellipse(left, top, 0.2 * height, 0.2 * height) for left, top in at.tolist()]
    parts.append(Part(marks, is_mark=True))
    if rng.random() < 0.5:  # looks to the left
        flip = np.array([-1, 1], np.float32)
        parts = [Part([contour * flip for contour in part.contours], part.is_mark) for part in parts]
    return parts


def _glyph(number: int, rng: np.random.Generator) -> list[Part]:
    return [Part(_letter(GLYPHS[number], int(rng.integers(1, 5))))]


@lru_cache(maxsize=4 * len(GLYPHS))
def _letter(text: str, weight: int) -> list[Field]:
    """Draw a sign of OpenCV's font, thicker by `weight` - 1 px of the raster; OpenCV 5 has another font than 4."""
    canvas, font = np.zeros((_RASTER, _RASTER), np.uint8), cv2.FONT_HERSHEY_SIMPLEX
    (width, height), below = cv2.getTextSize(text, font, 2.0, 2)
    start = ((_RASTER - width) // 2, (_RASTER + height - below // 2) // 2)
    cv2.putText(canvas, text, start, font, 2.0, 255, 2, cv2.LINE_AA)
    return _traced(np.asarray(cv2.dilate(canvas, np.ones((weight, weight), np.uint8)), np.uint8))


_FORMS: Mapping[str, Callable[[int, np.random.Generator], list[Part]]] = {
    "contour": _contour,
    "polygon": _polygon,
    "fractal": _fractal,
    "creature": _creature,
    "glyph": _glyph,
}
