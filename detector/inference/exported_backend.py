"""Exported files with the interface of `TorchBackend`, so that val and predict run them as they run a network."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.boxes import NMSParams, to_detections
from detector.data.letterbox import GREY, input_hw
from detector.device import Precision, select_device, select_precision
from detector.errors import ExportError, SettingsError, first_line
from detector.exporters import format_of
from detector.exporters.job import MAX_BATCH, MAX_SIDE, MIN_CELLS
from detector.fields import format_value
from detector.files.folders import expand_home
from detector.inference.backend import InferenceBackend
from detector.inference.malloc import keep_freed_memory
from detector.inference.pixels import to_input
from detector.inference.torch_backend import VALIDATION_CONF, TorchBackend
from detector.nn.model import DetectionModel
from detector.runtimes import Runtime
from detector.runtimes.checksum import missing_checksum, require_intact
from detector.runtimes.contract import Contract, contract_from, contract_of
from detector.settings import PredictSettings, ValSettings

log = logging.getLogger(__name__)

CPU = torch.device("cpu")
LIMITING = threading.Lock()  # see `one_thread`


class ExportedModel:
    """An exported file; what `YOLO` has in place of a network.

    Attributes:
        path: the file or folder.
        contract: what it takes and gives.
        metadata: what the file says of itself; empty if nothing.
        names: class id -> name.
        num_classes: number of classes, C.
        value_range: of images of 16 bits, see `Contract`.
        device: where it runs.

    Args:
        path: the file or folder.
        names: class names, needed for a file that does not hold them.
        imgsz: side, or height and width, of its input, px; likewise.
        trust: open it even if that could run code that is in it.

    Raises:
        ExportError: if it can't be opened, or what it takes and gives is unknown.
        MissingPackageError: if its runtime is not installed.
    """

    device = CPU

    def __init__(
        self,
        path: str | Path,
        names: Mapping[int, str] | Sequence[str] | None = None,
        imgsz: int | Sequence[int] | None = None,
        trust: bool = False,
    ) -> None:
        self.path = expand_home(path)
        if not self.path.exists():
            raise ExportError(f"exported file {str(path)!r} does not exist: looked at {self.path.absolute()}")
        found = format_of(self.path)
        assert found is not None, "see exporters.is_exported"
        self.kind, self.format = found
        checksum = require_intact(self.path) if self.format.checksum else None
        if not trust:
            self.format.look_into(self.path)
        keep_freed_memory()
        self._open: dict[str | None, Runtime] = {}
        self._opening = threading.Lock()
        runtime = self.runtime(self._compute("auto"))
        self.metadata = dict(runtime.metadata)
        if "checksum" in self.metadata and checksum is None:
            missing_checksum(self.path)
        if self.metadata:
            self.contract = contract_of(self.metadata, self.path)
            if names is not None and dict(enumerate_names(names)) != self.contract.names:
                raise ExportError(f"names={list(names)}: {self.path} holds its own names; leave names= out")
        else:
            listed = None if names is None else dict(enumerate_names(names))
            sides = None if imgsz is None else input_hw(imgsz)
            self.contract = contract_from(runtime.input, runtime.output, listed, sides, self.path)
        self.names = dict(self.contract.names)
        self.num_classes = len(self.names)
        self.value_range = self.contract.value_range

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle and copy take along: open files are opened again when they are needed."""
        return self.__dict__ | {"_open": {}, "_opening": None, "format": None, "path": self.path.absolute()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._opening = threading.Lock()
        found = format_of(self.path)
        assert found is not None, "it was one before"
        self.kind, self.format = found

    def runtime(self, compute: str | None) -> Runtime:
        """Return the open file, computing in a precision; it is kept."""
        with self._opening:
            if compute not in self._open:
                self._open[compute] = self.format.open(self.path, compute)
            return self._open[compute]

    def _compute(self, amp: bool | str) -> str | None:
        """Turn the `amp` setting into a precision that the runtime is asked for, None where that can't be chosen."""
        if not self.format.computes:
            if amp not in ("auto", True) and select_name(amp) != self.contract.precision:
                raise SettingsError(
                    f"amp={format_value(amp)}: {self.path.name} computes in {self.contract.precision}, as it was "
                    f"exported; leave amp out"
                )
            return None
        name = select_precision(amp, CPU).name
        if name not in self.format.computes:
            raise SettingsError(
                f"amp={format_value(amp)}: expected {' or '.join(self.format.computes)} for {self.kind}"
            )
        return name

    def backend(self, settings: PredictSettings | ValSettings) -> ExportedBackend:
        """Return a backend that predicts with these settings.

        Raises:
            SettingsError: if they contradict what is fixed inside the file.
        """
        if select_device("cpu" if settings.device == "auto" else settings.device).type != "cpu":
            raise SettingsError(f"device={settings.device}: exported files run on the CPU; leave device out")
        if settings.names is not None and dict(enumerate(settings.names)) != self.names:
            raise SettingsError(
                f"names={format_value(settings.names)}: {self.path.name} has {format_value(list(self.names.values()))}"
            )
        if settings.compile:
            raise SettingsError(
                f"compile=true: expected a .pt, {self.path.name} is run by {self.kind} as it is; leave compile out"
            )
        self._check_head(settings.nms)
        self._check_reduction(settings)
        self._check_input(settings)
        nms = self.contract.suppression
        if isinstance(settings, ValSettings) and nms is not None and nms.conf > VALIDATION_CONF:
            log.warning(
                "%s gives detections from conf=%g up: the metrics lack those below; export it with conf=%g to have all",
                self.path.name,
                nms.conf,
                VALIDATION_CONF,
            )
        return ExportedBackend(self.runtime(self._compute(settings.amp)), self.contract, self.path)

    def _check_head(self, nms: bool | None) -> None:
        if nms is not None and nms != (self.contract.head == "one2many"):
            raise SettingsError(
                f"nms={format_value(nms)}: {self.path.name} holds the {self.contract.head} head; leave nms out"
            )

    def _check_reduction(self, settings: PredictSettings | ValSettings) -> None:
        """Refuse thresholds that the suppression inside the file contradicts."""
        nms, given = self.contract.suppression, settings.model_fields_set
        if nms is None:
            return
        wrong = []
        if "conf" in given and settings.conf is not None and settings.conf < nms.conf:
            wrong.append(f"conf={settings.conf:g}: expected conf >= {nms.conf:g}")
        if "max_det" in given and settings.max_det > nms.max_det:
            wrong.append(f"max_det={settings.max_det}: expected max_det <= {nms.max_det}")
        if nms.iou is not None and "iou" in given and settings.iou != nms.iou:
            wrong.append(f"iou={settings.iou:g}: expected iou={nms.iou:g}")
        if nms.iou is not None and "agnostic_nms" in given and settings.agnostic_nms != nms.agnostic:
            wrong.append(
                f"agnostic_nms={format_value(settings.agnostic_nms)}: expected {format_value(nms.agnostic)}"
            )
        if wrong:
            raise SettingsError(
                "\n".join(
                    f"{text}, which {self.path.name} was exported with; or export it again" for text in wrong
                )
            )

    def _check_input(self, settings: PredictSettings | ValSettings) -> None:
        """Refuse sizes that a file of fixed size does not take."""
        fixed, given = self.contract.input_hw, settings.model_fields_set
        if fixed is None:
            return
        height, width = fixed
        if "imgsz" in given and input_hw(settings.imgsz) != fixed:
            raise SettingsError(
                f"imgsz={format_value(settings.imgsz)}: {self.path.name} takes {height} x {width} px only; leave "
                f"imgsz out, or export it with dynamic=true"
            )
        if "rect" in given and settings.rect:
            raise SettingsError(
                f"rect=true: {self.path.name} takes {height} x {width} px only; leave rect out, or export it with "
                f"dynamic=true"
            )


class ExportedBackend:
    """An exported file ready to run, also from several threads: see `TorchBackend`.

    Attributes:
        contract: what the file takes and gives.
    """

    def __init__(self, runtime: Runtime, contract: Contract, path: Path) -> None:
        self.runtime, self.contract, self.path = runtime, contract, path
        self.device, self.precision = CPU, Precision("cpu", None)
        self.names, self.num_classes = dict(contract.names), len(contract.names)
        self.strides: tuple[int, ...] = (contract.stride,)
        self.channels: int = contract.channels
        self.value_range = contract.value_range
        self.head: str = contract.head
        self.nms = contract.kind == "raw" and contract.head == "one2many"
        self.input_hw = contract.input_hw

    @torch.inference_mode()
    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        """Run the file.

        Args:
            images: (B, 3, H, W) uint8 RGB, or float in 0..1.

        Returns:
            The file's predictions: (B, 4 + C, A) or (B, max_det, 6) float32; and nothing.
        """
        if self.contract.dynamic:
            images = pad_to(images, MIN_CELLS * self.contract.stride)
        return torch.from_numpy(run_file(self.runtime, self.contract, images, self.path)), None

    @torch.inference_mode()
    def detect(self, preds: Tensor, params: NMSParams) -> list[Tensor]:
        """Reduce the file's predictions to detections: see `TorchBackend.detect`."""
        if self.contract.suppression is not None:
            return [pick_rows(rows, params) for rows in preds]
        return to_detections(preds, params, self.nms)

    def threads(self) -> AbstractContextManager[None]:
        """Return a context in which torch uses one thread, unless it computes the file itself."""
        return nullcontext() if self.runtime.in_torch else one_thread()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: its others would keep spinning and take the cores from the runtime's.

    It is set for this thread alone. What is set last is also what torch gives to threads that it has not seen yet, so
    that where there are others, the number of before is set once more, in a thread that ends at once.
    """
    with LIMITING:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        if threading.active_count() > 1:
            other = threading.Thread(target=torch.set_num_threads, args=(before,))
            other.start()
            other.join()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pad_to(images: Tensor, minimum: int) -> Tensor:
    """Pad images on the right and at the bottom with grey, so that no side is below `minimum` px."""
    height, width = images.shape[2:]
    right, bottom = max(minimum - width, 0), max(minimum - height, 0)
    if not right and not bottom:
        return images
    grey = GREY if images.dtype == torch.uint8 else GREY / 255
    return torch.nn.functional.pad(images, (0, right, 0, bottom), value=grey)


def pick_rows(rows: Tensor, params: NMSParams) -> Tensor:
    """Choose among the detections of one image, (N, 6), as asked; the file has suppressed already."""
    rows = rows[rows[:, 4] > params.conf]
    if params.classes is not None:
        rows = rows[torch.isin(rows[:, 5], rows.new_tensor(list(params.classes)))]
    return rows[: params.max_det]


def run_file(runtime: Runtime, contract: Contract, images: Tensor, path: Path) -> NDArray[np.float32]:
    """Run images through a file, in portions of its batch size.

    Args:
        runtime: the open file.
        contract: what it takes.
        images: (N, 3, H, W) uint8 RGB, or float in 0..1.
        path: for messages.

    Returns:
        (N, 4 + C, A) or (N, max_det, 6) float32.

    Raises:
        ExportError: if it fails, or its output has another shape.
    """
    batch = to_input(images, runtime, contract)
    size = contract.batch or min(len(batch), MAX_BATCH)
    portions = []
    for start in range(0, len(batch), size):
        portion = batch[start : start + size]
        if contract.batch and len(portion) < size:
            filling = np.zeros((size - len(portion), *portion.shape[1:]), portion.dtype)
            portion = np.concatenate([portion, filling])
        try:
            portions.append(runtime.run(portion))
        except Exception as error:  # each runtime has its own errors
            shape = ", ".join(map(str, portion.shape))
            limits = (
                f"; give sides of {MIN_CELLS * contract.stride} to {MAX_SIDE} px" if contract.dynamic else ""
            )
            raise ExportError(
                f"{path}: failed on an input of ({shape}){limits} ({first_line(error)})"
            ) from error
    preds = portions[0] if len(portions) == 1 else np.concatenate(portions)
    wanted = 4 + len(contract.names) if contract.kind == "raw" else 6
    if preds.ndim != 3 or preds.shape[1 if contract.kind == "raw" else 2] != wanted:
        shape = ", ".join(map(str, preds.shape))
        raise ExportError(f"{path}: gives ({shape}), which is not what {len(contract.names)} classes need")
    return np.asarray(preds[: len(batch)], np.float32)


def make_backend(
    model: DetectionModel | ExportedModel, settings: PredictSettings | ValSettings
) -> InferenceBackend:
    """Return a network or an exported file, ready to run as the settings ask: the only place that distinguishes them.

    Raises:
        SettingsError: if the settings ask for what the file can't do, or for a device that is not there.
        ModelError: if they ask for a head that the network does not have.
    """
    if isinstance(model, ExportedModel):
        return model.backend(settings)
    if settings.names is not None:
        raise SettingsError("names= is for exported files that hold no names; leave it out")
    head, device = model.head_for(settings.nms), select_device(settings.device)
    return TorchBackend(model, device, select_precision(settings.amp, device), settings.compile, head)


def select_name(amp: bool | str) -> str:
    """Return the precision that an explicit `amp` names."""
    return "fp32" if amp is False else str(amp)


def enumerate_names(names: Mapping[Any, str] | Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield class id and name of a list or a map of names, or of a single name; JSON has ids as text."""
    if isinstance(names, Mapping):
        for key, name in names.items():
            yield int(key) if isinstance(key, str) and key.isdecimal() else key, name
    else:
        yield from enumerate([names] if isinstance(names, str) else names)
