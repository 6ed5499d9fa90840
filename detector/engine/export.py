"""Export: write a model in another format, and verify the file against the model before it is put in place."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detector.boxes import NMSParams
from detector.callbacks.registry import CallbackRegistry
from detector.checkpoints.origin import choose_licence, describe_origin
from detector.data.letterbox import input_hw, letterbox_batch
from detector.engine.engine import Engine
from detector.errors import DataError, DetectorError, ExportError, error_text
from detector.exporters import GRAPH_OPTIONS, Format, Write, find_format
from detector.exporters.job import MIN_CELLS, ExportSpec, Graph, suppress_in_torch
from detector.exporters.parity import (
    PARITY_IMAGES,
    compare,
    exceeded_tolerances,
    format_parity,
    synthetic_images,
)
from detector.fields import format_value, stored_data
from detector.inference.exported_backend import run_file
from detector.inference.pixels import prepare
from detector.nn.model import DetectionModel
from detector.runtimes.checksum import PLACE, write_checksum
from detector.runtimes.contract import SCHEMA, Contract, contract_of
from detector.settings import ExportSettings
from detector.version import __version__

log = logging.getLogger(__name__)

MAX_CALIBRATION = 300  # images, as many as nncf takes by default
RAW = "raw", "columns of cx cy w h in input px, then one probability per class"
DETECTIONS = "detections", "rows of x1 y1 x2 y2 in input px, score, class; score 0 is padding"


class Exporter(Engine):
    """Exports a model.

    Attributes:
        settings: checked export settings (also `args`).
        path: the exported file or folder, once it is in place.
        metadata: what the file says of itself: classes, stride, image size, head, input and output ...
        parity: greatest differences from the model on the same images: `box` in input px, `score`, and the
            `agreement` of detections (see `parity.compare`).

    Args:
        settings: checked export settings.
        model: the model; left as it is.
        path: where to write, without the suffix.
        callbacks: this export's callbacks.
        checkpoint: the model as a checkpoint, without its weights.
        data: the data set the model was trained on, if that is known: its images are used where they exist
            and `settings.data` names none.

    Raises:
        ExportError: for an unknown format, options it does not know, or a size that a dynamic file does not take.
        SettingsError: if `licence` contradicts that of the weights the model was made from.
        MissingPackageError: if its packages are not installed.
    """

    def __init__(
        self,
        settings: ExportSettings,
        model: DetectionModel,
        path: Path,
        callbacks: CallbackRegistry,
        checkpoint: Mapping[str, Any] | None = None,
        data: Any = None,
    ) -> None:
        super().__init__(callbacks)
        self.settings = self.args = settings
        self.model = model
        self.stem = path if settings.folder is None else Path(settings.folder) / path.name
        self.checkpoint, self.trained_on = checkpoint or {}, stored_data(data)
        self.path: Path | None = None
        self.metadata: dict[str, Any] = {}
        self.parity: dict[str, Any] = {}
        self.kind = find_format(settings.format)
        self.precision = choose_precision(settings, self.kind)
        self.kind.need(f"format={settings.format}")
        self.head = model.head_for(False if self._wants_ranking() else None)
        self.imgsz = input_hw(settings.imgsz)
        minimum = MIN_CELLS * max(model.strides)
        if settings.dynamic and min(self.imgsz) < minimum:
            raise ExportError(
                f"imgsz={format_value(settings.imgsz)}: dynamic=true expects sides from {minimum} px on; "
                f"try imgsz={minimum} or leave dynamic out"
            )
        self.licence, contradicts = choose_licence(settings.licence, self.checkpoint.get("origin"))
        if contradicts:
            log.warning(
                "licence=%s: the file is written with this licence and the origin of its weights, %s",
                self.licence,
                describe_origin(self.checkpoint.get("origin")),
            )

    def run(self) -> Path:
        """Write the file, run it, compare it with the model, and put it in place.

        Raises:
            ExportError: when it can't be written or run; or when the file's predictions differ from the model's,
                which leaves it under the suffix `.rejected`.
            DataError: if `data` can't be used.
        """
        settings, suffix = self.settings, self.kind.suffix
        self.fire("on_export_start")
        require_writable(self.stem.parent)
        images, origin = self._parity_images()
        if self.precision == "int8":
            self._calibration_images()  # before minutes of work
        job = self._job()
        self.metadata = self._describe(job)
        unverified = self.stem.with_name(f"{self.stem.name}.{os.getpid()}.unverified{suffix}")
        try:
            write = self.kind.capture(job)
            self._verify(job, write, unverified, images, origin)
            wrong = exceeded_tolerances(self.parity, self.precision)
            if wrong:
                kept = self.stem.with_name(f"{self.stem.name}{suffix}.rejected")
                put(unverified, kept)
                raise ExportError(
                    f"the exported file is not the model, they differ in {', '.join(wrong)}; it is kept as {kept}"
                )
            write(unverified, self.metadata)
            if self.kind.checksum:
                self.metadata["checksum"] = write_checksum(unverified)
            self.path = put(unverified, self.stem.with_name(f"{self.stem.name}{suffix}"))
        except DetectorError:
            raise
        except Exception as error:  # each exporter has its own errors
            raise ExportError(
                f"format={settings.format}: the model can't be exported with these settings; try others, or another "
                f"format= ({first_sentence(error)})"
            ) from error
        finally:
            remove(unverified)
        log.info("%s: %s", self.path, format_parity(self.parity))
        self.fire("on_export_end")
        return self.path

    def _wants_ranking(self) -> bool:
        """Return whether the NMS-free head is to be exported."""
        return self.settings.nms is False and "one2one" in self.model.head.heads

    def _job(self) -> ExportSpec:
        settings, reduction = self.settings, None
        if settings.nms:
            reduction = NMSParams(settings.conf, settings.iou, settings.max_det, settings.agnostic_nms)
        elif self._wants_ranking():
            reduction = NMSParams(0.0, None, settings.max_det, settings.agnostic_nms)
        return ExportSpec(
            model=self._on_cpu(),
            head=self.head,
            imgsz=self.imgsz,
            batch=settings.batch,
            dynamic=settings.dynamic,
            precision=self.precision,
            preprocess=settings.preprocess,
            reduction=reduction if "nms" in self.kind.options else None,
            opset=settings.opset,
            simplify=settings.simplify,
            calibration=self._calibration,
            checkpoint=self.checkpoint,
        )

    def _on_cpu(self) -> DetectionModel:
        """Return the model, or a copy of it if it is on another device: the caller's own is not moved."""
        return self.model if self.model.device.type == "cpu" else deepcopy(self.model).cpu()

    def _describe(self, job: ExportSpec) -> dict[str, Any]:
        """Return what the file says of itself; null in a shape is a dynamic size."""
        settings, (height, width), channels = self.settings, self.imgsz, self.model.channels
        order = ("RGB", "BGR") if channels == 3 else ("grey", "grey")
        dynamic = settings.dynamic or not self.kind.graph  # weights alone take any size
        batch = None if dynamic else settings.batch
        sides = (None, None) if dynamic else (height, width)
        nms = job.reduction
        kind, layout = RAW if nms is None else DETECTIONS
        return {
            "schema": SCHEMA,
            "task": "detect",
            "format": settings.format,
            "precision": self.precision,
            "names": {str(number): name for number, name in self.model.names.items()},
            "stride": max(self.model.strides),
            "imgsz": [height, width],
            "channels": channels,
            "value_range": self.model.value_range and list(self.model.value_range),
            "batch": batch,
            "dynamic": dynamic,
            "head": job.head,
            "preprocess": settings.preprocess,
            "input": {
                "name": "images",
                "shape": [batch, *sides, channels] if settings.preprocess else [batch, channels, *sides],
                "dtype": "uint8" if settings.preprocess else "float32",
                "layout": f"B H W {channels}, {order[1]}, 0..255"
                if settings.preprocess
                else f"B {channels} H W, {order[0]}, 0..1",
                "fit": "letterboxed: aspect ratio kept, centred, padded with grey 114",
            },
            "output": {
                "name": "preds",
                "kind": kind,
                "shape": [batch, 4 + len(self.model.names), None] if nms is None else [batch, nms.max_det, 6],
                "layout": layout,
            },
            "suppression": nms
            and {"conf": nms.conf, "iou": nms.iou, "max_det": nms.max_det, "agnostic": nms.agnostic},
            "version": __version__,
            "software": "detector (Apache-2.0)",
            "licence": self.licence or "not stated",
            "origin": self.checkpoint.get("origin"),
            "parity": {},
        } | ({"checksum": PLACE} if self.kind.checksum else {})

    def _verify(
        self, job: ExportSpec, write: Write, path: Path, images: list[NDArray[np.uint8]], origin: str
    ) -> None:
        """Write the file and compare it with the model on images, at every size of `parity_sizes`."""
        write(path, self.metadata)
        contract = contract_of(self.metadata, path)
        runtime = self.kind.open(path, "fp32" if self.kind.computes else None)
        if not dict(runtime.metadata) == self.metadata:
            raise ExportError(f"{path}: gives back other metadata than was written")
        model = Graph(job.model.fuse(head=job.head), False, None, suppress_in_torch).eval()
        found = []
        for size in parity_sizes(contract):
            pixels, _ = letterbox_batch(images, size, channels=self.model.channels)
            inputs = pixels.contiguous() / 255  # floats: all runtimes take them
            with torch.inference_mode():
                expected = torch.cat([model(image[None]) for image in inputs])
            preds = torch.from_numpy(run_file(runtime, contract, inputs, path))
            found.append(compare(expected, preds, contract))
        self.parity = {
            "box": max(one["box"] for one in found),
            "score": max(one["score"] for one in found),
            "agreement": min(one["agreement"] for one in found),
            "detections": int(found[0]["detections"]),
            "pictures": len(images),
            "of": origin,
        }
        self.metadata["parity"] = self.parity

    def _parity_images(self) -> tuple[list[NDArray[np.uint8]], str]:
        """Return images for the parity check, and where they are from."""
        from detector.data.images import PixelFormat, read_image

        images = self._images("val", 1.0)
        if not images:
            return synthetic_images(self.imgsz), "drawn"
        form = PixelFormat(3, self.model.value_range)
        step = max(len(images) // PARITY_IMAGES, 1)
        return [read_image(path, form=form) for path in images[::step][:PARITY_IMAGES]], "validation"

    def _images(self, split: str, fraction: float) -> list[Path]:
        """Return the images of a split of `data`, or of the data set it was trained on, if that exists.

        Of the latter, images that the training held out to validate on are not in `train`.
        """
        from detector.data.config import load_data_config
        from detector.engine.loaders import located_data, validation_cut

        data, cut = located_data(self.settings.to_dict()["data"]), None
        if self.trained_on is not None and data in (None, self.trained_on):
            cut = validation_cut(self.checkpoint.get("settings", {}))
        if data is not None:
            return load_data_config(self.settings.data, cut).split_images(split, fraction)
        sets = self.trained_on if isinstance(self.trained_on, list) else [self.trained_on]
        if not all(isinstance(one, dict) or (one and Path(one).exists()) for one in sets):
            return []
        try:
            return load_data_config(self.trained_on, cut).split_images(split, fraction)
        except DataError as error:
            log.warning(
                "data set the model was trained on: %s; the file is compared on synthetic images instead",
                error,
            )
            return []

    def _calibration_images(self) -> list[Path]:
        """Return the training images to calibrate on, spread over the split."""
        images = self._images("train", self.settings.fraction)
        if not images:
            raise DataError(
                "int8=true: data= is missing: name the data set whose training images calibrate the network, such "
                "as data=mydata.yaml"
            )
        return images[:: -(-len(images) // MAX_CALIBRATION)]

    def _calibration(self) -> Iterator[NDArray[Any]]:
        """Yield inputs of the file made of training images."""
        from detector.data.images import PixelFormat, read_image

        images = self._calibration_images()
        log.info("int8: calibrating on %d training images", len(images))
        for path in images:
            image = read_image(path, form=PixelFormat(3, self.model.value_range))
            pixels, _ = letterbox_batch([image], self.imgsz, channels=self.model.channels)
            inputs = prepare(pixels.contiguous(), self.settings.preprocess)
            yield inputs if self.settings.dynamic else np.repeat(inputs, self.settings.batch, 0)


def choose_precision(settings: ExportSettings, kind: Format) -> str:
    """Return the precision to export in.

    Raises:
        ExportError: if the format does not have it, or does not support another option that is set.
    """
    name = "fp32"
    if settings.half:
        name = "fp16" if settings.half is True else settings.half
    if settings.int8:
        if settings.half:
            raise ExportError("half and int8 are both set: expected one of them; leave the other out")
        name = "int8"
    problems = []
    if name not in kind.precisions:
        asked = "int8=true" if settings.int8 else f"half={format_value(settings.half)}"
        problems.append(
            f"{asked}: format={settings.format} is written and run in {', '.join(kind.precisions)}, not in {name}"
        )
    chosen = {
        "dynamic": settings.dynamic,
        "nms": settings.nms is not None,
        "preprocess": settings.preprocess,
        "opset": settings.opset is not None,
        "simplify": not settings.simplify,
    }
    for option, is_set in chosen.items():
        if is_set and option not in kind.options:
            known = (
                ", ".join(sorted(kind.options & (GRAPH_OPTIONS | {"opset", "simplify"}))) or "none of these"
            )
            problems.append(
                f"{option}={format_value(getattr(settings, option))}: format={settings.format} "
                f"knows {known}; leave it out"
            )
    if problems:
        raise ExportError("\n".join(problems))
    return name


def parity_sizes(contract: Contract) -> list[tuple[int, int]]:
    """Return the sizes a file is compared at: its own; of a dynamic one also a smaller and an oblong one."""
    height, width = contract.imgsz
    if not contract.dynamic:
        return [(height, width)]
    stride = contract.stride
    smaller = max(height // 2 // stride, 2) * stride, max(width // 2 // stride, 2) * stride
    return list(dict.fromkeys([(height, width), smaller, (height, smaller[1])]))


def require_writable(folder: Path) -> None:
    """Make a folder, and make sure that files can be written to it: before minutes of work.

    Raises:
        ExportError: if not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExportError(
            f"can't write to {folder.absolute()} ({error.strerror or error}); choose another folder="
        ) from None


def put(source: Path, target: Path) -> Path:
    """Move a file or a folder to its final path, and replace what is there."""
    if source.is_dir() or target.is_dir():
        remove(target)
    return source.replace(target)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def first_sentence(error: Exception) -> str:
    """Return the start of an exporter's error: some are pages long."""
    text = " ".join(error_text(error).split())
    return text[:300].rstrip(".") + (" ..." if len(text) > 300 else "")
