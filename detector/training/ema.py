"""Exponential moving average of the weights, which is what gets validated and saved."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class ModelEMA(Generic[ModuleT]):
    """Average of a model's parameters and buffers: e = d e + (1 - d) w after every optimizer step.

    The decay grows with the number of updates n, d(n) = min(decay, (1 + n) / (50 + n)): the average reaches
    back over about 2 % of the run so far, whatever its length, so that early, poor weights are soon
    forgotten and short runs are averaged as well as long ones (Polyak averaging with warm-up).

    Attributes:
        model: the averaged model, in eval mode, without gradients.
        updates: optimizer steps seen so far.
    """

    def __init__(self, model: ModuleT, decay: float = 0.9999) -> None:
        self.model: ModuleT = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        mine, theirs = self.model.state_dict(), model.state_dict()
        floating = [key for key, value in mine.items() if value.is_floating_point()]
        self._average = [mine[key] for key in floating]
        self._source = [theirs[key] for key in floating]
        self._counters = [(mine[key], theirs[key]) for key in mine if key not in set(floating)]

    @property
    def ema(self) -> ModuleT:
        """The averaged model, under the name that callbacks of other trainers read."""
        return self.model

    def decay_at(self, updates: int) -> float:
        """Return the decay of update number `updates` (from 1)."""
        return min(self.decay, (1 + updates) / (50 + updates))

    @torch.no_grad()
    def update(self) -> None:
        """Add the model's current weights to the average."""
        self.updates += 1
        weight = 1 - self.decay_at(self.updates)
        torch._foreach_lerp_(self._average, self._source, weight)

    def sync_counters(self) -> None:
        """Copy the integer buffers (batch-norm counters), which have no average."""
        for mine, theirs in self._counters:
            mine.copy_(theirs)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights, under the model's names."""
        self.sync_counters()
        return self.model.state_dict()
