"""Label files that no image finds: of another suffix, name or folder than the format has them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from detector.data.sources import IMAGE_SUFFIXES

IMAGE_FOLDERS, LABEL_FOLDERS = ("images", "image", "imgs"), ("labels", "label")  # in any case
NOTES = ("classes", "labels", "notes", "readme")  # lists of classes and the like, not labels


def find_unread(
    images: Sequence[str], labels: Sequence[str], missing: Sequence[int]
) -> list[tuple[str, str]]:
    """Find label files that are not read.

    Looked at are the folders of the images, those where their labels should be, and those called alike (`Labels`).

    Args:
        images: absolute paths of a split's images.
        labels: where the label file of each should be.
        missing: indices of images that have none.

    Returns:
        For each file found its path and why it is not read.
    """
    read, gone = set(labels), set(missing)
    wanted: dict[
        tuple[str, str], dict[str, str]
    ] = {}  # folders of images and labels -> name, folded -> label file
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder, _), (place, name) = os.path.split(image), os.path.split(label)
        names = wanted.setdefault((folder, place), {})
        if index in gone:
            names[folded_name(name)] = label
    unread: dict[str, str] = {}
    for (folder, place), names in wanted.items():
        places = [place, folder, *_alike(Path(folder))] if names else [place]
        texts = [path for path in chain.from_iterable(map(_texts, dict.fromkeys(places))) if path not in read]
        unread |= {path: f"looked for is {names[key]}" for path in texts if (key := _key(path)) in names}
        alone = [path for path in texts if path not in unread and os.path.dirname(path) == place != folder]  # noqa: PTH120
        known = {folded_name(name) for name in (*NOTES, *_names(folder))} if alone else set()
        unread |= {path: f"{folder} has no image of this name" for path in alone if _key(path) not in known}
    return list(unread.items())


def _key(path: str) -> str:
    return folded_name(os.path.basename(path))  # noqa: PTH119


def _alike(folder: Path) -> Iterator[str]:
    """Yield folders of labels next to a folder of images that are not spelt as the format has them."""
    parts = folder.parts
    place = next(
        (n for n in reversed(range(1, len(parts))) if parts[n].lower() in IMAGE_FOLDERS), len(parts) - 1
    )
    tail = parts[place + 1 :] if parts[place].lower() in IMAGE_FOLDERS else parts[place:]
    head = Path(*parts[:place])
    for name in _names(str(head)):
        if name.lower() in LABEL_FOLDERS:
            yield str(head.joinpath(name, *tail))


def _texts(folder: str) -> list[str]:
    """Return the text files of a folder, sorted."""
    return [os.path.join(folder, name) for name in _names(folder) if name.lower().endswith(".txt")]  # noqa: PTH118


def _names(folder: str) -> list[str]:
    """Return the names in a folder, sorted; none if it can't be read."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - ten times as fast on 100,000 files
    except OSError:
        return []


def folded_name(name: str) -> str:
    """Return the name of an image or a label file as all ways of writing it have in common."""
    name = unicodedata.normalize("NFC", name).casefold().removesuffix(".txt")
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    return stem if suffix in IMAGE_SUFFIXES else name
