"""ExecuTorch (.pte): a program for phones and small devices, with XNNPACK's kernels."""

from __future__ import annotations

import json
import logging
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
    """Capture the network of a job and lower it to XNNPACK."""
    with torch.no_grad(), warnings.catch_warnings(), quiet_torch():
        warnings.simplefilter("ignore")
        program = torch.export.export(job.network(), (job.example(),))

    def write(path: Path, metadata: Mapping[str, Any]) -> None:
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)  # it logs every step of the lowering
        try:
            with warnings.catch_warnings(), quiet_torch():
                warnings.simplefilter("ignore")
                path.write_bytes(_lower(program, json.dumps(metadata)))
        finally:
            logging.disable(level)

    return write


def _lower(program: torch.export.ExportedProgram, metadata: str) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(
        program, partitioner=[XnnpackPartitioner()], constant_methods={METADATA: metadata}
    )
    return bytes(edge.to_executorch().buffer)
