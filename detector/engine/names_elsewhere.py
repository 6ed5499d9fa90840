"""Names that the trainer has elsewhere, so that published callbacks run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from detector.engine.engine import Engine
from detector.engine.loaders import TrainingData
from detector.training.progress import EpochMeters, StopFlag


class NamesElsewhere(Engine):
    """Second names of what `Trainer` has, and answers for those of which it has no equal."""

    last: Path
    data: TrainingData
    meters: EpochMeters
    loss_names: Sequence[str]

    should_stop, stop_training = StopFlag("stop"), StopFlag("stop")

    ELSEWHERE = MappingProxyType(
        {
            "scheduler": "trainer.schedule: its scale changes every rate, paused leaves them to you",
            "lf": "trainer.schedule.factor(epoch)",
            "accumulate": "trainer.schedule.accumulate",
            "stopper": "trainer.stop = True, or the EarlyStopping among trainer.callbacks.objects",
            "amp": "trainer.precision",
            "trainset": 'trainer.data.config.splits["train"]',
            "testset": 'trainer.data.config.splits["val"]',
            "epoch_time": 'trainer.metrics["speed/images_per_second"]',
            "epoch_time_start": 'trainer.metrics["speed/images_per_second"]',
            "train_time_start": "trainer.started, of time.perf_counter()",
            "plots": "the images of the run folder; loggers get them by themselves",
            "run_callbacks": "trainer.fire(event)",
            "resume_training": "trainer.start_epoch, which is above 0 when resumed",
            "compute_loss": "trainer.loss_fn",
            "criterion": "trainer.loss_fn",
        }
    )

    @property
    def wdir(self) -> Path:
        """The folder of the weights."""
        return Path(self.last).parent

    @property
    def train_loader(self) -> Any:
        """The batches to train on; `test_loader` those of the validation."""
        return self.data.train_loader

    @property
    def test_loader(self) -> Any:
        """The batches of the validation."""
        return self.data.val_loader

    @property
    def tloss(self) -> Tensor:
        """(L,) float32, the mean loss terms of this epoch so far, see `loss_names`."""
        return self.meters.loss_sum / max(self.meters.images_seen, 1)

    def label_loss_items(self, loss_items: Tensor | None = None, prefix: str = "train") -> Any:
        """Return the names of the loss terms as metrics have them, with their values if there are any.

        Args:
            loss_items: (L,) values, or None for a list of the names only.
            prefix: what the names begin with.
        """
        names = [f"{prefix}/{name}" for name in self.loss_names]
        return names if loss_items is None else dict(zip(names, loss_items.tolist(), strict=True))
