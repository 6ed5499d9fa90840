"""Datumaro's labels: one JSON file for all images of a split, ``annotations/<split>.json``.

Boxes are x, y, width, height in px, polygons their extent; other kinds of annotations are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detector.data.formats import FileFormat
from detector.data.formats.coco import DATUMARO_KEYS, begins_with_keys, entries_of, read_like_coco
from detector.data.labels import Labels


def read_datumaro(path: Path, images: Path | None = None) -> Labels:
    """Read the images and labels of a file; as `read_coco`."""
    return read_like_coco("datumaro", path, images, _to_coco)


def is_datumaro(path: Path) -> bool:
    """Return whether a JSON file begins like one of Datumaro's: an object with `items`, or `dm_format_version`."""
    return begins_with_keys(path, DATUMARO_KEYS)


def _to_coco(content: Any, path: str) -> dict[str, Any]:
    categories = content.get("categories") if isinstance(content, dict) else None
    label = categories.get("label") if isinstance(categories, dict) else None
    labels = entries_of(label, "labels", path, "Datumaro")
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number, item in enumerate(entries_of(content, "items", path, "Datumaro")):
        image = item.get("image")
        stated: dict[str, Any] = image if isinstance(image, dict) else {}
        size = stated.get("size")
        height, width = size if isinstance(size, list) and len(size) == 2 else (None, None)
        name = stated.get("path") or item.get("id")
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for annotation in entries_of(item, "annotations", path, "Datumaro"):
            if annotation.get("type") not in ("bbox", "polygon"):
                continue
            is_box = annotation["type"] == "bbox"
            shape = (
                {"bbox": annotation.get("bbox")} if is_box else {"segmentation": [annotation.get("points")]}
            )
            objects.append(shape | {"image_id": number, "category_id": annotation.get("label_id")})
    names = [{"id": number, "name": label.get("name")} for number, label in enumerate(labels)]
    return {"images": images, "categories": names, "annotations": objects}


FORMAT = FileFormat("Datumaro", ".json", is_datumaro, read_datumaro)
