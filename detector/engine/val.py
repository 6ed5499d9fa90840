"""Validation: run a network over a labelled split and measure it by COCO's protocol."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from detector.boxes import NMSParams, cxcywh_to_xyxy
from detector.callbacks.registry import CallbackRegistry
from detector.data.images import PixelFormat, describe_depth
from detector.device import StageTimer
from detector.engine.engine import Engine
from detector.engine.run_folder import make_run_folder
from detector.errors import CheckpointError
from detector.fields import format_value
from detector.files.atomic import replace_file
from detector.inference.backend import InferenceBackend, rescale_to_image
from detector.inference.torch_backend import VALIDATION_CONF
from detector.metrics.evaluator import CocoEvaluator
from detector.metrics.metrics import Metrics
from detector.scale.ranks import Ranks
from detector.settings import DataSettings, ValSettings

if TYPE_CHECKING:
    from detector.data.annotations import Annotations
    from detector.data.batch import Batch
    from detector.data.config import DataConfig
    from detector.nn.losses import Loss
    from detector.nn.model import DetectionModel

log = logging.getLogger(__name__)

STAGES = ("preprocess", "inference", "loss", "postprocess")


class Validator(Engine):
    """Runs a network over a loader. The validator of a training shares its trainer's callbacks.

    Attributes:
        batch: the current batch; None outside batch events.
        preds: for each image of the batch (n, 6): x1, y1, x2, y2 in image px, confidence, class.
        metrics: the metrics, once `on_val_end` fires.
        speed: milliseconds per image, by stage.
        losses: `val/loss` and its terms, if a loss was asked for.
        save_dir: the run folder, or None.
        names: class id -> name.
        paths: image files of the split, by index.
        final: whether this is the run's last validation, the one whose metrics and images are kept.
        settings: those of the validation or of the training it is in; also `args`.
        device: where the network runs; known when `on_val_start` fires, as are the next two.
        dataloader: the batches, while they are validated.
        backend: the network, ready to run.
    """

    ELSEWHERE = MappingProxyType(
        {
            "model": "validator.backend, or trainer.ema.model in a training",
            "data": "validator.names and validator.dataloader",
            "seen": "validator.metrics.num_images",
            "jdict": "validator.evaluator.detections()",
            "stats": "validator.evaluator",
            "confusion_matrix": "validator.metrics.confusion_matrix",
            "loss": "validator.losses",
        }
    )

    def __init__(
        self,
        suppression: NMSParams,
        callbacks: CallbackRegistry,
        save_dir: Path | None = None,
        single_cls: bool = False,
        settings: DataSettings | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(callbacks)
        self.ranks = ranks or Ranks()
        self.suppression, self.save_dir = suppression, save_dir
        self.single_cls = single_cls
        self.settings = self.args = settings
        self.dataloader: Iterable[Batch] | None = None
        self.batch: Batch | None = None
        self.preds: list[Tensor] | None = None
        self.metrics: Metrics | None = None
        self.speed: dict[str, float] = {}
        self.losses: dict[str, float] = {}
        self.names: dict[int, str] = {}
        self.final = False
        self.evaluator: CocoEvaluator | None = None
        self.paths: list[str] = []

    def run(
        self,
        backend: InferenceBackend,
        loader: Iterable[Batch],
        annotations: Annotations,
        loss: Loss | None = None,
        final: bool = True,
    ) -> Metrics:
        """Validate.

        Args:
            backend: the network, ready to run.
            loader: batches of the split; order and grouping do not change the metrics.
            annotations: the split's ground truth.
            loss: also compute this loss; its means are then in `losses`.
            final: also compute AP by size, curves and the confusion matrix.
        """
        self.final, self.names, self.paths = final, annotations.names, annotations.paths
        self.backend, self.device, self.dataloader = backend, backend.device, loader
        crowd, limit = int(np.diff(annotations.offsets).max(initial=0)), self.suppression.max_det
        if final and crowd > limit:
            log.warning(
                "an image has %d objects, but max_det=%d: no more are found in it; raise max_det",
                crowd,
                limit,
            )
        self.fire("on_val_start")
        evaluator = self.evaluator = CocoEvaluator(annotations.names)
        timer = StageTimer(backend.device, STAGES)
        terms: list[Tensor] = []
        count = 0
        for self.batch in loader:
            self.fire("on_val_batch_start")
            with backend.threads():
                items = self._run_batch(backend, loss, timer)
            if items is not None:
                terms.append(items)
            self._collect(evaluator, annotations)
            count += len(self.batch.paths)
            self.fire("on_val_batch_end")
            self.batch = self.preds = None
        measured = list(torch.stack(terms).cpu()) if terms else []  # one transfer
        parts = self.ranks.gather((evaluator.images, measured), "the detections of all")
        for images, _ in parts:
            evaluator.images.update(images)
        self.speed = timer.ms_per_image(count)
        self.metrics = self.ranks.from_main(lambda: evaluator.compute(full=final), "the metrics")
        self.metrics.speed = self.speed
        self.losses = {}
        if loss is not None and (every := in_turns([part[1] for part in parts])):
            means = (sum(every[1:], every[0]) / len(evaluator)).tolist()
            named = {f"val/{name}": value for name, value in zip(loss.names, means, strict=True)}
            self.losses = {"val/loss": sum(means), **named}
        self.fire("on_val_end")
        self.dataloader = None
        return self.metrics

    def _run_batch(self, backend: InferenceBackend, loss: Loss | None, timer: StageTimer) -> Tensor | None:
        """Find `preds` of the batch; returns its loss terms times its images, (L,), if a loss was asked for."""
        assert self.batch is not None
        timer.start()
        images = self.batch.images.to(backend.device, non_blocking=True)
        timer.stop("preprocess")
        decoded, raw = backend.forward(images)
        timer.stop("inference")
        items = None if loss is None else self._loss(loss, backend, raw)
        timer.stop("loss")
        self.preds = self._detections(backend, decoded)
        timer.stop("postprocess")
        return items

    def _loss(self, loss: Loss, backend: InferenceBackend, raw: Any) -> Tensor:
        """Return the loss terms of the batch, (L,), times its images."""
        assert self.batch is not None
        with torch.inference_mode():
            boxes, labels = self.batch.boxes.to(backend.device), self.batch.labels.to(backend.device)
            return loss.items(backend.head, raw, boxes, labels) * len(self.batch.paths)

    def _detections(self, backend: InferenceBackend, decoded: Tensor) -> list[Tensor]:
        assert self.batch is not None
        batch = self.batch
        ratios, pads, sizes = batch.ratios.tolist(), batch.pads.tolist(), batch.sizes.tolist()
        detections = backend.detect(decoded, self.suppression)
        found_in_images = [
            rescale_to_image(found.float().cpu(), (rx, ry), (left, top), (height, width))
            for found, (rx, ry), (left, top), (height, width) in zip(
                detections, ratios, pads, sizes, strict=True
            )
        ]
        if self.single_cls:
            for rows in found_in_images:
                rows[:, 5] = 0
        return found_in_images

    def _collect(self, evaluator: CocoEvaluator, annotations: Annotations) -> None:
        assert self.batch is not None and self.preds is not None
        for index, preds in zip(self.batch.indices, self.preds, strict=True):
            height, width = annotations.sizes[index].tolist()
            boxes, labels, kinds = annotations.truth(index)
            truth = cxcywh_to_xyxy(torch.from_numpy(boxes).double()) * torch.tensor([width, height] * 2)
            evaluator.add(index, (height, width), preds.numpy(), truth.numpy(), labels, kinds)

    def save_json(self, folder: Path) -> Path:
        """Write the detections as COCO results, and the ground truth next to them.

        Returns:
            The path of `predictions.json`.
        """
        assert self.evaluator is not None, "validate first"
        path, truth = folder / "predictions.json", self.evaluator.ground_truth()
        for image in truth["images"]:
            image["file_name"] = self.paths[image["id"]]
        replace_file(path, json.dumps(self.evaluator.detections()).encode())
        replace_file(folder / "ground_truth.json", json.dumps(truth).encode())
        return path


def in_turns(parts: list[list[Tensor]]) -> list[Tensor]:
    """Return what processes got for their batches in the order of these, which they took in turns."""
    longest = max(map(len, parts))
    return [part[number] for number in range(longest) for part in parts if number < len(part)]


def validation_suppression(settings: DataSettings) -> NMSParams:
    """Return how validation reduces predictions to detections: almost all of them, with several classes per box."""
    conf = VALIDATION_CONF if settings.conf is None else settings.conf
    return NMSParams(
        conf,
        settings.iou,
        settings.max_det,
        settings.agnostic_nms,
        multi_label=True,
        classes=settings.classes,
    )


def form_of(network: InferenceBackend | DetectionModel, config: DataConfig) -> PixelFormat:
    """Return how the images of a data set are read for a network; where they contradict, the network decides."""
    for key in ("channels", "value_range"):
        stated, own = getattr(config, key), getattr(network, key)
        if stated is not None and own is not None and stated != own:
            log.warning(
                "%s has %s: %s, but the model was trained with %s: images are read for the model",
                *(config.yaml_path.name, key, format_value(stated), format_value(own)),
            )
    return PixelFormat(network.channels, network.value_range or config.value_range)


def validate(
    settings: ValSettings, backend: InferenceBackend, callbacks: CallbackRegistry
) -> tuple[Validator, Metrics]:
    """Validate a network or an exported file on a split, as `detector val` does: run folder, loader, metrics, files.

    Raises:
        CheckpointError: if the model's class count is not the data set's.
    """
    from detector.callbacks.builtin.sample_images import Pictures
    from detector.data.loader import worker_death
    from detector.engine.loaders import make_val_loader, num_workers, open_data, read_split

    config = open_data(settings)
    annotations = read_split(config, settings.split, settings)
    if len(annotations.names) != backend.num_classes and not settings.single_cls:
        raise CheckpointError(
            f"the model knows {backend.num_classes} classes, but {config.yaml_path.name} names "
            f"{len(annotations.names)}; validate on the data it was trained for, or train it on this data"
        )
    rect = settings.rect and backend.input_hw is None
    folder = make_run_folder(settings.project, settings.name or "val", settings.exist_ok)
    workers = num_workers(settings.workers, backend.device)
    form = form_of(backend, config)
    describe_depth(annotations.paths, form.value_range)
    loader = make_val_loader(annotations, settings, settings.batch, workers, backend.device, rect, form)
    if settings.plots and not callbacks.has_kind(Pictures):
        callbacks.add(Pictures())
    validator = Validator(validation_suppression(settings), callbacks, folder, settings.single_cls, settings)
    try:
        metrics = validator.run(backend, loader, annotations)
    except RuntimeError as error:
        raise worker_death(error) or error from None
    finally:
        loader.close()
    if settings.save_json:
        log.info("detections are in %s", validator.save_json(folder))
    speed = ", ".join(f"{stage} {ms:.1f}" for stage, ms in validator.speed.items())
    log.info("%s\nms per image: %s\nresults are in %s", metrics.table(), speed, folder)
    return validator, metrics
