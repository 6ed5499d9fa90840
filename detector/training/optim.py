"""Parameter groups, optimizers and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from detector.training.musgd import MuSGD

SHORT_RUN = 10_000  # optimizer steps
SGD_WEIGHT = (
    0.2  # of MuSGD's SGD step on matrices; 1 as published costs small data sets most (docs/small-data.md)
)


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
    """Fill in what the settings leave open.

    `auto` is MuSGD: on small data sets trained from scratch it ended well above AdamW at the same cost
    (docs/small-data.md). Its learning rate is 0.02 up to `SHORT_RUN` optimizer steps and 0.01 beyond;
    Adam variants get 0.002 * 5 / (4 + C). What the user gives is always kept.

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


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the common norm of all gradients, () float, on the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients, foreach=True)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients down so that their common norm is at most `max_norm`; 0 leaves them as they are.

    Returns:
        () float, the norm before, on the device; NaN or infinite if a gradient is.
    """
    limit = max_norm or math.inf
    return nn.utils.clip_grad_norm_(parameters, limit, foreach=True)


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


def _adam(kind: type[Optimizer], fused: bool = False) -> Callable[[Any, float, float], Optimizer]:
    extra: dict[str, Any] = {"fused": True} if fused else {"foreach": True}
    return lambda groups, lr, momentum: kind(
        groups,
        lr=lr,
        betas=(momentum, 0.999),
        **extra,
        **_counting(groups),  # type: ignore[call-arg]
    )


def _momentum(kind: type[Optimizer], **extra: Any) -> Callable[[Any, float, float], Optimizer]:
    return lambda groups, lr, momentum: kind(groups, lr=lr, momentum=momentum, **extra)  # type: ignore[call-arg]


def _rmsprop(groups: Any, lr: float, momentum: float) -> Optimizer:
    return torch.optim.RMSprop(groups, lr=lr, momentum=momentum, foreach=True, **_counting(groups))


def _counting(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Let an optimizer count its steps on the GPU, so that they can be recorded (training/step_graph.py)."""
    return {"capturable": True} if groups[0]["params"][0].is_cuda else {}


OPTIMIZER_BUILDERS: MappingProxyType[str, Callable[[Any, float, float], Optimizer]] = MappingProxyType(
    {
        "SGD": _momentum(torch.optim.SGD, nesterov=True, foreach=True),
        "MuSGD": _momentum(MuSGD, sgd=SGD_WEIGHT),
        "Adam": _adam(torch.optim.Adam, fused=True),
        "Adamax": _adam(torch.optim.Adamax),
        "AdamW": _adam(torch.optim.AdamW, fused=True),
        "NAdam": _adam(torch.optim.NAdam),
        "RAdam": _adam(torch.optim.RAdam),
        "RMSProp": _rmsprop,
    }
)
