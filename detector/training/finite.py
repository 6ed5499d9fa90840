"""The non-finite checks: end the training when loss, gradients or weights are NaN or infinite, and report where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.errors import CallbackError, TrainingError


@dataclass
class _Step:
    step: int
    loss: Tensor
    items: Tensor
    paths: list[str]
    is_finite: _Answer
    grad_norm: Tensor | None = None


class _Answer:
    """Whether a number on the device is finite; asked for without waiting, and read once the device got there.

    Args:
        number: () float.
    """

    def __init__(self, number: Tensor) -> None:
        self._answer = torch.isfinite(number).to("cpu", non_blocking=True)
        self._event = torch.cuda.Event() if number.is_cuda else None  # type: ignore[no-untyped-call]
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(number.device))

    def __bool__(self) -> bool:
        if self._event is not None:
            self._event.synchronize()  # with the work queued before it alone
        return bool(self._answer)


class NonFiniteCheck:
    """Checks the loss and the gradients of every step.

    Args:
        terms: names of the loss terms.
        weights: folder of the last good weights, for the message.
        late: read the answer of a step once the next one is queued, so that the device never waits for the host
            (CUDA); `finish` reads the last one.
    """

    def __init__(self, terms: Sequence[str], weights: Path, late: bool) -> None:
        self.terms, self.weights, self.late = terms, weights, late
        self._waiting: _Step | None = None

    def check(self, epoch: int, step: int, loss: Tensor, items: Tensor, paths: list[str]) -> None:
        """Check the loss of a step.

        Args:
            epoch: from 0.
            step: batches since the start.
            loss: () float.
            items: (L,) float, the loss terms.
            paths: the images of its batch.

        Raises:
            TrainingError: naming the step, each loss term and the files of the batch.
        """
        if self.late:
            self.finish(epoch)
        self._waiting = _Step(step, loss, items, paths, _Answer(loss))
        if not self.late:
            self._check(epoch, self._waiting)

    def check_gradients(self, epoch: int, grad_norm: Tensor) -> None:
        """Check the gradients of the step whose loss was checked last, before the weights change.

        Args:
            epoch: from 0.
            grad_norm: () float, the norm of all gradients.

        Raises:
            TrainingError: as `check`.
        """
        if self._waiting is not None:
            self._waiting.grad_norm = grad_norm
            self._waiting.is_finite = _Answer(self._waiting.loss + grad_norm)
            if not self.late:
                self._check(epoch, self._waiting)

    def finish(self, epoch: int) -> None:
        """Check the step that waits for it, before its weights are validated and saved.

        Raises:
            TrainingError: as `check`.
        """
        step, self._waiting = self._waiting, None
        if step is not None and self.late:
            self._check(epoch, step)

    def _check(self, epoch: int, step: _Step) -> None:
        if step.is_finite:
            return
        norm = step.grad_norm
        what = "gradients are" if bool(torch.isfinite(step.loss)) else "loss is"
        values = [f"{n}={v:g}" for n, v in zip(self.terms, step.items.tolist(), strict=True)]
        if norm is not None:
            values.append(f"gradient norm={norm.item():g}")
        raise TrainingError(
            f"the {what} not finite at epoch {epoch + 1}, step {step.step}: {', '.join(values)}; the last good "
            f"weights are in {self.weights}; try a smaller lr0 or amp=false. Files of that batch: "
            f"{', '.join(step.paths)}"
        )


def find_non_finite(content: Mapping[str, Any]) -> str | None:
    """Return the name of the first weight of a checkpoint or a state that is NaN or infinite, or None.

    In a state, averaged weights, the optimizer's and accumulated gradients count as well; the latter not with a loss
    scaler, which lets some overflow.

    Args:
        content: of a checkpoint or a state.
    """
    keys = ["weights", "ema", "optimizer", *(() if content.get("scaler") else ("grads",))]
    tensors = [pair for key in keys if key in content for pair in _tensors(content[key], key)]
    groups = "optimizer['param_groups']"  # may hold values of the user's own
    tensors = [pair for pair in tensors if not pair[0].startswith(groups)]
    for device in {value.device for _, value in tensors}:  # one synchronisation each
        here = [(name, value) for name, value in tensors if value.device == device]
        if not bool(torch.stack([value.isfinite().all() for _, value in here]).all()):
            return next(name for name, value in here if not bool(value.isfinite().all()))
    return None


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of floats in nested data, by its place."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and not value.is_meta:
            yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{name}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _tensors(item, f"{name}[{number}]")


def require_finite(content: Mapping[str, Any], path: Path, good: Path) -> None:
    """Refuse to save weights that are of no use over others.

    Args:
        content: of a checkpoint or a state.
        path: the file it is for.
        good: folder of the last good weights, for the message.

    Raises:
        TrainingError: naming the first weight that is not finite.
    """
    if (name := find_non_finite(content)) is not None:
        raise TrainingError(
            f"{path} is not written: {name} is not finite; the last good weights are in {good}; try a smaller lr0 "
            f"or amp=false, and look at callbacks that change weights"
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
