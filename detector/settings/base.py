"""What all settings have in common: how they are declared, checked and explained; those that engines share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    ValidationError,
    field_validator,
)
from pydantic.fields import FieldInfo

from detector.errors import SettingsError, nearest
from detector.fields import (
    data_sets,
    explain_validation,
    format_value,
    plain_value,
    show_given,
    stored_data,
    type_text,
)
from detector.plain_data import MAX_INTEGER_BITS
from detector.unsupported import ABSENT, WHOLE_FILE


def setting(default: Any, theme: str, help: str, *, unit: str = "", **limits: Any) -> Any:
    """Declare one setting: a pydantic field that also knows its theme, help line and unit."""
    extra: dict[str, JsonValue] = {"theme": theme, "unit": unit}
    return Field(default, description=help, json_schema_extra=extra, **limits)


def probability(default: float, theme: str, help: str) -> Any:
    """Declare a setting that lies in 0..1."""
    return setting(default, theme, help, ge=0.0, le=1.0)


SettingsT = TypeVar("SettingsT", bound="CommandSettings")

DataSet = str | Path | dict[str, Any]
"""What names a data set: see `CommandSettings._data_is_one_set_or_several`."""

SPLITS = ("val", "test", "train")
FOLD = re.compile(r"([1-9]\d*)/([1-9]\d*)")
DATA_HELP = (
    "data set: a YAML file, folder, archive, label file of a whole split, packaged name; a list joins several"
)


def fold_of(split: str) -> tuple[int, int] | None:
    """Return k and n of a fold `k/n`, which is called from 1 to n; None if a text is not one."""
    found = FOLD.fullmatch(split)
    if found is None:
        return None
    number, count = int(found[1]), int(found[2])
    return (number, count) if number <= count and count > 1 else None


class CommandSettings(BaseModel):
    """Settings of a command.

    Values are checked strictly (no "3" for 3), unknown names are refused, and changes made later by
    attribute are checked as well. The same value of another Python type is the same value: see `plain_value`.
    """

    command: ClassVar[str] = ""
    """Its name, as `detector train` has it."""

    model_config = ConfigDict(extra="forbid", strict=True, validate_assignment=True, allow_inf_nan=False)

    _unused: list[str] = PrivateAttr(default_factory=list)

    @field_validator("*")
    @classmethod
    def _numbers_fit_into_files(cls, value: Any) -> Any:
        parts = value if isinstance(value, list) else [value]
        if any(isinstance(part, int) and part.bit_length() > MAX_INTEGER_BITS for part in parts):
            raise ValueError("expected a smaller number")
        return value

    @field_validator("imgsz", mode="after", check_fields=False)
    @classmethod
    def _imgsz_is_a_multiple_of_32(cls, value: Any) -> Any:
        sides = value if isinstance(value, list) else [value]
        if any(side % 32 for side in sides):
            rounded = [max(round(side / 32), 1) * 32 for side in sides]
            better = format_value(rounded if isinstance(value, list) else rounded[0])
            raise ValueError(f"expected a multiple of 32; try imgsz={better}")
        return value

    @field_validator("classes", mode="before", check_fields=False)
    @classmethod
    def _one_class_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("names", mode="before", check_fields=False)
    @classmethod
    def _one_name_is_a_list(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("data", mode="before", check_fields=False)
    @classmethod
    def _data_is_one_set_or_several(cls, value: Any) -> Any:
        return data_sets(value)

    @field_validator("val", mode="before", check_fields=False)
    @classmethod
    def _val_is_a_part(cls, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        if value in (0, 1):
            return bool(value)
        if not 0 < value < 1:
            raise ValueError("expected true, false, or a part of the training images in 0..1; try val=0.2")
        return value

    @field_validator("split", check_fields=False)
    @classmethod
    def _split_is_known(cls, value: str) -> str:
        allowed = ("val",) if cls.command == "train" else SPLITS
        if value not in allowed and fold_of(value) is None:
            raise ValueError(
                f"expected {', '.join(allowed)}, or a fold k/n of the images of train and val, k from 1 to n; try "
                f"split=1/5{nearest(value, allowed)}"
            )
        return value

    @property
    def unused(self) -> list[str]:
        """What was given, switched off or for another command, and has no effect here: `key=value` texts."""
        return list(self._unused)

    def __setattr__(self, name: str, value: Any) -> None:
        field = type(self).model_fields.get(name)
        super().__setattr__(name, value if field is None else plain_value(name, value, field))

    @classmethod
    def parse(
        cls: type[SettingsT], given: Mapping[str, Any], in_file: Mapping[str, Any] | None = None
    ) -> SettingsT:
        """Check given values and fill in the defaults.

        Args:
            given: setting name -> value, as from Python keywords or the command line.
            in_file: those of a settings file, which `given` overrides. It may hold settings of other commands.

        Raises:
            SettingsError: naming every unknown key and every bad value at once.
        """
        from detector.settings.unknown import is_unused, unknown_setting  # which knows all commands

        in_file = in_file or {}
        both = {**in_file, **given}
        is_whole = not WHOLE_FILE.isdisjoint(both)
        problems, known, unused = [], {}, []
        for key, value in both.items():
            if key in cls.model_fields:
                known[key] = value
            elif is_unused(
                key, value, (is_whole and key not in ABSENT) or (not is_whole and key not in given)
            ):
                unused.append(f"{key}={show_given(value)}")
            else:
                problems.append(unknown_setting(key, cls.command, value))
        if known.get("cache") == "disk":  # decoded images are kept in memory only
            unused.append("cache=disk")
            del known["cache"]
        if is_whole and known.get("nms") is False:  # elsewhere it is a setting of exports, off by default
            unused.append("nms=false")
            del known["nms"]
        plain = {key: plain_value(key, value, cls.model_fields[key]) for key, value in known.items()}
        try:
            parsed = cls.model_validate(plain)
        except ValidationError as error:
            problems += cls._explain(error, known)
        else:
            problems += _problems_between(parsed)
        if problems:
            raise SettingsError("\n".join(problems))
        parsed._unused = unused
        return parsed

    def inherit(self, values: Mapping[str, Any]) -> None:
        """Take values for what was not set; they are checked as those that were.

        Args:
            values: setting name -> value, as from the run or the checkpoint that this one builds on.

        Raises:
            SettingsError: naming every unknown key and every bad value at once.
        """
        from detector.settings.unknown import unknown_setting

        problems = []
        for key, value in values.items():
            if key in self.model_fields_set:
                continue
            if key not in type(self).model_fields:
                problems.append(unknown_setting(key, self.command))
                continue
            try:
                setattr(self, key, stored_data(value) if key == "data" else value)
            except ValidationError as error:
                problems += self._explain(error, values)
        if problems:
            raise SettingsError("\n".join(problems))

    @classmethod
    def _explain(cls, error: ValidationError, given: Mapping[str, Any]) -> list[str]:
        return explain_validation(
            error, cls, given, lambda key, value, text: f"{key}={show_given(value)}: {text}", _expected
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data (paths as strings), fit for YAML and checkpoints."""
        return self.model_dump(mode="json")


class Settings(CommandSettings):
    """Settings that every engine of a model shares."""

    model: str | Path | None = setting(
        None, "model", "weights (.pt), an architecture (.yaml) to train from scratch, or an exported file"
    )
    nms: bool | None = setting(
        None,
        "model",
        "head of a dual-head model (YOLO26): true = one-to-many with NMS, false = NMS-free; none = the default",
    )
    device: str | int | list[int] = setting(
        "auto",
        "machine",
        "auto (CUDA, else MPS, else CPU), cpu, mps, or a CUDA index such as 0; train takes several, 0,1, and -1 for "
        "an idle one",
    )
    amp: bool | Literal["auto", "bf16", "fp16", "fp32"] = setting(
        "auto",
        "machine",
        "mixed precision: auto = bf16 where the processor computes in it, else fp32; false = fp32",
    )
    project: str | Path = setting("runs", "output", "folder that holds the runs")
    name: str | None = setting(None, "output", "the run's folder; default: train, val or predict")
    exist_ok: bool = setting(
        False, "output", "write into an existing run folder instead of name-2, name-3 ..."
    )
    verbose: bool = setting(True, "output", "print progress and tables")
    callbacks: str | list[str] | None = setting(
        None,
        "callbacks",
        "callbacks to add: hooks.py, package.module:name, or a ready-made one such as TimeLimit(hours=2)",
    )
    plots: bool = setting(True, "output", "draw curves and sample images, and write report.html")


EngineSettingsT = TypeVar("EngineSettingsT", bound=Settings)


def one_or_two_sides(value: Any) -> Any:
    """Refuse what is neither one side nor [height, width]."""
    value = list(value) if isinstance(value, tuple) else value
    sides = value if isinstance(value, list) else [value]
    if len(sides) not in (1, 2) or any(isinstance(side, int) and side < 32 for side in sides):
        raise ValueError("expected one side or [height, width], each a multiple of 32; try imgsz=640")
    return value


def square_as_one_side(value: Any) -> Any:
    """Return one side for [640, 640], so that a square is saved and compared as it is without a list."""
    value = one_or_two_sides(value)
    return value[0] if isinstance(value, list) and value[0] == value[-1] else value


Sides = Annotated[int | list[int], BeforeValidator(one_or_two_sides)]
InputSize = Annotated[int | list[int], BeforeValidator(square_as_one_side)]


class DataSettings(Settings):
    """Settings of the engines that read a labelled data set."""

    imgsz: InputSize = setting(
        640, "model", "longer side of the network input, or [height, width]", unit="px, multiple of 32"
    )
    data: DataSet | list[DataSet] | None = setting(None, "data", DATA_HELP)
    workers: int | Literal["auto"] = setting(
        "auto", "machine", "processes that load data; auto = chosen by the device and the cores; 0 = none"
    )
    cache: bool | Literal["auto", "ram"] = setting(
        "auto",
        "machine",
        "keep decoded images in memory: auto = as many as fit, ram or true = all, false = none",
    )
    single_cls: bool = setting(False, "data", "treat all classes as one")
    classes: list[int] | None = setting(None, "data", "use only these class ids")
    errors: Literal["stop", "skip"] = setting(
        "stop", "data", "images whose labels are wrong: stop = name them and end, skip = train without them"
    )
    fraction: float = setting(1.0, "data", "part of the training images to use", gt=0.0, le=1.0)
    conf: float | None = setting(
        None, "validation", "minimum confidence of a detection; none = 0.001 in validation, 0.25 in prediction",
        ge=0.0, le=1.0,
    )  # fmt: skip
    iou: float = probability(0.7, "validation", "IoU above which NMS suppresses a box")
    max_det: int = setting(300, "validation", "maximum detections per image", ge=1)
    agnostic_nms: bool = setting(False, "validation", "let NMS suppress across classes")

    @field_validator("workers")
    @classmethod
    def _workers_is_a_count(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 0:
            raise ValueError("expected auto or a whole number >= 0; try workers=auto")
        return value


def _problems_between(settings: CommandSettings) -> list[str]:
    """Name what is wrong with settings together."""
    val, split = getattr(settings, "val", True), getattr(settings, "split", "val")
    if isinstance(val, float) and fold_of(split) is not None:
        return [f"val={val:g} and split={split} both name images to validate on; give one of them"]
    return []


def _expected(key: str, field: FieldInfo) -> str:
    return f"expected {type_text(field)}; the default is {key}={format_value(field.default)}"
