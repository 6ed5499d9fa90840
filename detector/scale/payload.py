"""What a training hands to its processes, and what it gets back: by cloudpickle, in a private folder.

Functions of a script or a notebook travel as code, with what they have captured; those of modules by their name, and
the processes look for modules where this one does.
"""

from __future__ import annotations

import dis
import importlib
import io
import json
import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from detector.callbacks.registry import CallbackRegistry, describe
from detector.callbacks.state import is_stateful
from detector.errors import CallbackError, MissingPackageError, excerpt, first_line

PATHS, JOB, RESULT, OUTPUT = "paths.json", "job.pkl", "result.pkl", "output"

MUTABLE = (list, dict, set, bytearray)


def cloudpickle() -> ModuleType:
    """Return the package.

    Raises:
        MissingPackageError: if it is not installed.
    """
    try:
        return importlib.import_module("cloudpickle")
    except ImportError:
        raise MissingPackageError(
            "training in several processes needs the cloudpickle package: pip install 'detector[scale]'; or start "
            "it by torchrun -m detector train, see docs/scale.md"
        ) from None


@dataclass
class Result:
    """What a training in other processes returns.

    Attributes:
        record: the trainer's record, see `scale/record.py`.
        metrics: those of the best weights, or None.
        config: the architecture.
        weights: name -> tensor on the CPU, the best ones.
        states: of the callback objects that have one, by their place among `owners`.
    """

    record: Any
    metrics: Any
    config: Any
    weights: dict[str, Any]
    states: dict[int, Any] = field(default_factory=dict)


@dataclass
class Failure:
    """What a process was ended by.

    Attributes:
        when: seconds since 1970.
        rank: of the process.
        text: the traceback.
        error: the exception, pickled; None if that is impossible.
        only_lost: whether it only lost the others.
        by_signal: whether a signal ended it, as the launcher sends when another process has ended.
    """

    when: float
    rank: int
    text: str
    error: bytes | None
    only_lost: bool
    by_signal: bool


def owners(registry: CallbackRegistry) -> list[Any]:
    """Return the objects of a registry's callbacks, those whose method was registered alone as well, in order."""
    found = list(registry.objects)
    for functions in registry.values():
        for fn in functions:
            owner = getattr(fn, "__self__", None)
            if owner is not None and not any(known is owner for known in found):
                found.append(owner)
    return found


def dumps(value: Any) -> bytes:
    """Return a value as bytes; open files are refused.

    Raises:
        pickle.PicklingError, TypeError ...: of whatever can't be carried.
    """
    kind: Any = cloudpickle().Pickler

    class Pickler(kind):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, io.IOBase) and obj not in (sys.stdout, sys.stderr, sys.stdin):
                raise pickle.PicklingError(f"an open file ({getattr(obj, 'name', type(obj).__name__)})")
            return super().reducer_override(obj)

    stream = io.BytesIO()
    Pickler(stream, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return stream.getvalue()


def problem_with(value: Any) -> str | None:
    """Return why a value can't be carried to another process, or None."""
    try:
        dumps(value)
    except MissingPackageError:
        raise
    except Exception as error:  # whatever a stranger's __reduce__ raises
        return first_line(error)
    return None


def require_portable(registry: CallbackRegistry) -> None:
    """Try every callback on its own.

    Raises:
        CallbackError: naming the first that can't be carried, and what it has captured.
    """
    for event, functions in registry.items():
        for fn in functions:
            if (problem := problem_with(fn)) is None:
                continue
            part = next(((name, value) for name, value in captured(fn) if problem_with(value)), None)
            what = f"it has captured {part[0]}, {excerpt(part[1], 80)}" if part else "it can't be pickled"
            raise CallbackError(
                f"the callback {describe(fn)} on {event} can't be carried to the processes that train: {what} "
                f"({problem}); make that in on_train_start, in the process that uses it"
            )


def captured(fn: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a callback takes along, by name: a function's closure and globals, an object's attributes."""
    owner = getattr(fn, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        for name, value in getattr(owner, "__dict__", {}).items():
            yield f"{type(owner).__name__}.{name}", value
    code = getattr(fn, "__func__", fn)
    if isinstance(code, FunctionType):
        for name, cell in zip(code.__code__.co_freevars, code.__closure__ or (), strict=True):
            try:
                yield name, cell.cell_contents
            except ValueError:  # not set yet
                continue
        for name in _names(code.__code__):
            if name in code.__globals__ and not isinstance(code.__globals__[name], ModuleType):
                yield name, code.__globals__[name]


def _names(code: CodeType) -> Iterator[str]:
    """Yield the global names that code uses, that of inner functions as well."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def not_returned(registry: CallbackRegistry) -> Iterator[str]:
    """Say of every callback that gathers something what will not come back from the processes that train."""
    seen: list[Any] = []
    for event, functions in registry.items():
        for fn in functions:
            owner = getattr(fn, "__self__", None)
            if owner is not None and not isinstance(owner, ModuleType):
                if any(known is owner for known in seen):
                    continue
                seen.append(owner)
                if not is_stateful(owner) and getattr(owner, "__dict__", None):
                    yield (
                        f"{type(owner).__name__} has no state_dict and load_state_dict: what it gathers on {event} "
                        "stays in the process that trains"
                    )
                continue
            if names := sorted(set(_gathered(fn))):
                yield (
                    f"{describe(fn)} on {event} works on a copy of {', '.join(names)}: what it gathers there "
                    "stays in the process that trains; use an object with state_dict and load_state_dict"
                )


def _gathered(fn: Any) -> Iterator[str]:
    """Yield the names of what a function of a script or a closure may change outside of itself."""
    if not isinstance(fn, FunctionType):
        return
    code = fn.__code__
    for name, cell in zip(code.co_freevars, fn.__closure__ or (), strict=True):
        try:
            if isinstance(cell.cell_contents, MUTABLE):
                yield name
        except ValueError:
            continue
    written = {i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_DEREF", "STORE_GLOBAL")}
    yield from written & {*code.co_freevars, *code.co_names}
    if fn.__module__ == "__main__":
        yield from (name for name in _names(code) if isinstance(fn.__globals__.get(name), MUTABLE))


def write_job(folder: Path, job: Any) -> None:
    """Write what the processes are to do, and where they look for modules."""
    here = [path or os.getcwd() for path in sys.path]  # noqa: PTH109
    (folder / PATHS).write_text(json.dumps([*dict.fromkeys([*here, os.getcwd()])]), encoding="utf-8")  # noqa: PTH109
    (folder / JOB).write_bytes(dumps(job))


def read_job(folder: Path) -> Any:
    """Read it, after the places of modules are set."""
    sys.path[:] = json.loads((folder / PATHS).read_text(encoding="utf-8"))
    return pickle.loads((folder / JOB).read_bytes())
