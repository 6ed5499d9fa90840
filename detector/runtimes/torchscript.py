"""TorchScript, run by torch on the CPU."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detector.errors import ExportError, first_line
from detector.runtimes import METADATA, TensorSpec
from detector.runtimes.contract import read_metadata


class TorchScript:
    """A TorchScript program; it says nothing of its shapes but in its metadata."""

    in_torch = True
    takes_pixels = False

    def __init__(self, path: Path, compute: str | None = None) -> None:
        import torchvision  # noqa: F401  registers the suppression that a program may call

        extra = {METADATA: ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch announces the end of TorchScript
                program: Any = torch.jit.load(path, map_location="cpu", _extra_files=extra)  # type: ignore[no-untyped-call]
                self.program = program.eval()
        except (RuntimeError, OSError, ValueError) as error:
            raise ExportError(f"{path}: torch can't open it as TorchScript ({first_line(error)})") from None
        self.metadata = read_metadata(extra[METADATA])
        self.input, self.output = TensorSpec(), TensorSpec()

    @torch.inference_mode()
    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        preds: NDArray[np.float32] = self.program(torch.from_numpy(images)).numpy()
        return preds


def load(path: Path, compute: str | None = None) -> TorchScript:
    """Open a file; `compute` is ignored, since this runtime offers no choice."""
    return TorchScript(path, compute)
