"""TorchScript, by tracing."""

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


def export(job: ExportSpec) -> Write:
    """Trace the network of a job; sizes stay free where `dynamic` is asked for, and are not checked otherwise."""
    network = job.network(torch.bfloat16 if job.precision == "bf16" else None, channels_last=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of TorchScript, and that a trace is a trace
        traced: Any = torch.jit.trace(network, job.example(), check_trace=False)  # type: ignore[no-untyped-call]
        traced = torch.jit.freeze(traced.eval())

    def write(path: Path, metadata: Mapping[str, Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced.save(str(path), _extra_files={METADATA: json.dumps(metadata)})

    return write
