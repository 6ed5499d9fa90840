"""ONNX, through torch's exporter."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.exporters import Write
from detector.exporters.job import ExportSpec
from detector.runtimes import METADATA
from detector.runtimes.torch_export import quiet_torch

OPSET = 20


def export(job: ExportSpec) -> Write:
    """Capture the network of a job as ONNX."""
    import onnx

    model = to_onnx(job, torch.float16 if job.precision == "fp16" else None)

    def write(path: Path, metadata: Mapping[str, Any]) -> None:
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {METADATA: json.dumps(metadata)})
        onnx.save(model, path)

    return write


def to_onnx(job: ExportSpec, dtype: torch.dtype | None = None) -> Any:
    """Return the network of a job as an ONNX model in memory.

    Args:
        job: the export.
        dtype: of the convolutions; None for float32.
    """
    suppress = torch.ops.detector.suppress if hasattr(torch.ops.detector, "suppress") else None
    suppress = suppress or _declare_suppress()
    with warnings.catch_warnings(), quiet_torch():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        program = torch.onnx.export(
            job.network(dtype, suppress),
            (job.example(),),
            dynamo=True,
            dynamic_shapes=job.dynamic_shapes(),
            input_names=["images"],
            output_names=["preds"],
            opset_version=job.opset or OPSET,
            custom_translation_table={torch.ops.detector.suppress.default: translate_suppress},
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    if job.simplify:
        import onnxslim

        model = onnxslim.slim(model)
    return model


def _declare_suppress() -> Any:
    """Declare non-maximum suppression as one operator, for the exporter to translate."""

    @torch.library.custom_op("detector::suppress", mutates_args=())
    def suppress(boxes: Tensor, scores: Tensor, conf: float, iou: float) -> Tensor:
        raise NotImplementedError("this operator is only for translation")

    @suppress.register_fake
    def _(boxes: Tensor, scores: Tensor, conf: float, iou: float) -> Tensor:
        return boxes.new_empty((boxes.shape[0], boxes.shape[1]))

    return torch.ops.detector.suppress


def translate_suppress(boxes: Any, scores: Any, conf: float, iou: float) -> Any:
    """Write suppression with ONNX's operator: see `job.Suppress`."""
    from onnxscript import opset18

    op: Any = opset18

    chosen = op.NonMaxSuppression(
        boxes,
        scores,
        op.Constant(value_ints=[1 << 30]),  # boxes per class: no limit
        op.Constant(value_floats=[iou]),
        op.Constant(value_floats=[conf]),
    )  # (n, 3): image, class, box
    places = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)
    nothing = op.Mul(
        op.ReduceMax(scores, op.Constant(value_ints=[1]), keepdims=0), op.Constant(value_float=0.0)
    )
    count = op.Slice(op.Shape(places), op.Constant(value_ints=[0]), op.Constant(value_ints=[1]))
    return op.ScatterND(nothing, places, op.Expand(op.Constant(value_floats=[1.0]), count))
