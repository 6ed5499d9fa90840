"""Run exported files: one small module per runtime, each with the interface `Runtime`.

A runtime is opened by `load(path, compute)` of its file; the table of formats in `detector.exporters` says which file
that is. What an exported file takes and gives is its `Contract`, read from the metadata inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

METADATA = "detector"
"""The key, or the name of the entry, that holds the metadata (JSON text) inside an exported file."""


@dataclass(frozen=True)
class TensorSpec:
    """The one input or output of a file.

    Attributes:
        shape: size of each dimension, None where it is free; None if the file does not say.
        dtype: of its numbers; None if the file does not say.
    """

    shape: tuple[int | None, ...] | None = None
    dtype: str | None = None


class Runtime(Protocol):
    """An exported file, ready to run.

    Attributes:
        metadata: what the file says of itself; empty if nothing.
        input: what it takes.
        output: what it gives.
        in_torch: torch computes it, on torch's own threads.
        takes_pixels: where the contract says (B, 3, H, W) float32, it also takes (B, H, W, 3) uint8 RGB.
    """

    metadata: Mapping[str, Any]
    input: TensorSpec
    output: TensorSpec
    in_torch: bool
    takes_pixels: bool

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Predict: images as the contract has them to predictions. Several threads may call it at once."""
        ...
