"""Batch-norm statistics of the averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

STATISTICS_IMAGES = 32  # the statistics of more differ little (docs/small-data.md)
YOUNG_STEPS = 100  # from here on 32 images of any size are enough, as the weights move slowly
YOUNG_SIDE = 320  # px; before that, there are as many pixels as 32 images of this side have,
YOUNG_IMAGES = 128  # in this many images at most
FORWARD_BATCHES = (
    4  # training batches in one forward pass without gradients, which takes a fraction of a step's memory
)


def part_to_keep(steps: int) -> float:
    """Return the part of the running statistics that a network still has after some optimizer steps: e^(-steps / 4).

    With exact statistics a fresh network is a random function that amplifies, from layer to layer, what an image has
    that the images of the statistics don't have. Running statistics begin with a variance of 1, several times that of
    a fresh convolution's output, at which no layer amplifies anything; a part of a hundredth is still a tenth more
    variance. After some 25 steps nothing is left of it, as the weights outrun running statistics and only exact
    ones fit (docs/small-data.md has the losses).
    """
    return math.exp(-steps / 4) if steps < YOUNG_STEPS else 0.0


def images_for_statistics(steps: int, height: int, width: int) -> int:
    """Return how many images the statistics are of, after some optimizer steps on images of `height` x `width` pixels.

    A fresh network amplifies the error of its statistics, too, and images of 96 x 96 have 9 positions each at stride
    32. So in the first hundred steps there are as many pixels as in 32 images of 320 x 320, in up to 128 images.
    """
    if steps >= YOUNG_STEPS:
        return STATISTICS_IMAGES
    wanted = math.ceil(STATISTICS_IMAGES * YOUNG_SIDE**2 / (height * width))
    return min(max(wanted, STATISTICS_IMAGES), YOUNG_IMAGES)


@torch.no_grad()
def recompute_statistics(
    average: nn.Module, model: nn.Module, batches: Iterable[Tensor], keep: float = 0.0
) -> None:
    """Replace the statistics of averaged weights, or a part of them, by their own on some batches (precise batch norm).

    A running statistic is of the weights of the last 1 / momentum steps. Where weights move fast, as in the first
    hundreds of steps, it fits neither the model nor the average of its weights: training, which normalises by
    each batch, goes well while every validation fails. The mean over batches of the current weights' statistics,
    each with the weight of its images, fits them by construction (Wu & Johnson, Rethinking "Batch" in BatchNorm,
    arXiv:2105.07576, section 3).

    Args:
        average: the network with averaged weights, in eval mode; its statistics are changed.
        model: the network that is trained. What is in eval mode there, such as frozen layers, keeps its statistics.
        batches: (B, 3, H, W) float, as in training; without any, nothing changes.
        keep: the part of the model's running statistics in the result, 0..1.
    """
    layers: list[tuple[_BatchNorm, float | None]] = []
    running: list[tuple[Tensor, Tensor]] = []
    for mine, trained in zip(average.modules(), model.modules(), strict=True):
        mine.training = trained.training
        if isinstance(mine, _BatchNorm) and mine.training and mine.track_running_stats:
            layers.append((mine, mine.momentum))
            running += [
                (own, trained.get_buffer(name))
                for name, own in mine.named_buffers()
                if own.is_floating_point()
            ]
    seen = 0
    try:
        for images in batches:
            seen += len(images)
            for layer, _ in layers:
                layer.momentum = len(images) / seen  # 1 for the first batch: what was there is forgotten
            average(images)
        if seen and keep:
            for own, theirs in running:
                own.lerp_(theirs, keep)
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
