"""What a reader of label files found, before it is checked against names and images: the same for every format."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.boxes import OBJECT
from detector.data.label_cache import label_cache_path, read_label_cache, write_label_cache

NAMED = 10  # files named in one message; the others are counted
_ARRAYS = {
    "image": (-1,),
    "place": (-1,),
    "classes": (-1,),
    "boxes": (-1, 4),
    "kinds": (-1,),
    "stated_hw": (-1, 2),
    "repeated": (-1,),
}


@dataclass(frozen=True)
class Labels:
    """Boxes of images in the order of the images, flat.

    Attributes:
        paths: n image files.
        files: n label files, that of each image, for messages.
        image: (N,) int64, the image of each row, ascending.
        place: (N,) int64, where each row is in its label file, see `unit`.
        classes: (N,) int64, class ids, or places in `names`.
        boxes: (N, 4) float64; cxcywh as parts of the image, or xyxy in px (`in_pixels`).
        kinds: (N,) uint8, `OBJECT`, `DIFFICULT` or `CROWD`.
        stated_hw: (n, 2) int64, height and width that the label file states, px; 0 where it does not.
        repeated: (n,) int64, rows of the image that repeat another one and are left out.
        names: names of the classes in these files; None where they only have ids.
        unit: what `place` counts: "line", "object" or "annotation".
        in_pixels: the unit of `boxes`.
        format: name of the format, for users.
        missing: images that no label file is there for.
        problems: label file's number -> what is wrong with it, a clause that follows its name.
        own_names: names by id of the data set that they are of, where several are joined.
        own_source: what that data set is called.
    """

    paths: list[str]
    files: Sequence[str]
    image: NDArray[np.int64]
    place: NDArray[np.int64]
    classes: NDArray[np.int64]
    boxes: NDArray[np.float64]
    kinds: NDArray[np.uint8]
    stated_hw: NDArray[np.int64]
    repeated: NDArray[np.int64]
    names: list[str] | None = None
    unit: str = "line"
    in_pixels: bool = False
    format: str = ""
    missing: list[int] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)
    own_names: tuple[str, ...] | None = None
    own_source: str = ""

    def subset(self, chosen: NDArray[np.bool_]) -> Labels:
        """Return the labels of some of the images, (n,) bool."""
        rows = chosen[self.image]
        new = np.cumsum(chosen) - 1
        return replace(
            self,
            paths=[path for path, kept in zip(self.paths, chosen, strict=True) if kept],
            files=[path for path, kept in zip(self.files, chosen, strict=True) if kept],
            image=new[self.image[rows]],
            place=self.place[rows],
            classes=self.classes[rows],
            boxes=self.boxes[rows],
            kinds=self.kinds[rows],
            stated_hw=self.stated_hw[chosen],
            repeated=self.repeated[chosen],
            missing=[int(new[index]) for index in self.missing if chosen[index]],
            problems={int(new[index]): text for index, text in self.problems.items() if chosen[index]},
        )

    def where(self, row: int) -> str:
        """Return file and place of a row, for a message."""
        return f"{self.files[self.image[row]]} {self.unit} {self.place[row]}"


@dataclass(frozen=True)
class Row:
    """A box as a reader has it: place in the file, class (an id or a name), four numbers, what it stands for."""

    place: int
    label: int | str
    box: tuple[float, float, float, float]
    kind: int = OBJECT


@dataclass(frozen=True)
class ParsedFile:
    """The label file of one image: its rows, the height and width it states, px, or 0, and how many rows repeat one."""

    rows: Sequence[Row]
    stated_hw: tuple[int, int] = (0, 0)
    repeated: int = 0


def read_label_files(
    kind: str,
    paths: Sequence[str],
    files: Sequence[str],
    stats: NDArray[np.int64],
    parse: Callable[[str], ParsedFile],
    unit: str,
    in_pixels: bool,
) -> Labels:
    """Parse the label file of every image, or take what an earlier call found if no file has changed since.

    Args:
        kind: of the cache: the format.
        paths: n image files.
        files: n label files.
        stats: (n, 3) of the label files, from `file_stats`.
        parse: reads one label file.
        unit: as in `Labels`; likewise `in_pixels`.
    """
    place = label_cache_path(kind, files)
    missing = np.flatnonzero(stats[:, 0] < 0).tolist()
    known = read_label_cache(place, {"stats": (len(files), 3), "names": (-1,), **_ARRAYS})
    if known is not None and np.array_equal(known["stats"], stats):
        arrays: dict[str, Any] = {name: known[name] for name in _ARRAYS}
        names = json.loads(known["names"].tobytes())
        return Labels(
            list(paths), files, **arrays, names=names, unit=unit, in_pixels=in_pixels, missing=missing
        )
    found: list[tuple[int, Row]] = []
    stated_hw, repeated = np.zeros((len(files), 2), np.int64), np.zeros(len(files), np.int64)
    problems: dict[int, str] = {}
    for index in np.flatnonzero(stats[:, 0] > 0).tolist():
        try:
            parsed = parse(files[index])
        except UnicodeDecodeError:
            problems[index] = "is not a text file."
            continue
        except (OSError, ValueError) as error:
            problems[index] = str(error)
            continue
        stated_hw[index], repeated[index] = parsed.stated_hw, parsed.repeated
        found.extend((index, row) for row in parsed.rows)
    named = {row.label for _, row in found if isinstance(row.label, str)}
    names = sorted(named) if named else None
    ids = {name: number for number, name in enumerate(names or ())}
    labels = Labels(
        list(paths),
        files,
        np.array([index for index, _ in found], np.int64),
        np.array([row.place for _, row in found], np.int64),
        np.array([ids[row.label] if isinstance(row.label, str) else row.label for _, row in found], np.int64),
        np.array([row.box for _, row in found], np.float64).reshape(-1, 4),
        np.array([row.kind for _, row in found], np.uint8),
        stated_hw,
        repeated,
        names,
        unit,
        in_pixels,
        missing=missing,
        problems=problems,
    )
    if not problems:
        as_bytes = np.frombuffer(json.dumps(names).encode(), np.uint8)
        write_label_cache(
            place, stats=stats, names=as_bytes, **{name: getattr(labels, name) for name in _ARRAYS}
        )
    return labels


def report(messages: Sequence[str]) -> str:
    """Join what is wrong with label files: the first ones, and how many more there are."""
    if len(messages) == 1:
        return messages[0]
    more = [f"... and {len(messages) - NAMED} more."] if len(messages) > NAMED else []
    return "\n  ".join([f"{len(messages)} label files can't be used:", *messages[:NAMED], *more])
