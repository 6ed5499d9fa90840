"""From settings to loaders: the one place where data settings become plain values."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from detector.data.annotations import Annotations, build_annotations
from detector.data.augment import Augmentation
from detector.data.cache import CacheMode
from detector.data.config import DataConfig, load_data_config, located
from detector.data.dataset import DetectionDataset
from detector.data.epochs import EpochOrder
from detector.data.first_look import first_look
from detector.data.holdout import Fold
from detector.data.images import COLOUR, PixelFormat, describe_depth
from detector.data.layouts import has_labels
from detector.data.loader import TrainLoader, ValLoader
from detector.data.nearest import explain_no_labels
from detector.data.scan import reading_once
from detector.data.transforms import Transforms
from detector.errors import DataError, SettingsError, listed
from detector.files.folders import expand_home
from detector.scale.ranks import Ranks
from detector.settings import DataSettings, TrainSettings, fold_of

log = logging.getLogger(__name__)

MEMORY_FRACTION = 0.25  # of what is free, for decoded images

AUGMENTATION_KEYS = (
    "mosaic", "mixup", "degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr", "bgr",
    "hsv_h", "hsv_s", "hsv_v", "copy_paste", "cutmix",
)  # fmt: skip


class TrainingData:
    """The splits a training reads, and their loaders.

    Attributes:
        config: the data set.
        names: class id -> name the model is trained for.
        train_annotations: ground truth of the training split; likewise `val_annotations`.
        visits: the training images of every epoch; its length is their number.
        train_loader: augmented batches; `val_loader` letterboxed ones. Made by `make_loaders`.

    Raises:
        DataError: if the data set can't be used.
    """

    train_loader: TrainLoader
    val_loader: ValLoader

    def __init__(self, settings: TrainSettings, transforms: Sequence[Any] = ()) -> None:
        self.settings = settings
        self.transforms = Transforms(transforms) if transforms else None
        with reading_once():
            self.config = open_data(settings)
            self.train_annotations = read_split(self.config, "train", settings)
            self.val_annotations = read_split(self.config, "val", settings)
        self.names = dict(self.train_annotations.names)
        both = set(self.train_annotations.paths) & set(self.val_annotations.paths)
        if both and self.config.parts:
            log.warning(
                "%d images are trained and validated on, in different sets: %s",
                len(both),
                listed(sorted(both)),
            )
        self.visits = EpochOrder(self.train_annotations, settings.balance, settings.background)

    def make_loaders(
        self, batch: int, device: torch.device, form: PixelFormat = COLOUR, ranks: Ranks | None = None
    ) -> None:
        """Make both loaders, of images in the form the network takes; validation takes twice as many per batch.

        Args:
            batch: images of a batch, of all processes.
            device: of this process.
            form: what the network takes of an image.
            ranks: the processes that share the batches.
        """
        ranks = ranks or Ranks()
        settings = self.settings
        describe_depth(self.train_annotations.paths, form.value_range)
        workers = num_workers(settings.workers, device, ranks.local_size)
        augmentation = Augmentation(**{key: getattr(settings, key) for key in AUGMENTATION_KEYS})
        dataset = DetectionDataset(
            self.train_annotations,
            settings.imgsz,
            augmentation,
            seed=settings.seed,
            cache=cache_mode(settings),
            rect=settings.rect,
            rect_batch=batch,
            workers=workers,
            memory_fraction=MEMORY_FRACTION / ranks.local_size,
            transforms=self.transforms,
            visits=self.visits,
            form=form,
        )
        pin = device.type == "cuda"
        self.train_loader = TrainLoader(dataset, ranks.share_of(batch), workers, pin, ranks.rank, ranks.size)
        self.val_loader = make_val_loader(
            self.val_annotations, settings, 2 * batch, workers, device, form=form, ranks=ranks
        )

    def report_faults(self) -> None:
        """Say in a few lines what seems wrong with the data, if anything does; no file is read for it."""
        if lines := first_look(self.train_annotations, self.val_annotations, self.settings.imgsz):
            data = self.settings.data
            shown = "detector check" if isinstance(data, (dict, list)) else f"detector check data={data}"
            log.warning(
                "%s", "\n".join(["the data set has", *(f"  {line}" for line in lines), f"{shown} shows them"])
            )

    def class_weights(self, power: float) -> Tensor | None:
        """Return (C,) weights of mean 1, the inverse class frequency to this power; None for power 0.

        Absent classes get the mean of the present ones.
        """
        if not power:
            return None
        counts = torch.from_numpy(self.train_annotations.class_counts()).float()
        weights = counts.clamp(min=1).pow(-power)
        weights[counts == 0] = weights[counts > 0].mean()
        return weights / weights.mean()

    @cached_property
    def fingerprint(self) -> dict[str, dict[str, int | str]]:
        """What identifies this data: split -> counts and a checksum."""
        return {"train": self.train_annotations.fingerprint(), "val": self.val_annotations.fingerprint()}

    def close(self) -> None:
        """End the loaders' worker processes."""
        for loader in ("train_loader", "val_loader"):
            if hasattr(self, loader):
                getattr(self, loader).close()


def located_data(data: Any) -> Any:
    """Return `data` as it is to be saved: paths absolute, as the file may be read in another folder; names as given."""
    if data is None:
        return None
    if isinstance(data, list):
        return [located_data(part) for part in data]
    if isinstance(data, Mapping):
        return located(data)
    path = expand_home(data)
    try:
        return str(path.absolute() if path.exists() else data)
    except (OSError, ValueError):  # too long, or with a zero in it: opening it says so
        return str(data)


def open_data(settings: DataSettings) -> DataConfig:
    """Find the data set and say where it is."""
    if settings.data is None:
        raise DataError("data= is missing: name a data set, such as data=coco8.yaml")
    config = load_data_config(settings.data, validation_cut(settings.to_dict()))
    log.info("data: %s", config.describe())
    for class_id in settings.classes or []:
        if class_id not in config.names:
            raise SettingsError(
                f"classes={class_id}: {config.yaml_path.name} has classes 0-{config.num_classes - 1}"
            )
    return config


def validation_cut(settings: Mapping[str, Any]) -> float | Fold | None:
    """Return what `val` and `split` say of the images to validate on: a part, a fold, or None for those of a split."""
    fold, val = fold_of(settings.get("split", "val")), settings.get("val", True)
    if fold is not None:
        return Fold(*fold)
    return val if isinstance(val, float) else None


def read_split(config: DataConfig, split: str, settings: DataSettings) -> Annotations:
    """Read the labels of a split, or of a fold; `fraction` keeps the first part of the training images."""
    split = "val" if fold_of(split) else split
    labels = config.read_labels(split, settings.fraction if split == "train" else 1.0)
    annotations = build_annotations(
        labels,
        config.names,
        config.yaml_path.name,
        settings.single_cls,
        settings.classes,
        skip=settings.errors == "skip",
    )
    formats = ", ".join(dict.fromkeys(part.format for part in labels))
    if split == "train" and all(len(part.missing) == len(part.paths) for part in labels):
        _require_labels(config)
    log.info("%s: %d images, %d boxes (%s)", split, len(annotations), len(annotations.labels), formats)
    return annotations


def _require_labels(config: DataConfig) -> None:
    """Refuse training images, and validation images that are cut from them, of which none has a label file.

    Raises:
        DataError: with the nearest layout.
    """
    splits = ("train",) if config.cut is None else ("train", "val")
    images = [path for split in splits for path in config.split_images(split)]
    if not has_labels(map(str, images)):
        place = images[0].parent
        root = config.root if place.is_relative_to(config.root) else place.parent
        raise DataError(explain_no_labels([str(path) for path in images if path.is_relative_to(root)], root))


def make_val_loader(
    annotations: Annotations,
    settings: DataSettings,
    batch: int,
    workers: int,
    device: torch.device,
    rect: bool = True,
    form: PixelFormat = COLOUR,
    ranks: Ranks | None = None,
) -> ValLoader:
    """Make the loader of a validation split; its inputs have minimal padding (`rect`), or the full size.

    Processes that share it take whole batches, so that each of these is what one process alone would validate.
    """
    ranks = ranks or Ranks()
    dataset = DetectionDataset(
        annotations,
        settings.imgsz,
        cache=cache_mode(settings),
        rect=rect,
        workers=workers,
        memory_fraction=MEMORY_FRACTION / ranks.local_size,
        form=form,
    )
    return ValLoader(dataset, batch, workers, device.type == "cuda", ranks.rank, ranks.size)


def cache_mode(settings: DataSettings) -> CacheMode:
    """Return the loader's name for the `cache` setting."""
    return "ram" if settings.cache is True else settings.cache


def num_workers(workers: int | str, device: torch.device, trainings: int = 1) -> int:
    """Return how many processes load data: `auto` is one per core up to 8 for a GPU, else 0 (a thread).

    Args:
        workers: the setting.
        device: to train on.
        trainings: processes that share the machine's cores.
    """
    if isinstance(workers, int):
        return workers
    return 0 if device.type == "cpu" else max(min(8, (os.cpu_count() or 1) // trainings), 1)
