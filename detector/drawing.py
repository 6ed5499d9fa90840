"""Boxes drawn on images, grids of many images, and images written or shown, with OpenCV."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.errors import DataError, SettingsError
from detector.files.atomic import replace_file
from detector.files.names import shortened

log = logging.getLogger(__name__)

Image = NDArray[np.uint8]
Color = tuple[int, int, int]

# RGB. Okabe and Ito's palette (2008), then Tol's "muted" scheme (2021): told apart with every colour vision.
PALETTE = (
    0xE69F00, 0x56B4E9, 0x009E73, 0xF0E442, 0x0072B2, 0xD55E00, 0xCC79A7,
    0x332288, 0x88CCEE, 0x117733, 0xDDCC77, 0xCC6677, 0xAA4499, 0x44AA99, 0x882255, 0x999933,
)  # fmt: skip
FONT_WEIGHT = 450  # of 100 thin ... 800 bold; OpenCV 5 only
HERSHEY_SIZE = 30  # px that scale 1 of OpenCV 4's font stands for
ASCENT, DESCENT = (
    0.86,
    0.24,
)  # parts of the font size kept free above and below the base line: what letters reach
MAX_SHOWN = 1280  # px: longest side of an image in a notebook
BLACK, CHARCOAL, PAPER, WHITE = (0, 0, 0), (40, 40, 40), (250, 250, 250), (255, 255, 255)


def class_color(number: int) -> Color:
    """Return the BGR colour of a class: 16 colours, then the same ones lighter, then darker; then again."""
    red, green, blue = PALETTE[number % len(PALETTE)].to_bytes(3, "big")
    cycle = number // len(PALETTE) % 3
    target, share = ((0, 0), (255, 0.45), (0, 0.4))[cycle]  # as is; 45 % of the way to white; 40 % to black
    return tuple(round(c + (target - c) * share) for c in (blue, green, red))  # type: ignore[return-value]


def text_color(background: Color) -> Color:
    """Return black or white, whichever reads better on a BGR colour.

    By the relative luminance of WCAG 2.1, whose numbers these are. Its contrast, (light + 0.05) / (dark + 0.05), is the
    same with black and white where (luminance + 0.05)² = 1.05 * 0.05: at 0.179.
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.divide(background, 255)]
    luminance = 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]
    return BLACK if luminance > 0.179 else WHITE


def default_line_width(height: int, width: int) -> int:
    """Return a line width in px that suits the size of an image."""
    minimum = 1 if max(height, width) < 200 else 2  # on a thumbnail two pixels hide what they surround
    return max(round((height + width) / 2 * 0.003), minimum)  # 2 px at 640 x 640, 6 px at 1920 x 1920


def draw_boxes(
    image: Image,
    boxes_xyxy: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike | None = None,
    names: dict[int, str] | None = None,
    line_width: int | None = None,
    font_size: int | None = None,
    show_labels: bool = True,
    show_conf: bool = True,
) -> Image:
    """Draw boxes with their class and score; the highest scores are drawn last, on top.

    Args:
        image: (H, W, 3) BGR, or (H, W) or (H, W, 1) grey; not changed.
        boxes_xyxy: (N, 4) image px.
        labels: (N,) class ids.
        scores: (N,) confidences, if any.
        names: class id -> name; the number is shown for those without.
        line_width: px; by default after the size of the image.
        font_size: height of a line of text, px; by default after `line_width`.
        show_labels: write class names.
        show_conf: write scores.

    Returns:
        (H, W, 3) BGR, a drawn copy.
    """
    canvas = np.array(image, np.uint8, order="C")
    if canvas.ndim == 2 or canvas.shape[2] == 1:
        canvas = cv2.cvtColor(canvas, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    numbers = np.asarray(labels).reshape(-1).astype(int)
    order = np.arange(len(boxes))
    if scores is not None:
        scores = np.asarray(scores, np.float64).reshape(-1)
        order = np.argsort(scores, kind="stable")
    line_width = line_width or default_line_width(*canvas.shape[:2])
    font_size = font_size or round(8 + 3 * line_width)  # 14 px, still readable, with the usual 2 px lines
    limit = 4 * max(canvas.shape)  # cv2 draws from 32-bit integers; nothing that far outside is visible
    corners = np.clip(np.nan_to_num(boxes), -limit, limit).round().astype(int).tolist()
    for i in order:
        x1, y1, x2, y2 = corners[i]
        color = class_color(int(numbers[i]))
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, line_width)
    texts = [""] * len(boxes)
    for i in order:
        words = [class_caption(int(numbers[i]), names)] if show_labels else []
        words += [f"{scores[i]:.2f}"] if show_conf and scores is not None else []
        texts[i] = " ".join(words)
    labelled = [i for i in order if texts[i]]
    fields = [label_size(texts[i], font_size) for i in labelled]
    places = place_labels([corners[i] for i in labelled], fields, canvas.shape[:2], line_width // 2)
    for i, place in zip(labelled, places, strict=True):
        draw_label(canvas, texts[i], place, class_color(int(numbers[i])), font_size)
    return canvas


def class_caption(number: int, names: dict[int, str] | None) -> str:
    """Return the name of a class, or `class 3` where there is none or it can't be drawn."""
    name = shortened((names or {}).get(number, f"class {number}"))
    return name if can_draw(name) else f"class {number}"


def can_draw(text: str) -> bool:
    """Return whether there is a letter for everything in a text: OpenCV 4 has ASCII only."""
    return text.isascii() or hasattr(cv2, "FontFace")


def place_labels(
    boxes: Sequence[Sequence[int]],
    sizes: Sequence[tuple[int, int]],
    shape: Sequence[int],
    edge: int = 0,
) -> list[tuple[int, int]]:
    """Choose for each label a place at its box where it covers no other label, as far as there is room.

    The last one chooses first: above or inside the box at its upper left corner, then at the other corners, then next
    to it. Where all places are taken, it gets the one where the overlap is smallest.

    Args:
        boxes: N times x1, y1, x2, y2, image px.
        sizes: N times width and height of the label, px.
        shape: height and width of the image, px; no label leaves it, if it is not larger.
        edge: half of the width of the boxes' lines, px.

    Returns:
        N times x and y of the upper left corner.
    """
    places = np.zeros((len(boxes), 2), np.int64)
    taken = np.zeros((len(boxes), 4), np.int64)  # corners of the labels that have their place
    for i in reversed(range(len(boxes))):
        x1, y1, x2, y2 = boxes[i]
        width, height = sizes[i]
        left, right, over, under = x1 - edge, x2 + edge - width + 1, y1 - edge - height, y2 + edge + 1
        wanted = np.array(
            [(left, over), (left, y1 + edge), (right, over), (right, y1 + edge), (left, under), (right, under),
             (left, y2 - edge - height), (right, y2 - edge - height), (x2 + edge + 1, y1), (x1 - edge - width, y1),
             (x2 + edge + 1, y2 - height), (x1 - edge - width, y2 - height)]
        )  # fmt: skip
        inside = np.clip(wanted, 0, np.maximum((shape[1] - width, shape[0] - height), 0))
        others = taken[i + 1 :]
        meeting = np.minimum(inside[:, None] + (width, height), others[:, 2:]) - np.maximum(
            inside[:, None], others[:, :2]
        )
        covered = meeting.clip(0).prod(-1).sum(-1)
        moved = inside[:, 1] != wanted[:, 1]  # away from its box, or onto its line
        places[i] = inside[np.lexsort((moved, covered))[0]]
        taken[i] = (*places[i], *(places[i] + (width, height)))
    return [(x, y) for x, y in places.tolist()]


def label_size(text: str, font_size: int) -> tuple[int, int]:
    """Return the width and height of a text with its background, px."""
    width, ascent, descent = measure_text(text, font_size)
    pad = label_pad(font_size)
    return width + 2 * pad, ascent + descent + pad


def label_pad(font_size: int) -> int:
    """Return the space around the text of a label, px."""
    return max(font_size // 5, 2)


def draw_label(image: Image, text: str, place: tuple[int, int], color: Color, font_size: int) -> None:
    """Write text on a coloured background whose upper left corner is at a place; drawn in place."""
    (x, y), (width, height) = place, label_size(text, font_size)
    pad = label_pad(font_size)
    cv2.rectangle(image, (x, y), (x + width - 1, y + height - 1), color, cv2.FILLED)
    put_text(image, text, (x + pad, y + pad // 2 + round(ASCENT * font_size)), text_color(color), font_size)


def measure_text(text: str, font_size: int) -> tuple[int, int, int]:
    """Return the width of a text, and the space above and below the base line that any text needs, px."""
    if hasattr(cv2, "FontFace"):
        box = cv2.getTextSize((0, 0), text, (0, 0), cv2.FontFace("sans"), font_size, FONT_WEIGHT)
        width = box[0] + box[2]
    else:
        (width, _), _ = cv2.getTextSize(text, *hershey(font_size))
    return int(width), round(ASCENT * font_size), round(DESCENT * font_size)


def put_text(image: Image, text: str, origin: tuple[int, int], color: Color, font_size: int) -> None:
    """Write text in place from the left end of its base line."""
    if hasattr(cv2, "FontFace"):  # OpenCV 5: a real font with all of Unicode's common letters
        cv2.putText(image, text, origin, color, cv2.FontFace("sans"), font_size, FONT_WEIGHT)
    else:
        font, scale, weight = hershey(font_size)
        cv2.putText(image, text, origin, font, scale, color, weight, cv2.LINE_AA)


def hershey(font_size: int) -> tuple[int, float, int]:
    """Return OpenCV 4's font, its scale and its stroke width, px, for a size."""
    weight = max(font_size // 14, 1)  # about as heavy as FONT_WEIGHT
    return cv2.FONT_HERSHEY_SIMPLEX, font_size / HERSHEY_SIZE, weight


def mosaic(
    images: Sequence[ArrayLike],
    boxes: Sequence[ArrayLike],
    labels: Sequence[ArrayLike],
    scores: Sequence[ArrayLike] | None = None,
    names: dict[int, str] | None = None,
    titles: Sequence[str] | None = None,
    max_images: int = 16,
    size: int = 1920,
    min_side: int = 0,
) -> Image:
    """Put the images of a batch with their boxes on one image grid.

    Args:
        images: B times (3, H, W) uint8 RGB, or (1, H, W) grey; sizes may differ.
        boxes: B times (M, 4) xyxy, input px.
        labels: B times (M,) class ids; rows below 0 are padding and left out.
        scores: B times (M,) confidences of detections.
        names: class id -> name.
        titles: B file names.
        max_images: images beyond this are left out.
        size: longest side of the grid, px.
        min_side: longest side, px, to which smaller images are enlarged where the grid has room.

    Returns:
        (H', W', 3) BGR.
    """
    tiles = [
        np.broadcast_to(image, (3, *np.shape(image)[1:]))[::-1].transpose(1, 2, 0)
        for image in images[:max_images]
    ]
    if not tiles:
        return np.full((size // 4, size // 4, 3), PAPER, np.uint8)  # of any size: there is nothing to see
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    scale = min(size / max(rows * height, columns * width), max(min_side / max(height, width), 1))
    height, width = math.ceil(height * scale), math.ceil(width * scale)
    grid = np.full((rows * height, columns * width, 3), PAPER, np.uint8)
    for i, pixels in enumerate(tiles):
        small = resized(pixels, scale)
        numbers = np.asarray(labels[i]).reshape(-1)
        shown = numbers >= 0
        corners = np.asarray(boxes[i], np.float64).reshape(-1, 4)[shown] * scale
        confidences = None if scores is None else np.asarray(scores[i]).reshape(-1)[shown]
        small = draw_boxes(small, corners, numbers[shown], confidences, names)
        if titles is not None:
            small = draw_title(small, titles[i])
        top, left = i // columns * height, i % columns * width
        grid[top : top + small.shape[0], left : left + small.shape[1]] = small
        cv2.rectangle(grid, (left, top), (left + width - 1, top + height - 1), WHITE, 1)
    return grid


def resized(image: Image, scale: float) -> Image:
    """Return an image brought to a scale, in memory as OpenCV needs it."""
    image = np.ascontiguousarray(image, np.uint8)
    if scale == 1:
        return image
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, size, interpolation=interpolation).astype(np.uint8, copy=False)


def draw_title(image: Image, title: str) -> Image:
    """Write a title along the lower edge of an image, shortened in the middle to fit; drawn in place."""
    font_size = max(round(min(image.shape[:2]) / 28), 10)  # smaller than labels of boxes, but readable
    if not can_draw(title):
        title = title.encode("ascii", "replace").decode()
    room = image.shape[1] - 2 * font_size
    kept = len(title)
    text = title
    while measure_text(text, font_size)[0] > room and kept > 2:
        kept -= 1
        text = f"{title[: kept // 2]}...{title[-(kept - kept // 2) :]}"
    draw_label(image, text, (0, max(image.shape[0] - label_size(text, font_size)[1], 0)), CHARCOAL, font_size)
    return image


def write_image(path: str | Path, image: Image) -> Path:
    """Write a BGR image in the format its suffix names, making the folder where needed.

    Returns:
        The path written.

    Raises:
        DataError: the format is unknown or the file can't be written.
    """
    path = Path(path)
    try:
        encoded, data = cv2.imencode(path.suffix, image)
    except cv2.error as error:
        raise DataError(f"{path}: OpenCV can't write {path.suffix!r} images; try .jpg or .png.") from error
    if not encoded:
        raise DataError(f"{path}: the image can't be encoded as {path.suffix!r}; try .jpg or .png.")
    with writing(path, "image"):
        replace_file(path, data.tobytes())
    return path


def writable_name(name: str) -> str:
    """Return a file name, with .jpg in place of a suffix that OpenCV reads and does not write, such as .mpo."""
    path = Path(name)
    if path.suffix and cv2.haveImageWriter(f"image{path.suffix}"):
        return name
    return f"{path.stem}.jpg"


def to_png(image: Image) -> bytes:
    """Return a BGR image as a PNG file."""
    return bytes(cv2.imencode(".png", image)[1].tobytes())


def notebook_png(image: Image) -> bytes:
    """Return a BGR image as a PNG file for a notebook, which keeps it in its own file: shrunk if it is large."""
    return to_png(resized(image, min(MAX_SHOWN / max(image.shape[:2]), 1)))


def in_notebook() -> bool:
    """Return whether this runs in a notebook: in an IPython that sends its output to one."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


@contextmanager
def writing(path: Path, what: str) -> Iterator[None]:
    """Make the folder of a file that is written within the `with` block.

    Args:
        path: the file.
        what: what is written, for the error.

    Raises:
        DataError: the folder or the file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DataError(
            f"{path}: can't write the {what} ({error.strerror}); choose a writable folder."
        ) from error


@contextmanager
def dispensable(what: str) -> Iterator[None]:
    """Continue without images or plots that can't be written within the `with` block: a run is worth more.

    Args:
        what: what is missing then, for the warning.
    """
    try:
        yield
    except DataError as error:
        log.warning("%s The run continues without %s.", error, what)


def show_image(image: Image, title: str, wait_ms: int = 0) -> None:
    """Show a BGR image in the notebook this runs in, else in a window.

    Args:
        image: (H, W, 3) uint8.
        title: of the window; one window per title.
        wait_ms: time to wait for a key, 0 for ever.

    Raises:
        SettingsError: there is no display, or OpenCV was built without windows.
    """
    if in_notebook():
        display = import_module("IPython.display")
        display.display(display.Image(data=notebook_png(image)))
        return
    if sys.platform.startswith("linux") and not (os.getenv("DISPLAY") or os.getenv("WAYLAND_DISPLAY")):
        raise SettingsError("show=True needs a display and this machine has none; use save=True.")
    try:
        cv2.imshow(title, image)
        cv2.waitKey(wait_ms)
    except cv2.error as error:
        raise SettingsError("show=True: this OpenCV can't open windows; use save=True.") from error
