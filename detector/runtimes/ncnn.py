"""ncnn, on the CPU; one image at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.device import usable_cores
from detector.errors import ExportError
from detector.runtimes import TensorSpec
from detector.runtimes.contract import read_metadata

PARAM, BIN, METADATA_FILE = "model.ncnn.param", "model.ncnn.bin", "detector.json"
INPUT, OUTPUT = "in0", "out0"  # as pnnx names them


class Ncnn:
    """A folder with one network in ncnn."""

    in_torch = False
    takes_pixels = False

    def __init__(self, path: Path, compute: str | None = None) -> None:
        import ncnn

        missing = [name for name in (PARAM, BIN) if not (path / name).is_file()]
        if missing:
            raise ExportError(f"{path}: expected a folder with {PARAM} and {BIN}; there is no {missing[0]}")
        self.make_input = ncnn.Mat
        self.network = ncnn.Net()
        self.network.opt.num_threads = usable_cores()
        self.network.opt.use_fp16_arithmetic = False
        if self.network.load_param(str(path / PARAM)) or self.network.load_model(str(path / BIN)):
            raise ExportError(f"{path}: ncnn can't open it, a file in it is damaged")
        about = path / METADATA_FILE
        self.metadata = read_metadata(about.read_bytes() if about.is_file() else None)
        self.input, self.output = TensorSpec(), TensorSpec()

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        return np.stack([self._run(image) for image in images])

    def _run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        extractor = self.network.create_extractor()
        extractor.input(INPUT, self.make_input(image))  # a view: `image` outlives the call
        code, found = extractor.extract(OUTPUT)
        if code:
            raise RuntimeError(f"ncnn gives code {code}")
        return np.array(found, np.float32)


def load(path: Path, compute: str | None = None) -> Ncnn:
    """Open a folder; `compute` is ignored, since this runtime offers no choice."""
    return Ncnn(path, compute)
