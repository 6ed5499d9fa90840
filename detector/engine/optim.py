"""Parameter groups, optimizers and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

SHORT_RUN = 10_000  # optimizer steps


@dataclass(frozen=True)
class Recipe:
    """What an optimizer is run with, after `auto` and the optimizer's own defaults are filled in.

    Attributes:
        optimizer: name as in the `optimizer` setting, not `auto`.
        lr0: learning rate after the warm-up.
        warmup_bias_lr: learning rate of biases at the start of the warm-up.
    """

    optimizer: str
    lr0: float
    warmup_bias_lr: float


def choose_recipe(
    optimizer: str, lr0: float | None, warmup_bias_lr: float | None, num_classes: int, total_steps: int
) -> Recipe:
    """Fill in what the settings leave to us.

    `auto` is MuSGD: on small data sets trained from scratch it ended well above AdamW at the same cost
    (docs/benchmarks.md). Its learning rate is 0.02 up to `SHORT_RUN` optimizer steps and 0.01 beyond;
    Adam's kin get 0.002 * 5 / (4 + C). What the user gives is always kept.

    Args:
        optimizer: the `optimizer` setting.
        lr0: the `lr0` setting, None to choose.
        warmup_bias_lr: the `warmup_bias_lr` setting, None to choose.
        num_classes: C.
        total_steps: optimizer steps of the whole run.
    """
    automatic = optimizer == "auto"
    if automatic:
        optimizer = "MuSGD"
    adam_like = optimizer not in ("SGD", "MuSGD", "RMSProp")
    if lr0 is None and adam_like:
        lr0 = round(0.002 * 5 / (4 + num_classes), 6)
    elif lr0 is None:
        lr0 = 0.02 if optimizer == "MuSGD" and total_steps <= SHORT_RUN else 0.01
    if warmup_bias_lr is None:
        warmup_bias_lr = 0.0 if automatic or adam_like else 0.1
    return Recipe(optimizer, lr0, warmup_bias_lr)


@dataclass
class _Groups:
    weight: list[Tensor] = field(default_factory=list)
    norm: list[Tensor] = field(default_factory=list)
    bias: list[Tensor] = field(default_factory=list)
    muon: list[Tensor] = field(default_factory=list)

    def by_name(self) -> Iterable[tuple[str, list[Tensor]]]:
        return (("weight", self.weight), ("norm", self.norm), ("bias", self.bias), ("muon", self.muon))


def group_parameters(model: nn.Module, muon: bool) -> tuple[_Groups, set[int]]:
    """Sort trainable parameters: decayed weights, norm weights, biases, and with `muon` the matrices.

    Returns:
        The groups, and the ids of the parameters of class branches (`cv3`, `one2one_cv3`).
    """
    norms = tuple(kind for name, kind in vars(nn).items() if "Norm" in name and isinstance(kind, type))
    groups, class_branch = _Groups(), set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if module_name.split(".")[2:3] in (["cv3"], ["one2one_cv3"]):  # model.<head>.cv3...
                class_branch.add(id(parameter))
            if muon and parameter.ndim in (2, 4):
                groups.muon.append(parameter)
            elif "bias" in name:
                groups.bias.append(parameter)
            elif isinstance(module, norms):
                groups.norm.append(parameter)
            else:
                groups.weight.append(parameter)
    return groups, class_branch


def build_optimizer(model: nn.Module, recipe: Recipe, momentum: float, weight_decay: float) -> Optimizer:
    """Build the optimizer with its parameter groups; only weights (and muon matrices) decay.

    Groups carry `initial_lr`, and `role` ("weight", "norm", "bias", "muon"), which the schedule reads.
    """
    muon = recipe.optimizer == "MuSGD"
    groups, class_branch = group_parameters(model, muon)
    param_groups: list[dict[str, Any]] = []
    for role, parameters in groups.by_name():
        decay = weight_decay if role in ("weight", "muon") else 0.0
        parts = [(3.0, True), (1.0, False)] if muon else [(1.0, None)]
        for factor, in_class_branch in parts:
            chosen = [
                p for p in parameters if in_class_branch is None or (id(p) in class_branch) == in_class_branch
            ]
            if chosen:
                lr = recipe.lr0 * factor
                group = {"params": chosen, "lr": lr, "initial_lr": lr, "weight_decay": decay, "role": role}
                param_groups.append(group | ({"use_muon": role == "muon"} if muon else {}))
    return OPTIMIZER_BUILDERS[recipe.optimizer](param_groups, recipe.lr0, momentum)


class MuSGD(Optimizer):
    """SGD with Nesterov momentum that also takes a Muon step on matrices and convolution kernels.

    Muon (Jordan et al., 2024) replaces the momentum of a weight matrix by the nearest semi-orthogonal
    matrix, found by five Newton-Schulz iterations. Groups with `use_muon` take `muon * lr` times that
    step, then `sgd * lr` times the SGD step on the same gradient, with a momentum buffer for each.
    Weight decay acts in the SGD step only.

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
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "use_muon": False}
        super().__init__(params, defaults)
        self.muon, self.sgd = muon, sgd

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Do one step; returns what the closure returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            if not group["use_muon"]:
                self._sgd_step(parameters, group, 1.0)
                continue
            for alike in _by_shape(parameters):  # what a shape needs stays in the processor's cache
                self._muon_step(alike, group)
                self._sgd_step(alike, group, self.sgd)
        return loss

    def _buffers(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        for p in parameters:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in parameters]

    def _muon_step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        grads = _grads(parameters)
        momentum = self._buffers(parameters, "muon_buffer")
        torch._foreach_lerp_(momentum, grads, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(grads, momentum, group["momentum"])
        scales = [max(1.0, p.shape[-2] / p.shape[-1]) ** 0.5 for p in parameters]
        steps = orthogonalize(list(nesterov))
        if max(scales) > 1:
            torch._foreach_mul_(steps, scales)
        torch._foreach_add_(parameters, steps, alpha=-group["lr"] * self.muon)

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

    Quintic Newton-Schulz iteration in bfloat16, X <- a X + (b A + c A A) X with A = X X^T and
    (a, b, c) = (3.4445, -4.7750, 2.0315) (Jordan et al., Muon, 2024). Equal shapes go in one batch.

    Args:
        matrices: tensors of 2 or 4 dimensions.

    Returns:
        Tensors of the same shapes and types, in the same order.
    """
    flat = [_as_matrix(m) for m in matrices]
    by_shape: dict[torch.Size, list[int]] = {}
    for index, m in enumerate(flat):
        by_shape.setdefault(m.shape, []).append(index)
    done = list(flat)
    for shape, indices in by_shape.items():
        x = torch.stack([flat[i] for i in indices])
        x = x.mul_(1 / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
        x = x if shape[0] <= shape[1] else x.mT
        for _ in range(iterations):
            a = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
        x = (x if shape[0] <= shape[1] else x.mT).to(flat[indices[0]].dtype).contiguous()
        for i, row in zip(indices, x, strict=True):
            done[i] = row.as_strided(matrices[i].shape, matrices[i].stride())
    return done


def _as_matrix(tensor: Tensor) -> Tensor:
    """Return a dense tensor as (out, rest), the rest in memory order: that of the columns does not matter here."""
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.flatten(1)


def _adam(kind: type[Optimizer], fused: bool = False) -> Callable[[Any, float, float], Optimizer]:
    extra: dict[str, Any] = {"fused": True} if fused else {"foreach": True}
    return lambda groups, lr, momentum: kind(groups, lr=lr, betas=(momentum, 0.999), **extra)  # type: ignore[call-arg]


def _momentum(kind: type[Optimizer], **extra: Any) -> Callable[[Any, float, float], Optimizer]:
    return lambda groups, lr, momentum: kind(groups, lr=lr, momentum=momentum, **extra)  # type: ignore[call-arg]


OPTIMIZER_BUILDERS: MappingProxyType[str, Callable[[Any, float, float], Optimizer]] = MappingProxyType(
    {
        "SGD": _momentum(torch.optim.SGD, nesterov=True, foreach=True),
        "MuSGD": _momentum(MuSGD),
        "Adam": _adam(torch.optim.Adam, fused=True),
        "Adamax": _adam(torch.optim.Adamax),
        "AdamW": _adam(torch.optim.AdamW, fused=True),
        "NAdam": _adam(torch.optim.NAdam),
        "RAdam": _adam(torch.optim.RAdam),
        "RMSProp": _momentum(torch.optim.RMSprop, foreach=True),
    }
)


def linear_decay(progress: float, last: float) -> float:
    """Return the learning-rate factor of a linear decay from 1 to `last` at `progress` in 0..1."""
    return max(1 - progress, 0.0) * (1 - last) + last


def cosine_decay(progress: float, last: float) -> float:
    """Return the learning-rate factor of a half-cosine decay from 1 to `last` (SGDR, eq. 5)."""
    return (1 - math.cos(math.pi * progress)) / 2 * (last - 1) + 1


@dataclass
class Schedule:
    """Learning rates, momentum and accumulation as functions of the epoch and the global step.

    In the warm-up, learning rates rise linearly from 0 (biases: fall from `warmup_bias_lr`) to their
    value at this epoch, momentum from `warmup_momentum` to `momentum`, and accumulation from 1.

    Attributes:
        epochs: planned epochs.
        batches: batches an epoch.
        accumulate: batches an optimizer step, after the warm-up.
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

    def state_dict(self) -> dict[str, Any]:
        """Return what callbacks may have changed."""
        return {"scale": self.scale, "paused": self.paused}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
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
