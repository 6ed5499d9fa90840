"""Where the files are that a data set names, once it was moved: to another system, another folder, another machine."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRIVE = re.compile(r"[A-Za-z]:[/\\]")
SAMPLE = 100  # paths of a list that are looked up to find out where all of them are


@dataclass(frozen=True)
class Move:
    """How the paths of a data set are to be read.

    Attributes:
        place: the folder they start from.
        dropped: how many of their leading folders are left out.
    """

    place: Path
    dropped: int

    def apply(self, text: str) -> Path:
        """Return where a path of the data set is."""
        return self.place.joinpath(*path_parts(text)[self.dropped :])


def path_exists(path: str | Path) -> bool:
    """Return whether a path that a file names exists; one that is too long does not."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises


def native(text: str, folder: Path = Path()) -> str:
    """Return a path with this system's separators, if it has those of Windows and nothing in `folder` is called so."""
    if os.sep == "/" and "\\" in text and not path_exists(folder / text):
        return text.replace("\\", "/")
    return text


def join(folder: str, text: str) -> str:
    """Return a path of any system under a folder of any system; an absolute one is under none."""
    is_absolute = text.startswith(("/", "\\")) or DRIVE.match(text)
    return text if is_absolute or not folder else f"{folder}/{text}"


def path_parts(text: str) -> tuple[str, ...]:
    """Return the folders and the name of a path of any system, without its drive, its root and leading `..`."""
    if "\\" in text or DRIVE.match(text):
        text = DRIVE.sub("/", text).replace("\\", "/")
    return tuple(part for part in posixpath.normpath(text).split("/") if part not in ("", ".", ".."))


def is_file_name(value: Any) -> bool:
    """Return whether a value of a list or a label file can be the path of an image on this system."""
    try:
        return isinstance(value, str) and bool(path_parts(value)) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def find_move(texts: Sequence[str], places: Sequence[Path], all_exist: bool) -> Move | None:
    """Find out where paths are that do not exist.

    Leading folders are left out only if all paths have them: what tells the paths apart stays.

    Args:
        texts: paths as a file has them, of any system.
        places: folders that they may start from.
        all_exist: every path has to exist; else as many as possible, at least one.

    Returns:
        The way by which the largest number of paths exists, of equals the one that leaves out fewest folders.
        None if there is none.
    """
    split = [path_parts(text) for text in texts]
    first, last = min(split), max(split)  # what these two begin with, all begin with
    shared = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    droppable = min(shared, min(map(len, split)) - 1)
    best, largest = None, 0
    sample = texts if all_exist else texts[:SAMPLE]
    for dropped in range(max(droppable, 0) + 1):
        for place in places:
            move = Move(place, dropped)
            found = sum(path_exists(move.apply(text)) for text in sample)
            if found > largest:
                best, largest = move, found
    return best if not all_exist or largest == len(texts) else None
