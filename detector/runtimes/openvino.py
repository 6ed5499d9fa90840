"""OpenVINO, on the CPU; computes in float32 or bfloat16 as asked."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.errors import ExportError, first_line
from detector.runtimes import METADATA, TensorSpec
from detector.runtimes.contract import read_metadata

HINTS = {"fp32": "f32", "bf16": "bf16"}
MAX_COMPILED = 4  # models compiled for one input shape each: every one has its own copy of the weights


class OpenVino:
    """A folder with one network (.xml and .bin) in OpenVINO.

    Besides what the network takes, it takes pixels, (B, H, W, 3) uint8 RGB, which OpenVINO itself turns into the
    network's floats. Where sizes are free, the first four input shapes each get a compiled model, made when the
    shape first occurs; these are quicker than the one for any shape, which all further shapes share.
    """

    in_torch = False

    def __init__(self, path: Path, compute: str | None = None) -> None:
        file = network_file(path)
        self._config = {"PERFORMANCE_HINT": "LATENCY"}
        if compute is not None:
            self._config["INFERENCE_PRECISION_HINT"] = HINTS[compute]
        self._lock = Lock()  # a request holds the input and the output of one call
        self._requests: dict[tuple[bool, tuple[int, ...] | None], Any] = {}
        try:
            self._network = the_core().read_model(file)
            inputs, outputs = self._network.inputs, self._network.outputs
            if len(inputs) != 1 or not outputs:
                raise ExportError(
                    f"{path}: has {len(inputs)} inputs and {len(outputs)} outputs; expected a detector with one of "
                    f"each"
                )
            self.input, self.output = _spec(inputs[0]), _spec(outputs[0])
            self.takes_pixels = _takes_floats(self.input)
            self._free = self.input.shape is None or None in self.input.shape
            if not self._free:
                self._requests[self.takes_pixels, None] = self._compile(self.takes_pixels, None)
        except ExportError:
            raise
        except Exception as error:  # its errors share no base class
            raise ExportError(f"{path}: OpenVINO can't open it ({_reason(error)})") from None
        text = self._network.get_rt_info(METADATA).value if self._network.has_rt_info(METADATA) else None
        self.metadata = read_metadata(text)

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Predict; the result is the caller's own."""
        with self._lock:
            request = self._request(self.takes_pixels and images.dtype == np.uint8, images.shape)
            request.infer([images], share_inputs=True)
            preds: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
            return preds

    def _request(self, pixels: bool, shape: tuple[int, ...]) -> Any:
        """Return the compiled model for an input: for its shape alone, or for any."""
        key = pixels, shape if self._free else None
        if key not in self._requests and len(self._requests) >= MAX_COMPILED:
            key = pixels, None
        if key not in self._requests:
            self._requests[key] = self._compile(*key)
        return self._requests[key]

    def _compile(self, pixels: bool, shape: tuple[int, ...] | None) -> Any:
        """Compile the network for pixels or for what it takes, and for one shape or as it is."""
        from openvino import Layout, Type
        from openvino.preprocess import PrePostProcessor

        network = self._network.clone()
        if pixels:
            steps = PrePostProcessor(network)
            steps.input().tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
            steps.input().model().set_layout(Layout("NCHW"))
            steps.input().preprocess().convert_element_type(Type.f32).scale(255.0)
            network = steps.build()
        if shape is not None:
            network.reshape(list(shape))
        return the_core().compile_model(network, "CPU", self._config).create_infer_request()


_making_core = Lock()


def the_core() -> Any:
    """Return the only OpenVINO core of this process, see `_core`; threads that ask at once get the same."""
    with _making_core:
        return _core()


@cache
def _core() -> Any:
    """Return the only OpenVINO core of this process; it is never dropped.

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


def _spec(node: Any) -> TensorSpec:
    partial = node.get_partial_shape()
    if partial.rank.is_dynamic:
        shape = None
    else:
        shape = tuple(None if size.is_dynamic else size.get_length() for size in partial)
    kind = node.get_element_type().to_dtype()
    return TensorSpec(shape, np.dtype(kind).name)


def _takes_floats(spec: TensorSpec) -> bool:
    """Whether an input is (B, 3, H, W) or (B, 1, H, W) float32."""
    shape = spec.shape
    return spec.dtype == "float32" and shape is not None and len(shape) == 4 and shape[1] in (1, 3)


def _reason(error: Exception) -> str:
    """Return the line of an error that says something: OpenVINO puts the places in its source first."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = "\n".join(line for line in lines if not line.startswith(("Exception from", "Check ")))
    return first_line(RuntimeError(telling) if telling.strip() else error)
