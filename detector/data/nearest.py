"""What to say of a folder whose images have no labels, or that has no images: the nearest layout, and what to move.

An error shows both sides with a path of each: where the images are, where their labels are looked for, where files are
that may be labels, and which step would bring them together.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

from detector.data.formats import file_format
from detector.data.formats import voc as voc_format
from detector.data.formats import yolo as yolo_format
from detector.data.formats.unread import NOTES, folded_name
from detector.data.sources import IMAGE_SUFFIXES, UNREADABLE_SUFFIXES, VIDEO_SUFFIXES
from detector.files.text import read_text

LOOKED_AT = 20_000  # files of a folder with its subfolders
EXPECTED = (
    "Expected folders train/ and val/, images/ and labels/, JPEGImages/ and Annotations/, a COCO file next to its "
    "images, or a data YAML."
)
RENAMED = {".txt": ("images", "labels"), ".xml": ("JPEGImages", "Annotations")}  # suffix of labels -> folders
FORMAT_OF = {".txt": "YOLO", ".xml": "Pascal VOC"}
SHAPES = (b'"shapes"', b'"imagePath"')  # how a file of LabelMe begins


def explain_no_labels(images: Sequence[str], root: Path) -> str:
    """Return a sentence on images of which none has a label file.

    Args:
        images: absolute paths.
        root: the data set's folder.
    """
    example = Path(images[0])
    labels = _label_files(root, set(images))
    pair = _pair(images, labels)
    if pair is not None:
        example = pair[0]
    wanted = _wanted(example, ".txt" if pair is None else pair[1].suffix.lower())
    together = sum(Path(path).parent == example.parent for path in images)
    there = (
        f"{root}: no labels are found. {_count(together, 'image')} in {_folder(example.parent, root)} "
        f"({_short(example, root)}), label files looked for in {_folder(wanted.parent, root)} "
        f"({_short(wanted, root)}): none"
    )
    if not labels:
        return f"{there}; label files found elsewhere: none{_other_files(root)}. {EXPECTED}"
    found = labels[0] if pair is None else pair[1]
    where = Counter(path.parent for path in labels)
    there += (
        f"; {_count(where[found.parent], 'label file')} found in {_folder(found.parent, root)} "
        f"({_short(found, root)}, {FORMAT_OF[found.suffix.lower()]}). "
    )
    if pair is None:
        return f"{there}A label file has the name of its image: rename one side."
    return there + _advice(example, found, wanted, root)


def explain_no_images(root: Path) -> str:
    """Return a sentence on a folder without images that can be read."""
    files = list(_walk(root))
    kinds = Counter(path.suffix.lower() for path in files)
    closed = [path for path in files if path.suffix.lower() in (*UNREADABLE_SUFFIXES, *VIDEO_SUFFIXES)]
    labels = _label_files(root, set())
    if closed:
        path = closed[0]
        kind = "video" if path.suffix.lower() in VIDEO_SUFFIXES else path.suffix[1:].upper()
        what = "extract their frames" if kind == "video" else "save them as .jpg or .png"
        return (
            f"{root}: no images that can be read; {kind} files are not ({_short(path, root)}, and "
            f"{kinds[path.suffix.lower()] - 1} more): {what}."
        )
    if labels:
        found = labels[0]
        wanted = _image_of(found)
        return (
            f"{root}: {_count(len(labels), 'label file')} in {_folder(found.parent, root)} ({_short(found, root)}), "
            f"but no images; looked for in {_folder(wanted.parent, root)} ({_short(wanted, root)}): none. Put the "
            f"images there, or give the folder above both."
        )
    held = [path.name + "/" * path.is_dir() for path in sorted(root.iterdir())][:8] if root.is_dir() else []
    return f"{root}: no images are found in it ({', '.join(held) or 'it is empty'}). {EXPECTED}"


def explain_missing_file(name: str, root: Path) -> str:
    """Return a clause on images that are there in place of the one that a label file names; "" if there are none."""
    images = [path for path in _walk(root) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        return "; there are no images"
    wanted = PurePosixPath(name.replace("\\", "/"))
    same = next((path for path in images if path.stem == wanted.stem), None)
    if same is not None:
        return f"; there is {_short(same, root)}: its suffix or folder differs from that in the file"
    return f"; there are {len(images)} images of other names, such as {_short(images[0], root)}"


# ---- one step -----------------------------------------------------------------------------------------


def _pair(images: Sequence[str], labels: Sequence[Path]) -> tuple[Path, Path] | None:
    """Return the first image and label file of one name, spelt in whatever way; None if there are none."""

    def letters(name: str) -> str:
        return re.sub(r"[\W_]", "", name)

    for key in (str, letters):
        by_name: dict[str, Path] = {}
        for path in labels:
            by_name.setdefault(key(_name(path)), path)
        for image in map(Path, images):
            if (found := by_name.get(key(_name(image)))) is not None:
                return image, found
    return None


def _name(path: Path) -> str:
    """Return what the name of an image has in common with that of its label file."""
    return folded_name(path.stem if path.suffix.lower() == ".xml" else path.name)


def _advice(image: Path, found: Path, wanted: Path, root: Path) -> str:
    """Return which folders to rename, where that is all; else an example of a file to move."""
    folder, place = image.parent.relative_to(root).parts, found.parent.relative_to(root).parts
    differing = [n for n, (a, b) in enumerate(zip(folder, place, strict=False)) if a != b]
    names = RENAMED[found.suffix.lower()]
    if len(folder) == len(place) and len(differing) == 1 and found.stem == image.stem:
        n = differing[0]
        renamed = [
            f"{'/'.join(parts[: n + 1])}/ to {'/'.join((*parts[:n], name))}/"
            for parts, name in ((folder, names[0]), (place, names[1]))
            if parts[n] != name
        ]
        return f"Rename {' and '.join(renamed)}."
    return f"Move or rename {_short(found, root)} to {_short(wanted, root)}, and the others likewise."


def _wanted(image: Path, suffix: str) -> Path:
    """Return where the label file of an image is looked for."""
    return Path(
        yolo_format.label_path(str(image)) if suffix == ".txt" else voc_format.label_paths(str(image))[0]
    )


def _image_of(label: Path) -> Path:
    """Return where the image of a label file is looked for: in `images` next to `labels`, and so on."""
    parts = list(label.parts)
    folders = {"labels": "images", "Annotations": "JPEGImages", "annotations": "images"}
    for n in reversed(range(len(parts) - 1)):
        if parts[n] in folders:
            parts[n] = folders[parts[n]]
            break
    return Path(*parts).with_suffix(".jpg")


# ---- what is in a folder ------------------------------------------------------------------------------


def _walk(root: Path) -> Iterator[Path]:
    """Yield the first files of a folder and its subfolders, sorted, without hidden ones."""

    def files() -> Iterator[Path]:
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
            yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))

    return islice(files(), LOOKED_AT)


def _label_files(root: Path, images: set[str]) -> list[Path]:
    """Return the files of a folder that may be labels of single images."""
    return [path for path in _walk(root) if str(path) not in images and _may_be_labels(path)]


def _may_be_labels(path: Path) -> bool:
    suffix = path.suffix.lower()
    try:
        if suffix == ".xml":
            with path.open("rb") as file:
                return b"<annotation" in file.read(1000)
        if suffix != ".txt" or path.stem.lower() in NOTES:
            return False
        text = read_text(path)
        return not text.strip() or bool(yolo_format.parse_labels(text))
    except (OSError, ValueError):
        return False


def _other_files(root: Path) -> str:
    """Return which other files there are, that some tools have labels in."""
    other = [path for path in _walk(root) if path.suffix.lower() == ".json" and file_format(path) is None]
    if not other:
        return ""
    with other[0].open("rb") as file:
        start = file.read(100_000)
    kind = "LabelMe's" if any(key in start for key in SHAPES) else "of no format that is read"
    return f" ({_count(len(other), 'JSON file')} such as {_short(other[0], root)}, {kind}: export them as COCO or YOLO)"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _short(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _folder(path: Path, root: Path) -> str:
    return "the folder itself" if path == root else f"{_short(path, root)}/"
