"""OpenVINO, on the CPU; computes in float32 or bfloat16 as asked."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.errors import ExportError
from detector.runtimes import METADATA, Port, first_line
from detector.runtimes.contract import read_metadata

HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVino:
    """A folder with one network (.xml and .bin) in OpenVINO."""

    in_torch = False

    def __init__(self, path: Path, compute: str | None = None) -> None:
        file = network_file(path)
        config = {"PERFORMANCE_HINT": "LATENCY"}
        if compute is not None:
            config["INFERENCE_PRECISION_HINT"] = HINTS[compute]
        try:
            network = the_core().read_model(file)
            self.compiled = the_core().compile_model(network, "CPU", config)
        except Exception as error:  # its errors share no base class
            raise ExportError(f"{path}: OpenVINO can't open it ({_reason(error)})") from None
        if len(network.inputs) != 1 or not network.outputs:
            raise ExportError(
                f"{path}: has {len(network.inputs)} inputs and {len(network.outputs)} outputs; expected a detector "
                f"with one of each"
            )
        self.input, self.output = _port(network.inputs[0]), _port(network.outputs[0])
        told = network.get_rt_info(METADATA).value if network.has_rt_info(METADATA) else None
        self.metadata = read_metadata(told)
        self._request = self.compiled.create_infer_request()

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Predict; the result is the caller's own."""
        self._request.infer([images], share_inputs=True)
        preds: NDArray[np.float32] = self._request.get_output_tensor(0).data.copy()
        return preds


@cache
def the_core() -> Any:
    """Return the one core of this process; it is never dropped.

    A core gives its thread a signal stack and takes it back when it is dropped. Of two cores, dropped in the order
    they were made, the second puts back that of the first, which is gone: the next signal that Python handles, such
    as the end of a child process, then kills the process (seen with OpenVINO 2026.4).
    """
    import openvino

    return openvino.Core()


def load(path: Path, compute: str | None = None) -> OpenVino:
    """Open a folder, or the .xml file in it.

    Args:
        path: what to open.
        compute: fp32, bf16, or None for OpenVINO's own choice.
    """
    return OpenVino(path, compute)


def network_file(path: Path) -> Path:
    """Return the one .xml file of a folder.

    Raises:
        ExportError: if there is none, or several.
    """
    if path.suffix == ".xml":
        return path
    found = sorted(path.glob("*.xml"))
    if len(found) != 1:
        raise ExportError(
            f"{path}: expected a folder with one .xml file and its .bin, as OpenVINO writes; it has {len(found)}"
        )
    return found[0]


def _port(node: Any) -> Port:
    partial = node.get_partial_shape()
    if partial.rank.is_dynamic:
        shape = None
    else:
        shape = tuple(None if size.is_dynamic else size.get_length() for size in partial)
    kind = node.get_element_type().to_dtype()
    return Port(shape, np.dtype(kind).name)


def _reason(error: Exception) -> str:
    """Return the line of an error that says something: OpenVINO puts the places in its source first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check "))]
    return first_line(Exception((telling or lines or [""])[0]))
