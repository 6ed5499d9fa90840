"""Values that callbacks set and files keep: converted or refused when they are set, not when a file is read back."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from inspect import get_annotations
from typing import Any, ClassVar

from torch.optim import Optimizer

from detector.errors import CallbackError, excerpt
from detector.plain_data import EXPECTED, NotPlainDataError, to_float, to_number, to_plain

log = logging.getLogger(__name__)

MAX_WHOLE = 2**63

KINDS: Mapping[str, str] = {
    "bool": "True or False",
    "int": "a whole number",
    "float": "a finite number",
    "int | None": "a whole number or None",
    "float | None": "a finite number or None",
    "number | None": "a number or None",
    "str | None": "a text or None",
}
"""What an attribute may be, as its annotation says it, and in words."""


def check_kind(place: str, kind: str, value: Any) -> Any:
    """Return a value as what an attribute holds: numbers of any library become Python's.

    Args:
        place: what messages call the attribute.
        kind: one of `KINDS`.
        value: what it is set to.

    Raises:
        CallbackError: if it is something else.
    """
    base, _, optional = kind.partition(" | ")
    if value is None and optional:
        return None
    if base == "str":
        if isinstance(value, str):
            return str.__str__(value)
    elif (number := to_number(value)) is not None:
        if base == "bool" and number in (0, 1):
            return bool(number)
        real = to_float(number)
        if base == "int" and real is not None and abs(real) < MAX_WHOLE and number == int(number):
            return int(number)
        if base in ("float", "number") and real is not None and (base == "number" or math.isfinite(real)):
            return real
    raise CallbackError(f"{place} = {excerpt(value, 60)}: expected {KINDS[kind]}")


class CheckedAttributes:
    """Base of what is part of a run's state: the attributes in `checked` take values of their kind only.

    Attributes:
        place: what messages call an object of the class.
        checked: attribute -> its kind, see `KINDS`; of a class that does not say, those it is annotated with.
    """

    place: ClassVar[str] = ""
    checked: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "checked" not in cls.__dict__:
            kinds = get_annotations(cls)  # as they are written: texts
            cls.checked = {name: kind for name, kind in kinds.items() if kind in KINDS}

    def __setattr__(self, name: str, value: Any) -> None:
        kind = self.checked.get(name)
        super().__setattr__(name, value if kind is None else check_kind(f"{self.place}.{name}", kind, value))


class CheckedDict(dict[Any, Any]):
    """A dict of which every change goes through `check`; copies of it are plain dicts.

    Args:
        values: the content.
    """

    def __init__(self, values: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__()
        self.update(values)

    def check(self, key: Any, value: Any) -> tuple[Any, Any]:
        """Return the key and the value that are stored."""
        raise NotImplementedError

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(*self.check(key, value))

    def update(self, *values: Any, **named: Any) -> None:
        for key, value in dict(*values, **named).items():
            self[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def __ior__(self, values: Any) -> CheckedDict:  # type: ignore[misc]
        self.update(values)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class MetricsDict(CheckedDict):
    """The metrics of an epoch: name -> number. What is not a number, and what has no name, is left out.

    A value that is left out can still be read as `metrics[name]`, but is not among the items.

    Args:
        values: the content.
        refuse: called with a name and what is wrong, for each that is left out.
    """

    def __init__(self, values: Mapping[Any, Any], refuse: Callable[[Any, str], None]) -> None:
        self.refuse = refuse
        self.left_out: dict[Any, Any] = {}
        super().__init__(values)

    def __setitem__(self, key: Any, value: Any) -> None:
        number = to_number(value)
        if not isinstance(key, str) or not key.strip():
            problem = "has no name: expected a text such as 'my/recall'"
        elif not _is_text(key):
            problem = "has letters in its name that no file can hold"
        elif number is None:
            problem = f"is {excerpt(value, 60)}: expected a number"
        elif to_float(number) is None:
            problem = "is a number too large for a file of metrics"
        else:
            self.left_out.pop(key, None)
            return dict.__setitem__(self, str.__str__(key), number)
        self.pop(key, None)
        self.left_out[key] = value
        return self.refuse(key, problem)

    def __missing__(self, key: Any) -> Any:
        return self.left_out[key]


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class OptimizerGroup(CheckedDict):
    """A parameter group of an optimizer; what is a number stays a finite number.

    Args:
        values: the content.
        number: which group it is, for messages.
    """

    def __init__(self, values: Mapping[Any, Any], number: int) -> None:
        self.number = number
        super().__init__(values)

    def check(self, key: Any, value: Any) -> tuple[Any, Any]:
        place = f"optimizer.param_groups[{self.number}]"
        if key == "params":
            return key, value
        if not isinstance(key, str):
            raise CallbackError(f"{place} has the key {excerpt(key, 60)}: expected a text")
        place += f"[{key!r}]"
        number = to_number(value)
        if type(self.get(key)) in (int, float):
            check_kind(place, "float", value)
        try:
            return str.__str__(key), to_plain(value if number is None else number, place)
        except NotPlainDataError as problem:
            raise CallbackError(f"{problem}; expected {EXPECTED}") from None


def check_groups(optimizer: Optimizer) -> None:
    """Let the optimizer's parameter groups check what is written to them, now and after a state is loaded."""
    optimizer.param_groups[:] = [OptimizerGroup(group, i) for i, group in enumerate(optimizer.param_groups)]
