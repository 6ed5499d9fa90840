"""Batch-norm statistics of the averaged weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

STATISTICS_IMAGES = 32  # the statistics of more differ little (docs/small-data.md)
FORWARD_BATCHES = (
    4  # training batches in one forward pass without gradients, which takes a fraction of a step's memory
)


@torch.no_grad()
def recompute_statistics(average: nn.Module, model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of averaged weights by their own on some batches (precise batch norm).

    A running statistic is of the weights of the last 1 / momentum steps. Where weights move fast, as in the first
    hundreds of steps, it fits neither the model nor the average of its weights: training, which normalises by
    each batch, goes well while every validation fails. The mean over batches of the current weights' statistics,
    each with the weight of its images, fits them by construction (Wu & Johnson, Rethinking "Batch" in BatchNorm,
    arXiv:2105.07576, section 3).

    Args:
        average: the network with averaged weights, in eval mode; its statistics are changed.
        model: the network that is trained. What is in eval mode there, such as frozen layers, keeps its statistics.
        batches: (B, 3, H, W) float, as in training; without any, nothing changes.
    """
    layers: list[tuple[_BatchNorm, float | None]] = []
    for mine, trained in zip(average.modules(), model.modules(), strict=True):
        mine.training = trained.training
        if isinstance(mine, _BatchNorm) and mine.training and mine.track_running_stats:
            layers.append((mine, mine.momentum))
    seen = 0
    try:
        for images in batches:
            seen += len(images)
            for layer, _ in layers:
                layer.momentum = len(images) / seen  # 1 for the first batch: what was there is forgotten
            average(images)
    finally:
        for layer, momentum in layers:
            layer.momentum = momentum
        average.eval()


def join_batches(batches: Iterable[Tensor], limit: int) -> Iterator[Tensor]:
    """Join batches of one shape to at most `limit` images each; one that is larger stays as it is.

    Statistics of one large batch fit together from layer to layer. Those of several small ones don't: each layer's
    are then the mean over inputs that were normalised differently, and where a batch shows few images an error
    grows with the depth.

    Args:
        batches: (B, 3, H, W), any dtype.
        limit: images.
    """
    joined: list[Tensor] = []
    for images in batches:
        fits = sum(map(len, joined)) + len(images) <= limit
        if joined and (not fits or images.shape[1:] != joined[0].shape[1:]):
            yield torch.cat(joined)
            joined = []
        joined.append(images)
    if joined:
        yield torch.cat(joined)
