"""What an exported file takes and gives: read from its metadata, checked, or put together from its shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.boxes import NMSParams
from detector.errors import ExportError
from detector.runtimes import Port

SCHEMA = 1
KINDS = ("raw", "detections")
DEFAULT_STRIDES = (8, 16, 32)  # of a file that does not say


@dataclass(frozen=True)
class Contract:
    """What a file takes and gives.

    The input is (B, 3, H, W) float32 RGB in 0..1, or with `preprocess` (B, H, W, 3) uint8 BGR; letterboxed.
    The output is (B, 4 + C, A) `raw`: cx, cy, w, h in input px and C probabilities; or (B, max_det, 6)
    `detections`: x1, y1, x2, y2 in input px, score, class, with rows of score 0 as padding.

    Attributes:
        names: class id -> name.
        stride: what height and width are multiples of, px.
        imgsz: height and width of the input, px; of a dynamic file those it was exported with.
        batch: images a run, or None for any number.
        dynamic: height and width are free.
        preprocess: takes uint8 BGR.
        kind: "raw" or "detections".
        suppressed: how detections were made; None for raw output.
        head: "one2many" or "one2one".
        precision: fp32, fp16, bf16 or int8.
    """

    names: dict[int, str]
    stride: int
    imgsz: tuple[int, int]
    batch: int | None
    dynamic: bool
    preprocess: bool
    kind: str
    suppressed: NMSParams | None
    head: str
    precision: str

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
        ExportError: if something is missing or of a wrong kind.
    """
    if metadata.get("schema") != SCHEMA:
        raise ExportError(
            f"{path}: its metadata is of schema {metadata.get('schema')!r}, this version reads schema {SCHEMA}; "
            f"export the model again"
        )
    try:
        names = {int(number): str(name) for number, name in metadata["names"].items()}
        height, width = (int(side) for side in metadata["imgsz"])
        how = metadata["suppression"]
        contract = Contract(
            names=names,
            stride=int(metadata["stride"]),
            imgsz=(height, width),
            batch=None if metadata["batch"] is None else int(metadata["batch"]),
            dynamic=bool(metadata["dynamic"]),
            preprocess=bool(metadata["preprocess"]),
            kind=str(metadata["output"]["kind"]),
            suppressed=None
            if how is None
            else NMSParams(
                conf=float(how["conf"]),
                iou=None if how["iou"] is None else float(how["iou"]),
                max_det=int(how["max_det"]),
                agnostic=bool(how["agnostic"]),
            ),
            head=str(metadata["head"]),
            precision=str(metadata["precision"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ExportError(
            f"{path}: its metadata is damaged ({type(error).__name__}: {error}); export the model again"
        ) from None
    fits = (
        sorted(names) == list(range(len(names)))
        and names
        and contract.kind in KINDS
        and (contract.kind == "detections") == (contract.suppressed is not None)
        and 0 < contract.stride <= min(contract.imgsz)
        and not any(side % contract.stride for side in contract.imgsz)
        and (contract.batch is None or contract.batch >= 1)
    )
    if not fits:
        raise ExportError(f"{path}: its metadata contradicts itself; export the model again")
    return contract


def contract_from(
    input: Port, output: Port, names: Mapping[int, str] | None, imgsz: tuple[int, int] | None, path: Path
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
    if len(shape) != 4 or shape[3 if preprocess else 1] not in (3, None):
        raise ExportError(
            f"{path}: takes {_shape(input)}; expected images, (B, 3, H, W) float or (B, H, W, 3) uint8"
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
    most = rows[1] if rows is not None and detections and rows[1] is not None else 300
    return Contract(
        names=dict(names),
        stride=DEFAULT_STRIDES[-1],
        imgsz=imgsz,
        batch=shape[0] if input.shape is not None else None,
        dynamic=dynamic,
        preprocess=preprocess,
        kind="detections" if detections else "raw",
        suppressed=NMSParams(0.0, None, most) if detections else None,
        head="one2many",
        precision="fp32",
    )


def _shape(port: Port) -> str:
    sizes = "no shape" if port.shape is None else ", ".join("?" if n is None else str(n) for n in port.shape)
    return f"({sizes}) {port.dtype or ''}".rstrip()
