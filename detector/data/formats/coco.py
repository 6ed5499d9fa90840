"""COCO's labels: one JSON file for all images of a split, with boxes ``x, y, width, height`` in px.

Ids may be any numbers and have gaps; categories become classes by their names. An object without ``bbox`` has the
extent of its polygons or its mask. Groups of objects (``iscrowd``) are kept for evaluation, which neither demands them
nor counts detections within them as wrong (Lin et al., arXiv:1405.0312, section 4.4).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.boxes import CROWD, DIFFICULT, OBJECT
from detector.data.formats import FileFormat
from detector.data.images import MAX_PIXELS
from detector.data.label_cache import file_stats, label_cache_path, read_label_cache, write_label_cache
from detector.data.labels import NAMED, Labels
from detector.data.nearest import explain_missing_file
from detector.data.places import find_move, is_file_name, native
from detector.errors import DataError
from detector.files.text import decode_text

BEGINNING = 1 << 20  # bytes of a file that are looked at to recognise it
DATUMARO_KEYS = (
    b'"items"',
    b'"dm_format_version"',
)  # of files that are not COCO's, though they have `annotations`
KINDS = {
    CROWD: "iscrowd",
    DIFFICULT: "difficult",
}  # the second is Pascal VOC's, and ours in files of this format
MAX_BYTES = 8 << 30  # of a file: the labels of 10 million images
IMAGE_FOLDERS = ("images", "data", "val2017", "train2017")


@dataclass(frozen=True)
class CocoFile:
    """What is in a COCO file.

    Attributes:
        names: n image file names, as they are in the file.
        stated_hw: (n, 2) int64, height and width, px; 0 where they are not stated.
        repeated: (n,) int64, objects that repeat another one and are left out.
        categories: names of the categories, by ascending id; without those that only stand above others.
        image: (N,) int64, the image of each object, ascending; likewise `ids`, the objects' own numbers, `classes`,
            their categories by place, `boxes`, (N, 4) float64 xyxy px, and `kinds`, (N,) uint8.
        problems: image -> what is wrong with one of its objects.
    """

    names: list[str]
    stated_hw: NDArray[np.int64]
    repeated: NDArray[np.int64]
    categories: list[str]
    image: NDArray[np.int64]
    ids: NDArray[np.int64]
    classes: NDArray[np.int64]
    boxes: NDArray[np.float64]
    kinds: NDArray[np.uint8]
    problems: dict[int, str] = field(default_factory=dict)


def read_coco(path: Path, images: Path | None = None) -> Labels:
    """Read the images and labels of a COCO file.

    Args:
        path: the JSON file.
        images: folder of its images; by default it is looked for next to the file.

    Raises:
        DataError: it can't be read, naming everything that is wrong with it, or no image of it is found.
    """
    return read_like_coco("coco", path, images, lambda content, _: content)


def is_coco(path: Path) -> bool:
    """Return whether a JSON file begins like one of COCO's: an object with `images` or `annotations`."""
    return begins_with_keys(path, (b'"images"', b'"annotations"')) and not begins_with_keys(
        path, DATUMARO_KEYS
    )


def begins_with_keys(path: Path, keys: Sequence[bytes]) -> bool:
    """Return whether a file begins with an object that has one of these keys, in quotes."""
    try:
        with path.open("rb") as file:
            start = file.read(BEGINNING).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError:
        return False
    return start.startswith(b"{") and any(key in start for key in keys)


def read_like_coco(
    kind: str,
    path: Path,
    images: Path | None,
    to_coco: Callable[[Any, str], Any],
    load: bool = True,
    unit: str = "annotation",
) -> Labels:
    """Read a label file of a whole split that becomes what a COCO file has.

    Args:
        kind: of the cache: the format.
        path: the file.
        images: folder of its images; by default it is looked for next to the file.
        to_coco: turns the content of the JSON file, and its path for messages, into that of a COCO file.
        load: the file is JSON; else `to_coco` reads it.
        unit: what the objects' own numbers count, as in `Labels`.
    """
    found = _read_cached(kind, path, to_coco, load, unit)
    paths = _image_paths(path, found.names, images)
    order = np.argsort(np.array(paths, dtype=object), kind="stable")
    place = np.empty(len(paths), np.int64)
    place[order] = np.arange(len(paths))
    rows = np.argsort(place[found.image], kind="stable")
    return Labels(
        [paths[i] for i in order.tolist()],
        [str(path)] * len(paths),
        place[found.image][rows],
        found.ids[rows],
        found.classes[rows],
        found.boxes[rows],
        found.kinds[rows],
        found.stated_hw[order],
        found.repeated[order],
        found.categories,
        unit=unit,
        in_pixels=True,
        problems={int(place[image]): text for image, text in found.problems.items()},
    )


_ARRAYS = {
    "stated_hw": (-1, 2),
    "repeated": (-1,),
    "image": (-1,),
    "ids": (-1,),
    "classes": (-1,),
    "boxes": (-1, 4),
    "kinds": (-1,),
}


def _read_cached(
    kind: str, path: Path, to_coco: Callable[[Any, str], Any], load: bool, unit: str
) -> CocoFile:
    stats, place = file_stats([str(path)]), label_cache_path(kind, [str(path)])
    known = read_label_cache(place, {"stats": (1, 3), "texts": (-1,), **_ARRAYS})
    if known is not None and np.array_equal(known["stats"], stats):
        arrays: dict[str, Any] = {key: known[key] for key in _ARRAYS}
        texts = json.loads(known["texts"].tobytes())
        texts["problems"] = {int(image): text for image, text in texts["problems"].items()}
        return CocoFile(**texts, **arrays)
    found = parse_coco(to_coco(_load(path) if load else None, str(path)), str(path), unit)
    texts = json.dumps({key: getattr(found, key) for key in ("names", "categories", "problems")}).encode()
    arrays = {key: getattr(found, key) for key in _ARRAYS}
    write_label_cache(place, stats=stats, texts=np.frombuffer(texts, np.uint8), **arrays)
    return found


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size <= MAX_BYTES:
            return json.loads(decode_text(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: also a number of over 4300 digits
        raise DataError(f"{path} is not a JSON file: {error}.") from None
    raise DataError(f"{path} has over {MAX_BYTES >> 30} GiB; give the labels in several files.")


class _Problems:
    """What is wrong with a file: the first ones, and how many there are."""

    def __init__(self, path: str) -> None:
        self.path, self.count = path, 0
        self.first: list[str] = []

    def add(self, text: str) -> None:
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append(text)

    def require_none(self) -> None:
        if self.count == 1:
            raise DataError(f"{self.path}: {self.first[0]}.")
        if self.count:
            more = [f"... and {self.count - NAMED} more."] if self.count > NAMED else []
            raise DataError(
                "\n  ".join([f"{self.path}: {self.count} entries are wrong:", *self.first, *more])
            )


def parse_coco(content: Any, path: str = "the file", unit: str = "annotation") -> CocoFile:
    """Check the content of a COCO file and return it as arrays; objects that repeat another one are left out.

    Args:
        content: what `json.load` returned.
        path: for messages.
        unit: "line" if the objects' own numbers are the lines of the file that they are in.

    Raises:
        DataError: naming what is wrong with images, categories and references to them.
    """
    problems = _Problems(path)
    lists = [entries_of(content, key, path) for key in ("images", "categories", "annotations")]
    images, categories, objects = lists
    image_rows = _by_id(images, "images", problems)
    names, hw = [], np.zeros((len(images), 2), np.int64)
    for row, image in enumerate(images):
        name = image.get("file_name")
        if not is_file_name(name):
            problems.add(f"images[{row}]: file_name is {_short(name)}; expected the name of an image")
        size: list[Any] = [image.get("height"), image.get("width")]
        if all(type(side) is int and 0 < side < 2**31 for side in size):
            hw[row] = size
        names.append(str(name))
    category_rows = _by_id(categories, "categories", problems)
    titles: list[str] = []
    for row, category in enumerate(categories):
        title = category.get("name")
        if not _is_text(title) or title in titles:
            problems.add(f"categories[{row}]: name is {_short(title)}; expected a name of its own")
        titles.append(str(title))
    problems.require_none()
    used = {item["category_id"] for item in objects if type(item.get("category_id")) in (int, str)}
    parents = [(category.get("supercategory"), category["name"]) for category in categories]
    above = {parent for parent, title in parents if isinstance(parent, str) and parent != title}
    by_id = sorted(
        number for number, row in category_rows.items() if number in used or titles[row] not in above
    )
    classes = {number: place for place, number in enumerate(by_id)}

    rows: dict[tuple[float, ...], int] = {}
    wrong: dict[int, str] = {}
    repeated = np.zeros(len(images), np.int64)
    for number, item in enumerate(objects):
        owner, label = (
            _found(places, item.get(key))
            for places, key in ((image_rows, "image_id"), (classes, "category_id"))
        )
        if owner is None or label is None:
            key = "image_id" if owner is None else "category_id"
            problems.add(
                f"annotations[{number}]: {key} is {_short(item.get(key))}, which the file does not define"
            )
            continue
        try:
            box = _box(item, hw[owner])
        except ValueError as error:
            where = f"line {item['id']}" if unit == "line" else f"annotations[{number}]"
            wrong.setdefault(owner, f"{where}: {error}.")
            continue
        kind = next((k for k, key in KINDS.items() if item.get(key) in (1, True)), OBJECT)
        given = item.get("id")
        place = given if type(given) is int and abs(given) < 2**62 else number
        values = (owner, label, kind, *box)
        repeated[owner] += values in rows
        rows.setdefault(values, place)
    problems.require_none()
    table = np.array(list(rows), np.float64).reshape(-1, 7)
    image_of = table[:, 0].astype(np.int64)
    order = np.argsort(image_of, kind="stable")
    return CocoFile(
        names,
        hw,
        repeated,
        [titles[category_rows[number]] for number in by_id],
        image_of[order],
        np.array(list(rows.values()), np.int64)[order],
        table[order, 1].astype(np.int64),
        table[order, 3:],
        table[order, 2].astype(np.uint8),
        wrong,
    )


def _found(places: Mapping[Any, int], number: Any) -> int | None:
    return places.get(number) if type(number) in (int, str) else None


def _is_text(value: Any) -> bool:
    """Return whether a value is text that can be printed and written: JSON's may hold halves of a character."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def entries_of(content: Any, key: str, path: str, title: str = "COCO") -> list[Mapping[str, Any]]:
    """Return a list of objects in a label file.

    Raises:
        DataError: it is not there, or something else.
    """
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        what = "nothing" if found is None else type(found).__name__
        raise DataError(
            f"{path} is not a label file of {title}: {key} is {what}; expected a list of objects."
        )
    return found


def _by_id(items: Sequence[Mapping[str, Any]], key: str, problems: _Problems) -> dict[Any, int]:
    """Return id -> place; ids are numbers or texts, each once."""
    places: dict[Any, int] = {}
    for row, item in enumerate(items):
        number = item.get("id")
        if type(number) not in (int, str) or number in places:
            problems.add(f"{key}[{row}]: id is {_short(number)}; expected a number of its own")
        else:
            places[number] = row
    if len({type(number) for number in places}) > 1:
        problems.add(f"{key}: some ids are numbers and some are texts")
    return places


def _box(item: Mapping[str, Any], hw: NDArray[np.int64]) -> tuple[float, float, float, float]:
    """Return the corners of an object, px.

    Raises:
        ValueError: it has neither a box nor a shape that can be read; the text is a clause.
    """
    given = item.get("bbox")
    if isinstance(given, list) and given:
        x, y, width, height = _numbers(given, 4, "bbox")
        if width < 0 or height < 0:
            raise ValueError(f"bbox is {_short(given)}; expected x, y, width and height, px")
        return x, y, x + width, y + height
    shape = item.get("segmentation")
    if isinstance(shape, dict):
        return _mask_box(shape, hw)
    if isinstance(shape, list) and shape and all(isinstance(part, list) for part in shape):
        points = np.array([value for part in shape for value in _numbers(part, None, "segmentation")])
        xs, ys = points[0::2], points[1::2]
        return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())
    raise ValueError(f"bbox is {_short(given)} and segmentation is {_short(shape)}; expected one of them")


def _numbers(values: Iterable[Any], count: int | None, key: str) -> list[float]:
    found = list(values)
    good = all(type(value) in (int, float) and abs(value) < 2**31 for value in found)
    if not good or not (len(found) == count if count else len(found) >= 6 and len(found) % 2 == 0):
        expected = f"{count} numbers, px" if count else "x, y of 3 points or more, px"
        raise ValueError(f"{key} is {_short(found)}; expected {expected}")
    return [float(value) for value in found]


def _mask_box(mask: Mapping[str, Any], hw: NDArray[np.int64]) -> tuple[float, float, float, float]:
    """Return the extent of a run-length encoded mask, whose runs go down the columns of the image."""
    size, counts = mask.get("size"), mask.get("counts")
    if not (
        isinstance(size, list)
        and len(size) == 2
        and all(type(side) is int and side > 0 for side in size)
        and size[0] * size[1] <= MAX_PIXELS
        and not (hw.all() and size != hw.tolist())
    ):
        raise ValueError(f"segmentation has the size {_short(size)}; expected height and width of the image")
    runs = _decoded(counts) if isinstance(counts, str) else counts
    if (
        not isinstance(runs, list)
        or not all(type(run) is int and run >= 0 for run in runs)
        or sum(runs) != size[0] * size[1]
    ):
        raise ValueError(f"segmentation has the counts {_short(counts)}; expected runs that fill its size")
    ends = np.cumsum(np.array(runs, np.int64))
    start, stop = ends[0:-1:2], ends[1::2]
    start, stop = start[stop > start], stop[stop > start]
    if not len(start):
        raise ValueError("segmentation is empty")
    height = size[0]
    left, right = start // height, (stop - 1) // height
    spans = left < right
    top = np.where(spans, 0, start % height)
    bottom = np.where(spans, height - 1, (stop - 1) % height)
    return float(left.min()), float(top.min()), float(right.max() + 1), float(bottom.max() + 1)


def _decoded(counts: str) -> list[int]:
    """Return the runs of a mask from COCO's text: 5 bits per letter, from the fourth run on less the last but one.

    Decoded here because the C code of pycocotools reads past the end of a text that is cut.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            return []
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return [] if shift else runs


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = "lists within lists"
    return text if len(text) <= 60 else text[:57] + "..."


def _image_paths(path: Path, names: Sequence[str], images: Path | None) -> list[str]:
    """Return where the images of a file are: in a folder next to it, as far as their names' folders exist there."""
    if not names:
        raise DataError(f"{path} has no images.")
    places = [images] if images is not None else places_of(path)
    texts = [native(name, places[0]) for name in names]
    move = find_move(texts, places, all_exist=False)
    if move is None:
        where = ", ".join(str(place) for place in places)
        root = images or (path.parent.parent if path.parent.name == "annotations" else path.parent)
        raise DataError(
            f"{path}: no image of it is found, such as {names[0]!r}; looked in {where}"
            f"{explain_missing_file(names[0], root)}. Correct the names, or give the folder of the images as `images:` "
            "in a data YAML."
        )
    return [os.path.normpath(move.apply(text)) for text in texts]


def places_of(path: Path) -> list[Path]:
    """Return the folders that the images of a label file may be in, the likeliest first."""
    words = re.findall(r"[^\W_]+", path.stem)  # instances_val2017
    names = [path.stem, *words, *(word.rstrip("0123456789") for word in words), *IMAGE_FOLDERS]
    inside = [folder / name for folder in (Path("images"), Path()) for name in dict.fromkeys(names) if name]
    folders = [path.parent, *(place / part for place in (path.parent, path.parent.parent) for part in inside)]
    return [folder for folder in (*folders, path.parent.parent) if folder.is_dir()]


FORMAT = FileFormat("COCO JSON", ".json", is_coco, read_coco)
