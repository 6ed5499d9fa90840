"""Weights as `.safetensors`, with the architecture beside them: what `YOLO("best.safetensors")` opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from detector.exporters import Write
from detector.exporters.job import Job
from detector.runtimes import METADATA

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def export(job: Job) -> Write:
    """Take the weights of a job, unfused: they can be trained on."""
    from safetensors.torch import save_file

    dtype = DTYPES[job.precision]
    weights = {
        name: value.to(dtype if value.is_floating_point() else value.dtype).contiguous()
        for name, value in job.model.state_dict().items()
    }

    def write(path: Path, metadata: Mapping[str, Any]) -> None:
        content = json.dumps({**job.checkpoint, "export": metadata})
        save_file(weights, path, metadata={"format": "pt", METADATA: content})

    return write
