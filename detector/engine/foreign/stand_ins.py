"""What the names in a pickle stand for: a few harmless functions, kinds of numbers, and inert objects."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch

MAX_DIMENSIONS = 8
DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class StandIn:
    """An object of a class that was not imported: it keeps the state it is given and does nothing.

    Attributes:
        kind: module and name of the class, such as "torch.nn.modules.conv.Conv2d".
        state: the attributes that were to be set.
    """

    kind = ""
    __slots__ = ("state",)
    state: dict[Any, Any]

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        """Make an object, whatever its class would have asked for."""
        made = object.__new__(cls)
        made.state = {}
        return made

    def __call__(self, *_: Any, **__: Any) -> StandIn:
        """Call nothing: another stand-in is the result."""
        return StandIn()

    def __setstate__(self, state: Any) -> None:
        first = state[0] if isinstance(state, tuple) and state else state  # a tuple: attributes and slots
        if isinstance(first, dict):
            self.state = first

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Forget an item."""

    def extend(self, items: Any) -> None:
        """Forget items."""

    def add(self, item: Any) -> None:
        """Forget an item."""


class StorageKind(NamedTuple):
    """What a storage's class tells: the type of its numbers."""

    dtype: torch.dtype


class Storage(NamedTuple):
    """The numbers of a tensor: an entry of the archive. No dtype: of a kind that is not read."""

    dtype: torch.dtype | None
    key: str
    length: int


class StoredTensor(NamedTuple):
    """A tensor yet to be read."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Function:
    """A callable that a pickle can call and can't change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, _: Any) -> None:
        raise pickle.UnpicklingError("it sets the state of a function")


def _rebuild_tensor(
    storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> StoredTensor:
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise pickle.UnpicklingError("a tensor is not made of a storage, a size and strides")
    numbers = (offset, *size, *stride)
    if (
        len(size) != len(stride)
        or any(type(n) is not int or n < 0 for n in numbers)
        or len(size) > MAX_DIMENSIONS
    ):
        raise pickle.UnpicklingError("a tensor has impossible sizes")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if prod(size) and (last >= storage.length or prod(size) > storage.length):
        raise pickle.UnpicklingError("a tensor is larger than its storage")
    return StoredTensor(storage, offset, size, stride)


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _size(sizes: Any) -> tuple[int, ...]:
    if not isinstance(sizes, (tuple, list)) or len(sizes) > MAX_DIMENSIONS:
        raise pickle.UnpicklingError("a size has impossible numbers")
    return tuple(sizes)


def _ordered_dict() -> OrderedDict[Any, Any]:
    return OrderedDict()


FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
}


def stand_for(module: str, name: str) -> Any:
    """Return what a name in a pickle stands for."""
    if (module, name) in FUNCTIONS:
        return _Function(FUNCTIONS[module, name])
    if module in ("torch", "torch.storage") and name in DTYPES:
        return StorageKind(DTYPES[name])
    return type("StandIn", (StandIn,), {"__slots__": (), "kind": f"{module}.{name}"})
