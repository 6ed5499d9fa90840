"""ONNX Runtime, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.device import usable_cores
from detector.errors import ExportError, first_line
from detector.runtimes import METADATA, TensorSpec
from detector.runtimes.contract import read_metadata

DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(float16)": "float16"}


class OnnxRuntime:
    """An ONNX file in ONNX Runtime.

    Its threads spin while a network runs, which is quickest, and stop at its end: otherwise they would take the
    cores away from other work.
    """

    in_torch = False
    takes_pixels = False

    def __init__(self, path: Path, compute: str | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = usable_cores()
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base class
            raise ExportError(f"{path}: ONNX Runtime can't open it ({first_line(error)})") from None
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or not outputs:
            raise ExportError(
                f"{path}: has {len(inputs)} inputs and {len(outputs)} outputs; expected a detector with one of each"
            )
        self.input, self.output = _spec(inputs[0]), _spec(outputs[0])
        self.metadata = read_metadata(self.session.get_modelmeta().custom_metadata_map.get(METADATA))
        self._names = inputs[0].name, [outputs[0].name]

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        preds: NDArray[np.float32] = self.session.run(self._names[1], {self._names[0]: images})[0]
        return preds


def load(path: Path, compute: str | None = None) -> OnnxRuntime:
    """Open a file; `compute` is ignored, since this runtime offers no choice."""
    return OnnxRuntime(path, compute)


def _spec(node: Any) -> TensorSpec:
    shape = None if node.shape is None else tuple(n if isinstance(n, int) else None for n in node.shape)
    return TensorSpec(shape, DTYPES.get(node.type, node.type))
