"""Learning rates, momentum and accumulation over a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.optim import Optimizer

from detector.training.checked import CheckedAttributes


def linear_decay(progress: float, last: float) -> float:
    """Return the learning-rate factor of a linear decay from 1 to `last` at `progress` in 0..1."""
    return max(1 - progress, 0.0) * (1 - last) + last


def cosine_decay(progress: float, last: float) -> float:
    """Return the learning-rate factor of a half-cosine decay from 1 to `last` (SGDR, eq. 5)."""
    return (1 - math.cos(math.pi * progress)) / 2 * (last - 1) + 1


@dataclass
class Schedule(CheckedAttributes):
    """Learning rates, momentum and accumulation as functions of the epoch and the global step.

    In the warm-up, learning rates rise linearly from 0 (biases: fall from `warmup_bias_lr`) to their
    value at this epoch, momentum from `warmup_momentum` to `momentum`, and accumulation from 1.

    Attributes:
        epochs: planned epochs.
        batches: batches per epoch.
        accumulate: batches per optimizer step, after the warm-up.
        scale: factor of every learning rate; for callbacks to change.
        paused: leave the optimizer's learning rates as a callback set them.
    """

    epochs: int
    batches: int
    lrf: float = 0.01
    cosine: bool = False
    warmup_epochs: float = 3.0
    warmup_bias_lr: float = 0.0
    warmup_momentum: float = 0.8
    momentum: float = 0.937
    accumulate: int = 1
    scale: float = 1.0
    paused: bool = False

    place: ClassVar[str] = "trainer.schedule"

    def state_dict(self) -> dict[str, Any]:
        """Return what callbacks may have changed."""
        return {"scale": self.scale, "paused": self.paused}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.scale, self.paused = state["scale"], state["paused"]

    @property
    def warmup_steps(self) -> int:
        """Batches of warm-up; never the whole run."""
        return round(min(self.warmup_epochs, max(self.epochs - 1, 0)) * self.batches)

    def factor(self, epoch: float) -> float:
        """Return the learning-rate factor of an epoch."""
        decay = cosine_decay if self.cosine else linear_decay
        return decay(epoch / self.epochs, self.lrf)

    def apply(self, optimizer: Optimizer, epoch: int, step: int) -> int:
        """Set the optimizer's rates for a batch.

        Args:
            optimizer: with groups from `build_optimizer`.
            epoch: from 0.
            step: batches since the start of training, from 0.

        Returns:
            The number of batches to accumulate now.
        """
        factor, warmup = self.factor(epoch), self.warmup_steps
        part = step / warmup if step <= warmup and warmup else 1.0
        for group in optimizer.param_groups:
            start = self.warmup_bias_lr if group["role"] == "bias" else 0.0
            if not self.paused:
                group["lr"] = self.scale * (start + part * (group["initial_lr"] * factor - start))
            if "momentum" in group:
                group["momentum"] = self.warmup_momentum + part * (self.momentum - self.warmup_momentum)
        return max(round(1 + part * (self.accumulate - 1)), 1)
