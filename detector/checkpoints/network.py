"""From the content of a checkpoint to a network, with everything checked on the way.

What a file says about itself is not trusted: the network is first built without memory, and gets memory only
for weights that are there and have its shapes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.errors import CheckpointError, listed
from detector.files.bounds import BoundsError, require_bounded
from detector.nn.model import DetectionModel, ModelConfig

log = logging.getLogger(__name__)

KEYS = {"model": dict, "weights": dict, "settings": dict, "epoch": int, "metrics": dict}


def check_bounds(content: Mapping[str, Any], path: str | Path) -> None:
    """Make sure that what a checkpoint holds besides the states of callbacks, which may be long, has an end.

    Raises:
        CheckpointError: naming what is too much.
    """
    try:
        require_bounded({key: value for key, value in content.items() if key != "callbacks"})
    except BoundsError as error:
        raise CheckpointError(f"{path}: asks for too much: {error}; it was not loaded") from None


def check_content(content: Mapping[str, Any], path: str | Path) -> None:
    """Make sure that a checkpoint has what every checkpoint has, of the right types.

    Raises:
        CheckpointError: naming the file and what is wrong.
    """
    wrong = [
        f"{key} is {type(content[key]).__name__}" if key in content else f"{key} is missing"
        for key, kind in KEYS.items()
        if not isinstance(content.get(key), kind)
    ]
    if wrong:
        raise CheckpointError(f"{path}: is not a complete checkpoint ({', '.join(wrong)})")
    for name, value in content["weights"].items():
        if not isinstance(name, str) or not _is_plain(value):
            raise CheckpointError(f"{path}: {str(name)[:80]!r} among its weights is not a plain tensor")


def _is_plain(value: Any) -> bool:
    """Return whether it is a plain CPU tensor that fits in its own storage."""
    return (
        type(value) in (Tensor, torch.nn.Parameter)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_complex()
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def read_config(data: Mapping[str, Any], path: str | Path) -> ModelConfig:
    """Read the architecture of a checkpoint.

    Raises:
        CheckpointError: if it describes no network.
    """
    try:
        return ModelConfig.from_dict(data, str(path))
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise cannot_build(path, "describes no network that can be built", error) from None


def build_network(config: ModelConfig, weights: Mapping[str, Tensor], path: str | Path) -> DetectionModel:
    """Build a network around weights.

    Args:
        config: the architecture.
        weights: state dict; it is copied.
        path: the file they are from, for messages.

    Returns:
        The network, in training mode, on the CPU.

    Raises:
        CheckpointError: if weights are missing, left over, or of other shapes.
    """
    network = build_on_meta(config, path)
    compare_shapes(network, weights, path)
    own = {name: weights[name].to(value.dtype, copy=True) for name, value in network.state_dict().items()}
    network.load_state_dict({name: value.contiguous() for name, value in own.items()}, assign=True)
    if wrong := [name for name, value in own.items() if not bool(value.isfinite().all())]:
        log.warning(
            "%s: %d of its %d weights hold NaN or infinity (%s ...): it finds nothing, or anything; take an earlier "
            "file of that run, or train again with a smaller lr0", path, len(wrong), len(own), wrong[0],
        )  # fmt: skip
    return network


def build_on_meta(config: ModelConfig, path: str | Path) -> DetectionModel:
    """Build a network that has shapes and no memory.

    Raises:
        CheckpointError: if it can't be built or is far too large.
    """
    try:
        with torch.device("meta"):
            return DetectionModel(config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, AttributeError, IndexError) as error:
        raise cannot_build(path, "describes no network that can be built", error) from None


def compare_shapes(network: DetectionModel, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Make sure that weights are those of a network, no more and no less.

    Raises:
        CheckpointError: naming the first few that are not.
    """
    expected = network.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} has no place" for name in weights if name not in expected]
    problems += [
        f"{name} is {_by(weights[name])}, not {_by(value)}"
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if problems:
        first = listed([problem[:120] for problem in problems], 3)
        raise CheckpointError(f"{path}: weights do not fit the architecture in this file: {first}")


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"


def cannot_build(path: str | Path, problem: str, error: Exception) -> CheckpointError:
    """Return the error to raise where building a network raised another: its whole text as one sentence."""
    reason = " ".join(str(error).split())[:300].removeprefix(f"{path}: ").rstrip(".")
    return CheckpointError(f"{path}: {problem} ({reason or type(error).__name__})")
