"""What a training validates: the averaged weights after every epoch, and the best ones at its end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from detector.checkpoints.checkpoint import load_checkpoint
from detector.checkpoints.network import build_network, read_config
from detector.data.letterbox import input_hw
from detector.engine.state import TrainingState
from detector.inference.torch_backend import TorchBackend
from detector.training.averaging import mean_weights
from detector.training.batch_norm import (
    FORWARD_BATCHES,
    STATISTICS_IMAGES,
    images_for_statistics,
    join_batches,
    part_to_keep,
    recompute_statistics,
)
from detector.training.fitness import as_fitness

if TYPE_CHECKING:
    from detector.engine.val import Validator
    from detector.metrics.metrics import Metrics
    from detector.nn.model import DetectionModel


class TrainingValidation(TrainingState):
    """The part of the trainer that validates.

    Attributes:
        final_metrics: the metrics of the best weights, once they are validated in full.
        final_model: the network with the best weights, on the CPU, once the training has ended.
        final_weights: the file they are from, None if nothing is saved.
        final_checkpoint: its content without the weights; empty if nothing is saved.
    """

    validator: Validator
    best: Path
    final_metrics: Metrics | None
    final_model: DetectionModel | None
    final_weights: Path | None
    final_checkpoint: dict[str, Any]
    _best_before: tuple[float | None, float | None, int | None]

    def recompute_statistics(self) -> None:
        """Let the batch-norm statistics of the averaged weights be theirs on the last images of this epoch."""
        steps = self.ema.updates
        count = images_for_statistics(steps, *input_hw(self.settings.imgsz))
        at_once = FORWARD_BATCHES * self.batch_size * count // STATISTICS_IMAGES  # more where they are small
        joined = join_batches(self.last_images(count), at_once)
        with self.precision.autocast():
            recompute_statistics(
                self.ema.model,
                self.model,
                map(self.images_to_device, joined),
                keep=part_to_keep(steps),
            )

    def last_images(self, count: int) -> Iterator[Tensor]:
        """Yield the last `count` images of this epoch, uint8, in its batches.

        A data set of fewer images is drawn several times, each time augmented in another way.
        """
        images = len(self.data.visits)
        for draw in range(math.ceil(count / images)):
            first, skipped = divmod(max(images - (count - draw * images), 0), self.batch_size)
            for number, batch in enumerate(
                self.data.train_loader.batches(self.epoch + draw, first, mosaic=not self.mosaic_is_closed),
                first,
            ):
                joined = self.ranks.joined(batch.images, self.data.train_loader.images_of(number))
                yield joined[skipped:].clone()  # the memory that loaders share holds a few batches only
                skipped = 0

    def validate(self) -> None:
        """Validate the averaged weights; this epoch's metrics and fitness are there afterwards."""
        last_epoch = self.epoch + 1 >= self.epochs or self.stop
        self._best_before = self.best_fitness, self.progress.best_loss, self.best_epoch
        if self.data.val_loader is None or not (self.settings.val or last_epoch):
            self.fitness = None
            return
        metrics = self.measure()
        self.metrics |= self.validator.losses
        self.metrics |= metrics.results_dict
        del self.metrics["fitness"]
        self.fitness = self.fitness_by.of(self.metrics)

    def measure(self) -> Metrics:
        """Validate the averaged weights as they are now."""
        self.ema.sync_counters()
        backend = TorchBackend(self.ema.model, self.device, self.precision)
        return self.validator.run(
            backend, self.data.val_loader, self.data.val_annotations, self.loss_fn, final=False
        )

    @property
    def fitness(self) -> float | None:
        """How good the last validated epoch is; None before, and after an epoch without validation.

        Setting it at the end of an epoch, as a callback may, decides again whether this epoch is the best so far.
        """
        return self._fitness

    @fitness.setter
    def fitness(self, value: float | None) -> None:
        self._fitness = number = as_fitness(value)
        if self._end_of_epoch is None:
            return
        self.best_fitness, self.progress.best_loss, self.best_epoch = self._best_before
        if number is not None:
            self.progress.take_if_better(number, self.metrics.get("val/loss"), self.epoch)

    def save_average(self, parts: Sequence[Path], path: Path) -> Metrics:
        """Write the mean of some checkpoints of this run to `path`, with statistics of its own; returns its metrics."""
        now = {key: value.clone() for key, value in self.ema.model.state_dict().items()}
        try:
            self.ema.model.load_state_dict(
                self.ranks.from_main(lambda: mean_weights(parts), "averaged weights")
            )
            self.recompute_statistics()
            metrics = self.measure()
            if self.ranks.is_main:
                self.saver.save_checkpoint(
                    path, self.checkpoint() | {"metrics": self.validator.losses | metrics.results_dict}
                )
        finally:
            self.ema.model.load_state_dict(now)
        return metrics

    def final_eval(self) -> None:
        """Take the best weights, and validate them once more, in full."""
        self.final_model = self.ema.model
        if self.settings.save:
            ours = self.best_epoch is not None or self.data.val_loader is None  # else it is an older run's
            path, content = self.ranks.from_main(lambda: self.open_final(ours), "the best weights")
            self.final_model = build_network(
                read_config(content["model"], path), content.pop("weights"), path
            ).eval()
            self.final_weights, self.final_checkpoint = path, content
        if self.data.val_loader is not None:
            head = self.final_model.head_for(self.settings.nms)
            backend = TorchBackend(self.final_model, self.device, self.precision, head=head)
            self.final_metrics = self.validator.run(
                backend, self.data.val_loader, self.data.val_annotations, final=True
            )
            self.metrics |= {k: v for k, v in self.final_metrics.results_dict.items() if k != "fitness"}
        self.fire("on_final_eval_end")

    def open_final(self, ours: bool) -> tuple[Path, dict[str, Any]]:
        """Return the file of the best weights, or of the last, and its content; `ours` if best.pt is of this run."""
        path = self.best if ours and self.best.exists() else self.last
        return path, load_checkpoint(path)
