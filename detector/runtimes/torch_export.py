"""Programs captured by torch.export (.pt2), run by torch on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detector.errors import ExportError, first_line
from detector.runtimes import METADATA, TensorSpec
from detector.runtimes.contract import read_metadata


class TorchExport:
    """A captured program."""

    in_torch = True
    takes_pixels = False

    def __init__(self, path: Path, compute: str | None = None) -> None:
        import torchvision  # noqa: F401  registers the suppression that a program may call

        extra = {METADATA: ""}
        try:
            with quiet_torch():
                program = torch.export.load(path, extra_files=extra)
            self.program = program.module()
        except Exception as error:  # a damaged archive may raise anything
            raise ExportError(
                f"{path}: torch can't open it as a .pt2 program ({first_line(error)})"
            ) from None
        self.metadata = read_metadata(extra[METADATA])
        self.input, self.output = _ports(program)

    @torch.inference_mode()
    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        preds: NDArray[np.float32] = self.program(torch.from_numpy(images)).numpy()
        return preds


def load(path: Path, compute: str | None = None) -> TorchExport:
    """Open a file; `compute` is ignored, since this runtime offers no choice."""
    return TorchExport(path, compute)


def _ports(program: torch.export.ExportedProgram) -> tuple[TensorSpec, TensorSpec]:
    """Return shapes and dtypes of a program's input and output."""
    signature = program.graph_signature
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    ports = []
    for names in (signature.user_inputs, signature.user_outputs):
        value = values.get(str(names[0])) if len(names) == 1 else None
        if not isinstance(value, torch.Tensor):
            ports.append(TensorSpec())
            continue
        shape = tuple(size if isinstance(size, int) else None for size in value.shape)
        ports.append(TensorSpec(shape, str(value.dtype).removeprefix("torch.")))
    return ports[0], ports[1]


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Keep torch's own messages about exporting and loading off the terminal."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
