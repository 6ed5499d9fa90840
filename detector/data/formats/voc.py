"""Pascal VOC labels: an XML file per image, with corners in px.

``JPEGImages/x.jpg`` has its boxes in ``Annotations/x.xml``, ``images/.../x.jpg`` in ``annotations/.../x.xml``, and any
other image in the file next to it (labelImg, Roboflow). Corners are taken as edges: ``xmax - xmin`` is the width.

The PASCAL Visual Object Classes Challenge (Everingham et al., IJCV 2010) leaves objects that are marked ``difficult``
out of its evaluation; so do we. Parts of objects, such as the heads and hands of persons, are not read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from xml.parsers import expat

from detector.boxes import DIFFICULT, OBJECT
from detector.data.formats import ImageFormat
from detector.data.label_cache import file_stats
from detector.data.labels import Labels, ParsedFile, Row, read_label_files
from detector.data.sources import IMAGE_SUFFIXES
from detector.errors import DataError, listed
from detector.files.bounds import require_within
from detector.files.text import read_text

FOLDERS = {
    "JPEGImages": ("Annotations",),
    "images": ("annotations", "Annotations", "labels"),
}  # images -> labels
CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LONGEST = 10_000  # characters of one text in a file


def read_voc(images: Sequence[Path | str]) -> Labels:
    """Read the labels of these images.

    Args:
        images: image files.
    """
    paths = [str(Path(image).absolute()) for image in images]
    files = _label_paths(paths)
    return read_label_files("voc", paths, files, file_stats(files), _parse_file, "object", in_pixels=True)


def label_paths(image: str) -> list[str]:
    """Return where the label file of an image may be, the likeliest place first."""
    found = []
    for folder, label_folders in FOLDERS.items():
        head, is_there, tail = image.rpartition(f"{os.sep}{folder}{os.sep}")
        if is_there:
            found += [f"{head}{os.sep}{name}{os.sep}{tail}" for name in label_folders]
    return [os.path.splitext(path)[0] + ".xml" for path in (*found, image)]  # noqa: PTH122 - as fast as it gets


def _label_paths(images: Sequence[str]) -> list[str]:
    """Return the label file of each image: in the place where the first image that has one has it."""
    if not images:
        return []
    place = next(
        (
            n
            for image in images
            for n, path in enumerate(label_paths(image))
            if os.path.exists(path)  # noqa: PTH110
        ),
        0,
    )
    return [places[min(place, len(places) - 1)] for places in map(label_paths, images)]


def images_of_list(path: Path) -> list[Path] | None:
    """Return the images that a list in ``ImageSets`` names; None if the file is not such a list.

    A line is the name of an image without its suffix; what follows, such as whether a class is in it, is not read.

    Raises:
        DataError: an image is missing, or the list can't be read.
    """
    if path.suffix.lower() != ".txt" or "ImageSets" not in path.parts[:-1] or not path.is_file():
        return None
    root = Path(*path.parts[: len(path.parts) - 1 - path.parts[::-1].index("ImageSets")])
    folder = root / "JPEGImages"
    try:
        lines = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
        by_stem = {
            file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES
        }
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read as a list of images in {folder}: {error}.") from error
    missing = [line for line in lines if line not in by_stem]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(lines)} images are not in {folder}: {listed(missing)}."
        )
    return [by_stem[line] for line in lines]


def _parse_file(path: str) -> ParsedFile:
    return parse_voc(Path(path).read_bytes())


def parse_voc(content: bytes) -> ParsedFile:
    """Read one file; objects that repeat another one are left out.

    Raises:
        ValueError: it is not XML of this format, or an object is wrong; a clause that follows the file's name.
    """
    objects, texts = _texts(content)
    rows: dict[tuple[str, tuple[float, float, float, float]], Row] = {}
    for number, found in enumerate(objects, 1):
        name = found.get("name", "").strip()
        if not name:
            raise ValueError(f"object {number}: it has no <name>.")
        if "xmin" not in found:
            raise ValueError(
                f"object {number}: it has no <bndbox> with xmin, ymin, xmax and ymax; polygons and rotated boxes alone "
                "are not read."
            )
        x1, y1, x2, y2 = (_number(found, key, f"object {number}") for key in CORNERS)
        kind = DIFFICULT if found.get("difficult", "0").strip() not in ("0", "") else OBJECT
        rows.setdefault((name, (x1, y1, x2, y2)), Row(number, name, (x1, y1, x2, y2), kind))
    height, width = (int(_number(texts, key, "size", 0)) for key in ("height", "width"))
    stated = (height, width) if height > 0 and width > 0 else (0, 0)
    return ParsedFile(list(rows.values()), stated, len(objects) - len(rows))


def _number(texts: dict[str, str], key: str, where: str, missing: float | None = None) -> float:
    try:
        number = float(texts.get(key, "nan") if missing is None else texts.get(key) or missing)
    except ValueError:
        number = math.nan
    if not abs(number) < 2**31:  # also refuses nan
        raise ValueError(f"{where}: {key} is {texts.get(key, 'missing')[:60]!r}; expected a number of px.")
    return number


def _texts(content: bytes) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Return the texts of each object, corners included, and those of ``size``, by the names of their elements."""
    parser = expat.ParserCreate()
    path: list[str] = []
    objects: list[dict[str, str]] = []
    size: dict[str, str] = {}
    text: list[str] = []

    def start(name: str, _: object) -> None:
        require_within("levels", len(path) + 1)
        path.append(name)
        text.clear()
        if len(path) == 1 and name != "annotation":
            raise ValueError(f"is not a label file of Pascal VOC: it is a <{name}>, not an <annotation>.")
        if len(path) == 2 and name == "object":
            require_within("values", len(objects))
            objects.append({})

    def end(name: str) -> None:
        if path[1:-1] == ["object"] or path[1:-1] == ["object", "bndbox"]:
            objects[-1].setdefault(name, "".join(text))
        elif path[1:-1] == ["size"]:
            size.setdefault(name, "".join(text))
        path.pop()
        text.clear()

    def data(part: str) -> None:
        if sum(map(len, text)) + len(part) > _LONGEST:
            raise ValueError(f"is not a label file: a text in it has over {_LONGEST:,} characters.")
        text.append(part)

    def refuse(*_: object) -> None:
        raise ValueError("declares entities or a document type, which labels do not need; refused.")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError) as error:  # LookupError: of an encoding that is unknown
        raise ValueError(f"is not an XML file: {error}.") from None
    return objects, size


FORMAT = ImageFormat("Pascal VOC", label_paths, read_voc)
