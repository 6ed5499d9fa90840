"""The checkpoints of the `ultralytics` package: its pickled network becomes plain weights and a table of rows.

The architecture is taken from the table in the file and then compared with the network in the file, layer by
layer, so that a network this package would compute differently is refused instead of giving other boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detector.checkpoints.origin import MAX_TEXT
from detector.checkpoints.published import LICENCE
from detector.checkpoints.ultralytics.architecture import read_architecture
from detector.checkpoints.ultralytics.describe import describe
from detector.checkpoints.ultralytics.unpickler import PickledArchive, Placeholder, StoredTensor
from detector.errors import CheckpointError
from detector.nn.blocks import BN_EPS, Attention, Bottleneck, Concat, Conv, Upsample
from detector.nn.model import DetectionModel

MAX_MODULES = 20_000
MAX_NAME = 200
COMPARED: dict[type[nn.Module], dict[str, Callable[[Any], Any]]] = {  # what shapes don't show: theirs -> ours
    nn.Conv2d: {name: attrgetter(name) for name in ("stride", "padding", "dilation", "groups")},
    nn.BatchNorm2d: {"eps": attrgetter("eps")},
    nn.MaxPool2d: {name: attrgetter(name) for name in ("kernel_size", "stride", "padding")},
    Bottleneck: {"add": attrgetter("add")},
    Attention: {"num_heads": attrgetter("heads")},
    Upsample: {"scale_factor": attrgetter("scale"), "mode": lambda _: "nearest"},
    Concat: {"d": lambda _: 1},
}


def read_ultralytics_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of the `ultralytics` package; none of its code is needed or run.

    Args:
        path: a .pt file with a YOLOv8, YOLO11 or YOLO26 detection network, in training or finished.

    Returns:
        What a checkpoint of this package holds: `model` (architecture and class names), `weights` (float32;
        the averaged ones where the file has both), `settings` (`imgsz` where it is known), `epoch`, `metrics`; and
        `licence`, what the file states, else that of everything `ultralytics` publishes.

    Raises:
        CheckpointError: if the file is damaged or hostile, or holds no network that can be built here.
    """
    path = Path(path)
    with PickledArchive(path) as archive:
        content = archive.content()
        root = _network(content, archive)
        modules, stored = _walk(root, path)
        weights = _unfused({name: archive.tensor(tensor) for name, tensor in stored.items()})
        strides = root.state.get("stride")
        strides = archive.tensor(strides).tolist() if isinstance(strides, StoredTensor) else None
    config, network = read_architecture(root, modules, weights, path)
    _compare_layers(network, modules, path)
    if strides not in (None, list(network.strides)):
        raise CheckpointError(f"{path}: its strides are {str(strides)[:80]}, not {list(network.strides)}")
    return {
        "model": config.to_dict(),
        "weights": weights,
        "settings": _settings(content),
        "epoch": content["epoch"] if type(content.get("epoch")) is int else -1,
        "metrics": {},
        "licence": _licence(content),
    }


def _network(content: Any, archive: PickledArchive) -> Placeholder:
    """Return the network to use: the averaged one where there is one, as in checkpoints of an unfinished training."""
    networks = [content.get("ema"), content.get("model")] if isinstance(content, dict) else []
    found = next((network for network in networks if network is not None), None)
    if not isinstance(found, Placeholder) or not isinstance(found.state.get("_modules"), dict):
        raise CheckpointError(
            f"{archive.path}: {describe(content)}; expected a checkpoint written by detector, or by ultralytics "
            f"with a detection network"
        )
    return found


# ---- the network in the file --------------------------------------------------------------------------


def _walk(root: Placeholder, path: Path) -> tuple[dict[str, Placeholder], dict[str, StoredTensor]]:
    """Return all modules and all tensors of a pickled network by name, in the order of a state dict."""
    modules: dict[str, Placeholder] = {}
    tensors: dict[str, StoredTensor] = {}
    waiting = [("", root)]
    while waiting:
        name, module = waiting.pop()
        modules[name] = module
        start = f"{name}." if name else ""
        for key, value in (*_part(module, "_parameters"), *_part(module, "_buffers")):
            if not isinstance(value, StoredTensor):
                raise CheckpointError(f"{path}: {(start + key)[:MAX_NAME]} is not a tensor that can be read")
            tensors[f"{start}{key}"] = value
        children = [(f"{start}{key}", child) for key, child in _part(module, "_modules")]
        if not all(isinstance(child, Placeholder) for _, child in children):
            raise CheckpointError(f"{path}: {name or 'the network'} holds something else than modules")
        waiting += reversed(children)
        if max(len(modules) + len(waiting), len(tensors)) > MAX_MODULES or len(name) > MAX_NAME:
            raise CheckpointError(f"{path}: its network has more than {MAX_MODULES:,} modules or tensors")
    return modules, tensors


def _part(module: Placeholder, key: str) -> Iterator[tuple[str, Any]]:
    """Yield the items of one of a module's dicts, those without a value left out."""
    part = module.state.get(key)
    if isinstance(part, dict):
        for name, value in islice(part.items(), MAX_MODULES + 1):
            if value is not None:
                yield name if isinstance(name, str) else "?", value


def _unfused(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put an identity normalisation after each convolution that a normalisation was folded into."""
    full: dict[str, Tensor] = {}
    for name, value in weights.items():
        start = name.removesuffix("conv.bias")
        if start == name:
            full[name] = value
            continue
        ones = torch.ones_like(value)
        full |= {f"{start}bn.weight": ones, f"{start}bn.bias": value}
        full |= {f"{start}bn.running_mean": ones * 0, f"{start}bn.running_var": ones - BN_EPS}
        full[f"{start}bn.num_batches_tracked"] = torch.tensor(0)
    return full


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the size of the images it was trained on, if the file has it."""
    arguments = content.get("train_args")
    imgsz = arguments.get("imgsz") if isinstance(arguments, dict) else None
    return {"imgsz": imgsz} if type(imgsz) is int and 32 <= imgsz <= 8192 and imgsz % 32 == 0 else {}


def _licence(content: Mapping[str, Any]) -> str:
    stated = content.get("license")
    known = isinstance(stated, str) and 0 < len(stated) <= MAX_TEXT and stated.isprintable()
    return str(stated) if known else LICENCE


# ---- comparison ---------------------------------------------------------------------------------------


def _compare_layers(network: DetectionModel, modules: Mapping[str, Placeholder], path: Path) -> None:
    """Make sure that layers do what their namesakes in the file do, where shapes alone don't show it.

    Raises:
        CheckpointError: naming the first that does not.
    """
    for name, module in network.named_modules():
        theirs = modules.get(name)
        if theirs is None:
            continue
        for kind, attributes in COMPARED.items():
            for attribute, ours in attributes.items() if isinstance(module, kind) else ():
                _expect(f"{name}.{attribute}", theirs.state.get(attribute), ours(module), path)
        if isinstance(module, Conv) and (act := modules.get(f"{name}.act")) is not None:
            wanted = "Identity" if isinstance(module.act, nn.Identity) else "SiLU"
            _expect(f"{name}.act", act.kind.rpartition(".")[2], wanted, path)


def _expect(what: str, found: Any, wanted: Any, path: Path) -> None:
    """Compare a number or a text, or two equal numbers for height and width; a missing value is not compared."""
    if found is None:
        return
    theirs, ours = ([*value] if isinstance(value, tuple) else [value, value] for value in (found, wanted))
    plain = len(theirs) <= 2 and all(isinstance(value, (bool, int, float, str)) for value in theirs)
    if not plain or theirs != ours:
        shown = str(found)[:40] if plain else "something else"
        raise CheckpointError(f"{path}: {what} is {shown}; this package builds it with {wanted}")
