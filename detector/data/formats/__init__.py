"""Formats of labels: a reader a file here, found through `FORMATS`; packages add others by an entry point.

A format has a label file for every image (YOLO, VOC) or one for all images of a split (COCO). An entry point of the
group `detector.data_formats` names an instance of `ImageFormat` or `FileFormat`.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from detector.data.labels import Labels

log = logging.getLogger(__name__)

PLUGIN_GROUP = "detector.data_formats"


@dataclass(frozen=True)
class ImageFormat:
    """A format with a label file for every image.

    Attributes:
        name: of the format, for users: "YOLO".
        label_paths: returns where the label file of an image may be.
        read: returns the labels of image files.
    """

    name: str
    label_paths: Callable[[str], Sequence[str]]
    read: Callable[[Sequence[Path | str]], Labels]


@dataclass(frozen=True)
class FileFormat:
    """A format with one label file for all images of a split.

    Attributes:
        name: of the format, for users: "COCO JSON".
        suffix: of its files: ".json".
        is_one: returns whether a file of this suffix is one, by a look at its beginning.
        read: returns images and labels; the folder of the images is None if it is to be found.
    """

    name: str
    suffix: str
    is_one: Callable[[Path], bool]
    read: Callable[[Path, Path | None], Labels]


Format = ImageFormat | FileFormat
FORMATS = {
    "yolo": "detector.data.formats.yolo:FORMAT",
    "voc": "detector.data.formats.voc:FORMAT",
    "coco": "detector.data.formats.coco:FORMAT",
    "datumaro": "detector.data.formats.datumaro:FORMAT",
    "csv": "detector.data.formats.table:FORMAT",
}
"""Name -> where the format is; of those that fit equally well the first is taken."""


@cache
def all_formats() -> dict[str, Format]:
    """Return the formats of this package, and those that installed packages add under other names."""
    formats: dict[str, Format] = {}
    for name, place in FORMATS.items():
        module, attribute = place.split(":")
        formats[name] = getattr(importlib.import_module(module), attribute)
    for entry in entry_points(group=PLUGIN_GROUP):
        try:
            found = entry.load()
            if not isinstance(found, ImageFormat | FileFormat):
                raise TypeError(f"it is {type(found).__name__}, not an ImageFormat or a FileFormat")
        except Exception as error:  # third-party code: a broken plug-in must not end this program
            log.warning("the data format %s is left out: %s", entry.name, error)
        else:
            formats.setdefault(entry.name, found)
    return formats


def file_format(path: Path) -> FileFormat | None:
    """Return the format of a label file of a whole split; None if it is another file."""
    for found in all_formats().values():
        if isinstance(found, FileFormat) and path.suffix.lower() == found.suffix and found.is_one(path):
            return found
    return None
