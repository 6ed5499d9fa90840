"""Images of a run: training batches, labelled and predicted validation batches, curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detector.callbacks.builtin.batch_images import file_names, found_boxes, true_boxes
from detector.callbacks.builtin.checks import require_number
from detector.callbacks.callback import Callback

BATCHES = 3  # that are drawn, of training and of validation
MIN_SIDE = 320  # px to which smaller images are enlarged, so that labels leave something to see


class Pictures(Callback):
    """Draws sample batches and curves into the run folder.

    * `train_batch0.jpg` ...: the first training batches, as the network sees them;
    * `val_batch0_labels.jpg`, `val_batch0_pred.jpg` ...: ground truth and predictions of the last validation;
    * `labels.jpg`, `results.png`, `confusion_matrix.png`, `BoxPR_curve.png` and the like.

    Args:
        conf: detections below are left out.

    Raises:
        CallbackError: if `conf` is not a number >= 0.
    """

    def __init__(self, conf: float = 0.25) -> None:
        self.conf = require_number("Pictures", "conf", conf)

    def on_pretrain_routine_end(self, trainer: Any) -> None:
        """Draw what the labels are like."""
        from detector.drawing import dispensable
        from detector.label_plots import plot_labels

        data = trainer.data
        splits = {"train": data.train_annotations, "val": data.val_annotations}
        with dispensable("labels.jpg"):
            plot_labels(splits, data.names, trainer.save_dir / "labels.jpg")

    def on_val_start(self, validator: Any) -> None:
        self.val_batches = 0

    def on_train_batch_end(self, trainer: Any) -> None:
        if trainer.epoch == trainer.start_epoch and trainer.batch_index < BATCHES:
            path = trainer.save_dir / f"train_batch{trainer.batch_index}.jpg"
            _write(path, trainer.batch, trainer.data.names, *true_boxes(trainer.batch))

    def on_val_batch_end(self, validator: Any) -> None:
        """Draw labels and predictions of the last validation's first batches."""
        if not validator.final or self.val_batches >= BATCHES or validator.save_dir is None:
            return
        batch, names = validator.batch, validator.names
        stem = f"val_batch{self.val_batches}"
        _write(validator.save_dir / f"{stem}_labels.jpg", batch, names, *true_boxes(batch))
        found = found_boxes(batch, validator.preds, self.conf)
        _write(validator.save_dir / f"{stem}_pred.jpg", batch, names, *found)
        self.val_batches += 1

    def on_val_end(self, validator: Any) -> None:
        """Draw the last validation's curves."""
        if validator.final and validator.save_dir is not None:
            from detector.drawing import dispensable
            from detector.plots import plot_confusion_matrix, plot_curves

            with dispensable("its curves"):
                plot_curves(validator.metrics, validator.save_dir)
                plot_confusion_matrix(validator.metrics, validator.save_dir)

    def on_train_end(self, trainer: Any) -> None:
        """Draw the run's curves."""
        from detector.drawing import dispensable
        from detector.plots import plot_results

        if trainer.csv.exists():
            with dispensable("results.png"):
                plot_results(trainer.csv)


def _write(
    path: Path, batch: Any, names: dict[int, str], boxes: Any, labels: Any, scores: Any = None
) -> None:
    """Write the images of a batch with these boxes as one image grid."""
    from detector.drawing import dispensable, mosaic, write_image

    images = batch.images.cpu().numpy()
    with dispensable(path.name):
        write_image(path, mosaic(images, boxes, labels, scores, names, file_names(batch), min_side=MIN_SIDE))
