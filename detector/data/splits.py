"""A data set whose files exist: its splits, their images and labels; also several data sets joined to one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detector.data.fetch import Archive
from detector.data.holdout import Fold, is_validated
from detector.data.labels import Labels
from detector.data.layouts import CLASS_FILES
from detector.data.scan import read_labels, split_images
from detector.errors import DataError, listed, nearest
from detector.fields import format_value

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataConfig:
    """A data set whose files exist.

    Attributes:
        name: Name of the YAML file without its suffix.
        yaml_path: The YAML file, absolute; of data given otherwise, what messages call them.
        root: The data set's folder, absolute.
        splits: For each split its entries, absolute: folders, .txt lists, images, label files of a whole split.
        names: Class names by class id, 0 to C-1; none if they are those of the label files, see `with_names`.
        download: Archives the data set consists of, maybe none.
        stand_in: Whether its images are placeholder data: synthetic, in place of the real ones.
        images: Folder of the images of label files of a whole split; by default they are looked for.
        cut: How the validation split is cut from the images of `train`, if it is: see `detector.data.holdout`.
        parts: The data sets that were joined, see `join_sets`; none if it is one.
        given: How a part was named.
        channels: 1 to read images as grey, 3 in colour; None if nothing is said.
        value_range: Values of images of 16 bits that become 0 and 255; None if nothing is said.
    """

    name: str
    yaml_path: Path
    root: Path
    splits: dict[str, list[Path]]
    names: dict[int, str]
    download: tuple[Archive, ...] = ()
    stand_in: bool = False
    images: Path | None = None
    cut: float | Fold | None = None
    parts: tuple[DataConfig, ...] = ()
    given: str = ""
    channels: int | None = None
    value_range: tuple[float, float] | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.names)

    def split_images(self, split: str, fraction: float = 1.0) -> list[Path]:
        """Return the sorted images of a split, absolute, or the first part of them; of joined sets one after the other.

        Raises:
            DataError: If there is no such split, an entry of it does not exist, or it has no images.
        """
        return [path for _, images in self._images_of_sets(split, fraction) for path in images]

    def _images_of_sets(self, split: str, fraction: float) -> list[tuple[DataConfig, list[Path]]]:
        """Return the images of a split by the data set they are of; several if sets were joined."""
        if split not in self.splits:
            raise DataError(
                f"split={split}: {self.yaml_path} has {', '.join(self.splits)}"
                f"{nearest(split, self.splits) or '.'}"
            )
        is_cut = self.cut is not None and split in ("train", "val")
        if self.parts and not is_cut:
            with_it = [part for part in self.parts if split in part.splits]
            return [found for part in with_it for found in part._images_of_sets(split, fraction)]
        owner: dict[Path, DataConfig] = {}
        for part in self.parts or (self,):
            for path in part._listed(split):
                owner.setdefault(path, part)
        chosen = list(owner)
        if self.cut is not None and is_cut:
            marked = is_validated(list(map(str, chosen)), self.cut)
            chosen = [path for path, is_val in zip(chosen, marked, strict=True) if is_val == (split == "val")]
        by_set = [(part, [path for path in chosen if owner[path] is part]) for part in self.parts or (self,)]
        return [(part, images[: max(round(len(images) * fraction), 1)]) for part, images in by_set if images]

    def _listed(self, split: str) -> list[Path]:
        """Return the images that the entries of a split of one set name, each once."""
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
        found: list[Labels] = []
        for part, images in self._images_of_sets(split, fraction):
            labels = read_labels(part.splits[split], images, part.images)
            if self.parts:
                names = tuple(part.names.values())
                labels = [replace(one, own_names=names, own_source=part.given) for one in labels]
            found += labels
        return found

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
                f"{_hint_of_several(self.root)}"
            )
        return replace(self, names=dict(enumerate(names)))

    def describe(self) -> str:
        """Return one line of text: name, classes, whether it is read as grey, and absolute folder."""
        grey = ", read as grey" if self.channels == 1 else ""
        drawn = " (SYNTHETIC IMAGES, not the real ones)" if self.stand_in else ""
        places = ", ".join(str(part.root) for part in self.parts or (self,))
        return f"{self.name}: {self.num_classes} classes{grey}, {places}{drawn}"


def _hint_of_several(root: Path) -> str:
    """Return how to join the data sets in a folder, if there are several that list their classes."""
    places = [place for file in CLASS_FILES for place in sorted(root.glob(f"*/{file}"))]
    folders = sorted({root / place.relative_to(root).parts[0] for place in places})
    return (
        f" It has several data sets: join them as data=[{','.join(map(str, folders))}]."
        if len(folders) > 1
        else ""
    )


def join_sets(
    parts: Sequence[DataConfig], given: Sequence[str], cut: float | Fold | None = None
) -> DataConfig:
    """Join data sets: train with train, val with val; classes of one name are one class, in the order they come in.

    Which set lacks which classes is said in one line.

    Args:
        parts: data sets with names.
        given: how each was named.
        cut: if it is not None, what is validated on is cut from the images of all of them, see `DataConfig`.

    Raises:
        DataError: If they contradict each other in `channels` or `value_range`.
    """
    names = list(dict.fromkeys(name for part in parts for name in part.names.values()))
    title = f"[{','.join(part.name for part in parts)}]"
    lacking = [
        f"{label} lacks {listed(missing)}"
        for known, label in zip([set(part.names.values()) for part in parts], given, strict=True)
        if (missing := [name for name in names if name not in known])
    ]
    folded = Counter(map(str.casefold, names))
    alike = sorted(name for name in names if folded[name.casefold()] > 1)
    if alike:
        LOGGER.warning(
            "data=%s: classes differ only in capitals, and are not joined: %s", title, listed(alike)
        )
    if lacking:
        LOGGER.warning(
            "data=%s: the sets differ in their classes: %s. Objects of these classes in the images of that set are not "
            "labelled, so they are trained as background",
            *(title, "; ".join(lacking)),
        )
    sets = tuple(
        replace(part, given=label, cut=part.cut if cut is None else None)
        for part, label in zip(parts, given, strict=True)
    )
    order = dict.fromkeys(split for part in parts for split in part.splits)
    return DataConfig(
        title,
        Path.cwd() / f"data={title}",
        parts[0].root,
        {split: [entry for part in parts for entry in part.splits.get(split, ())] for split in order},
        dict(enumerate(names)),
        stand_in=any(part.stand_in for part in parts),
        cut=cut,
        parts=sets,
        channels=_of_all(title, "channels", parts),
        value_range=_of_all(title, "value_range", parts),
    )


def _of_all(title: str, key: str, parts: Sequence[DataConfig]) -> Any:
    """Return what data sets say of their images, None if none does.

    Raises:
        DataError: If they contradict each other: a network reads all images in one way.
    """
    stated = list(dict.fromkeys(value for part in parts if (value := getattr(part, key)) is not None))
    if len(stated) > 1:
        raise DataError(
            f"data={title}: the sets have {key}: {' and '.join(map(format_value, stated))}; expected one for all."
        )
    return stated[0] if stated else None
