"""Load weights of one model into another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from detector.nn.model import DetectionModel


@dataclass(frozen=True)
class Transfer:
    """Which weights were loaded.

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
        text = f"{len(self.taken) + len(self.by_class)} of {total} weight tensors loaded"
        if self.by_class:
            text += f", {len(self.by_class)} of them by class name"
        if self.left:
            text += f"; not loaded: {', '.join(self.left)}"
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
