"""Settings of what is done with a trained model: `val`, `predict`, `export`, `benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from detector.settings.base import DataSet, DataSettings, InputSize, Settings, Sides, probability, setting

RECT_HELP = "minimal padding; false = pad to the full size, as files of fixed size always do"
NAMES_HELP = "class names, for an exported file without them"
TRUST_HELP = "open a .torchscript or .pt2 even if that could run code that is in it"
COMPILE_HELP = (
    "torch.compile the network: the first batch takes a minute; needs a C++ compiler; see docs/benchmarks.md"
)
HELD_OUT_HELP = (
    "part of the training images that the training held out with its val=, to validate on; true = none"
)


class ValSettings(DataSettings):
    """Settings of `val`."""

    command: ClassVar[str] = "val"

    batch: int = setting(16, "data", "images per batch; the results do not depend on it", ge=1)
    split: str = setting(
        "val",
        "data",
        "part of the data set to validate on: val, test, train, or a fold such as 2/5; see train",
    )
    val: bool | float = setting(True, "data", HELD_OUT_HELP)
    save_json: bool = setting(False, "output", "write the detections as COCO results, predictions.json")
    rect: bool = setting(True, "model", RECT_HELP)
    names: list[str] | None = setting(None, "model", NAMES_HELP)
    trust: bool = setting(False, "model", TRUST_HELP)
    compile: bool = setting(False, "machine", COMPILE_HELP)


class PredictSettings(Settings):
    """Settings of `predict`."""

    command: ClassVar[str] = "predict"

    source: Any = setting(
        None, "data", "image, folder, glob, list or .txt list of images; from Python also arrays"
    )
    imgsz: Sides = setting(640, "model", "longer side of the network input, or [height, width]", unit="px")
    batch: int = setting(
        1,
        "data",
        "images per batch; a batch of several shapes is padded to the full size, so that results depend on the "
        "batch by a little: rect=false pads every image so",
        ge=1,
    )
    rect: bool = setting(True, "model", RECT_HELP)
    names: list[str] | None = setting(None, "model", NAMES_HELP)
    trust: bool = setting(False, "model", TRUST_HELP)
    compile: bool = setting(False, "machine", COMPILE_HELP)
    conf: float = probability(0.25, "validation", "minimum confidence of a detection")
    iou: float = probability(0.7, "validation", "IoU above which NMS suppresses a box")
    max_det: int = setting(300, "validation", "maximum detections per image", ge=1)
    classes: list[int] | None = setting(None, "data", "keep only these class ids")
    agnostic_nms: bool = setting(False, "validation", "let NMS suppress across classes")
    save: bool = setting(False, "output", "write annotated images (the command line does so by default)")
    save_txt: bool = setting(False, "output", "write boxes as YOLO label files")
    save_conf: bool = setting(False, "output", "add the confidence to label files")
    save_crop: bool = setting(False, "output", "write every detection as a separate image")
    show: bool = setting(False, "output", "show annotated images in a window")
    show_labels: bool = setting(True, "output", "draw class names")
    show_conf: bool = setting(True, "output", "draw confidences")
    show_boxes: bool = setting(True, "output", "draw boxes")
    line_width: int | None = setting(
        None, "output", "line width of boxes; none = by the image size", unit="px", ge=1
    )


class ExportSettings(Settings):
    """Settings of `export`."""

    command: ClassVar[str] = "export"

    format: str = setting(
        "pt2",
        "export",
        "onnx, openvino, torchscript, pt2, ncnn, executorch, safetensors, or a plug-in's format",
    )
    imgsz: Sides = setting(
        640, "model", "side of the square input, or [height, width]", unit="px, multiple of 32"
    )
    batch: int = setting(1, "export", "images per call of the file", ge=1)
    dynamic: bool = setting(False, "export", "leave batch, height and width of the input free")
    half: bool | Literal["fp16", "bf16"] = setting(
        False,
        "export",
        "16-bit weights: true or fp16 (onnx, openvino, ncnn, safetensors), bf16 (torchscript, pt2)",
    )
    int8: bool = setting(
        False, "export", "8-bit network, calibrated on the training images of data= (openvino)"
    )
    preprocess: bool = setting(
        False, "export", "take uint8 BGR images as OpenCV reads them; normalise inside the file"
    )
    conf: float = probability(0.25, "export", "minimum confidence of a detection inside the file (nms=true)")
    iou: float = probability(0.7, "export", "IoU above which the file suppresses a box (nms=true)")
    max_det: int = setting(
        300, "export", "detections per image that the file returns (nms=true or false)", ge=1
    )
    agnostic_nms: bool = setting(False, "export", "let the file suppress across classes")
    opset: int | None = setting(None, "export", "ONNX operator set; none = 20", ge=18)
    simplify: bool = setting(True, "export", "shorten the ONNX graph")
    data: DataSet | list[DataSet] | None = setting(
        None, "data", "data set whose images verify the file and calibrate int8; none = synthetic images"
    )
    fraction: float = setting(1.0, "data", "part of the training images to calibrate on", gt=0.0, le=1.0)
    licence: str | None = setting(
        None, "export", "licence of the weights; none = that of those it started from, force:NAME = another"
    )
    folder: str | Path | None = setting(None, "output", "where to write; none = next to the weights")

    @field_validator("format")
    @classmethod
    def _format_is_lower_case(cls, value: str) -> str:
        return value.lower()


class BenchmarkSettings(Settings):
    """Settings of `benchmark`."""

    command: ClassVar[str] = "benchmark"

    data: DataSet | list[DataSet] | None = setting(None, "data", "data set to measure accuracy and speed on")
    split: str = setting("val", "data", "part of the data set: val, test, train, or a fold such as 2/5")
    val: bool | float = setting(True, "data", HELD_OUT_HELP)
    imgsz: InputSize = setting(
        640, "model", "side of the square input, or [height, width]", unit="px, multiple of 32"
    )
    formats: str | list[str] | None = setting(
        None, "benchmark", "formats to measure, such as onnx,openvino; none = all that are installed"
    )
    repeats: int = setting(100, "benchmark", "images that speed is measured on", ge=1)
    workers: int | Literal["auto"] = setting("auto", "machine", "processes that load data; see train")
    compile: bool = setting(False, "machine", "measure the model through torch.compile as well; see predict")
