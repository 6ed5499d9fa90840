"""From settings to loaders: the one place where data settings become plain values."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.data.annotations import Annotations, build_annotations
from detector.data.augment import Augmentation
from detector.data.cache import CacheMode
from detector.data.config import DataConfig, load_data_config
from detector.data.dataset import DetectionDataset
from detector.data.epochs import EpochOrder
from detector.data.loader import TrainLoader, ValLoader
from detector.data.transforms import Transforms
from detector.errors import DataError, SettingsError
from detector.files.folders import expand_home
from detector.settings import DataSettings, TrainSettings

log = logging.getLogger(__name__)

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
        self.config = open_data(settings)
        self.train_annotations = read_split(self.config, "train", settings)
        self.val_annotations = read_split(self.config, "val", settings)
        self.names = dict(self.train_annotations.names)
        self.visits = EpochOrder(self.train_annotations, settings.balance, settings.background)

    def make_loaders(self, batch: int, device: torch.device) -> None:
        """Make both loaders; validation takes twice as many images per batch."""
        settings = self.settings
        workers = num_workers(settings.workers, device)
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
            transforms=self.transforms,
            visits=self.visits,
        )
        self.train_loader = TrainLoader(dataset, batch, workers, pin_memory=device.type == "cuda")
        self.val_loader = make_val_loader(self.val_annotations, settings, 2 * batch, workers, device)

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


def located_data(data: str | Path | None) -> str | None:
    """Return `data` as it is to be saved: a path absolute, as the file may be read in another folder; else as it is."""
    if data is None:
        return None
    path = expand_home(data)
    try:
        return str(path.absolute() if path.exists() else data)
    except (OSError, ValueError):  # too long, or with a zero in it: opening it says so
        return str(data)


def open_data(settings: DataSettings) -> DataConfig:
    """Find the data set and say where it is."""
    if settings.data is None:
        raise DataError("data= is missing: name a data set, such as data=coco8.yaml")
    config = load_data_config(settings.data)
    log.info("data: %s", config.describe())
    for class_id in settings.classes or []:
        if class_id not in config.names:
            raise SettingsError(
                f"classes={class_id}: {config.yaml_path.name} has classes 0-{config.num_classes - 1}"
            )
    return config


def read_split(config: DataConfig, split: str, settings: DataSettings) -> Annotations:
    """Read the labels of a split; `fraction` keeps the first part of the training images."""
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
    log.info("%s: %d images, %d boxes (%s)", split, len(annotations), len(annotations.labels), formats)
    return annotations


def make_val_loader(
    annotations: Annotations,
    settings: DataSettings,
    batch: int,
    workers: int,
    device: torch.device,
    rect: bool = True,
) -> ValLoader:
    """Make the loader of a validation split; its inputs have minimal padding (`rect`), or are square."""
    dataset = DetectionDataset(
        annotations, settings.imgsz, cache=cache_mode(settings), rect=rect, workers=workers
    )
    return ValLoader(dataset, batch, workers, pin_memory=device.type == "cuda")


def cache_mode(settings: DataSettings) -> CacheMode:
    """Return the loader's name for the `cache` setting."""
    return "ram" if settings.cache is True else settings.cache


def num_workers(workers: int | str, device: torch.device) -> int:
    """Return how many processes load data: `auto` is one per core up to 8 for a GPU, else 0 (a thread)."""
    if isinstance(workers, int):
        return workers
    return 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
