"""A reader of torch's zip files that makes plain data and inert placeholders, and never anything else.

A pickle is a program: it names callables and has them called. Here every name stands for one of a few functions
of ours or for a `Placeholder`; no module is imported, no attribute is looked up. Before the program runs, its opcodes
are checked against those torch writes; no function copies what it is given, so that a short program can't ask
for memory without end.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch

from detector.checkpoints.torch_zip import MAX_DIMENSIONS, open_archive
from detector.errors import CheckpointError, first_line

MAX_OPCODES = 4_000_000
MAX_GLOBALS = 1000  # classes and functions named
MAX_READ = 4  # bytes of tensors read for every byte of the file: tensors may share a storage

OPCODES = frozenset(
    {
        *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "MEMOIZE"),
        *("PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"),
        *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2"),
        *("LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE"),
        *("SHORT_BINBYTES", "BINBYTES", "SHORT_BINSTRING", "BINSTRING"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
        *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET"),
        *("GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "BINPERSID"),
    }
)
"""Of those that torch writes; none looks anything up in a registry or takes a length of eight bytes."""

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


# ---- what the names in a pickle stand for ----------------------------------------------------------------


class Placeholder:
    """An unpickled object of a class that was not imported: it keeps the state it is given and does nothing.

    Attributes:
        kind: module and name of the class, such as "torch.nn.modules.conv.Conv2d".
        state: the attributes that were to be set.
    """

    kind = ""
    __slots__ = ("state",)
    state: dict[Any, Any]

    def __new__(cls, *_: Any, **__: Any) -> Placeholder:
        """Make an object, whatever its class would have asked for."""
        made = object.__new__(cls)
        made.state = {}
        return made

    def __call__(self, *_: Any, **__: Any) -> Placeholder:
        """Call nothing: another placeholder is the result."""
        return Placeholder()

    def __setstate__(self, state: Any) -> None:
        first = state[0] if isinstance(state, tuple) and state else state  # a tuple: attributes and slots
        if isinstance(first, dict):
            self.state = first

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass


class StorageKind(NamedTuple):
    """What a storage's class says: the dtype of its numbers."""

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


def resolve_name(module: str, name: str) -> Any:
    """Return what a name in a pickle stands for."""
    if (module, name) in FUNCTIONS:
        return _Function(FUNCTIONS[module, name])
    if module in ("torch", "torch.storage") and name in DTYPES:
        return StorageKind(DTYPES[name])
    return type("Placeholder", (Placeholder,), {"__slots__": (), "kind": f"{module}.{name}"})


# ---- the reader ----------------------------------------------------------------------------------------


class _Unpickler(pickle.Unpickler):
    def __init__(self, program: bytes) -> None:
        super().__init__(io.BytesIO(program))
        self._known: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for; nothing is imported."""
        key = (module, name)
        if key not in self._known:
            if len(self._known) >= MAX_GLOBALS:
                raise pickle.UnpicklingError(f"it names more than {MAX_GLOBALS} classes")
            self._known[key] = resolve_name(module, name)
        return self._known[key]

    def persistent_load(self, pid: Any) -> Storage:
        """Return where the numbers of a tensor lie; nothing is opened."""
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise pickle.UnpicklingError("it refers to something else than stored numbers")
        _, kind, key, _, count = pid
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise pickle.UnpicklingError("it refers to stored numbers in an unknown way")
        return Storage(kind.dtype if isinstance(kind, StorageKind) else None, key, count)


def _check_program(program: bytes) -> None:
    """Refuse opcodes that torch does not write, and memo places a program of this length does not need."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if opcode.name not in OPCODES:
            raise pickle.UnpicklingError(f"it uses the opcode {opcode.name}")
        if opcode.name.endswith("PUT") and argument is not None and int(argument) > count:
            raise pickle.UnpicklingError("it asks for more memory than it needs")
        if count >= MAX_OPCODES:
            raise pickle.UnpicklingError(f"it has more than {MAX_OPCODES:,} steps")


class PickledArchive:
    """An open file written by `torch.save`.

    Args:
        path: the file.

    Attributes:
        names: its entries, without the folder they lie in.

    Raises:
        CheckpointError: if it is not such a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = open_archive(path)
        programs = [name for name in self._zip.namelist() if name.endswith("/data.pkl")]
        if len(programs) != 1:
            self._zip.close()
            raise CheckpointError(f"{path}: is a zip file without a checkpoint in it")
        self._folder = programs[0].removesuffix("data.pkl")
        self.names = {name.removeprefix(self._folder) for name in self._zip.namelist()}
        self._left = MAX_READ * path.stat().st_size

    def __enter__(self) -> PickledArchive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._zip.close()

    def content(self) -> Any:
        """Return what was saved: plain data, `StoredTensor` and `Placeholder`.

        Raises:
            CheckpointError: if the file is damaged or asks for more than that.
        """
        if "byteorder" in self.names and self._bytes("byteorder") != b"little":
            raise CheckpointError(f"{self.path}: was written on a big-endian machine; it can't be read here")
        program = self._bytes("data.pkl")
        try:
            _check_program(program)
            return _Unpickler(program).load()
        except Exception as error:  # a malformed pickle may raise anything
            raise CheckpointError(
                f"{self.path}: can't be read safely ({first_line(error)}); it was not loaded"
            ) from None

    def tensor(self, stored: StoredTensor) -> torch.Tensor:
        """Read a tensor: contiguous, floating-point numbers as float32, others as int64.

        Raises:
            CheckpointError: if its numbers are missing, damaged, of an unknown kind, or too many.
        """
        dtype, key, length = stored.storage
        if dtype is None:
            raise CheckpointError(f"{self.path}: a weight is of a kind of numbers that is not read")
        wanted = torch.float32 if dtype.is_floating_point else torch.int64
        if not prod(stored.size):
            return torch.empty(stored.size, dtype=wanted)
        self._left -= length * dtype.itemsize
        if self._left < 0:
            raise CheckpointError(f"{self.path}: its weights are larger than the file; it was not loaded")
        numbers = self._bytes(f"data/{key}")
        if len(numbers) != length * dtype.itemsize:
            raise CheckpointError(
                f"{self.path}: data/{key} has {len(numbers)} bytes; expected {length * dtype.itemsize}"
            )
        flat = torch.frombuffer(bytearray(numbers), dtype=dtype)
        return flat.as_strided(stored.size, stored.stride, stored.offset).to(wanted).contiguous()

    def _bytes(self, name: str) -> bytes:
        try:
            return self._zip.read(self._folder + name)
        except KeyError:
            raise CheckpointError(f"{self.path}: {name} is missing in it") from None
        except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{self.path}: is damaged ({error})") from None
