"""The model, the optimizer and the schedule of a training, built from its settings and its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from detector.checkpoints.transfer import Transfer, transfer_weights
from detector.errors import CheckpointError
from detector.nn.model import DetectionModel, ModelConfig
from detector.settings import TrainSettings
from detector.training.finite import find_non_finite
from detector.training.optim import Recipe, build_optimizer, choose_recipe
from detector.training.schedule import Schedule


def build_model(
    settings: TrainSettings,
    config: ModelConfig,
    names: Mapping[int, str],
    weights: Mapping[str, Tensor] | None,
    weight_names: Mapping[int, str] | None,
) -> tuple[DetectionModel, Transfer | None]:
    """Build the model for the data's classes, under the seed, and give it the initial weights.

    Args:
        settings: seed and head.
        config: the architecture, for the data's images; its class names are replaced.
        names: class id -> name of the data.
        weights: state dict to start from, or None to start from random weights.
        weight_names: class id -> name of those weights.

    Returns:
        The model on the CPU, and which weights it was given.

    Raises:
        CheckpointError: if the weights to start from are not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = DetectionModel(replace(config, names=tuple(names.values())))
    model.select_head(settings.nms)
    if weights is None:
        return model, None
    if (name := find_non_finite({"weights": weights})) is not None:
        raise CheckpointError(
            f"can't train from weights that hold NaN or infinity ({name}); take an earlier file of that run, or start "
            "from others with pretrained="
        )
    return model, transfer_weights(model, weights, weight_names or {})


def build_optimization(
    settings: TrainSettings, model: DetectionModel, epochs: int, batches: int, batch_size: int
) -> tuple[Recipe, Optimizer, Schedule]:
    """Choose the recipe, and build the optimizer with its schedule.

    Gradients of `nbs` images are accumulated for one optimizer step, where a batch has fewer; weight decay is
    scaled by the actual number of images per step, so that it acts as strongly per image.

    Args:
        settings: the recipe's settings; `auto` and None are filled in.
        model: the model to train.
        epochs: planned epochs.
        batches: batches per epoch.
        batch_size: images per batch.
    """
    nominal = settings.nbs or batch_size
    accumulate = max(round(nominal / batch_size), 1)
    steps = batches * epochs // accumulate
    recipe = choose_recipe(
        settings.optimizer, settings.lr0, settings.warmup_bias_lr, model.num_classes, steps
    )
    decay = settings.weight_decay * batch_size * accumulate / nominal
    schedule = Schedule(
        epochs=epochs,
        batches=batches,
        lrf=settings.lrf,
        cosine=settings.cos_lr,
        warmup_epochs=settings.warmup_epochs,
        warmup_bias_lr=recipe.warmup_bias_lr,
        warmup_momentum=settings.warmup_momentum,
        momentum=settings.momentum,
        accumulate=min(accumulate, batches * epochs),
    )
    return recipe, build_optimizer(model, recipe, settings.momentum, decay), schedule
