"""The data YAML: which images and classes a data set has, and where they are or come from.

::

    path: my-data            # the data set's folder; relative to this file's folder, which is the default
    train: images/train      # a folder, a .txt list of images, an image, or a list of these
    val: images/val          # `validation` is read too
    test: images/test        # optional
    names: {0: cat, 1: dog}  # or a list; or only `nc: 2`
    download: https://...    # optional: archives, fetched when the val images are missing
    stand_in: drawn          # optional: synthetic images where the download fails
    drawn: {train: 512, val: 128}  # optional: all images are synthetic (detector/data/drawn.py)

The data sets that come with the package are in `detector.files.folders.datasets_dir()`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detector.data.data_yaml import DRAWING, SPLITS, DataYaml, read_data_yaml
from detector.data.drawn import DRAWING_VERSION, SPLIT_START, make_drawn_dataset
from detector.data.fetch import Archive, fetch_dataset
from detector.data.formats import file_format
from detector.data.holdout import FRACTION, held_out
from detector.data.labels import Labels
from detector.data.layouts import find_layout
from detector.data.places import find_move, join, native
from detector.data.scan import read_labels, split_images
from detector.errors import DataError, nearest
from detector.files.archives import ARCHIVE_SUFFIXES, unpack
from detector.files.download import is_local
from detector.files.folders import (
    allows_insecure,
    cache_dir,
    datasets_dir,
    expand_home,
    is_offline,
    resource_dir,
)
from detector.files.locks import locked
from detector.files.names import file_name

LOGGER = logging.getLogger(__name__)

YAML_SUFFIXES = (".yaml", ".yml")
PLACEHOLDER_SCENES = {"train": 4, "val": 4}
PLACEHOLDER_SIZE = 640  # px, the longer side of most COCO images


@dataclass(frozen=True)
class DataConfig:
    """A data set whose files exist.

    Attributes:
        name: Name of the YAML file without its suffix.
        yaml_path: The YAML file, absolute.
        root: The data set's folder, absolute.
        splits: For each split its entries, absolute: folders, .txt lists, images, label files of a whole split.
        names: Class names by class id, 0 to C-1; none if they are those of the label files, see `with_names`.
        download: Archives the data set consists of, maybe none.
        stand_in: Whether its images are placeholder data: synthetic, in place of the real ones.
        images: Folder of the images of label files of a whole split; by default they are looked for.
        cut: Whether the validation split is cut from the training images, see `detector.data.holdout`.
    """

    name: str
    yaml_path: Path
    root: Path
    splits: dict[str, list[Path]]
    names: dict[int, str]
    download: tuple[Archive, ...] = ()
    stand_in: bool = False
    images: Path | None = None
    cut: bool = False

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.names)

    def split_images(self, split: str) -> list[Path]:
        """Return the sorted images of a split, absolute.

        Raises:
            DataError: If there is no such split, an entry of it does not exist, or it has no images.
        """
        if split not in self.splits:
            raise DataError(
                f"split={split}: {self.yaml_path} has {', '.join(self.splits)}"
                f"{nearest(split, self.splits) or '.'}"
            )
        images = split_images(self.splits[split], (self.root, self.yaml_path.parent), self.images)
        if not images:
            where = ", ".join(str(entry) for entry in self.splits[split])
            raise DataError(f"{self.yaml_path}: no images for {split}; looked in {where}.")
        once = list(dict.fromkeys(images))
        if len(once) < len(images):
            LOGGER.warning(
                "%s: %s names %d images more than once; each counts once",
                self.yaml_path,
                split,
                len(images) - len(once),
            )
        if self.cut and split in ("train", "val"):
            marked = held_out(list(map(str, once)))
            once = [path for path, is_val in zip(once, marked, strict=True) if is_val == (split == "val")]
        return once

    def present_splits(self) -> list[str]:
        """Return the splits to read: those of training and validation, and of the others those that are there."""
        return [
            split
            for split, entries in self.splits.items()
            if split in ("train", "val") or all(entry.exists() for entry in entries)
        ]

    def read_labels(self, split: str, fraction: float = 1.0) -> list[Labels]:
        """Read the labels of a split, or of the first part of its images, by source.

        Raises:
            DataError: As from `split_images`, or if a label file of a whole split is wrong.
        """
        images = self.split_images(split)
        return read_labels(self.splits[split], images[: max(round(len(images) * fraction), 1)], self.images)

    def with_names(self) -> DataConfig:
        """Return the data set with the names of its classes; where its file has none, those in its label files.

        They have the order of a label file that has them all, as COCO's by their ids, else they are sorted.

        Raises:
            DataError: If there are none either.
        """
        if self.names:
            return self
        parts = [part for split in self.present_splits() for part in self.read_labels(split)]
        names = sorted({name for part in parts for name in part.names or ()})
        names = next(
            (list(part.names) for part in parts if part.names and sorted(part.names) == names), names
        )
        if not names or any(part.names is None and len(part.image) for part in parts):
            raise DataError(
                f"{self.yaml_path}: the classes have no names: YOLO label files only have ids. Write the names into "
                f"classes.txt in {self.root}, one per line, or into a data YAML as `names: [cat, dog]`."
            )
        return replace(self, names=dict(enumerate(names)))

    def describe(self) -> str:
        """Return one line of text: name, classes and absolute folder."""
        drawn = " (SYNTHETIC IMAGES, not the real ones)" if self.stand_in else ""
        return f"{self.name}: {self.num_classes} classes, {self.root}{drawn}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that tells this data set from others: JSON types only, apart from int keys."""
        return {
            "name": self.name,
            "root": str(self.root),
            "splits": {split: [str(entry) for entry in entries] for split, entries in self.splits.items()},
            "names": dict(self.names),
            "stand_in": self.stand_in,
        }


def load_data_config(data: str | Path) -> DataConfig:
    """Read a data YAML and make sure that its validation images are there.

    Args:
        data: Name of a packaged data set (`coco8`, `coco8.yaml`), path of a YAML file, or a folder with
            one YAML file in it.

    Returns:
        The data set. What was missing has been downloaded or drawn.

    Raises:
        DataError: If the file does not exist or is wrong, or the images are missing and can't be had.
    """
    try:
        return _open(data).with_names()
    except DataError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        # a path too long, with a zero in it, of no such user
        raise DataError(f"data={data}: a path in it can't be used: {error}.") from error


def _open(data: str | Path) -> DataConfig:
    path = expand_home(data)
    if path.is_file() and path.name.lower().endswith(ARCHIVE_SUFFIXES):
        path = _unpacked(path)
    if path.is_file() and file_format(path) is not None:
        config = DataConfig(
            path.stem, path.absolute(), path.absolute().parent, {"train": [path.absolute()]}, {}
        )
    elif path.is_dir() and not any(file.suffix in YAML_SUFFIXES for file in path.iterdir()):
        layout = find_layout(path.absolute())
        names = dict(enumerate(layout.names or ()))
        config = DataConfig(path.absolute().name, path.absolute(), layout.root, layout.splits, names)
    else:
        config = _load(_place_of(_find_yaml(path if path.exists() else data)))
    return _with_val(config)


def _with_val(config: DataConfig) -> DataConfig:
    """Return a data set that has a validation split: where there is none, a part of the training images."""
    if "val" in config.splits:
        return config
    LOGGER.info(
        "%s: there is no validation split; %d %% of the training images are it, chosen by their content",
        *(config.yaml_path, round(100 * FRACTION)),
    )
    return replace(config, splits=config.splits | {"val": config.splits["train"]}, cut=True)


def _unpacked(archive: Path) -> Path:
    """Return the folder in the cache that an archive is unpacked to, once."""
    status = archive.stat()
    key = f"{archive.absolute()}\0{status.st_size}\0{status.st_mtime_ns}"
    stem = archive.name.lower()
    for suffix in ARCHIVE_SUFFIXES:
        stem = stem.removesuffix(suffix)
    folder = cache_dir("datasets") / f"{file_name(stem)}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    _once(folder, lambda place: unpack(archive, place))
    return folder


def is_at_hand(data: str | Path) -> bool:
    """Return whether the folders or lists that a data set trains and validates on are there.

    Nothing is downloaded, drawn or said; what is wrong with the data set is for `load_data_config` to say.
    """
    try:
        path = _place_of(_find_yaml(data))
        file = read_data_yaml(path)
        config = _found(path, file) if file.drawn is None else _drawn_place(_described(path), file.drawn)
        return all(entry.exists() for split in ("train", "val") for entry in config.splits.get(split, ()))
    except (DataError, OSError, ValueError, RuntimeError):
        return False


def _absolute(path: Path) -> Path:
    """Return a path without `..`, links kept as they are unless a `..` goes up from where one leads."""
    plain = Path(os.path.normpath(path.absolute()))
    return plain if plain.is_file() else path.resolve()


def _place_of(path: Path) -> Path:
    """Return which place of a linked data YAML its relative paths start from: the link's, else the file's itself.

    Hub caches, DVC and git-annex keep the content of files elsewhere; the link is where the data set is.
    """
    target = path.resolve()
    if target != path and not _has_val(_described(path)) and _has_val(_described(target)):
        return target
    return path


def _described(path: Path) -> DataConfig:
    """Return a data set as its file describes it, whether or not its images are there."""
    file = read_data_yaml(path)
    root = _root(path, file.path or "")
    images = None if file.images is None else _entry(root, file.images)
    splits = _splits(file, root)
    return DataConfig(path.stem, path, root, splits, file.class_names(), file.archives(), images=images)


def _found(path: Path, file: DataYaml) -> DataConfig:
    """Return a data set as its file describes it, or with the folders that stand for those it names."""
    config = _described(path)
    return config if file.download or file.stand_in is not None else _found_elsewhere(config, file)


def _load(path: Path) -> DataConfig:
    file = read_data_yaml(path, says=True)
    if file.drawn is not None:
        return _drawn(_described(path), file.drawn)
    config = _found(path, file)
    _say_what_is_elsewhere(config, file)
    if _has_val(config):
        return config
    try:
        return _downloaded(config, own_folder=file.path is not None)
    except DataError as error:
        if file.stand_in is None:
            raise
        return _make_placeholder(config, str(error))


# ---- the file -----------------------------------------------------------------------------------------


def _find_yaml(data: str | Path) -> Path:
    path = expand_home(data)
    if path.is_file():
        return _absolute(path)
    inside = sorted(file for file in path.iterdir() if file.suffix in YAML_SUFFIXES) if path.is_dir() else []
    if len(inside) == 1:
        return _absolute(inside[0])
    if len(inside) > 1:
        listed = ", ".join(file.name for file in inside)
        raise DataError(
            f"data={data}: {path.absolute()} has several YAML files ({listed}); name one of them."
        )
    bundled = {file.stem: file for file in sorted(resource_dir("datasets").glob("*.yaml"))}
    name = str(data).removesuffix(".yaml")
    if name in bundled:
        return bundled[name]
    missing = "has no YAML file in it" if path.is_dir() else "does not exist"
    raise DataError(
        f"data={data}: {path.absolute()} {missing}{nearest(name, bundled) or '.'} Give a data YAML, a folder "
        f"with one in it, or one of {', '.join(bundled)}."
    )


# ---- the folders --------------------------------------------------------------------------------------


def _root(path: Path, given: str) -> Path:
    folder = expand_home(native(given, path.parent))
    if _is_packaged(path):
        return datasets_dir() / folder
    root = path.parent / folder
    shared = datasets_dir() / folder
    return Path(os.path.normpath(shared if given and not root.exists() and shared.exists() else root))


def _is_packaged(path: Path) -> bool:
    return resource_dir("datasets").resolve() in (path.parent.resolve(), path.resolve().parent)


def _splits(file: DataYaml, root: Path) -> dict[str, list[Path]]:
    return {
        split: [_entry(root, entry) for entry in file.entries(split)]
        for split in SPLITS
        if file.entries(split)
    }


def _entry(root: Path, entry: str) -> Path:
    """Return an entry's absolute path; `../train`, as some exports write it, means `train` next to the YAML."""
    entry = native(entry, root)
    found = _entry_as_given(root, entry)
    inside = root / entry.removeprefix("../")
    return inside if entry.startswith("../") and not found.exists() and inside.exists() else found


def _entry_as_given(root: Path, entry: str) -> Path:
    return Path(os.path.normpath(root / expand_home(native(entry, root))))


def _found_elsewhere(config: DataConfig, file: DataYaml) -> DataConfig:
    """Return the data set with the folders next to its file, where it names another machine's or another system's."""
    if all(entry.exists() for split in ("train", "val") for entry in config.splits.get(split, ())):
        return config
    given = {split: [join(file.path or "", text) for text in file.entries(split)] for split in config.splits}
    folder = config.yaml_path.parent
    move = find_move(
        [*given["train"], *given.get("val", ())], (folder, config.root, datasets_dir()), all_exist=True
    )
    if move is None:
        return config
    splits = {split: [move.apply(text) for text in texts] for split, texts in given.items()}
    return replace(config, root=move.place, splits=splits)


def _say_what_is_elsewhere(config: DataConfig, file: DataYaml) -> None:
    """Warn once a split that a folder other than the one in the file is used."""
    root = _root(config.yaml_path, file.path or "")
    for split, entries in config.splits.items():
        for text, entry in zip(file.entries(split), entries, strict=True):
            if entry != (missing := _entry_as_given(root, text)):
                LOGGER.warning("%s: %s does not exist; using %s", config.yaml_path, missing, entry)
                break


def _has_val(config: DataConfig) -> bool:
    """Return whether the validation images are there, or those that they are cut from."""
    return all(entry.exists() for entry in config.splits.get("val", config.splits["train"]))


def _missing(config: DataConfig) -> str:
    entries = config.splits.get("val", config.splits["train"])
    return ", ".join(str(entry) for entry in entries if not entry.exists())


def _is_writable(folder: Path) -> bool:
    """Return whether files may be made under `folder`, which need not exist; mode bits count for root too."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK) and bool(there.stat().st_mode & 0o222)


def _place(config: DataConfig) -> Path:
    """Return the folder to make a data set in: its root, or under the cache if a shared folder is read-only.

    Raises:
        DataError: If there is no place to write, or it is neither in the data sets folder nor in that of the file.
    """
    root = config.root
    _require_own_place(config)
    if _is_writable(root.parent):
        return root
    elsewhere = cache_dir("datasets") / root.name
    if not _is_packaged(config.yaml_path) or not _is_writable(elsewhere.parent):
        raise DataError(f"{config.yaml_path}: {root} is missing and {root.parent} can't be written.")
    LOGGER.warning("%s can't be written; using %s for %s", root.parent, elsewhere, config.name)
    return elsewhere


def _require_own_place(config: DataConfig) -> None:
    """Refuse to make a data set anywhere but in the data sets folder, the cache or the folder of its file.

    Raises:
        DataError: If its folder is elsewhere, links followed.
    """
    allowed = datasets_dir(), cache_dir("datasets"), config.yaml_path.parent
    place = config.root.parent.resolve() / config.root.name
    if not any(place != folder.resolve() and place.is_relative_to(folder.resolve()) for folder in allowed):
        raise DataError(
            f"{config.yaml_path}: {config.root} is missing, and a data file may only fill folders in {allowed[0]} or "
            f"next to itself. Put the data there yourself, or set DETECTOR_DATASETS to a folder above it."
        )


# ---- what is missing ----------------------------------------------------------------------------------


def _moved(config: DataConfig, root: Path) -> DataConfig:
    """Return the same data set with its own entries under another root."""
    splits = {
        split: [root / e.relative_to(config.root) if e.is_relative_to(config.root) else e for e in entries]
        for split, entries in config.splits.items()
    }
    return replace(config, root=root, splits=splits)


def _once(root: Path, make: Callable[[Path], object]) -> None:
    """Make a folder unless it exists; other processes wait for the one that makes it."""
    if root.is_dir() and any(root.iterdir()):
        return
    with locked(root.parent / f".{root.name}.lock"):
        if not root.is_dir() or not any(root.iterdir()):
            make(root)


def _downloaded(config: DataConfig, own_folder: bool) -> DataConfig:
    missing = _missing(config)
    if not config.download:
        raise DataError(f"{config.yaml_path}: val: {missing} does not exist.")
    if not own_folder:
        raise DataError(
            f"{config.yaml_path}: val: {missing} does not exist; to download it, give the data set a separate "
            f"folder with `path:`."
        )
    for archive in config.download:
        if not archive.url.startswith(("https://", "http://")):
            raise DataError(
                f"{config.yaml_path}: val: {missing} does not exist, and download: "
                f"{archive.url.splitlines()[0]!r} is not an https:// address of an archive "
                f"({', '.join(ARCHIVE_SUFFIXES)}); commands and code in a data file are never run. "
                f"Fetch the data yourself and put them in {config.root}."
            )
        if not (is_offline() or allows_insecure()) and is_local(archive.url):
            raise DataError(
                f"{config.yaml_path}: val: {missing} does not exist, and download: {archive.url!r} is an address of "
                f"this machine; refused. If you trust the file, set DETECTOR_INSECURE_DOWNLOADS=1."
            )
    config = _moved(config, _place(config))
    try:
        _once(config.root, lambda root: fetch_dataset(config.download, root))
    except DataError as error:
        raise DataError(
            f"{config.yaml_path}: val: {missing} does not exist and could not be downloaded: {error} "
            f"Try again, or put the data in {config.root} yourself."
        ) from error
    if not _has_val(config):
        missing = _missing(config)
        raise DataError(
            f"{config.yaml_path}: {config.root} exists, but val: {missing} does not; complete it, or move "
            f"it away to have it downloaded again."
        )
    return config


def _make_placeholder(config: DataConfig, reason: str) -> DataConfig:
    aside = replace(config, root=config.root.with_name(f"{config.root.name}-drawn-stand-in"))
    root = _place(aside)
    names = list(config.names.values())
    _once(root, lambda folder: make_drawn_dataset(folder, PLACEHOLDER_SCENES, names, size=PLACEHOLDER_SIZE))
    LOGGER.warning(
        "%s: NOT THE REAL IMAGES. Synthetic images in %s replace them; metrics mean nothing. Reason: %s",
        *(config.name, root, reason),
    )
    splits = {split: [root / "images" / split] for split in PLACEHOLDER_SCENES}
    return replace(config, root=root, splits=splits, stand_in=True)


def _drawn_place(config: DataConfig, given: Mapping[str, int]) -> DataConfig:
    """Return the data set of a `drawn:` key in the folder named after everything that its drawing depends on."""
    key = json.dumps([DRAWING_VERSION, {**DRAWING, **given}, list(config.names.values())], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return _moved(config, config.root.with_name(f"{config.root.name}-{digest}"))


def _drawn(config: DataConfig, given: Mapping[str, int]) -> DataConfig:
    """Draw the data set of a `drawn:` key, unless it is there."""
    settings = {**DRAWING, **given}
    config = _drawn_place(config, given)
    if not _has_val(config):
        config = _moved(config, _place(config))
        counts: dict[str, int] = {split: settings[split] for split in SPLIT_START if split in settings}
        names = list(config.names.values())
        _once(
            config.root,
            lambda folder: make_drawn_dataset(
                folder, counts, names, seed=settings["seed"], size=settings["size"]
            ),
        )
    if not _has_val(config):
        raise DataError(
            f"{config.yaml_path}: val: {config.splits['val'][0]} was not drawn; expected images/val."
        )
    return config
