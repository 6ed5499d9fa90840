"""Tables of boxes as CSV, a row per box, whose columns say what they are.

====================  =================================================================
what                  names of columns, in any case
====================  =================================================================
image                 filename, file_name, image, image_name, image_path, path, image_id, img
class                 class, label, class_name, category, name; without one all are "object"
box                   xmin ymin xmax ymax, x1 y1 x2 y2, x_min y_min x_max y_max (px), or
                      bbox with ``[x, y, width, height]`` (px)
====================  =================================================================

A row without a box is an image without objects. An image's name may lack its suffix.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detector.data.formats import FileFormat
from detector.data.formats.coco import places_of, read_like_coco
from detector.data.labels import Labels
from detector.data.places import is_file_name
from detector.data.sources import IMAGE_SUFFIXES
from detector.errors import DataError
from detector.files.text import decode_text, read_text

IMAGE = ("filename", "file_name", "image", "image_name", "image_path", "path", "image_id", "img")
CLASS = ("class", "label", "class_name", "category", "name")
CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("x_min", "y_min", "x_max", "y_max"),
)
BOX = "bbox"
ONLY_CLASS = "object"


def read_table(path: Path, images: Path | None = None) -> Labels:
    """Read the images and labels of a table; as `read_coco`."""

    def to_coco(_: Any, name: str) -> dict[str, Any]:
        return _to_coco(_text(path), name, _suffixes([images] if images else places_of(path)))

    return read_like_coco("table", path, images, to_coco, load=False, unit="line")


def is_table(path: Path) -> bool:
    """Return whether the first line of a CSV file has columns of images and boxes."""
    try:
        with path.open("rb") as file:
            header = decode_text(file.readline(65536)).splitlines()
        return _columns(next(csv.reader(header), [])) is not None
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read as a CSV file: {error}.") from error


def _columns(header: Sequence[str]) -> tuple[int, int | None, list[int]] | None:
    """Return the columns of the image's name, of the class and of the box, one or four; None if they are not there."""
    place = {name.strip().lower(): column for column, name in reversed(list(enumerate(header)))}
    image = next((place[name] for name in IMAGE if name in place), None)
    label = next((place[name] for name in CLASS if name in place and place[name] != image), None)
    corners = next(([place[name] for name in names] for names in CORNERS if place.keys() >= {*names}), None)
    if corners is None and BOX in place:
        corners = [place[BOX]]
    return None if image is None or corners is None else (image, label, corners)


def _to_coco(text: str, path: str, suffixes: Mapping[str, str]) -> dict[str, Any]:
    rows = _rows(text, path)
    columns = _columns(next(rows, (0, []))[1])
    if columns is None:
        raise DataError(f"{path}: the first line names no columns of images and boxes.")
    image_column, class_column, box_columns = columns
    images: dict[str, int] = {}
    objects = []
    for line, row in rows:
        if not any(row):
            continue
        if len(row) <= max(image_column, class_column or 0, *box_columns):
            raise DataError(f"{path} line {line}: {len(row)} columns; the first line has more.")
        file = row[image_column].strip()
        if not is_file_name(file):
            raise DataError(f"{path} line {line}: {file[:60]!r} is not the name of an image.")
        image = images.setdefault(file, len(images))
        cells = [row[column].strip() for column in box_columns]
        if not any(cells):
            continue
        name = ONLY_CLASS if class_column is None else row[class_column].strip()
        try:
            box = json.loads(cells[0]) if len(cells) == 1 else [float(cell) for cell in cells]
            if not _is_box(box):
                raise ValueError
        except (ValueError, RecursionError):
            raise DataError(
                f"{path} line {line}: {', '.join(cells)[:60]!r} is not a box of four numbers."
            ) from None
        if len(cells) == 4:
            box = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
        objects.append({"id": line, "image_id": image, "category_id": name, "bbox": box})
    has_suffix = {name: Path(name).suffix.lower() in IMAGE_SUFFIXES for name in images}
    files = [
        {"id": n, "file_name": name if has_suffix[name] else name + suffixes.get(name, ".jpg")}
        for name, n in images.items()
    ]
    ids = {name: n for n, name in enumerate(sorted({found["category_id"] for found in objects}))}
    objects = [found | {"category_id": ids[found["category_id"]]} for found in objects]
    categories = [{"id": n, "name": name} for name, n in ids.items()]
    return {"images": files, "categories": categories, "annotations": objects}


def _rows(text: str, path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table, each with the number of its last line."""
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise DataError(f"{path} line {rows.line_num}: {error}.") from None


def _is_box(value: Any) -> bool:
    """Return whether a value is a list of four numbers; which ones they may be is looked at for all formats."""
    return (
        isinstance(value, list) and len(value) == 4 and all(type(number) in (int, float) for number in value)
    )


def _suffixes(folders: Sequence[Path]) -> dict[str, str]:
    """Return the suffixes of the images in folders, by their names without."""
    inside = (file for folder in reversed(folders) if folder.is_dir() for file in folder.iterdir())
    return {file.stem: file.suffix for file in inside if file.suffix.lower() in IMAGE_SUFFIXES}


FORMAT = FileFormat("CSV", ".csv", is_table, read_table)
