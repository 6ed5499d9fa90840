"""What an exported file takes and gives: read from its metadata, checked, or put together from its shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from detector.boxes import NMSParams
from detector.errors import ExportError, first_line
from detector.fields import explain_validation, format_value, is_range, type_text
from detector.files.bounds import BoundsError, require_within
from detector.runtimes import TensorSpec

SCHEMA = 1
DEFAULT_STRIDES = (8, 16, 32)  # of a file that does not say


class Contract(BaseModel):
    """What a file takes and gives.

    The input is (B, 3, H, W) float32 RGB in 0..1, or with `preprocess` (B, H, W, 3) uint8 BGR; letterboxed. With one
    channel it is grey.
    The output is (B, 4 + C, A) `raw`: cx, cy, w, h in input px and C probabilities; or (B, max_det, 6)
    `detections`: x1, y1, x2, y2 in input px, score, class, with rows of score 0 as padding.

    Attributes:
        names: class id -> name.
        stride: what height and width are multiples of, px.
        imgsz: height and width of the input, px; of a dynamic file those it was exported with.
        channels: of an image: 1 is grey, 3 colour.
        value_range: values of images of 16 bits that become 0 and 255; None = their upper 8 bits are taken.
        batch: images per run, or None for any number.
        dynamic: height and width are free.
        preprocess: takes uint8 BGR.
        kind: "raw" or "detections".
        suppression: how detections were made; None for raw output.
        head: "one2many" or "one2one".
        precision: fp32, fp16, bf16 or int8.
    """

    model_config = ConfigDict(frozen=True)

    names: dict[int, str] = Field(description="class id -> name")
    stride: int = Field(gt=0)
    imgsz: tuple[int, int] = Field(description="height and width in px")
    channels: Literal[1, 3] = 3
    value_range: tuple[float, float] | None = Field(
        default=None, description="two numbers, the smaller first"
    )
    batch: int | None = Field(ge=1)
    dynamic: bool
    preprocess: bool
    kind: Literal["raw", "detections"]
    suppression: NMSParams | None = Field(description="none, or conf, iou, max_det and agnostic")
    head: Literal["one2many", "one2one"]
    precision: str

    @field_validator("suppression", mode="before")
    @classmethod
    def _is_complete(cls, value: Any) -> Any:
        """Refuse what a file has to say and would otherwise get by default."""
        if isinstance(value, Mapping) and not value.keys() >= {"conf", "iou", "max_det", "agnostic"}:
            raise ValueError("expected conf, iou, max_det and agnostic")
        return value

    @property
    def input_hw(self) -> tuple[int, int] | None:
        """The only height and width it takes, or None if they are free."""
        return None if self.dynamic else self.imgsz


def read_metadata(text: object) -> dict[str, Any]:
    """Read the metadata of a file; empty if there is none that is ours."""
    try:
        found = json.loads(text) if isinstance(text, (str, bytes)) and text else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and "schema" in found else {}


def contract_of(metadata: Mapping[str, Any], path: Path) -> Contract:
    """Check metadata and return the contract.

    Raises:
        ExportError: if something is missing, of a wrong kind or contradicts the rest; names all of it.
    """
    if metadata.get("schema") != SCHEMA:
        raise ExportError(
            f"{path}: its metadata is of schema {metadata.get('schema')!r}, this version reads schema {SCHEMA}; "
            f"export the model again"
        )
    output = metadata.get("output")
    given = dict(metadata)
    if isinstance(output, Mapping) and "kind" in output:
        given["kind"] = output["kind"]
    try:
        contract = Contract.model_validate(given)
    except ValidationError as error:
        problems = explain_validation(error, Contract, given, _sentence, _expected)
    else:
        problems = too_much(contract) or contradictions(contract)
    if problems:
        raise ExportError(f"{path}: its metadata is damaged: {'; '.join(problems)}; export the model again")
    return contract


def too_much(contract: Contract) -> list[str]:
    """Return in words what a file asks for that would fill the memory."""
    try:
        require_within("classes", len(contract.names))
        require_within("px of a side of the input", max(contract.imgsz))
        require_within("images per run", contract.batch or 1)
    except BoundsError as error:
        return [str(error)]
    return []


def contradictions(contract: Contract) -> list[str]:
    """Return in words what can't be true together."""
    c, count = contract, len(contract.names)
    wrong = []
    if not count or sorted(c.names) != list(range(count)):
        wrong.append(f"names has the keys {sorted(c.names)}; expected 0 to {max(count - 1, 0)}")
    if not all(side >= c.stride and side % c.stride == 0 for side in c.imgsz):
        wrong.append(f"imgsz={format_value(c.imgsz)}: expected multiples of stride={c.stride}")
    if c.value_range is not None and not is_range(c.value_range):
        wrong.append(f"value_range={format_value(c.value_range)}: expected two numbers, the smaller first")
    if (c.kind == "detections") != (c.suppression is not None):
        wrong.append(f"kind={c.kind}: expected {'no ' * (c.kind == 'raw')}suppression with it")
    return wrong


def _sentence(key: str, value: Any, text: str) -> str:
    return f"{key}={first_line(ValueError(format_value(value)))}: {text}"


def _expected(key: str, field: FieldInfo) -> str:
    return f"expected {field.description or type_text(field)}"


def contract_from(
    input: TensorSpec,
    output: TensorSpec,
    names: Mapping[int, str] | None,
    imgsz: tuple[int, int] | None,
    path: Path,
) -> Contract:
    """Put together the contract of a file without metadata of ours.

    Args:
        input: what the file takes.
        output: what it gives.
        names: class names as the user says.
        imgsz: height and width of the input, px, as the user says.
        path: for messages.

    Raises:
        ExportError: if `names` or `imgsz` are missing, or the shapes are not those of a detector.
    """
    if names is None or imgsz is None:
        raise ExportError(
            f"{path}: was not exported by detector, it holds no metadata; give names= and imgsz=, as in "
            f"YOLO({str(path)!r}, names=['cat', 'dog'], imgsz=640)"
        )
    shape = input.shape or (None, 3, None, None)
    preprocess = input.dtype == "uint8"
    channels = shape[3 if preprocess else 1] if len(shape) == 4 else 0
    if channels not in (1, 3, None):
        raise ExportError(
            f"{path}: takes {_shape(input)}; expected images, (B, 3, H, W) float or (B, H, W, 3) uint8, or 1 in place "
            f"of 3 for grey ones"
        )
    sides = shape[1:3] if preprocess else shape[2:4]
    dynamic = input.shape is not None and None in sides
    if not dynamic and input.shape is not None and sides != imgsz:
        height, width = sides
        raise ExportError(f"{path}: takes images of {height} x {width} px; give imgsz=[{height},{width}]")
    given = output.shape
    rows = None if given is None or len(given) != 3 else given
    detections = rows is not None and rows[2] == 6 and rows[1] != 4 + len(names)
    if given is not None and not detections and (rows is None or rows[1] not in (4 + len(names), None)):
        raise ExportError(
            f"{path}: gives {_shape(output)}; expected (B, {4 + len(names)}, A), boxes and the probabilities of "
            f"{len(names)} classes, or (B, N, 6), detections; do names= name all classes?"
        )
    max_det = rows[1] if rows is not None and detections and rows[1] is not None else 300
    return Contract(
        names={number: str(name) for number, name in names.items()},
        stride=DEFAULT_STRIDES[-1],
        imgsz=imgsz,
        channels=1 if channels == 1 else 3,
        batch=shape[0] if input.shape is not None else None,
        dynamic=dynamic,
        preprocess=preprocess,
        kind="detections" if detections else "raw",
        suppression=NMSParams(0.0, None, max_det) if detections else None,
        head="one2many",
        precision="fp32",
    )


def _shape(spec: TensorSpec) -> str:
    sizes = "no shape" if spec.shape is None else ", ".join("?" if n is None else str(n) for n in spec.shape)
    return f"({sizes}) {spec.dtype or ''}".rstrip()
