"""The `.pt2` format: a program captured by torch.export, which runs with torch alone."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from detector.exporters import Write
from detector.exporters.job import ExportSpec
from detector.runtimes import METADATA
from detector.runtimes.torch_export import quiet_torch


def export(job: ExportSpec) -> Write:
    """Capture the network of a job."""
    network = job.network(torch.bfloat16 if job.precision == "bf16" else None, channels_last=True)
    with torch.no_grad(), warnings.catch_warnings(), quiet_torch():
        warnings.simplefilter("ignore")  # of torchvision's and torch's own parts
        program = torch.export.export(network, (job.example(),), dynamic_shapes=job.dynamic_shapes())

    def write(path: Path, metadata: Mapping[str, Any]) -> None:
        with warnings.catch_warnings(), quiet_torch():
            warnings.simplefilter("ignore")
            torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata)})

    return write
