"""What to say about files of weights that can't be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from detector.checkpoints.ultralytics.unpickler import Placeholder, StoredTensor

NESTED = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "ema",
    "module",
    "params",
)  # usual keys of other tools


def describe(content: Any) -> str:
    """Say in a few words what a file of weights holds that holds no network that can be read.

    Args:
        content: what `torch.load(weights_only=True)` or `PickledArchive.content` returned.
    """
    if isinstance(content, Placeholder):
        return f"holds one object of the class {_short(content.kind)}, which is not loaded"
    if isinstance(content, (torch.Tensor, StoredTensor)):
        return "holds a single tensor"
    if not isinstance(content, Mapping):
        return f"holds a {type(content).__name__}, no weights with their architecture"
    if _is_state_dict(content):
        return f"is a bare state dict ({_counted(content)}), without the architecture its weights belong to"
    for key in NESTED:
        inner = content.get(key)
        if isinstance(inner, Mapping) and _is_state_dict(inner):
            return f"has a bare state dict under {key!r} ({_counted(inner)}), without its architecture"
    keys = ", ".join(_short(key) for key in list(content)[:5]) or "no keys"
    return f"has the keys {keys}, none of which is a network"


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(
        isinstance(key, str) and isinstance(value, (torch.Tensor, StoredTensor))
        for key, value in content.items()
    )


def _counted(weights: Mapping[Any, Any]) -> str:
    return f"{len(weights)} tensors, the first is {_short(next(iter(weights)))}"


def _short(text: Any) -> str:
    """Return text of unknown origin fit for one line of a message."""
    shown = repr(text) if isinstance(text, (str, int, float)) else f"a {type(text).__name__}"
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
