"""Weights from one model into another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from detector.errors import SettingsError
from detector.nn.model import DetectionModel


@dataclass(frozen=True)
class Transfer:
    """Which weights were taken.

    Attributes:
        taken: names whose tensors were copied whole.
        by_class: names of final class layers whose rows were copied by class name.
        left: names of the target that kept their own values.
    """

    taken: list[str]
    by_class: list[str]
    left: list[str]

    def __str__(self) -> str:
        total = len(self.taken) + len(self.by_class) + len(self.left)
        text = f"{len(self.taken) + len(self.by_class)} of {total} weight tensors taken"
        if self.by_class:
            text += f", {len(self.by_class)} of them by class name"
        if self.left:
            text += f"; not taken: {', '.join(self.left)}"
        return text


@torch.no_grad()
def transfer_weights(
    model: DetectionModel, weights: Mapping[str, Tensor], weight_names: Mapping[int, str]
) -> Transfer:
    """Copy every tensor whose name and shape agree; in final class layers, the rows of like-named classes.

    Args:
        model: the target, with its class `names`.
        weights: state dict of the source.
        weight_names: class id -> name of the source.
    """
    rows = {name.strip().lower(): row for row, name in weight_names.items()}
    pairs = [(row, rows[key]) for row, name in model.names.items() if (key := name.strip().lower()) in rows]
    taken, by_class, left = [], [], []
    same_classes = dict(model.names) == dict(weight_names)
    for name, target in model.state_dict().items():
        source = weights.get(name)
        class_rows = _is_final_class_layer(name) and not same_classes and bool(weight_names)
        if source is not None and source.shape == target.shape and not class_rows:
            target.copy_(source)
            taken.append(name)
        elif source is not None and class_rows and pairs and source.shape[1:] == target.shape[1:]:
            mine, theirs = (torch.tensor(column) for column in zip(*pairs, strict=True))
            target[mine] = source[theirs].to(target.dtype)
            by_class.append(name)
        else:
            left.append(name)
    return Transfer(taken, by_class, left)


def _is_final_class_layer(name: str) -> bool:
    parts = name.split(".")
    return parts[-1] in ("weight", "bias") and parts[-2] == "2" and parts[-4] in ("cv3", "one2one_cv3")


class FrozenLayers:
    """Layers held fixed: their parameters get no gradients and their batch-norm statistics stay.

    Args:
        model: the model.
        freeze: so many layers from the start, or a list of layer indices and parts of names.

    Raises:
        SettingsError: if one of them matches nothing.
    """

    def __init__(self, model: DetectionModel, freeze: int | list[int | str] | None) -> None:
        parts = name_parts(model, list(range(freeze)) if isinstance(freeze, int) else freeze or [], "freeze")
        self.model = model
        self.modules = {n: m for n, m in model.named_modules() if _matches(f"{n}.", parts)}
        self.parameters = {
            n: p for n, p in model.named_parameters() if p.requires_grad and _matches(n, parts)
        }
        for parameter in self.parameters.values():
            parameter.requires_grad_(False)

    def hold(self) -> None:
        """Put the layers into eval mode, after `model.train()`."""
        for module in self.modules.values():
            module.eval()

    def release(self, layers: list[int | str] | None = None) -> None:
        """Let layers learn again: those given by index or by a part of their name, None = all.

        Raises:
            SettingsError: if one of them matches nothing.
        """
        parts = [""] if layers is None else name_parts(self.model, layers, "unfreeze")
        for name in [n for n in self.modules if _matches(f"{n}.", parts)]:
            self.modules.pop(name).train()
        for name in [n for n in self.parameters if _matches(n, parts)]:
            self.parameters.pop(name).requires_grad_(True)
        self.hold()  # what is left, and was inside a module set to train

    def restrict(self, names: list[str]) -> None:
        """Release everything but the parameters of these names, as in a run that is resumed."""
        gone = [n for n in self.parameters if n not in names]
        for name in gone:
            self.parameters.pop(name).requires_grad_(True)
        for name in [n for n in self.modules if not any(p.startswith(f"{n}.") for p in self.parameters)]:
            del self.modules[name]


def name_parts(model: DetectionModel, layers: list[int | str], setting: str) -> list[str]:
    """Turn layer indices and parts of names into parts of names that occur in the model."""
    parts = [f"model.{part}." if isinstance(part, int) else part for part in layers]
    for part in parts:
        if not any(part in f"{name}." for name, _ in model.named_modules()):
            raise SettingsError(
                f"{setting}={layers}: nothing in the model is named {part!r}; "
                f"layers are model.0 to model.{len(model.model) - 1}"
            )
    return parts


def _matches(name: str, parts: list[str]) -> bool:
    return any(part in name for part in parts)
