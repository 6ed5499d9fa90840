"""Image grids of what a network would see: training samples with all augmentation, or letterboxed images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detector.data.dataset import DetectionDataset, Key, TrainKey
from detector.data.images import COLOUR, PixelFormat
from detector.data.splits import DataConfig
from detector.data.transforms import as_list, load_transform, name_of
from detector.drawing import mosaic, write_image
from detector.engine.loaders import TrainingData, make_val_loader, open_data, read_split
from detector.engine.run_folder import open_run_folder
from detector.errors import DataError, SettingsError
from detector.messages import announce
from detector.settings import ShowSettings, fold_of
from detector.training.auto import batch_for, epochs_for, is_mosaic_closed

PER_GRID = 16  # images
BATCH = 16  # of rectangular batches


def show(**settings: Any) -> list[Path]:
    """Draw samples of a data set as a training with the same settings would see them.

    Args:
        **settings: those of `train`; `split`, `epoch` and `count`; see `detector show --help`. `data` is needed.

    Returns:
        The image files, in a run folder of their own.

    Raises:
        SettingsError: for wrong settings.
        DataError: if the data set can't be used.
    """
    transforms = as_list(settings.get("transforms"))
    if transforms:
        settings["transforms"] = [item if isinstance(item, str) else name_of(item) for item in transforms]
    return draw_samples(ShowSettings.parse(settings), transforms)


def draw_samples(settings: ShowSettings, transforms: Sequence[Any] = ()) -> list[Path]:
    """Do what `show` does, with checked settings.

    Args:
        settings: its settings.
        transforms: the user's, in place of the names in the settings.
    """
    announce(settings)
    if settings.data is None:
        raise DataError("data= is missing: name a data set, such as data=coco8.yaml")
    if "cache" not in settings.model_fields_set:
        settings.cache = False  # few images are read
    loaded = [load_transform(item) for item in transforms or as_list(settings.transforms)]
    is_train = settings.split == "train" or fold_of(settings.split) is not None
    dataset, keys = _train_samples(settings, loaded) if is_train else _plain_samples(settings)
    folder, _ = open_run_folder(settings.project, settings.name or "show", settings.exist_ok)
    stem = "train" if is_train else settings.split
    return [
        _draw(dataset, keys[start : start + PER_GRID], folder / f"{stem}{number}.jpg")
        for number, start in enumerate(range(0, len(keys), PER_GRID))
    ]


def _train_samples(settings: ShowSettings, transforms: Sequence[Any]) -> tuple[DetectionDataset, list[Key]]:
    """Return the training data and the first samples of the epoch."""
    data = TrainingData(settings, transforms)
    images = len(data.visits)
    epochs = epochs_for(images) if settings.epochs == "auto" else settings.epochs
    if settings.epoch >= epochs:
        raise SettingsError(f"epoch={settings.epoch}: expected 0 to {epochs - 1}, as epochs={epochs}")
    given = settings.batch
    batch = batch_for(images) if isinstance(given, str) or given < 1 else int(given)
    settings.workers = 0
    data.make_loaders(batch, torch.device("cpu"), _form_of(data.config))
    has_mosaic = not is_mosaic_closed(settings.epoch, epochs, settings.close_mosaic)
    positions = range(min(settings.count, images))
    return data.train_loader.dataset, [TrainKey(settings.epoch, k, has_mosaic) for k in positions]


def _plain_samples(settings: ShowSettings) -> tuple[DetectionDataset, list[Key]]:
    """Return the data of another split, and images spread over it."""
    config = open_data(settings)
    annotations = read_split(config, settings.split, settings)
    loader = make_val_loader(annotations, settings, BATCH, 0, torch.device("cpu"), form=_form_of(config))
    dataset = loader.dataset
    spread = np.linspace(0, len(dataset) - 1, min(settings.count, len(dataset))).round().astype(int)
    return dataset, spread.tolist()


def _form_of(config: DataConfig) -> PixelFormat:
    """Return what a network made for a data set takes of an image."""
    return PixelFormat(config.channels or COLOUR.channels, config.value_range)


def _draw(dataset: DetectionDataset, keys: Sequence[Key], path: Path) -> Path:
    samples = [dataset[key] for key in keys]
    targets = [sample.target for sample in samples]
    grid = mosaic(
        [sample.image.numpy() for sample in samples],
        [target.boxes for target in targets],
        [target.labels for target in targets],
        names=dataset.annotations.names,
        titles=[Path(target.path).name for target in targets],
        max_images=PER_GRID,
    )
    return write_image(path, grid)
