"""What synthetic images are painted with: colours, textures, backgrounds, clutter, shadows, and a camera's faults.

Canvases are (H, W, 3) float32 BGR, 0-255. Everything random is drawn from the generator that is given.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Image = NDArray[np.uint8]

TEXTURES = ("plain", "stripes", "checks", "dots", "mottle", "waves")


def pick_colour(rng: np.random.Generator, hue: float | None, saturation: tuple[float, float]) -> Field:
    """Return a BGR colour (3,), 0-255, near `hue` or of any hue."""
    degrees = rng.uniform(0, 360) if hue is None else (hue + rng.uniform(-18, 18)) % 360
    hsv = np.array([[[degrees, rng.uniform(*saturation), rng.uniform(0.2, 1.0)]]], dtype=np.float32)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0] * 255, np.float32)


def fractal_noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int) -> Field:
    """Sum octaves of smooth noise: (H, W) float32, about -1 to 1, the coarsest with `cells` cells a side."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        side = cells << octave
        grid = rng.random((side + 1, side + 1), dtype=np.float32) * 2 - 1
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return total


def _limited(field: NDArray[Any]) -> Field:
    return np.asarray(np.clip(field, -1, 1), np.float32)


def draw_texture(rng: np.random.Generator, kind: str, height: int, width: int, period: float) -> Field:
    """Return a pattern (H, W) float32 in -1 to 1; `period` in px."""
    if kind == "plain":
        return np.zeros((height, width), np.float32)
    if kind == "mottle":
        cells = int(np.clip(max(height, width) / period, 2, 32))
        return _limited(2 * fractal_noise(rng, height, width, cells, 2))
    angle = rng.uniform(0, np.pi)
    x = np.arange(width, dtype=np.float32)[None]
    y = np.arange(height, dtype=np.float32)[:, None]
    along = (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))) * np.float32(2 * np.pi / period)
    if kind == "stripes":
        return _limited(3 * np.sin(along + np.float32(rng.uniform(0, 6.28))))
    across = (y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))) * np.float32(2 * np.pi / period)
    if kind == "waves":
        return _limited(np.sin(along + 1.5 * np.sin(across * np.float32(rng.uniform(0.3, 0.8)))))
    product = np.sin(along) * np.sin(across)
    if kind == "checks":
        return _limited(5 * product)
    return _limited(4 * np.abs(product) - 2)  # dots


def paint_background(rng: np.random.Generator, height: int, width: int) -> Field:
    """Return (H, W, 3) float32 BGR 0-255: blurred patches, a gradient, a faint pattern and noise."""
    small = np.tile(pick_colour(rng, None, (0.0, 0.6)), (height // 4, width // 4, 1))
    for _ in range(rng.integers(2, 9)):
        centre = (int(rng.integers(small.shape[1])), int(rng.integers(small.shape[0])))
        axes = (int(rng.integers(4, 40)), int(rng.integers(4, 40)))
        paint = 0.6 * small.mean(axis=(0, 1)) + 0.4 * pick_colour(rng, None, (0.0, 0.8))
        cv2.ellipse(small, centre, axes, rng.uniform(0, 180), 0, 360, paint.tolist(), -1, cv2.LINE_AA)
    cv2.GaussianBlur(small, (0, 0), rng.uniform(1, 8), dst=small)
    canvas = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    relief = rng.uniform(5, 24) * fractal_noise(rng, height, width, int(rng.integers(2, 7)), 5)
    kind = TEXTURES[rng.integers(len(TEXTURES))]
    relief += rng.uniform(3, 14) * draw_texture(rng, kind, height, width, rng.uniform(6, 60))
    slope = np.linspace(-1, 1, width, dtype=np.float32)[None] * np.float32(rng.uniform(-35, 35))
    relief += slope + np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(rng.uniform(-35, 35))
    canvas += relief[..., None] * rng.uniform(0.6, 1.0, 3).astype(np.float32)
    return canvas


def draw_clutter(rng: np.random.Generator, canvas: Field, count: int) -> None:
    """Draw unlabelled lines, curves and specks, too thin or too small to be taken for a shape."""
    height, width = canvas.shape[:2]
    for _ in range(count):
        paint = pick_colour(rng, None, (0.0, 1.0)).tolist()
        start = rng.uniform(0, 1, 2) * (width, height)
        choice = rng.random()
        if choice < 0.3:
            x, y = start.astype(int).tolist()
            cv2.circle(canvas, (x, y), int(rng.integers(1, max(2, width // 90))), paint, -1, cv2.LINE_AA)
            continue
        if choice < 0.6:
            points = np.stack([start, rng.uniform(0, 1, 2) * (width, height)])
        else:  # a wandering curve
            turns = np.cumsum(rng.normal(0, 0.35, 24)) + rng.uniform(0, 6.28)
            steps = np.stack([np.cos(turns), np.sin(turns)], 1) * rng.uniform(0.01, 0.04) * width
            points = start + np.cumsum(steps, 0)
        thickness = int(rng.integers(1, 4))
        cv2.polylines(canvas, [points.round().astype(np.int32)], False, paint, thickness, cv2.LINE_AA)


def photograph(rng: np.random.Generator, canvas: Field) -> Image:
    """Shade, blur and add sensor noise to (H, W, 3) float32; return uint8."""
    if rng.random() < 0.6:
        cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 1.3), dst=canvas)
    height, width = canvas.shape[:2]
    grid = rng.uniform(0.7, 1.15) * (1 + rng.uniform(0, 0.25) * rng.uniform(-1, 1, (3, 3)))
    light = cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    image = canvas * light[..., None] + np.float32(rng.uniform(-15, 15))
    # the difference of two uniform bytes is a triangular variable of deviation 104.5
    grain = np.frombuffer(rng.bytes(2 * image.size), np.uint8).reshape(2, *image.shape).astype(np.float32)
    image += (grain[0] - grain[1]) * np.float32(rng.uniform(0, 10) / 104.5)
    return np.asarray(np.clip(np.rint(image), 0, 255), np.uint8)


def cast_shadow(
    rng: np.random.Generator, canvas: Field, mask: Image, window: tuple[int, int, int, int]
) -> None:
    """Darken the canvas softly next to a shape; the shadow is not part of its box."""
    x1, y1, x2, y2 = window
    height, width = canvas.shape[:2]
    reach = max(2, min(x2 - x1, y2 - y1) // 10)
    shift_x, shift_y = rng.integers(-reach, reach + 1, 2).tolist()
    pad = 2 * reach
    soft = cv2.copyMakeBorder(mask, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0).astype(np.float32)
    soft = cv2.blur(soft, (reach | 1, reach | 1)) * np.float32(rng.uniform(0.2, 0.5) / 255)
    left, top = x1 - pad + shift_x, y1 - pad + shift_y
    cut_x, cut_y = max(0, -left), max(0, -top)
    soft = soft[cut_y : height - top, cut_x : width - left]
    area = canvas[top + cut_y : top + cut_y + soft.shape[0], left + cut_x : left + cut_x + soft.shape[1]]
    area *= 1 - soft[..., None]
