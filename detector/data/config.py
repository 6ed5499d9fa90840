"""The data YAML: which images and classes a data set has, and where they are or come from.

::

    path: my-data            # the data set's folder; relative to this file's folder, which is the default
    train: images/train      # a folder, a .txt list of images, an image, or a list of these
    val: images/val          # `validation` is read too
    test: images/test        # optional
    names: {0: cat, 1: dog}  # or a list; or only `nc: 2`
    download: https://...    # optional: archives, fetched when the val images are missing
    stand_in: drawn          # optional: synthetic images where the download fails
    channels: 1              # optional: images are read as grey; 3, in colour, is the default
    value_range: [0, 4095]   # optional: values of images of 16 bits that become 0 and 255
    drawn: {train: 512, val: 128}  # optional: all images are synthetic (detector/data/drawn.py)

The data sets that come with the package are in `detector.files.folders.datasets_dir()`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from detector.data.data_yaml import DRAWING, SPLITS, DataYaml, check_data_yaml, read_data_yaml
from detector.data.drawn import DRAWING_VERSION, SPLIT_START, make_drawn_dataset
from detector.data.fetch import fetch_dataset
from detector.data.formats import file_format
from detector.data.holdout import FRACTION, Fold
from detector.data.layouts import find_layout, inner_folder
from detector.data.places import find_move, join, native
from detector.data.splits import DataConfig as DataConfig
from detector.data.splits import join_sets
from detector.errors import DataError, nearest
from detector.fields import stored_data
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
DICT = "data={...}"  # what messages call the keys of a data YAML that are given as a dict
PLACEHOLDER_SCENES = {"train": 4, "val": 4}
PLACEHOLDER_SIZE = 640  # px, the longer side of most COCO images


def load_data_config(data: Any, cut: float | Fold | None = None) -> DataConfig:
    """Open what `data=` names, and make sure that the validation images are there.

    Args:
        data: Name of a packaged data set (`coco8`, `coco8.yaml`), path of a YAML file, of a folder, an archive or a
            label file of a whole split; a dict with the keys of a data YAML, whose paths start from the current
            folder; or a list of these, which are joined, see `detector.data.splits.join_sets`.
        cut: Validate on a part of the training images, or on a fold of those of train and val, see
            `detector.data.holdout`; None = on the split for it.

    Returns:
        The data set. What was missing has been downloaded or drawn.

    Raises:
        DataError: If something does not exist or is wrong, or images are missing and can't be had.
    """
    items = list(data) if isinstance(data, (list, tuple)) else [data]
    if not items:
        raise DataError("data=[]: the list is empty; name data sets in it.")
    given = [DICT if isinstance(item, Mapping) else str(item) for item in items]
    parts: list[DataConfig] = []
    for item, name in zip(items, given, strict=True):
        try:
            parts.append(_with_val(_open(item).with_names(), cut))
        except DataError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            # a path too long, with a zero in it, of no such user
            raise DataError(f"data={name}: a path in it can't be used: {error}.") from error
    config = parts[0] if len(parts) == 1 else join_sets(parts, given, cut)
    if cut is not None:
        _say_cut(config.yaml_path, cut)
    return config


def _open(data: str | Path | Mapping[Any, Any]) -> DataConfig:
    if isinstance(data, Mapping):
        place = Path.cwd() / DICT
        config = _load(place, check_data_yaml(data, DICT, is_file=False))
        return replace(config, name=config.root.name)
    path = expand_home(data)
    if path.is_file() and path.name.lower().endswith(ARCHIVE_SUFFIXES):
        path = _once(_unpacked(path), lambda place: unpack(expand_home(data), place))
    if (config_without := _without_yaml(path)) is not None:
        return config_without
    yaml = _place_of(_find_yaml(path if path.exists() else data))
    return _load(yaml, read_data_yaml(yaml, says=True))


def _without_yaml(path: Path) -> DataConfig | None:
    """Return the data set of a label file of a whole split, or of a folder without a data YAML; None for others."""
    path = path.absolute() if path.exists() else path
    if path.is_file() and file_format(path) is not None:
        return DataConfig(path.stem, path, path.parent, {"train": [path]}, {})
    if not path.is_dir() or _yaml_files(inner_folder(path)):
        return None
    layout = find_layout(path)
    return DataConfig(path.name, path, layout.root, layout.splits, dict(enumerate(layout.names or ())))


def _yaml_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in YAML_SUFFIXES)


def _with_val(config: DataConfig, cut: float | Fold | None) -> DataConfig:
    """Return a data set that has a validation split: its own, what is asked for, or a part of the training images."""
    train = config.splits["train"]
    if isinstance(cut, Fold):
        train = [*train, *config.splits.get("val", ())]
    elif cut is None and "val" in config.splits:
        return config
    elif cut is None:
        cut = FRACTION
        LOGGER.info(
            "%s: there is no validation split; %d %% of the training images are it, chosen by their content",
            *(config.yaml_path, round(100 * FRACTION)),
        )
    return replace(config, splits=config.splits | {"train": train, "val": train}, cut=cut)


def _say_cut(source: Path, cut: float | Fold) -> None:
    if isinstance(cut, Fold):
        text = f"fold {cut.number} of {cut.total} of all images, those of train and val, is validated on"
    else:
        text = f"{100 * cut:g} % of the training images are validated on, in place of a val split"
    LOGGER.info("%s: %s; chosen by their content", source, text)


def located(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a data YAML, given as a dict, so that they mean the same in another working directory.

    What they have fetched or drawn is there by then: these keys are left out.
    """
    try:
        file = check_data_yaml(data, DICT, is_file=False)
    except DataError:  # opening it says so
        return dict(data)
    config = _described(Path.cwd() / DICT, file)
    root = config.root if file.drawn is None else _drawn_place(config, file.drawn).root
    kept: dict[str, Any] = stored_data(data)
    return kept | {"path": str(root)}


def _unpacked(archive: Path) -> Path:
    """Return the folder in the cache that an archive is unpacked to."""
    status = archive.stat()
    key = f"{archive.absolute()}\0{status.st_size}\0{status.st_mtime_ns}"
    stem = archive.name.lower()
    for suffix in ARCHIVE_SUFFIXES:
        stem = stem.removesuffix(suffix)
    return cache_dir("datasets") / f"{file_name(stem)}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def is_at_hand(data: Any) -> bool:
    """Return whether the folders or lists that data sets train and validate on are there.

    Nothing is downloaded, unpacked, drawn or said; what is wrong with them is for `load_data_config` to say.
    """
    if isinstance(data, (list, tuple)):
        return bool(data) and all(map(is_at_hand, data))
    try:
        if isinstance(data, Mapping):
            path, file = Path.cwd() / DICT, check_data_yaml(data, DICT, is_file=False)
        else:
            path = expand_home(data)
            if path.is_file() and path.name.lower().endswith(ARCHIVE_SUFFIXES):
                path = _unpacked(path)
            if _without_yaml(path) is not None:
                return True
            path = _place_of(_find_yaml(path if path.exists() else data))
            file = read_data_yaml(path)
        config = (
            _found(path, file) if file.drawn is None else _drawn_place(_described(path, file), file.drawn)
        )
        return all(entry.exists() for split in ("train", "val") for entry in config.splits.get(split, ()))
    except (DataError, OSError, ValueError, RuntimeError, TypeError):
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
    if (
        target != path
        and not _has_val(_described(path, read_data_yaml(path)))
        and _has_val(_described(target, read_data_yaml(target)))
    ):
        return target
    return path


def _described(path: Path, file: DataYaml) -> DataConfig:
    """Return a data set as its file describes it, whether or not its images are there."""
    root = _root(path, file.path or "")
    images = None if file.images is None else _entry(root, file.images)
    splits = _splits(file, root)
    return DataConfig(
        path.stem, path, root, splits, file.class_names(), file.archives(), images=images, channels=file.channels,
        value_range=None if file.value_range is None else (file.value_range[0], file.value_range[1]),
    )  # fmt: skip


def _found(path: Path, file: DataYaml) -> DataConfig:
    """Return a data set as its file describes it, or with the folders that stand for those it names."""
    config = _described(path, file)
    return config if file.download or file.stand_in is not None else _found_elsewhere(config, file)


def _load(path: Path, file: DataYaml) -> DataConfig:
    if file.drawn is not None:
        return _drawn(_described(path, file), file.drawn)
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
    inside = _yaml_files(inner_folder(path)) if path.is_dir() else []
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


def _once(root: Path, make: Callable[[Path], object]) -> Path:
    """Make a folder unless it exists; other processes wait for the one that makes it."""
    if not root.is_dir() or not any(root.iterdir()):
        with locked(root.parent / f".{root.name}.lock"):
            if not root.is_dir() or not any(root.iterdir()):
                make(root)
    return root


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
