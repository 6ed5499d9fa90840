"""MuSGD: SGD with Nesterov momentum that also takes a Muon step on matrices and convolution kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from detector.device import computes_in_bfloat16


class MuSGD(Optimizer):
    """SGD with Nesterov momentum that also takes a Muon step on matrices and convolution kernels.

    Muon (Jordan et al., 2024) replaces the momentum of a weight matrix by the nearest semi-orthogonal
    matrix, found by five Newton-Schulz iterations. Groups with `use_muon` take `muon * lr` times that
    step, then `sgd * lr` times the SGD step on the same gradient, with a momentum buffer for each.
    Weight decay acts in the SGD step only. Groups may have a `muon` and `sgd` of their own.

    Args:
        params: parameter groups.
        lr: learning rate.
        momentum: momentum of both steps.
        weight_decay: L2 term of the SGD step.
        muon: weight of the Muon step.
        sgd: weight of the SGD step in muon groups.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        muon: float = 0.2,
        sgd: float = 1.0,
    ) -> None:
        rates = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, rates | {"use_muon": False, "muon": muon, "sgd": sgd})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state; one that was written before groups had weights for their steps gets what was used then."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("muon", 0.2)
            group.setdefault("sgd", 1.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Do one step; returns what the closure returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        muon = []
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            if not group["use_muon"]:
                self._sgd_step(parameters, group, 1.0)
            elif parameters[0].is_cuda:
                muon.append((parameters, group))
            else:
                for alike in _by_shape(parameters):  # what a shape needs stays in the processor's cache
                    self._muon_steps([(alike, group)])
                    self._sgd_step(alike, group, group["sgd"])
        self._muon_steps(muon)  # all at once: a GPU is better off with few launches
        for parameters, group in muon:
            self._sgd_step(parameters, group, group["sgd"])
        return loss

    def _buffers(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        for p in parameters:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in parameters]

    def _muon_steps(self, parts: list[tuple[list[Tensor], dict[str, Any]]]) -> None:
        """Take the Muon step of some parameters of each group."""
        nesterov: list[Tensor] = []
        for parameters, group in parts:
            grads = _grads(parameters)
            momentum = self._buffers(parameters, "muon_buffer")
            torch._foreach_lerp_(momentum, grads, 1 - group["momentum"])
            nesterov += torch._foreach_lerp(grads, momentum, group["momentum"])
        found = iter(orthogonalize(nesterov))
        for parameters, group in parts:
            steps = list(islice(found, len(parameters)))
            scales = [max(1.0, p.shape[-2] / p.shape[-1]) ** 0.5 for p in parameters]
            if max(scales) > 1:
                torch._foreach_mul_(steps, scales)
            torch._foreach_add_(parameters, steps, alpha=-group["lr"] * group["muon"])

    def _sgd_step(self, parameters: list[Tensor], group: dict[str, Any], weight: float) -> None:
        grads = _grads(parameters)
        if group["weight_decay"]:
            grads = list(torch._foreach_add(grads, parameters, alpha=group["weight_decay"]))
        momentum = self._buffers(parameters, "momentum_buffer")
        torch._foreach_mul_(momentum, group["momentum"])
        torch._foreach_add_(momentum, grads)
        update = torch._foreach_add(grads, momentum, alpha=group["momentum"])
        torch._foreach_add_(parameters, update, alpha=-group["lr"] * weight)


def _by_shape(parameters: list[Tensor]) -> Iterable[list[Tensor]]:
    alike: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        alike.setdefault(parameter.shape, []).append(parameter)
    return alike.values()


def _grads(parameters: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def orthogonalize(matrices: list[Tensor], iterations: int = 5) -> list[Tensor]:
    """Replace each tensor, seen as (out, rest), by an approximately semi-orthogonal one.

    Quintic Newton-Schulz iteration, X <- a X + (b A + c A A) X with A = X X^T and
    (a, b, c) = (3.4445, -4.7750, 2.0315) (Jordan et al., Muon, 2024). Matrices of one shape go in one batch, on a GPU
    those of similar shapes. It is computed in bfloat16 where the device has such arithmetic, in float32 elsewhere:
    emulated on a CPU, bfloat16 takes many times as long (`python -m benchmarks --only orthogonalization`).

    Args:
        matrices: tensors of 2 or 4 dimensions.

    Returns:
        Tensors of the same shapes and types, in the same order.
    """
    flat = [_as_matrix(m) for m in matrices]
    dtype = torch.bfloat16 if flat and computes_in_bfloat16(flat[0].device) else torch.float32
    together = _iterate_padded if flat and flat[0].is_cuda else _iterate_alike
    rows = together(flat, dtype, iterations)
    return [row.as_strided(m.shape, m.stride()) for row, m in zip(rows, matrices, strict=True)]


def _iterate_alike(flat: list[Tensor], dtype: torch.dtype, iterations: int) -> list[Tensor]:
    """Orthogonalize matrices, those of one shape in one batch; the results are contiguous."""
    by_shape: dict[torch.Size, list[int]] = {}
    for index, m in enumerate(flat):
        by_shape.setdefault(m.shape, []).append(index)
    done = list(flat)
    for shape, indices in by_shape.items():
        x = _of_norm_one(torch.stack([flat[i] for i in indices]), dtype)
        x = _newton_schulz(x if shape[0] <= shape[1] else x.mT, iterations)
        x = (x if shape[0] <= shape[1] else x.mT).to(flat[indices[0]].dtype).contiguous()
        for i, row in zip(indices, x, strict=True):
            done[i] = row
    return done


def _iterate_padded(flat: list[Tensor], dtype: torch.dtype, iterations: int) -> list[Tensor]:
    """Orthogonalize matrices, padded to few shapes by zeros, which stay zeros; the results are contiguous.

    A launch costs a GPU more than the zeros do.
    """
    wide = [m if m.shape[0] <= m.shape[1] else m.mT for m in flat]
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, m in enumerate(wide):
        by_shape.setdefault((_padded(m.shape[0], 16, 2), _padded(m.shape[1], 64, 4)), []).append(index)
    done = [torch.empty_like(m, memory_format=torch.contiguous_format) for m in flat]
    for shape, indices in by_shape.items():
        x = flat[0].new_zeros(len(indices), *shape)
        inside = [m[: wide[i].shape[0], : wide[i].shape[1]] for m, i in zip(x.unbind(), indices, strict=True)]
        torch._foreach_copy_(inside, [wide[i] for i in indices])
        x.copy_(_newton_schulz(_of_norm_one(x, dtype), iterations))
        targets = [done[i] if flat[i].shape == wide[i].shape else done[i].mT for i in indices]
        torch._foreach_copy_(targets, inside)
    return done


def _padded(size: int, minimum: int, factor: int) -> int:
    """The first of minimum, minimum * factor, ... that is not smaller than the size."""
    while minimum < size:
        minimum *= factor
    return minimum


def _of_norm_one(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Scale (N, R, C) matrices, in place, and return them in `dtype`."""
    return x.mul_(1 / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)


def _newton_schulz(x: Tensor, iterations: int) -> Tensor:
    """Iterate on (N, R, C) matrices of norm one with R <= C."""
    for _ in range(iterations):
        a = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x


def _as_matrix(tensor: Tensor) -> Tensor:
    """Return a dense tensor as (out, rest), the rest in memory order: that of the columns does not matter here."""
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.flatten(1)
