"""The same validation images every epoch, to see a model learn."""

from __future__ import annotations

from typing import Any

from detector.callbacks.builtin.batch_images import file_names, found_boxes, true_boxes
from detector.callbacks.builtin.checks import require_number, require_whole
from detector.callbacks.callback import Callback

GRID_SIDE = 1280  # longest side of each half, px


class PredictionImages(Callback):
    """Draws the first validation images of an epoch: the truth at the left, what was found at the right.

    It is written to `predictions/epoch3.jpg` in the run folder and given to all loggers as `predictions`. Epochs
    without validation have none.

    Args:
        every: epochs from one grid to the next.
        count: images in it.
        conf: detections below are left out.

    Raises:
        CallbackError: for arguments that can't be used.
    """

    def __init__(self, every: int = 1, count: int = 4, conf: float = 0.25) -> None:
        self.every = require_whole("PredictionImages", "every", every, 1)
        self.count = require_whole("PredictionImages", "count", count, 1)
        self.conf = require_number("PredictionImages", "conf", conf)
        self._begin(False)

    def _begin(self, is_due: bool) -> None:
        self.is_due = is_due
        self.images: list[Any] = []
        self.titles: list[str] = []
        self.truth: tuple[list[Any], ...] = ([], [])  # boxes, labels
        self.found: tuple[list[Any], ...] = ([], [], [])  # boxes, labels, scores

    def on_train_epoch_end(self, trainer: Any) -> None:
        """Before validation: decide whether to draw in this epoch."""
        self._begin((trainer.epoch + 1) % self.every == 0)

    def on_val_batch_end(self, validator: Any) -> None:
        """Keep what is needed of the first images."""
        room = self.count - len(self.images)
        if not self.is_due or room <= 0:
            return
        batch, names = validator.batch, file_names(validator.batch)
        self.names = validator.names
        self.images += [image.cpu().numpy().copy() for image in batch.images[:room]]
        self.titles += names[:room]
        for kept, new in (
            *zip(self.truth, true_boxes(batch), strict=True),
            *zip(self.found, found_boxes(batch, validator.preds, self.conf), strict=True),
        ):
            kept += new[:room]

    def on_fit_epoch_end(self, trainer: Any) -> None:
        if self.images:
            import numpy as np

            from detector.drawing import dispensable, write_image

            path = trainer.save_dir / "predictions" / f"epoch{trainer.epoch + 1}.jpg"
            with dispensable(f"predictions/{path.name}"):
                write_image(
                    path, np.hstack([self._half("truth", *self.truth), self._half("found", *self.found)])
                )
                for logger in trainer.loggers:
                    logger.log_images({"predictions": path}, trainer.epoch + 1)
        self._begin(False)

    def _half(self, word: str, boxes: Any, labels: Any, scores: Any = None) -> Any:
        """Return an image grid of all images with these boxes; both halves have the same layout."""
        from detector.drawing import mosaic

        titles = [f"{title}: {word}" for title in self.titles]
        return mosaic(self.images, boxes, labels, scores, self.names, titles, self.count, GRID_SIDE)
