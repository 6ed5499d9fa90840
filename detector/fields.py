"""Fields of settings and of files: the plain value of what is given, and sentences for what is refused."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from detector.errors import excerpt, nearest, shorten
from detector.plain_data import to_number


def plain_value(key: str, value: Any, field: FieldInfo) -> Any:
    """Return a value as the plain Python value it stands for, if the setting takes that; else as it is.

    Numbers of numpy and torch, `Fraction` and `Decimal` become Python numbers, tuples, ranges, sets and arrays
    lists, a `torch.device` its name, a path text where no path is taken, a number text where text is wanted (a run
    named 0), 3.0 the whole number 3, false the number 0 where 0 switches off. None is the default of a setting that
    does not take it.
    """
    if field.annotation is Any:  # the images to predict on
        return value
    value = plain_number(value)
    kinds = kinds_of(field.annotation)
    words = [kind for kind in kinds if isinstance(kind, str)]
    if isinstance(value, (tuple, range, set, frozenset)) or (
        hasattr(value, "tolist") and hasattr(value, "ndim")
    ):
        try:
            value = value.tolist() if hasattr(value, "tolist") else list(value)
        except RuntimeError:  # a tensor without memory
            return value
    if isinstance(value, list):
        value = [plain_number(part) for part in value]
    if type(value).__module__ == "torch" and type(value).__name__ == "device":
        value = str(value)
    if (value is None and type(None) not in kinds) or (key == "device" and value == ""):
        return field.default  # not given
    if key == "names" and isinstance(value, Mapping) and list(value) == list(range(len(value))):
        return list(value.values())
    if (
        key == "imgsz"
        and isinstance(value, list)
        and list not in kinds
        and len(set(map(format_value, value))) == 1
    ):
        return value[0]  # [640, 640] is a square
    if isinstance(value, PurePath) and Path not in kinds and str in kinds:
        return str(value)
    if isinstance(value, str) and value not in words and value.lower() in words:
        return value.lower()
    if value is False and bool not in kinds and (list in kinds or float in kinds):
        return None if type(None) in kinds else 0.0
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and not {int, float} & kinds:
        if bool in kinds and value in (0, 1):
            return bool(value)
        return str(value) if str in kinds and abs(value) < 1e300 else value
    if isinstance(value, float) and int in kinds and float not in kinds and value.is_integer():
        return int(value)
    return value


def plain_number(value: Any) -> Any:
    """Return a number of any library as Python's int, float or bool; anything else as it is."""
    number = to_number(value)
    return value if number is None else number


def data_sets(value: Any) -> Any:
    """Return `data=` as plain data: one data set, or a list of them; paths in dicts become texts.

    Raises:
        ValueError: for a list that is empty, is in a list, or holds what is not a data set.
    """
    if not isinstance(value, list):
        return plain_tree(value) if isinstance(value, Mapping) else value
    if not value:
        raise ValueError("the list is empty; name data sets in it, such as data=[a.yaml,b.zip]")
    for part in value:
        if isinstance(part, (list, tuple)):
            raise ValueError("a list in a list; expected one list of data sets, such as data=[a.yaml,b.zip]")
        is_number = isinstance(part, (int, float)) and not isinstance(part, bool)
        if not (
            isinstance(part, (PurePath, Mapping)) or is_number or (isinstance(part, str) and part.strip())
        ):
            raise ValueError(
                f"{show_given(part) or 'an empty text'} is not a data set; expected paths or names, such as "
                "data=[a.yaml,b.zip], or dicts with the keys of a data YAML"
            )
    return [
        plain_tree(part) if isinstance(part, Mapping) else str(part) if to_number(part) is not None else part
        for part in value
    ]


def stored_data(value: Any) -> Any:
    """Return `data=` as a file has it, without the keys that fetch or draw images: the file may be a stranger's."""
    if isinstance(value, list):
        return [stored_data(part) for part in value]
    if isinstance(value, Mapping):
        return {key: part for key, part in value.items() if key not in ("download", "drawn")}
    return value


def plain_tree(value: Any, depth: int = 0) -> Any:
    """Return what a YAML file can hold of a value of Python: paths become texts, tuples and arrays lists.

    Raises:
        ValueError: naming what it can't hold.
    """
    if depth > 20:
        raise ValueError("it is nested more than 20 levels deep, or contains itself")
    value = plain_number(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        keys = [plain_number(key) for key in value]
        if wrong := [key for key in keys if not isinstance(key, (str, int))]:
            raise ValueError(
                f"{excerpt(wrong[0])} can't be a key of a data YAML; expected texts, or ids of classes"
            )
        return {key: plain_tree(part, depth + 1) for key, part in zip(keys, value.values(), strict=True)}
    if isinstance(value, (list, tuple, range)):
        return [plain_tree(part, depth + 1) for part in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(
        f"{excerpt(value)} in it can't be in a data YAML; expected texts, numbers, lists and dicts"
    )


def is_range(value: Any) -> bool:
    """Return whether a value is two numbers of at most 1e9, the smaller one first."""
    numbers = value if isinstance(value, (list, tuple)) and len(value) == 2 else ()
    if not numbers or any(type(number) not in (int, float) for number in numbers):
        return False
    return bool(-1e9 <= numbers[0] < numbers[1] <= 1e9)


def kinds_of(annotation: Any) -> set[Any]:
    """Return what a setting takes: `int`, `float`, `bool`, `str`, `Path`, `list`, `tuple`, and words as text."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return {kind for part in get_args(annotation) for kind in kinds_of(part)}
    if origin is Literal:
        return set(get_args(annotation))
    return {origin or annotation}


def type_text(field: FieldInfo) -> str:
    """Describe what a setting accepts, e.g. `int >= 1`, `0..1`, `auto | bf16 | true | false`."""
    names = {int: "int", float: "float", str: "text", bool: "true | false", Path: "path", type(None): "none"}

    def words(annotation: Any) -> list[str]:
        origin = get_origin(annotation)
        if origin in (Union, types.UnionType):
            return [word for part in get_args(annotation) for word in words(part)]
        if origin is Literal:
            return [str(value) for value in get_args(annotation)]
        if origin in (list, tuple):
            inner = " | ".join(dict.fromkeys(w for part in get_args(annotation) for w in words(part)))
            return [f"list of {inner}"]
        if origin is dict:
            return ["{key: value}" if get_args(annotation)[1] is Any else "{name: number}"]
        return [names.get(annotation, "any")]

    bounds = {}
    for limit in field.metadata:
        for sign, key in ((">=", "ge"), (">", "gt"), ("<=", "le"), ("<", "lt")):
            if (value := getattr(limit, key, None)) is not None:
                bounds[sign] = value
    text = " | ".join(dict.fromkeys(words(field.annotation)))
    limits = " and ".join(f"{sign} {value:g}" for sign, value in bounds.items())
    return f"{text} {limits}" if limits else text


def explain_validation(
    error: ValidationError,
    model: type[BaseModel],
    given: Mapping[str, Any],
    sentence: Callable[[str, Any, str], str],
    expected: Callable[[str, FieldInfo], str] | None = None,
) -> list[str]:
    """Turn pydantic's report on the keys of settings or of a file into one sentence per key.

    Args:
        error: The report.
        model: The class that refused; its fields (or their aliases) are the known keys.
        given: What was validated, by key.
        sentence: Joins key, given value and what is expected, such as "expected int >= 1".
        expected: Says what a field accepts where its own validator has not said so; default: its type.

    Returns:
        Sentences: first unknown keys with the nearest known one, then missing keys and values that can't be
        used. A problem inside a value is one of the whole value; a problem of several keys together (of a
        model validator) is its own sentence.
    """
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    unknown: dict[str, str] = {}
    sentences: dict[str, str] = {}
    for item in error.errors():
        key = str(item["loc"][0]) if item["loc"] else ""
        is_whole = len(item["loc"]) == 1
        if key in sentences:  # a value that fits no part of a union is reported once per part
            continue
        if is_whole and item["type"] in ("extra_forbidden", "invalid_key"):  # invalid: not a text
            unknown[key] = f"unknown key {key!r}{nearest(key, fields)}"
        elif is_whole and item["type"] == "missing":
            sentences[key] = f"{key} is missing"
        elif item["type"] == "value_error":
            text = str(item["ctx"]["error"])
            sentences[key] = sentence(key, given[key], text) if key else text
        else:
            field = fields[key]
            text = expected(key, field) if expected else f"expected {type_text(field)}"
            if item["type"] == "finite_number":
                text = text.replace("expected ", "expected a finite number, ", 1)
            sentences[key] = sentence(key, given[key], text)
    return [*unknown.values(), *sentences.values()]


def format_value(value: Any, depth: int = 0) -> str:
    """Write a value as one would on the command line: none, true, auto, 0.01; lists to a depth of 20."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        if depth > 20:
            return "[...]"
        return "[" + ",".join(format_value(part, depth + 1) for part in value) + "]"
    try:
        return str(value)
    except ValueError:  # Python does not write whole numbers of more than 4300 digits
        return f"a whole number of {value.bit_length()} bits"


def show_given(value: Any, depth: int = 0) -> str:
    """Return a given value for a message: of any length and depth, and text that reads like a number in quotes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return excerpt(value)
    if isinstance(value, (list, tuple)):
        if depth > 3:  # it may hold itself
            return "[...]"
        return shorten(f"[{','.join(show_given(part, depth + 1) for part in value[:100])}]")
    is_number = isinstance(value, str) and re.fullmatch(
        r"[-+.\d]+(e[-+]?\d+)?|true|false|none", value, re.IGNORECASE
    )
    return repr(value) if is_number else shorten(format_value(value))
