"""ExecuTorch, on the CPU."""

from __future__ import annotations

import warnings
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detector.errors import ExportError, first_line
from detector.runtimes import METADATA, TensorSpec
from detector.runtimes.contract import read_metadata


class ExecuTorch:
    """A program in ExecuTorch; its metadata is a method that returns text."""

    in_torch = False
    takes_pixels = False

    def __init__(self, path: Path, compute: str | None = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls itself experimental
            from executorch.runtime import Runtime

        self._lock = Lock()  # a program has one memory for the output of every call
        try:
            self.program = Runtime.get().load_program(path)
            self.forward = self.program.load_method("forward")
            has_metadata = METADATA in self.program.method_names
            text = self.program.load_method(METADATA).execute(())[0] if has_metadata else None
        except Exception as error:  # its errors share no base class
            raise ExportError(f"{path}: ExecuTorch can't open it ({first_line(error)})") from None
        self.metadata = read_metadata(text)
        self.input, self.output = TensorSpec(), TensorSpec()

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Predict; the result is the caller's own."""
        with self._lock:
            preds: NDArray[np.float32] = self.forward.execute((torch.from_numpy(images),))[0].numpy().copy()
            return preds


def load(path: Path, compute: str | None = None) -> ExecuTorch:
    """Open a file; `compute` is ignored, since this runtime offers no choice."""
    return ExecuTorch(path, compute)
