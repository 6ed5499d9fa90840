"""The search space of a study: which settings of a training are varied, and between what.

A file, or a dict from Python, of `setting: {kind: values}`; see `cfg/space.yaml`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from detector.errors import SettingsError, nearest
from detector.fields import format_value, kinds_of, show_given
from detector.files.folders import resource_dir
from detector.files.safe_yaml import YamlError, read_yaml
from detector.plain_data import to_float
from detector.settings import TrainSettings

EXAMPLE = "such as lr0: {log: [0.001, 0.1]}"

THEMES = ("training", "optimisation", "loss", "augmentation")

ALSO = frozenset({"imgsz", "batch", "balance", "background"})
"""Settings of other themes that can be tuned."""

FIXED = frozenset(
    {"time", "fitness", "pretrained", "seed", "deterministic", "cuda_graph", "transforms", "resume"}
)
"""Settings of `THEMES` that can't: trials that differ in them can't be compared, or they change no result."""

MAX_CHOICES = 100

SUGGEST: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "uniform": lambda trial, name, low, high, step=None: trial.suggest_float(name, low, high, step=step),
        "log": lambda trial, name, low, high: trial.suggest_float(name, low, high, log=True),
        "int": lambda trial, name, low, high, step=1: trial.suggest_int(name, low, high, step=step),
        "choice": lambda trial, name, *values: trial.suggest_categorical(name, values),
    }
)
"""Kind -> how Optuna's trial draws a value of it."""


@dataclass(frozen=True)
class Parameter:
    """A setting that is varied.

    Attributes:
        name: of the setting.
        kind: a key of `SUGGEST`.
        values: minimum, maximum and maybe a step; or the choices.
        first: value in the first trial; None to draw it as in any other.
    """

    name: str
    kind: str
    values: tuple[Any, ...]
    first: Any = None

    def samples(self) -> list[Any]:
        """Return the choices, or the ends of the range and some values between."""
        if self.kind == "choice":
            return list(self.values)
        low, high, step = (*self.values, None)[:3]
        if step is None and self.kind == "int":
            step = 1
        if step is None:
            return [low, high, *(low + (high - low) * part / 7 for part in range(1, 7))]
        steps = round((high - low) / step)
        return [
            low,
            high,
            *(low + step * (steps * part // min(steps, 100)) for part in range(min(steps, 100))),
        ]

    def contains(self, value: Any) -> bool:
        """Return whether a value can be drawn."""
        if self.kind == "choice":
            return any(value == known and type(value) is type(known) for known in self.values)
        number = None if isinstance(value, bool) else to_float(value)
        if number is None or not self.values[0] <= number <= self.values[1]:
            return False
        if self.kind == "int" and number != int(number):
            return False
        steps = (number - self.values[0]) / self.values[2] if len(self.values) > 2 else 0.0
        return math.isclose(steps, round(steps), abs_tol=1e-9)


class Space:
    """What a study varies.

    Attributes:
        parameters: setting -> how it is varied.
        plain: the same as plain data, to be saved and compared.
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self.parameters = dict(parameters)
        self.plain = {name: {one.kind: list(one.values)} for name, one in parameters.items()}

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Draw a value for each setting.

        Args:
            trial: Optuna's.
        """
        return {name: SUGGEST[one.kind](trial, name, *one.values) for name, one in self.parameters.items()}

    def first(self) -> dict[str, Any]:
        """Return the values of the first trial, of those settings that have one."""
        return {name: one.first for name, one in self.parameters.items() if one.first is not None}


def tunable() -> list[str]:
    """Return the settings that a space may name."""
    fields = TrainSettings.model_fields
    themes = {name: (field.json_schema_extra or {}).get("theme") for name, field in fields.items()}  # type: ignore[union-attr]
    return [name for name, theme in themes.items() if (theme in THEMES and name not in FIXED) or name in ALSO]


def load_space(given: str | Path | Mapping[str, Any] | None, kept: Collection[str] = ()) -> Space:
    """Read and check a search space.

    Args:
        given: a YAML file, or its content; None for the packaged one.
        kept: settings the user gave a value: the packaged space leaves them alone, in another one they are an error.

    Raises:
        SettingsError: naming everything that is wrong with it.
    """
    is_default = given is None
    path = resource_dir("cfg") / "space.yaml" if given is None else given
    place = "space" if isinstance(path, Mapping) else str(path)
    content = path if isinstance(path, Mapping) else _read(Path(path))
    if not isinstance(content, Mapping) or not content:
        raise SettingsError(f"{place}: expected lines of 'setting: {{kind: values}}', {EXAMPLE}")
    parameters: dict[str, Parameter] = {}
    problems = []
    for name, entry in content.items():
        if is_default and name in kept:
            continue
        try:
            parameters[name] = _parameter(name, entry, kept)
        except ValueError as error:
            problems.append(f"{place}: {error}")
    if not problems and not parameters:
        problems.append(f"{place}: every setting in it was given a value; leave some of them out")
    if problems:
        raise SettingsError("\n".join(problems))
    return Space(parameters)


def _read(path: Path) -> Any:
    try:
        return read_yaml(path)
    except OSError as error:
        raise SettingsError(f"space={path}: can't be read ({error.strerror})") from None
    except YamlError as error:
        raise SettingsError(f"space={path}: is not YAML ({' '.join(str(error).split())})") from None


def _parameter(name: Any, entry: Any, kept: Collection[str]) -> Parameter:
    """Check one line of a space.

    Raises:
        ValueError: with what is wrong.
    """
    allowed = tunable()
    if name not in allowed:
        if name in TrainSettings.model_fields:
            raise ValueError(
                f"{name} can't be tuned: trials that differ in it can't be compared, or it has no effect on them; "
                f"expected some of {', '.join(allowed)}"
            )
        raise ValueError(f"unknown setting {show_given(name)!r}{nearest(str(name), allowed)}")
    if name in kept:
        raise ValueError(f"{name} is to be varied, but is also given a value; leave one of them out")
    if not isinstance(entry, Mapping):
        raise ValueError(f"{name}: {show_given(entry)}: expected {{kind: values}}, {EXAMPLE}")
    kinds = [key for key in entry if key != "first"]
    if len(kinds) != 1 or kinds[0] not in SUGGEST:
        found = ", ".join(map(show_given, kinds)) or "nothing"
        hint = nearest(str(kinds[0]), SUGGEST) if len(kinds) == 1 else ""
        raise ValueError(f"{name}: {found}: expected one of {', '.join(SUGGEST)}{hint or f', {EXAMPLE}'}")
    kind: str = kinds[0]
    takes = kinds_of(TrainSettings.model_fields[name].annotation)
    values = _choices(name, entry[kind], takes) if kind == "choice" else _range(name, kind, entry[kind])
    if kind in ("uniform", "log") and float not in takes:
        raise ValueError(f"{name}: takes no fractions; write {name}: {{int: {show_given(list(values))}}}")
    parameter = Parameter(name, kind, values)
    for value in parameter.samples():
        _require_taken(name, value)
    return replace(parameter, first=_first(parameter, entry))


def _range(name: str, kind: str, given: Any) -> tuple[Any, ...]:
    """Return minimum, maximum and maybe a step."""
    numbers = [_number(part) for part in given] if isinstance(given, (list, tuple)) else []
    lengths = (2,) if kind == "log" else (2, 3)
    is_range = len(numbers) in lengths and None not in numbers and numbers[0] < numbers[1]
    if not is_range or (len(numbers) == 3 and not 0 < numbers[2] <= numbers[1] - numbers[0]):
        what = "minimum and maximum" if kind == "log" else "minimum, maximum and, if you like, a step"
        raise ValueError(f"{name}: {kind}={show_given(given)}: expected {what}, {EXAMPLE}")
    if kind == "log" and numbers[0] <= 0:
        raise ValueError(f"{name}: log={show_given(given)}: expected a minimum above 0")
    if kind == "int":
        if any(number != int(number) for number in numbers):
            raise ValueError(f"{name}: int={show_given(given)}: expected whole numbers")
        numbers = [int(number) for number in numbers]
    if len(numbers) == 3:
        steps = (numbers[1] - numbers[0]) / numbers[2]
        if not math.isclose(steps, round(steps), abs_tol=1e-9):
            raise ValueError(
                f"{name}: {kind}={show_given(given)}: {steps:g} steps; expected a whole number of them"
            )
    return tuple(numbers)


def _choices(name: str, given: Any, takes: Collection[Any]) -> tuple[Any, ...]:
    """Return the values to choose from."""
    values = list(given) if isinstance(given, (list, tuple)) else []
    plain = all(value is None or isinstance(value, (bool, int, float, str)) for value in values)
    if not values or not plain or len(values) > MAX_CHOICES:
        raise ValueError(
            f"{name}: choice={show_given(given)}: expected a list of at most {MAX_CHOICES} numbers, texts, true, "
            f"false and null"
        )
    if str not in takes:  # YAML 1.1 reads 1e-3 as text
        values = [
            _number(value) if isinstance(value, str) and _number(value) is not None else value
            for value in values
        ]
    if len({(type(value), value) for value in values}) < len(values):
        raise ValueError(f"{name}: choice={show_given(given)}: a value is there twice; name each once")
    return tuple(values)


def _number(value: Any) -> Any:
    """Return a finite number, also of a text such as 1e-3; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    number = None if isinstance(value, bool) else to_float(value)
    if number is None or not math.isfinite(number) or abs(number) > 1e9:
        return None
    return value if isinstance(value, int) else number


def _require_taken(name: str, value: Any) -> None:
    """Refuse a value that the setting does not take."""
    try:
        TrainSettings.parse({name: value})
    except SettingsError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def _first(found: Parameter, entry: Mapping[str, Any]) -> Any:
    """Return the value of the first trial: the one given, or the setting's default if it can be drawn."""
    if "first" not in entry:
        default = TrainSettings.model_fields[found.name].default
        return default if found.contains(default) else None
    given = entry["first"]
    value = given if found.contains(given) else _number(given)
    if not found.contains(value):
        among = "one of" if found.kind == "choice" else "a value of"
        raise ValueError(
            f"{found.name}: first={show_given(given)}: expected {among} {found.kind}={format_value(list(found.values))}"
        )
    return value
