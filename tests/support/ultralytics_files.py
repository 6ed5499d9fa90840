"""Checkpoints as ultralytics writes them, made without ultralytics: its classes exist while a file is written."""

from __future__ import annotations

import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detector.nn import blocks
from detector.nn.heads import Detect
from detector.nn.model import DetectionModel

PACKAGE = "absent_package.nn"  # where the pickled classes seem to be from; it does not exist
TORCH_KINDS = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.Identity, nn.ModuleList, nn.Sequential)
KEPT = (
    *("training", "_parameters", "_buffers", "_non_persistent_buffers_set", "_forward_hooks", "add"),
    *("stride", "padding", "dilation", "groups", "eps", "kernel_size"),
)
HOME = {
    "DetectionModel": "tasks",
    "Conv": "modules.conv",
    "DWConv": "modules.conv",
    "Concat": "modules.conv",
    "Detect": "modules.head",
}


def ultralytics_network(model: DetectionModel, **attributes: Any) -> Any:
    """Return an object that pickles as an ultralytics network of the same layers, in half precision."""
    root = _counterpart(deepcopy(model).half())
    root._modules["model"].__class__ = nn.Sequential
    rows = [[_source(row.source), row.repeats, row.block, list(row.args)] for row in model.config.rows]
    for row in rows:
        row[3] = {"Upsample": [None, 2, "nearest"], "Concat": [1], "Detect": ["nc"]}.get(row[2], row[3])
        row[3] = row[3][:2] if row[2] == "SPPF" else row[3]
        row[2] = {"Upsample": "nn.Upsample"}.get(row[2], row[2])
    config = model.config
    scales = {config.scale: [config.depth, config.width, config.max_channels]}
    root.yaml = {
        "nc": model.num_classes,
        "scales": {"x": [9.0, 9.0, 9]} | scales,
        "scale": config.scale,
        "yaml_file": "shapes.yaml",
        "backbone": rows[:3],
        "head": rows[3:],
        "channels": 3,
    }
    root.names = dict(model.names)
    root.stride = torch.tensor(model.strides, dtype=torch.float32)
    for name, value in attributes.items():
        setattr(root, name, value)
    return root


def write_ultralytics(path: Path, network: Any, **content: Any) -> Path:
    """Save a network as ultralytics does at the end of a training."""
    finished = {"epoch": -1, "model": network, "ema": None, "train_args": {"imgsz": 320}, "version": "8.0.0"}
    with _importable():
        torch.save(finished | content, path)
    return path


def write_program(
    path: Path, program: bytes, storages: dict[str, bytes] | None = None, byteorder: str = "little"
) -> Path:
    """Write a torch zip file around a pickle program."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", byteorder)
        for key, numbers in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", numbers)
        archive.writestr("archive/version", "3\n")
    return path


def ultralytics_class(name: str, home: str = "modules.block") -> type:
    """Return a class that pickles as one of ultralytics."""
    if name not in _CLASSES:
        _CLASSES[name] = type(name, (), {"__module__": f"{PACKAGE}.{home}"})
    return _CLASSES[name]


_CLASSES: dict[str, type] = {}


def _counterpart(module: nn.Module) -> Any:
    """Return the counterpart of a module in an ultralytics network."""
    if isinstance(module, blocks.Activation):
        return nn.SiLU()
    if isinstance(module, blocks.Upsample):
        return nn.Upsample(scale_factor=module.scale, mode="nearest")
    name = type(module).__name__
    torch_kind = next((kind for kind in TORCH_KINDS if isinstance(module, kind)), None)
    kind = torch_kind or ultralytics_class(name, HOME.get(name, "modules.block"))
    made = kind.__new__(kind)
    made.__dict__.update({key: value for key, value in module.__dict__.items() if key in KEPT})
    if isinstance(module, blocks.Attention):
        made.num_heads = module.heads
    if isinstance(module, blocks.SPPF):
        made.n = module.pools
    children = {key: _counterpart(child) for key, child in module.named_children()}
    if isinstance(module, Detect) and module.reg_max == 1:
        del children["dfl"]
    made.__dict__["_modules"] = OrderedDict(children)
    return made


def _source(source: tuple[int, ...]) -> int | list[int]:
    return source[0] if len(source) == 1 else list(source)


@contextmanager
def _importable() -> Iterator[None]:
    """Let the classes be imported while they are pickled."""
    for kind in _CLASSES.values():
        parts = kind.__module__.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            sys.modules.setdefault(name, types.ModuleType(name))
        setattr(sys.modules[kind.__module__], kind.__name__, kind)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "absent_package"]:
            del sys.modules[name]
