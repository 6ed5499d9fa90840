"""Load weights of one model into another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detector.errors import CheckpointError, listed
from detector.nn.model import DetectionModel

NAMED = 6  # tensors that a report names; a final class layer of three levels has six


@dataclass(frozen=True)
class Transfer:
    """Which weights were loaded.

    Attributes:
        taken: names whose tensors were copied whole.
        by_class: names of final class layers whose rows were copied by class name.
        left: names of the target that kept their own values.
        converted: what was done to the weights that read the image, where it has other channels; else empty.
    """

    taken: list[str]
    by_class: list[str]
    left: list[str]
    converted: str = ""

    def __str__(self) -> str:
        total = len(self.taken) + len(self.by_class) + len(self.left)
        text = f"{len(self.taken) + len(self.by_class)} of {total} weight tensors loaded"
        if self.by_class:
            text += f", {len(self.by_class)} of them by class name"
        if self.converted:
            text += f"; {self.converted}"
        if self.left:
            text += f"; not loaded: {listed(self.left, NAMED)}"
        return text


@torch.no_grad()
def transfer_weights(
    model: DetectionModel, weights: Mapping[str, Tensor], weight_names: Mapping[int, str]
) -> Transfer:
    """Copy every tensor whose name and shape agree; in final class layers, the rows of like-named classes.

    Between colour and grey, the weights that read the image are summed over the channels, or a third goes to each: on
    an image of three equal channels both networks compute the same.

    Args:
        model: the target, with its class `names`.
        weights: state dict of the source.
        weight_names: class id -> name of the source.
    """
    pairs = pair_classes(model.names, weight_names)
    taken, by_class, left = [], [], []
    same_classes = dict(model.names) == dict(weight_names)
    first = [f"model.{i}." for i, sources in enumerate(model.sources) if -1 in sources]
    converted = ""
    for name, target in model.state_dict().items():
        source = weights.get(name)
        if source is not None and name.startswith(tuple(first)) and reads_other_channels(source, target):
            source, converted = convert_channels(source, target.shape[1])
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
    return Transfer(taken, by_class, left, converted)


def reads_other_channels(source: Tensor, target: Tensor) -> bool:
    """Return whether a convolution's weights (C_out, C_in, k, k) differ from others in reading grey, or colour."""
    shapes = [list(source.shape), list(target.shape)]
    return [shape.pop(1) for shape in shapes if len(shape) == 4] in ([1, 3], [3, 1]) and shapes[0] == shapes[
        1
    ]


def convert_channels(source: Tensor, channels: int) -> tuple[Tensor, str]:
    """Return a convolution's weights (C_out, C_in, k, k) for 1 or 3 input channels, and what was done to them."""
    if channels == 1:
        return source.sum(1, keepdim=True), "those that read the image are summed over its 3 channels"
    return source.expand(
        -1, 3, -1, -1
    ) / 3, "those that read the image are spread over 3 channels, a third each"


def pair_classes(names: Mapping[int, str], weight_names: Mapping[int, str]) -> list[tuple[int, int]]:
    """Pair the classes of two models by name: (class id, class id in `weight_names`) in order of the former.

    Equal names are paired first, the first with the first where a name comes twice; then those that differ only by case
    and by spaces around them, where one is left on each side.
    """
    pairs: dict[int, int] = {}
    theirs = _rows_by(str, weight_names)
    for row, name in names.items():
        if theirs.get(name):
            pairs[row] = theirs[name].pop(0)
    taken = set(pairs.values())
    left = _rows_by(_folded, {row: name for row, name in names.items() if row not in pairs})
    others = _rows_by(_folded, {row: name for row, name in weight_names.items() if row not in taken})
    for key, rows in left.items():
        if len(rows) == len(others.get(key, [])) == 1:
            pairs[rows[0]] = others[key][0]
    return sorted(pairs.items())


def _rows_by(key: Callable[[str], str], names: Mapping[int, str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, name in names.items():
        rows.setdefault(key(name), []).append(row)
    return rows


def _folded(name: str) -> str:
    return name.strip().casefold()


def _is_final_class_layer(name: str) -> bool:
    parts = name.split(".")
    return parts[-1] in ("weight", "bias") and parts[-2] == "2" and parts[-4] in ("cv3", "one2one_cv3")


def require_any_match(transfer: Transfer, weights: str | Path) -> None:
    """Refuse weights of which nothing fits.

    Raises:
        CheckpointError: naming the file.
    """
    if not transfer.taken:
        raise CheckpointError(
            f"{weights}: no weight fits this architecture; load it with YOLO({str(weights)!r})"
        )
