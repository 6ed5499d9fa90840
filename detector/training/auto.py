"""What `auto` stands for where it depends on the number of training images."""

from __future__ import annotations

FULL_BATCH, SMALL_BATCH = 16, 8
STEPS = 20  # an epoch with fewer steps of full batches has small ones

IMAGES = 30_000  # seen in a run, as far as the limits of the epochs allow
MIN_EPOCHS, MAX_EPOCHS = 50, 300


def batch_for(images: int) -> int:
    """Return the batch size for a data set: 16, or 8 where an epoch would have less than 20 steps.

    What a network learns depends on its steps, and a small data set has few of them in an epoch (what it gave and
    cost: docs/small-data.md).

    Args:
        images: of the training split.
    """
    return FULL_BATCH if images >= STEPS * FULL_BATCH else SMALL_BATCH


def epochs_for(images: int) -> int:
    """Return the epochs for a data set: as many as show 30,000 images, between 50 and 300; not measured yet.

    Args:
        images: of the training split.
    """
    return min(max(round(IMAGES / images), MIN_EPOCHS), MAX_EPOCHS)


def is_mosaic_closed(epoch: int, epochs: int, close_mosaic: int | float) -> bool:
    """Return whether an epoch is one of the last ones, which mix no images: no mosaic, mixup, cutmix or copy_paste.

    Args:
        epoch: from 0.
        epochs: of the run.
        close_mosaic: how many are the last ones, or, below 1, which part of the run.
    """
    last = round(close_mosaic * epochs) if close_mosaic < 1 else close_mosaic
    return bool(epoch >= epochs - last)
