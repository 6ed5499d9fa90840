"""Which layout a folder of images and labels has: that of the tool that exported it, without a data YAML.

Recognised are the exports of Roboflow (YOLO, COCO, VOC), CVAT (YOLO 1.1, Ultralytics YOLO, COCO, VOC), Label Studio
(YOLO with classes.txt, COCO, VOC), labelImg (files side by side), and Pascal VOC and COCO as they are published. What
they have in common is looked for, not the tools: lists of splits, folders called like splits, label files of a split.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from detector.data.formats import ImageFormat, all_formats, file_format
from detector.data.nearest import explain_no_images, explain_no_labels
from detector.data.scan import split_images
from detector.data.sources import IMAGE_SUFFIXES
from detector.errors import DataError
from detector.files.text import read_text

SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Split -> how tools call it; of several the first is taken, and trainval only where there is no train."""
IMAGE_FOLDERS = ("images", "JPEGImages", "obj_train_data", "data")
CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "images/classes.txt")
_IGNORED = ("__MACOSX",)
LOOKED_AT = 200  # images of a folder
_MAX_DEPTH = 4  # folders that hold nothing but one folder


@dataclass(frozen=True)
class Layout:
    """What was recognised.

    Attributes:
        root: the folder that has it: the given one, or the one in it.
        splits: split -> its entries, see `detector.data.scan`.
        names: names of the classes in the order of their ids, where a file lists them.
    """

    root: Path
    splits: dict[str, list[Path]]
    names: list[str] | None = None


def find_layout(folder: Path) -> Layout:
    """Recognise the layout of a folder.

    Raises:
        DataError: If nothing fits, or no image has labels: with what was found and what was looked for.
    """
    root = inner_folder(folder)
    for look in (_darknet, _image_sets, _split_folders, _whole_files, _flat):
        if (splits := look(root)) is not None:
            _require_labels(splits, root)
            return Layout(root, splits, _class_names(root))
    raise DataError(explain_no_images(root))


def _require_labels(splits: Mapping[str, list[Path]], root: Path) -> None:
    """Refuse images of which none has a label file.

    Raises:
        DataError: with the nearest layout.
    """
    if any(file_format(entry) or (entry.is_dir() and _is_labelled(entry)) for entry in splits["train"]):
        return
    images = [str(path) for path in split_images(splits["train"], (root,))]
    if images and not has_labels(images):
        raise DataError(explain_no_labels(images, root))


def has_labels(images: Iterable[str]) -> bool:
    """Return whether one of some images has a label file of its own."""
    formats = [known for known in all_formats().values() if isinstance(known, ImageFormat)]
    return any(Path(place).is_file() for image in images for f in formats for place in f.label_paths(image))


def inner_folder(folder: Path) -> Path:
    """Return the folder within folders that hold nothing but one folder, as archives often have them."""
    for _ in range(_MAX_DEPTH):
        inside = _folders(folder)
        alone = len(inside) == 1 and not _images(folder) and _split_of(inside[0].name) is None
        if not alone or inside[0].name in IMAGE_FOLDERS or any(map(file_format, _files(folder, ".json"))):
            break
        folder = inside[0]
    return folder


def _darknet(root: Path) -> dict[str, list[Path]] | None:
    """CVAT's YOLO 1.1, after Darknet: `obj.data` names the lists of images."""
    description = root / "obj.data"
    if not description.is_file():
        return None
    pairs = dict(re.findall(r"^\s*(\w+)\s*=\s*(\S+)\s*$", _text(description), re.MULTILINE))
    found: dict[str, Path] = {}
    for split, names in SPLITS.items():
        lists = [root / Path(pairs[name]).name for name in names if name in pairs]
        found_lists = filter(os.path.isfile, lists)  # Path.is_file raises on a name that is too long
        if (entry := next(found_lists, None)) is not None:
            found[split] = entry
    return _first_of_each(found) or None


def _image_sets(root: Path) -> dict[str, list[Path]] | None:
    """Pascal VOC, and CVAT's export of it: lists in `ImageSets/Main`."""
    folder = next(
        (root / "ImageSets" / name for name in ("Main", ".") if (root / "ImageSets" / name).is_dir()), None
    )
    if folder is None or not (root / "JPEGImages").is_dir():
        return None
    lists = {path.stem: path for path in _files(folder, ".txt")}
    found: dict[str, Path] = {}
    for split, names in SPLITS.items():
        if (name := next((name for name in names if name in lists), None)) is not None:
            found[split] = lists[name]
    if "train" not in found and "default" in lists:
        found = {"train": lists["default"]}
    return _first_of_each(found) or None


def _split_folders(root: Path) -> dict[str, list[Path]] | None:
    """Folders called like splits, in the root (Roboflow) or in its folder of images (Ultralytics).

    If their images have no label files of their own, and there are some of whole splits, it is another layout.
    """
    for place in (root / "images", root):
        found: dict[str, Path] = {}
        folders = {folder.name.lower(): folder for folder in _folders(place)}
        for split, names in SPLITS.items():
            if (folder := next((folders[name] for name in names if name in folders), None)) is not None:
                entry = _whole_file(folder) or (folder / "images" if (folder / "images").is_dir() else folder)
                if entry.is_file() or _images(entry):
                    found[split] = entry
        if "train" in found:
            is_whole = found["train"].is_file() or _is_labelled(found["train"]) or _whole_files(root) is None
            return _first_of_each(found) if is_whole else None
    return None


def _whole_files(root: Path) -> dict[str, list[Path]] | None:
    """Label files of whole splits, such as `annotations/instances_train2017.json`."""
    for folder in (root / "annotations", root):
        files = [path for suffix in (".json", ".csv") for path in _files(folder, suffix) if file_format(path)]
        found = {split: path for path in reversed(files) if (split := _split_in(path.stem)) is not None}
        if "train" in found:
            return _first_of_each(found)
        if len(files) == 1:
            return {"train": files}
    return None


def _flat(root: Path) -> dict[str, list[Path]] | None:
    """All images in one folder: labelImg, Label Studio, or a folder of folders."""
    for folder in (*(root / name for name in IMAGE_FOLDERS), root):
        if folder.is_dir() and next(_all_images(folder), None) is not None:
            return {"train": [folder]}
    return None


def _class_names(root: Path) -> list[str] | None:
    """Return the names of the classes that a file lists, one a line; one of an empty line is made up."""
    for place in CLASS_FILES:
        if (root / place).is_file():
            lines = [line.strip() for line in _text(root / place).strip().splitlines()]
            return [line or f"class_{number}" for number, line in enumerate(lines)] or None
    return None


# ---- files and folders --------------------------------------------------------------------------------


def _first_of_each(found: Mapping[str, Path]) -> dict[str, list[Path]]:
    return {split: [found[split]] for split in SPLITS if split in found}


def _split_of(name: str) -> str | None:
    return next((split for split, names in SPLITS.items() if name.lower() in names), None)


def _split_in(stem: str) -> str | None:
    """Return the split that one of the words in a file's name stands for: `instances_val2017`."""
    words = re.findall(r"[a-z]+", stem.lower())
    return next((split for word in words if (split := _split_of(word)) is not None), None)


def _whole_file(folder: Path) -> Path | None:
    files = [path for suffix in (".json", ".csv") for path in _files(folder, suffix) if file_format(path)]
    return files[0] if len(files) == 1 else None


def _folders(folder: Path) -> list[Path]:
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return [
        path
        for path in inside
        if path.is_dir() and path.name not in _IGNORED and not path.name.startswith(".")
    ]


def _files(folder: Path, suffix: str) -> list[Path]:
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in inside if path.suffix.lower() == suffix and path.is_file()]


def _images(folder: Path) -> bool:
    """Return whether there are images in a folder itself."""
    return folder.is_dir() and any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


def _is_labelled(folder: Path) -> bool:
    """Return whether one of the first images of a folder has a label file of its own."""
    return has_labels(str(image) for image in islice(_all_images(folder), LOOKED_AT))


def _all_images(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {error}.") from error
