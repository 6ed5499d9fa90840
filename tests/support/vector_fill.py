"""The reproducible numbers that the vectors in `tests/vectors` were computed from."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "vectors.json").read_text())


def hashed(count: int, seed: int) -> Tensor:
    """(count,) float64 in [0, 1): an integer hash of position and seed."""
    mask = np.uint64(0xFFFFFFFF)
    h = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(seed * 40503 + 12345)) & mask
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(2246822519)) & mask
    h ^= h >> np.uint64(13)
    h = (h * np.uint64(3266489917)) & mask
    h ^= h >> np.uint64(16)
    return torch.from_numpy(h.astype(np.float64) / 2**32)


def fill(model: nn.Module) -> None:
    """Give every tensor of a float64 model the values the vectors were computed with."""
    for key, tensor in model.state_dict().items():
        if key.endswith(("num_batches_tracked", "dfl.conv.weight")):
            continue
        u = hashed(tensor.numel(), zlib.crc32(key.encode()) % 100003).view(tensor.shape)
        if tensor.ndim == 4:
            value = (2 * u - 1) * (7 / tensor[0].numel()) ** 0.5
        elif key.endswith("bn.weight"):
            value = 0.9 + 0.2 * u
        elif key.endswith("running_var"):
            value = 0.8 + 0.4 * u
        else:
            value = 0.2 * u - 0.1
        tensor.copy_(value)
