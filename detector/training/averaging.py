"""The mean of the weights of several epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from detector.checkpoints.checkpoint import load_checkpoint


def mean_weights(paths: Sequence[Path]) -> dict[str, Tensor]:
    """Return the mean of the weights in some checkpoints of one network; whole numbers are those of the last.

    Uniform averages of points of one run generalise better than the last of them (Izmailov et al., Averaging Weights
    Leads to Wider Optima, arXiv:1803.05407); batch-norm statistics have to be computed again afterwards.

    Raises:
        CheckpointError: if a file can't be read.
    """
    total: dict[str, Tensor] = {}
    for path in paths:
        for key, value in load_checkpoint(path)["weights"].items():
            if value.is_floating_point():
                total[key] = total.get(key, torch.zeros((), dtype=torch.float64)) + value.double() / len(
                    paths
                )
            else:
                total[key] = value
    return {key: value.float() if value.is_floating_point() else value for key, value in total.items()}
