"""Whether a network still learns: ends a training that can't, and warns of one that gets worse."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from detector.errors import TrainingError

log = logging.getLogger(__name__)

NOTHING = 1e-9  # losses and gradients below this are those of outputs whose sigmoids are 0
TOO_HIGH = 3.0  # times the first loss; a network that learns stays below it


class LearningCheck:
    """Looks at the mean losses of every epoch.

    Where rates are far too high, a network may end up with logits so low that every sigmoid is 0: it finds nothing in
    any image, so that no box is assigned a target, and losses and gradients are 0 from then on, for good.

    Args:
        lr0: the learning rate, for the messages.
        weights: folder of the saved weights, for the messages.
    """

    def __init__(self, lr0: float, weights: Path) -> None:
        self.lr0, self.weights = lr0, weights
        self._first = 0.0
        self._has_warned = False

    def check(self, epoch: int, losses: Sequence[float], grad_norm: Tensor | None) -> None:
        """Check an epoch, before its weights are validated and saved.

        Args:
            epoch: from 0.
            losses: the mean of each loss term over the epoch's images.
            grad_norm: () float, the norm of all gradients in the last optimizer step, or None.

        Raises:
            TrainingError: if nothing is learned any more.
        """
        total = sum(losses)
        if total < NOTHING and grad_norm is not None and float(grad_norm) < NOTHING:
            raise TrainingError(
                f"losses and gradients are 0 in epoch {epoch + 1}: the network finds nothing in any image and can't "
                f"learn any more; what was saved before is in {self.weights}; start a new run with a smaller lr0 "
                f"(it was {self.lr0:g})"
            )
        if not self._first:
            self._first = total
        elif total > TOO_HIGH * self._first and not self._has_warned:
            self._has_warned = True
            log.warning(
                "the losses of epoch %d add up to %.3g, those of the first one to %.3g: the network gets worse; "
                "try a smaller lr0 (it is %g)",
                epoch + 1, total, self._first, self.lr0,
            )  # fmt: skip
