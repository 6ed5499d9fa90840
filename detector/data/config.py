"""The data YAML: which images and classes a data set has, and where they lie or come from.

::

    path: my-data            # the data set's folder; relative to this file's folder, which is the default
    train: images/train      # a folder, a .txt list of images, an image, or a list of these
    val: images/val          # `validation` is read too
    test: images/test        # optional
    names: {0: cat, 1: dog}  # or a list; or only `nc: 2`
    download: https://...    # optional: archives, fetched when the val images are missing
    stand_in: drawn          # optional: drawn scenes where the download fails
    drawn: {train: 512, val: 128}  # optional: the whole set is drawn (detector/data/drawn.py)

The data sets that come with the package lie in `detector.resources.datasets_dir()`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from detector.data.download import ARCHIVE_SUFFIXES, Archive, fetch_dataset, locked
from detector.data.drawn import DRAWING_VERSION, SPLIT_START, make_drawn_dataset
from detector.data.sources import list_images
from detector.errors import DataError, nearest
from detector.resources import cache_dir, datasets_dir, resource_dir
from detector.yamlio import YamlError, read_yaml

LOGGER = logging.getLogger(__name__)

SPLITS = ("train", "val", "test", "minival")
KEYS = (*SPLITS, "path", "validation", "names", "nc", "channels", "download", "stand_in", "drawn")
NOTES = ("author", "date", "description", "license", "roboflow", "url", "version")  # known and not used
YAML_SUFFIXES = (".yaml", ".yml")
STAND_IN_SCENES = {"train": 4, "val": 4}
STAND_IN_SIZE = 640


@dataclass(frozen=True)
class DataConfig:
    """A data set whose files are there.

    Attributes:
        name: Name of the YAML file without its suffix.
        yaml_path: The YAML file, absolute.
        root: The data set's folder, absolute.
        splits: For each split of the file its entries, absolute: folders, .txt lists or images.
        names: Class names by class id, 0 to C-1.
        download: Archives the data set consists of, maybe none.
        stand_in: Whether drawn scenes stand in for the images the file is about.
    """

    name: str
    yaml_path: Path
    root: Path
    splits: dict[str, list[Path]]
    names: dict[int, str]
    download: tuple[Archive, ...] = ()
    stand_in: bool = False

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
        images = list_images(self.splits[split])
        if not images:
            where = ", ".join(str(entry) for entry in self.splits[split])
            raise DataError(f"{self.yaml_path}: no images for {split}; looked in {where}.")
        return images

    def describe(self) -> str:
        """Return one line for people: name, classes and absolute folder."""
        drawn = " (DRAWN STAND-IN, not the real images)" if self.stand_in else ""
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
        return _load(_find_yaml(data))
    except DataError:
        raise
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # a path too long, with a zero in it, of no such user
        raise DataError(f"data={data}: a path in it can't be used: {error}.") from error


def _load(path: Path) -> DataConfig:
    content = _read(path)
    names = _names(path, content)
    root = _root(path, content)
    if content.get("drawn") is not None:
        return _drawn(path, content, root, names)
    config = DataConfig(path.stem, path, root, _splits(path, content, root), names, _archives(path, content))
    if _has_val(config):
        return config
    stand_in = content.get("stand_in")
    if stand_in not in (None, "drawn"):
        raise DataError(f"{path}: stand_in: {stand_in!r}; the only stand-in is `drawn`.")
    try:
        return _downloaded(config, own_folder="path" in content)
    except DataError as error:
        if stand_in is None:
            raise
        return _stand_in(config, str(error))


# ---- the file -----------------------------------------------------------------------------------------


def _find_yaml(data: str | Path) -> Path:
    path = Path(data).expanduser()
    if path.is_file():
        return path.resolve()
    inside = sorted(file for file in path.iterdir() if file.suffix in YAML_SUFFIXES) if path.is_dir() else []
    if len(inside) == 1:
        return inside[0].resolve()
    if len(inside) > 1:
        listed = ", ".join(file.name for file in inside)
        raise DataError(
            f"data={data}: {path.absolute()} has several YAML files ({listed}); name one of them."
        )
    bundled = {file.stem: file for file in sorted(resource_dir("datasets").glob("*.yaml"))}
    name = str(data).removesuffix(".yaml")
    if name in bundled:
        return bundled[name].resolve()
    missing = "has no YAML file in it" if path.is_dir() else "does not exist"
    raise DataError(
        f"data={data}: {path.absolute()} {missing}{nearest(name, bundled) or '.'} Give a data YAML, a folder "
        f"with one in it, or one of {', '.join(bundled)}."
    )


def _read(path: Path) -> dict[str, Any]:
    """Return the keys of a data YAML, those without a value left out."""
    try:
        content = read_yaml(path)
    except (YamlError, OSError) as error:
        raise DataError(f"{path} is not a YAML file: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected keys such as path, train, val and names.")
    problems = [
        f"unknown key {key!r}{nearest(str(key), KEYS)}"
        for key in content
        if key not in KEYS and key not in NOTES
    ]
    content = {key: value for key, value in content.items() if value is not None}
    if "validation" in content:
        if "val" in content:
            problems.append("both val and validation are given; keep val")
        content["val"] = content.pop("validation")
    missing = [key for key in ("train", "val") if key not in content]
    if "names" not in content and "nc" not in content:
        missing.append("names (or nc)")
    problems += [f"{key} is missing" for key in missing]
    if content.get("channels", 3) != 3:
        problems.append(f"channels: {content['channels']}; only images of 3 channels can be used")
    if problems:
        raise DataError(f"{path}:\n  " + "\n  ".join(problems))
    return content


def _names(path: Path, content: Mapping[str, Any]) -> dict[int, str]:
    count, names = content.get("nc"), content.get("names")
    if count is not None and (type(count) is not int or count < 1):
        raise DataError(f"{path}: nc: {count!r}; expected a whole number of classes, 1 or more.")
    if names is None:
        return {number: f"class_{number}" for number in range(count or 0)}
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise DataError(f"{path}: names: {names!r}; expected a list of class names or a map from id to name.")
    if any(type(key) is not int for key in names) or sorted(names) != list(range(len(names))):
        raise DataError(
            f"{path}: names has the ids {_few(names)}; expected 0 to {len(names) - 1}, each once."
        )
    wrong = [name for name in names.values() if type(name) not in (str, int, float)]
    if wrong:
        raise DataError(f"{path}: names: {_few(wrong)} can't be a class name; put it in quotes.")
    if count is not None and count != len(names):
        raise DataError(f"{path}: nc is {count}, but names has {len(names)}; leave nc out or correct one.")
    return {key: str(names[key]) for key in sorted(names)}


def _few(values: Any) -> str:
    listed = [str(value) for value in values]
    return ", ".join(listed[:8]) + (" ..." if len(listed) > 8 else "")


def _archives(path: Path, content: Mapping[str, Any]) -> tuple[Archive, ...]:
    """Return the archives of `download:`; what is no address is refused where it would be fetched."""
    given = content.get("download", [])
    archives = []
    for item in given if isinstance(given, list) else [given]:
        fields = {"url": item} if isinstance(item, str) else item
        right = isinstance(fields, dict) and "url" in fields and set(fields) <= {"url", "into", "sha256"}
        if not right or not all(isinstance(value, str) for value in fields.values()):
            raise DataError(
                f"{path}: download: {item!r}; expected an https:// address, or url, into and sha256."
            )
        into = PurePosixPath(fields.get("into", ""))
        if into.is_absolute() or ".." in into.parts:
            raise DataError(f"{path}: download: into: {into} leaves the data set's folder.")
        archives.append(Archive(**fields))
    return tuple(archives)


# ---- the folders --------------------------------------------------------------------------------------


def _root(path: Path, content: Mapping[str, Any]) -> Path:
    given = content.get("path", "")
    if not isinstance(given, str):
        raise DataError(f"{path}: path: {given!r}; expected a folder.")
    folder = Path(given).expanduser()
    if _is_packaged(path):
        return datasets_dir() / folder
    root = path.parent / folder
    shared = datasets_dir() / folder
    return Path(os.path.normpath(shared if given and not root.exists() and shared.exists() else root))


def _is_packaged(path: Path) -> bool:
    return path.parent == resource_dir("datasets").resolve()


def _splits(path: Path, content: Mapping[str, Any], root: Path) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    for split in SPLITS:
        if split not in content:
            continue
        entries = content[split] if isinstance(content[split], list) else [content[split]]
        if not entries or not all(isinstance(entry, str) and entry for entry in entries):
            raise DataError(f"{path}: {split}: {content[split]!r}; expected a path or a list of paths.")
        splits[split] = [_entry(path, root, entry) for entry in entries]
    return splits


def _entry(path: Path, root: Path, entry: str) -> Path:
    """Return an entry's absolute path; `../train` beside the YAML, as some exports write it, is `train`."""
    found = Path(os.path.normpath(root / Path(entry).expanduser()))
    inside = root / entry.removeprefix("../")
    if entry.startswith("../") and not found.exists() and inside.exists():
        LOGGER.warning("%s: %s does not exist; using %s", path, found, inside)
        return inside
    return found


def _has_val(config: DataConfig) -> bool:
    return all(entry.exists() for entry in config.splits["val"])


def _is_writable(folder: Path) -> bool:
    """Tell whether files may be made under `folder`, which need not exist; root heeds the mode bits too."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK) and bool(there.stat().st_mode & 0o222)


def _place(config: DataConfig) -> Path:
    """Return the folder to make a data set in: its root, or under the cache if a shared folder is read-only.

    Raises:
        DataError: If there is no place to write.
    """
    root = config.root
    if _is_writable(root.parent):
        return root
    elsewhere = cache_dir("datasets") / root.name
    if not _is_packaged(config.yaml_path) or not _is_writable(elsewhere.parent):
        raise DataError(f"{config.yaml_path}: {root} is missing and {root.parent} can't be written.")
    LOGGER.warning("%s can't be written; using %s for %s", root.parent, elsewhere, config.name)
    return elsewhere


# ---- what is missing ----------------------------------------------------------------------------------


def _moved(config: DataConfig, root: Path) -> DataConfig:
    """Return the same data set with its own entries under another root."""
    splits = {
        split: [root / e.relative_to(config.root) if e.is_relative_to(config.root) else e for e in entries]
        for split, entries in config.splits.items()
    }
    return replace(config, root=root, splits=splits)


def _once(root: Path, make: Callable[[Path], object]) -> None:
    """Make a folder unless it is there; other processes wait for the one that makes it."""
    if root.is_dir() and any(root.iterdir()):
        return
    with locked(root.parent / f".{root.name}.lock"):
        if not root.is_dir() or not any(root.iterdir()):
            make(root)


def _downloaded(config: DataConfig, own_folder: bool) -> DataConfig:
    missing = ", ".join(str(entry) for entry in config.splits["val"] if not entry.exists())
    if not config.download:
        raise DataError(f"{config.yaml_path}: val: {missing} does not exist.")
    if not own_folder:
        raise DataError(
            f"{config.yaml_path}: val: {missing} does not exist; to download it, give the data set a folder "
            f"of its own with `path:`."
        )
    for archive in config.download:
        if not archive.url.startswith(("https://", "http://")):
            raise DataError(
                f"{config.yaml_path}: val: {missing} does not exist, and download: "
                f"{archive.url.splitlines()[0]!r} is no https:// address of an archive "
                f"({', '.join(ARCHIVE_SUFFIXES)}); commands and code in a data file are never run. "
                f"Fetch the data yourself and put them in {config.root}."
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
        missing = ", ".join(str(entry) for entry in config.splits["val"] if not entry.exists())
        raise DataError(
            f"{config.yaml_path}: {config.root} is there, but val: {missing} is not; complete it, or move "
            f"it away to have it downloaded again."
        )
    return config


def _stand_in(config: DataConfig, reason: str) -> DataConfig:
    aside = replace(config, root=config.root.with_name(f"{config.root.name}-drawn-stand-in"))
    root = _place(aside)
    names = list(config.names.values())
    _once(root, lambda folder: make_drawn_dataset(folder, STAND_IN_SCENES, names, size=STAND_IN_SIZE))
    LOGGER.warning(
        "%s: NOT THE REAL IMAGES. Drawn scenes in %s stand in for them; figures mean nothing. Reason: %s",
        *(config.name, root, reason),
    )
    splits = {split: [root / "images" / split] for split in STAND_IN_SCENES}
    return replace(config, root=root, splits=splits, stand_in=True)


def _drawn(path: Path, content: Mapping[str, Any], root: Path, names: dict[int, str]) -> DataConfig:
    """Draw the data set of a `drawn:` key into a folder named after everything it depends on."""
    settings = content["drawn"]
    allowed = (*SPLIT_START, "size", "seed")
    if not isinstance(settings, dict) or not all(key in allowed for key in settings):
        raise DataError(f"{path}: drawn: {settings!r}; expected {', '.join(allowed)}.")
    if any(type(value) is not int or value < 0 for value in settings.values()) or "path" not in content:
        raise DataError(f"{path}: drawn: {settings!r}; expected whole numbers, and a folder as `path:`.")
    settings = {"size": 320, "seed": 0} | settings
    key = json.dumps([DRAWING_VERSION, settings, list(names.values())], sort_keys=True)
    root = root.with_name(f"{root.name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}")
    config = DataConfig(path.stem, path, root, _splits(path, content, root), names)
    if not _has_val(config):
        config = _moved(config, _place(config))
        counts: dict[str, int] = {split: settings[split] for split in SPLIT_START if split in settings}
        _once(
            config.root,
            lambda folder: make_drawn_dataset(
                folder, counts, list(names.values()), seed=settings["seed"], size=settings["size"]
            ),
        )
    if not _has_val(config):
        raise DataError(f"{path}: val: {config.splits['val'][0]} was not drawn; expected images/val.")
    return config
