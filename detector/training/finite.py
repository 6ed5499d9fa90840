"""The non-finite check: end the training when the loss is NaN or infinite, and report where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from detector.errors import CallbackError, TrainingError


class NonFiniteCheck:
    """Checks the loss of every step.

    Args:
        terms: names of the loss terms.
        weights: folder of the last good weights, for the message.
        late: check the loss of the previous step, so that the host never synchronises with the device for the
            step it has just queued (CUDA).
    """

    def __init__(self, terms: Sequence[str], weights: Path, late: bool) -> None:
        self.terms, self.weights, self.late = terms, weights, late
        self._waiting: tuple[int, Tensor, Tensor, list[str]] | None = None

    def check(self, epoch: int, step: int, loss: Tensor, items: Tensor, paths: list[str]) -> None:
        """Check a step.

        Args:
            epoch: from 0.
            step: batches since the start.
            loss: () float.
            items: (L,) float, the loss terms.
            paths: the images of its batch.

        Raises:
            TrainingError: naming the step, each loss term and the files of the batch.
        """
        now = (step, loss, items, paths)
        checked = self._waiting if self.late else now
        self._waiting = now
        if checked is None or bool(torch.isfinite(checked[1])):
            return
        step, _, items, paths = checked
        values = ", ".join(f"{n}={v:g}" for n, v in zip(self.terms, items.tolist(), strict=True))
        raise TrainingError(
            f"the loss is not finite at epoch {epoch + 1}, step {step}: {values}; the last good weights are in "
            f"{self.weights}; try a smaller lr0 or amp=false. Files of that batch: {', '.join(paths)}"
        )


def require_loss(loss: object) -> None:
    """Refuse what a callback put in place of the loss, if it can't be trained on.

    Raises:
        CallbackError: unless it is a tensor of one number with gradients.
    """
    if isinstance(loss, Tensor) and loss.ndim == 0 and loss.requires_grad:
        return
    given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
    if isinstance(loss, Tensor) and loss.ndim == 0:
        given = "a tensor without gradients"
    raise CallbackError(
        f"trainer.loss was set to {given} in on_loss; expected one number with gradients, such as "
        "trainer.loss + 0.1 * term, where term is computed from trainer.preds or trainer.model"
    )
