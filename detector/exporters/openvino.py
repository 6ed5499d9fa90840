"""OpenVINO: a folder with the network's .xml and .bin, made from its ONNX form."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from detector.errors import MissingPackageError
from detector.exporters import Write
from detector.exporters.job import ExportSpec
from detector.exporters.onnx import to_onnx
from detector.runtimes import METADATA
from detector.runtimes.openvino import the_core


def export(job: ExportSpec) -> Write:
    """Convert the network of a job; fp16 stores the weights so, int8 is calibrated on the job's images."""
    import onnx
    import openvino

    the_core()  # before nncf creates its own
    with TemporaryDirectory() as folder:
        file = Path(folder, "network.onnx")
        onnx.save(to_onnx(job), file)
        network = openvino.convert_model(file)
    if job.precision == "int8":
        network = quantize(network, job)

    def write(path: Path, metadata: Mapping[str, Any]) -> None:
        path.mkdir(parents=True, exist_ok=True)
        network.set_rt_info(json.dumps(metadata), [METADATA])
        openvino.save_model(network, path / "model.xml", compress_to_fp16=job.precision == "fp16")

    return write


def quantize(network: Any, job: ExportSpec) -> Any:
    """Quantise a network to int8, all but what follows its last convolutions: boxes need more than 256 steps."""
    # on import nncf asks torch for CUDA's compiler, which logs that it is missing
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    try:
        import nncf
    except ImportError as error:
        raise MissingPackageError(
            "int8=true needs the nncf package: pip install 'detector[openvino]'"
        ) from error
    logging.getLogger("nncf").setLevel(logging.WARNING)
    images = list(job.calibration())
    with redirect_stdout(sys.stderr):  # its progress bars; standard output is for results
        return nncf.quantize(
            network,
            nncf.Dataset(images),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=names_after_convolutions(network), validate=False),
        )


def names_after_convolutions(network: Any) -> list[str]:
    """Return the names of the operations between the last convolutions and the outputs."""
    todo, seen = list(network.get_results()), set()
    while todo:
        node = todo.pop()
        for place in node.inputs():
            before = place.get_source_output().get_node()
            name = before.get_friendly_name()
            if name not in seen and "Convolution" not in before.get_type_name():
                seen.add(name)
                todo.append(before)
    kinds = {op.get_friendly_name(): op.get_type_name() for op in network.get_ops()}
    return sorted(name for name in seen if kinds[name] not in ("Constant", "Parameter", "Result"))
