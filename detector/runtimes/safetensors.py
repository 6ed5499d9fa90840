"""Weights in a .safetensors file, put back into the network they describe and run by torch on the CPU.

`YOLO("best.safetensors")` opens such a file as the checkpoint it is; this proves an exported one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detector.nn.model import DetectionModel, ModelConfig
from detector.runtimes import METADATA, Port


class Weights:
    """A network with the weights of a file."""

    in_torch = True
    takes_pixels = False

    def __init__(self, path: Path, compute: str | None = None) -> None:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            content = json.loads(file.metadata()[METADATA])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        network = DetectionModel(ModelConfig.from_dict(content["model"], str(path)))
        network.load_state_dict(weights)
        self.metadata = content["export"]
        network.head.selected = self.metadata["head"]
        self.network = network.fuse()
        self.input, self.output = Port(), Port()

    @torch.inference_mode()
    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Predict."""
        preds = self.network(torch.from_numpy(images))[self.network.selected_head]
        decoded: NDArray[np.float32] = self.network.decode(preds).numpy()
        return decoded


def load(path: Path, compute: str | None = None) -> Weights:
    """Open a file."""
    return Weights(path, compute)
