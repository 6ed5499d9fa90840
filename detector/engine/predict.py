"""Prediction: find objects in images, as a list or as a lazy stream."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Generator
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from detector.boxes import NMSParams
from detector.callbacks.registry import CallbackRegistry
from detector.data.formats.yolo import label_path
from detector.data.letterbox import Letterbox, input_hw, letterbox_batch
from detector.device import StageTimer
from detector.drawing import writable_name, writing
from detector.engine.engine import Engine
from detector.engine.run_folder import make_run_folder
from detector.errors import DataError, SettingsError
from detector.files.names import folded
from detector.inference.backend import InferenceBackend, rescale_to_image
from detector.results import Results
from detector.settings import PredictSettings

if TYPE_CHECKING:
    from detector.data.sources import Source, SourceItem

log = logging.getLogger(__name__)

STAGES = ("preprocess", "inference", "postprocess")
NO_ROOM = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)  # what the next image would meet too


class Predictor(Engine):
    """Runs a network over images.

    Attributes:
        batch: the current images (`SourceItem`s); None outside batch events.
        results: the `Results` of the batch; what a callback leaves here is returned to the user.
        save_dir: the run folder, or None when nothing is written.
        speed: milliseconds per image by stage, over the whole run, once `on_predict_end` fires.
        unsaved: images of which a file could not be written.
        dataset: the images, as they are read, or None before.
        model: the network or exported file, ready to run; also `backend`.
        device: where it runs.

    Args:
        settings: checked prediction settings.
        backend: the network, ready to run.
        callbacks: this prediction's callbacks.

    Raises:
        SettingsError: if `classes` names one that the model does not have.
    """

    ELSEWHERE = MappingProxyType(
        {
            "imgsz": "predictor.input_hw",
            "im": "predictor.batch, whose items have path and image",
            "plotted_img": "result.plot() of predictor.results",
            "seen": "len(predictor.batch) in each batch",
            "vid_path": "result.path of predictor.results",
            "source_type": "predictor.dataset",
        }
    )

    def __init__(
        self, settings: PredictSettings, backend: InferenceBackend, callbacks: CallbackRegistry
    ) -> None:
        super().__init__(callbacks)
        self.settings = self.args = settings
        self.backend = self.model = backend
        self.device = backend.device
        self.dataset: Source | None = None
        self.batch: list[SourceItem] | None = None
        self.results: list[Results] = []
        self.save_dir: Path | None = None
        self.speed: dict[str, float] = {}
        self._used: Counter[str] = Counter()
        self._replaced: set[str] = set()
        self.unsaved = 0
        for class_id in settings.classes or []:
            if class_id not in backend.names:
                raise SettingsError(f"classes={class_id}: the model has classes 0-{backend.num_classes - 1}")
        self.suppression = NMSParams(
            settings.conf, settings.iou, settings.max_det, settings.agnostic_nms, classes=settings.classes
        )
        self.input_hw = backend.input_hw or input_hw(settings.imgsz)

    def stream(self, source: Source) -> Generator[Results, None, None]:
        """Yield the results of each image; closing the generator early still ends the prediction properly."""
        settings, self.dataset = self.settings, source
        if settings.save or settings.save_txt or settings.save_crop:
            self.save_dir = make_run_folder(settings.project, settings.name or "predict", settings.exist_ok)
            self._require_other_folder(source)
        timer, count = StageTimer(self.backend.device, STAGES), 0
        self.fire("on_predict_start")
        items = iter(source)
        try:
            while batch := list(islice(items, settings.batch)):
                self.batch = batch
                self.fire("on_predict_batch_start")
                with self.backend.threads():
                    self.results = self._predict(batch, timer)
                self.fire("on_predict_postprocess_end")
                self.fire("on_predict_batch_end")
                count += len(batch)
                self.batch, results, self.results = None, self.results, []
                for result in results:
                    if isinstance(result, Results):  # a callback may have put something else in its place
                        self._write(result)
                    yield result
        finally:
            if isinstance(items, Generator):
                items.close()
            self.batch = None
            self.speed = timer.ms_per_image(count)
            if self.unsaved:
                log.warning("files of %d images could not be written", self.unsaved)
            if source.skipped:
                log.warning("%d of %d images could not be read and were skipped", source.skipped, len(source))
            self.fire("on_predict_end")

    def _require_other_folder(self, source: Source) -> None:
        """Refuse to write where the images or their labels are: results have their names, and would replace them.

        Raises:
            SettingsError: naming the folder.
        """
        assert self.save_dir is not None
        folders = {path.parent for path in source.files}
        labels = {Path(label_path(str(folder / "x.jpg"))).parent for folder in folders}
        taken = {folder.resolve() for folder in folders | labels}
        settings = self.settings
        for folder in [self.save_dir] * settings.save + [self.save_dir / "labels"] * settings.save_txt:
            if folder.resolve() in taken:
                raise SettingsError(
                    f"{folder} holds images of source= or their labels, which the results would replace; choose "
                    "another project= or name="
                )

    def _predict(self, batch: list[SourceItem], timer: StageTimer) -> list[Results]:
        timer.start()
        images, places = self.preprocess([item.image for item in batch])
        spent = {"preprocess": timer.stop("preprocess")}
        decoded, _ = self.backend.forward(images)
        spent["inference"] = timer.stop("inference")
        detections = self.backend.detect(decoded, self.suppression)
        found = [
            rescale_to_image(rows.float(), place.ratio, place.pad, item.image.shape[:2])
            for rows, place, item in zip(detections, places, batch, strict=True)
        ]
        spent["postprocess"] = timer.stop("postprocess")
        speed = {stage: 1e3 * seconds / len(batch) for stage, seconds in spent.items()}
        return [
            Results(item.image, path=item.path, names=self.backend.names, boxes=rows, speed=dict(speed))
            for item, rows in zip(batch, found, strict=True)
        ]

    def preprocess(self, images: list[NDArray[np.uint8]]) -> tuple[Tensor, list[Letterbox]]:
        """Letterbox images into one batch.

        Padding is minimal when all images have one shape and `rect` is on; else the full size, as it
        always is for an exported file of fixed size.

        Args:
            images: (H, W, 3) uint8 BGR arrays.

        Returns:
            (B, C, H, W) uint8, RGB or grey, and where each image lies in it.
        """
        min_rect = self.settings.rect and self.backend.input_hw is None
        return letterbox_batch(
            images, self.input_hw, min_rect, max(self.backend.strides), self.backend.channels
        )

    def _write(self, result: Results) -> None:
        """Write what the settings ask for."""
        settings = self.settings
        if settings.verbose:
            shape = "x".join(map(str, result.orig_shape))
            milliseconds = sum(result.speed.values())
            log.info("%s: %s %s%.1f ms", result.path, shape, result.verbose(), milliseconds)
        drawing = {
            "conf": settings.show_conf,
            "labels": settings.show_labels,
            "boxes": settings.show_boxes,
            "line_width": settings.line_width,
        }
        if self.save_dir is not None:
            result.save_dir = str(self.save_dir)
            try:
                self._save(result, self.save_dir, drawing)
            except DataError as error:
                cause = error.__cause__
                if isinstance(cause, OSError) and cause.errno in NO_ROOM:
                    raise
                self.unsaved += 1
                log.warning("%s Not saved; the prediction continues.", error)
        if settings.show:
            result.show(**drawing)

    def _save(self, result: Results, folder: Path, drawing: dict[str, Any]) -> None:
        """Write the files of one image; each has a name of its own.

        Raises:
            DataError: a file can't be written.
        """
        settings, given = self.settings, Path(result.path).name
        name = writable_name(given)
        if settings.save and name != given and (suffix := Path(given).suffix) not in self._replaced:
            self._replaced.add(suffix)
            log.info("OpenCV can't write %s images; annotated ones are saved as .jpg", suffix or "nameless")
        stem = Path(self._free_name(f"{Path(given).stem}.txt")).stem
        if settings.save_txt:
            labels = folder / "labels" / f"{stem}.txt"
            with writing(labels, "labels"):
                labels.unlink(missing_ok=True)  # of an earlier prediction into this folder
            result.save_txt(labels, save_conf=settings.save_conf)
        if settings.save:
            result.save(folder / self._free_name(name), **drawing)
        if settings.save_crop:
            result.save_crop(folder / "crops", file_name=f"{stem}.jpg")

    def _free_name(self, name: str) -> str:
        """Return a file name that this prediction has not used yet: name, stem-2.jpg, stem-3.jpg ..."""
        number = self._used[folded(name)] = self._used[folded(name)] + 1
        path = Path(name)
        return name if number == 1 else self._free_name(f"{path.stem}-{number}{path.suffix}")
