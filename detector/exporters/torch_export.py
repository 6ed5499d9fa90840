"""The `.pt2` format: a program captured by torch.export, which runs with torch alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detector.exporters import Runtime

METADATA = "metadata.json"


def export(network: nn.Module, images: Tensor, path: Path, metadata: Mapping[str, Any]) -> None:
    """Capture a network for inputs of the example's shape and write it, with the metadata inside."""
    program = torch.export.export(network, (images,))
    torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata)})


def load(path: Path) -> tuple[Runtime, dict[str, Any]]:
    """Read the program back; returns what runs it, and the metadata."""
    extra = {METADATA: ""}
    module = torch.export.load(path, extra_files=extra).module()

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            preds: Tensor = module(images)
        return preds

    return run, json.loads(extra[METADATA])
