"""Every setting of every engine: its type, default, range, unit and help line, in one place.

`cfg/default.yaml`, `detector train --help` and `docs/settings.md` are written from these classes.
The user-facing keys are those known from other YOLO trainers.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

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
from detector.unsupported import ABSENT, RENAMED, WHOLE_FILE

DEFAULT_MODEL = "yolo11n.yaml"

LOGGER_NAMES = ("tensorboard", "mlflow", "wandb", "comet")

OPTIMIZERS = ("auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSProp")

RECT_HELP = "minimal padding; false = pad to the full size, as files of fixed size always do"
NAMES_HELP = "class names, for an exported file without them"
JSON_HELP = "print JSON in place of a table; `--json` and `json=true` do so too"
TRUST_HELP = "open a .torchscript or .pt2 even if that could run code that is in it"
COMPILE_HELP = (
    "torch.compile the network: the first batch takes a minute; needs a C++ compiler; see docs/benchmarks.md"
)


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
HELD_OUT_HELP = (
    "part of the training images that the training held out with its val=, to validate on; true = none"
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
        allowed = ("val",) if cls is SETTINGS_OF["train"] else SPLITS
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
                problems.append(unknown_setting(key, COMMAND_OF[cls], value))
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
        problems = []
        for key, value in values.items():
            if key in self.model_fields_set:
                continue
            if key not in type(self).model_fields:
                problems.append(unknown_setting(key, COMMAND_OF[type(self)]))
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


class TrainSettings(DataSettings):
    """Settings of `train`."""

    batch: int | float | Literal["auto"] = setting(
        "auto",
        "data",
        "images per batch; auto = 16, or 8 below 320 images; -1 or a fraction in 0..1 = by GPU memory (CUDA)",
    )
    balance: float = probability(
        0.0,
        "data",
        "show images of classes that are in less than this part of the images more often; 0 = off",
    )
    background: float | None = setting(
        None,
        "data",
        "maximum share of images without objects in an epoch; none = all of them",
        ge=0.0,
        le=1.0,
    )
    epochs: int | Literal["auto"] = setting(
        100, "training", "passes over the training images; auto = 50 to 300, more for fewer images"
    )
    time: float | None = setting(None, "training", "time budget that replaces epochs", unit="hours", gt=0.0)
    patience: int = setting(
        100, "training", "stop after this many epochs without a better fitness; 0 = never", ge=0
    )
    fitness: str | dict[str, float] | list[float] | None = setting(
        None,
        "training",
        "decides best.pt and patience: a metric such as mAP50, -val/loss where lower is better, or weights such as "
        "{mAP50: 0.1, mAP50-95: 0.9}; none = mAP50-95",
    )
    pretrained: bool | str | Path = setting(
        True, "training", "start from the weights of model=; a path takes them from there, false from none"
    )
    freeze: int | list[int | str] | None = setting(
        None, "training", "layers to freeze: a count from the start, or a list of indices or name parts"
    )
    seed: int = setting(0, "training", "seed of weights, order and augmentation", ge=0)
    deterministic: bool = setting(True, "training", "use only repeatable GPU algorithms")
    cuda_graph: bool = setting(
        True, "training", "on a GPU, record the training step as a CUDA graph and repeat it"
    )

    processes: int | None = setting(
        None,
        "machine",
        "processes that train together, as with device=cpu; none = one per GPU of device= (docs/scale.md)",
        ge=1,
    )
    sync_bn: bool = setting(
        True, "training", "batch norm over the whole batch of all processes; false = each by its part"
    )
    wait_limit: float = setting(
        30.0, "machine", "how long a process waits for the others", unit="minutes", gt=0.0
    )

    optimizer: str = setting("auto", "optimisation", "one of " + ", ".join(OPTIMIZERS))
    lr0: float | None = setting(None, "optimisation", "first learning rate; none = by the optimizer", gt=0.0)
    lrf: float = setting(0.01, "optimisation", "last learning rate as a part of lr0", gt=0.0, le=1.0)
    cos_lr: bool = setting(False, "optimisation", "cosine instead of linear decay")
    momentum: float = setting(0.937, "optimisation", "momentum, or Adam's beta1", ge=0.0, lt=1.0)
    weight_decay: float = setting(
        0.0005, "optimisation", "decay of weights (not of norms and biases)", ge=0.0
    )
    warmup_epochs: float = setting(3.0, "optimisation", "length of the warm-up", unit="epochs", ge=0.0)
    warmup_momentum: float = setting(
        0.8, "optimisation", "momentum at the start of the warm-up", ge=0.0, lt=1.0
    )
    warmup_bias_lr: float | None = setting(
        None,
        "optimisation",
        "learning rate of biases at the start of the warm-up; none = by the optimizer",
        ge=0.0,
    )
    nbs: int | None = setting(
        None,
        "optimisation",
        "nominal batch: gradients accumulate over this many images per step; none = one step per batch",
        ge=1,
    )
    clip_grad: float = setting(
        10.0, "optimisation", "scale the gradients of a step down to at most this norm; 0 = never", ge=0.0
    )
    multi_scale: float = setting(0.0, "optimisation", "vary the input size by this fraction", ge=0.0, lt=1.0)

    box: float = setting(7.5, "loss", "gain of the box (CIoU) loss", ge=0.0)
    cls: float = setting(0.5, "loss", "gain of the class loss", ge=0.0)
    dfl: float = setting(1.5, "loss", "gain of the distribution focal loss (L1 loss in YOLO26)", ge=0.0)
    cls_pw: float = setting(
        0.0, "loss", "power of the inverse class frequency as class weight; 0 = off", ge=0.0, le=2.0
    )

    mosaic: float = probability(1.0, "augmentation", "probability of joining four images")
    transforms: str | list[str] | None = setting(
        None,
        "augmentation",
        "transforms of training samples: file.py:name or package.module:name, from Python objects too (docs/data.md)",
    )
    close_mosaic: int | float = setting(
        10,
        "augmentation",
        "last epochs without mosaic, copy_paste, mixup and cutmix, a count or a part of the run in 0..1",
        ge=0,
    )
    copy_paste: float = probability(
        0.0, "augmentation", "probability of pasting objects of other images, most often of rare classes"
    )
    mixup: float = probability(0.0, "augmentation", "probability of blending two images")
    cutmix: float = probability(
        0.0, "augmentation", "probability of replacing a rectangle by that of a second sample"
    )
    hsv_h: float = probability(0.015, "augmentation", "range of hue change")
    hsv_s: float = probability(0.7, "augmentation", "range of saturation change")
    hsv_v: float = probability(0.4, "augmentation", "range of brightness change")
    degrees: float = setting(0.0, "augmentation", "range of rotation", unit="degrees", ge=0.0, le=180.0)
    translate: float = probability(0.1, "augmentation", "range of shift, part of the image")
    scale: float | tuple[float, float] = setting(
        0.5, "augmentation", "range of scale: 1 - s to 1 + s, or an explicit [minimum, maximum]"
    )
    shear: float = setting(0.0, "augmentation", "range of shear", unit="degrees", ge=0.0, lt=90.0)
    perspective: float = setting(0.0, "augmentation", "range of perspective", ge=0.0, le=0.001)
    flipud: float = probability(0.0, "augmentation", "probability of a vertical flip")
    fliplr: float = probability(0.5, "augmentation", "probability of a horizontal flip")
    bgr: float = probability(0.0, "augmentation", "probability of swapped red and blue")
    rect: bool = setting(
        False,
        "augmentation",
        "train on rectangular batches of like shapes, without mosaic, copy_paste, mixup and cutmix",
    )

    resume: bool | str | Path = setting(
        False,
        "training",
        "continue a run: its folder, or true for the newest unfinished one in project=; force, or force:FOLDER, "
        "even if settings or data have changed",
    )
    plugins: bool = setting(True, "callbacks", "load the callbacks of installed plug-in packages")
    loggers: str | list[str] | None = setting(
        "auto",
        "callbacks",
        "auto = those installed and set up, none, or a list of " + ", ".join(LOGGER_NAMES),
    )
    tensorboard: bool | None = setting(
        None, "callbacks", "true = required, false = off, none = as loggers says"
    )
    mlflow: bool | None = setting(None, "callbacks", "true = required, false = off, none = as loggers says")
    wandb: bool | None = setting(None, "callbacks", "true = required, false = off, none = as loggers says")
    comet: bool | None = setting(None, "callbacks", "true = required, false = off, none = as loggers says")
    log_model: bool = setting(True, "callbacks", "give the best weights to the loggers as an artifact")

    val: bool | float = setting(
        True,
        "validation",
        "validate after every epoch; a part in 0..1 = on that part of the training images, chosen by their content, "
        "which is not trained on",
    )
    split: str = setting(
        "val", "validation", "validate on the split val, or on fold k of n of all images, such as 2/5"
    )
    save: bool = setting(True, "output", "write best.pt and last.pt")
    save_minutes: float = setting(
        5.0,
        "output",
        "save the state within long epochs this often; 0 = after epochs only",
        unit="minutes",
        ge=0.0,
    )
    save_period: int = setting(-1, "output", "also keep epochN.pt every this many epochs; -1 = never", ge=-1)

    @field_validator("batch")
    @classmethod
    def _batch_is_a_count_or_automatic(cls, value: int | float | str) -> int | float | str:
        if isinstance(value, str) or value == -1 or 0 < value < 1 or (value >= 1 and value == int(value)):
            return value
        raise ValueError(
            "expected auto, a whole number >= 1, -1, or a fraction of GPU memory in 0..1; try batch=16"
        )

    @field_validator("epochs")
    @classmethod
    def _epochs_are_a_count(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("expected auto or a whole number >= 1; try epochs=100")
        return value

    @field_validator("multi_scale", mode="before")
    @classmethod
    def _multi_scale_is_a_fraction(cls, value: Any) -> Any:
        if value is True:
            raise ValueError("expected a fraction of the input size; try multi_scale=0.5")
        return value

    @field_validator("close_mosaic")
    @classmethod
    def _close_mosaic_is_a_count_or_a_part(cls, value: int | float) -> int | float:
        if value < 1 or value == int(value):
            return value
        raise ValueError(
            "expected a whole number of epochs, or a part of the run in 0..1; try close_mosaic=10"
        )

    @field_validator("optimizer")
    @classmethod
    def _optimizer_is_known(cls, value: str) -> str:
        by_lower = {name.lower(): name for name in OPTIMIZERS}
        if value.lower() not in by_lower:
            raise ValueError(f"expected one of {', '.join(OPTIMIZERS)}{nearest(value, OPTIMIZERS)}")
        return by_lower[value.lower()]

    @field_validator("loggers")
    @classmethod
    def _loggers_are_known(cls, value: str | list[str] | None) -> str | list[str]:
        if value is None or value in ("auto", "none"):
            return value or "none"
        names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        for name in names:
            if name not in LOGGER_NAMES:
                allowed = ("auto", "none", *LOGGER_NAMES)
                raise ValueError(
                    f"expected auto, none or some of {', '.join(LOGGER_NAMES)}{nearest(name, allowed)}"
                )
        return names

    @field_validator("scale", mode="before")
    @classmethod
    def _scale_is_a_range(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            if (
                len(value) == 2
                and all(isinstance(v, (int, float)) for v in value)
                and 0 < value[0] <= value[1]
            ):
                return (float(value[0]), float(value[1]))
        elif not isinstance(value, (int, float)) or 0 <= value < 1:
            return value
        raise ValueError("expected a number in 0..1 or two numbers, 0 < minimum <= maximum; try scale=0.5")


class ShowSettings(TrainSettings):
    """Settings of `show`: those of the training whose samples are drawn, and a few of its own."""

    split: str = setting(
        "train",
        "data",
        "part of the data set: train = augmented, val and test = letterboxed; a fold such as 2/5 = the training "
        "images of the others",
    )
    epoch: int = setting(0, "data", "epoch of the training to draw samples of, from 0", ge=0)
    count: int = setting(48, "output", "images to draw, 16 per image grid", ge=1)


class TuneSettings(TrainSettings):
    """Settings of `tune`: those of its trainings, and a few of its own."""

    trials: int = setting(
        30, "tuning", "trainings of the study, of all processes and machines together", ge=1
    )
    space: str | Path | dict[str, Any] | None = setting(
        None,
        "tuning",
        "YAML file of the settings to vary, as in docs/tune.md; none = rates, loss gains, augmentation, optimizer",
    )
    storage: str | None = setting(
        None,
        "tuning",
        "where the study is kept: an Optuna URL such as postgresql://host/database, or the path of a journal file on a "
        "shared disk; none = study.db in the run folder",
    )
    study_name: str | None = setting(None, "tuning", "name of the study in its storage; none = name, or tune")
    sampler: Literal["tpe", "random", "gp"] = setting(
        "tpe", "tuning", "how settings are drawn: tpe, random, or gp = Gaussian process (needs scipy)"
    )
    pruner: Literal["median", "hyperband", "asha"] | None = setting(
        "median", "tuning", "ends trials early that do worse than others at the same epoch; none = never"
    )
    hours: float | None = setting(
        None, "tuning", "start no further trial after this time; none = no limit", unit="hours", gt=0.0
    )
    heartbeat: int = setting(
        60,
        "tuning",
        "sign of life of a running trial; one without any for twice this time is repeated",
        unit="seconds",
        ge=1,
    )
    keep: Literal["best", "all"] | None = setting(
        "best", "tuning", "whose weights to keep: those of the best trial, all, or none"
    )

    @field_validator("pruner", "keep", mode="before")
    @classmethod
    def _none_may_be_a_word(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("resume")
    @classmethod
    def _a_study_resumes_by_itself(cls, value: bool | str | Path) -> bool | str | Path:
        if value is not False:
            raise ValueError("a study resumes when the same command is given again; leave resume out")
        return value


class ValSettings(DataSettings):
    """Settings of `val`."""

    batch: int = setting(16, "data", "images per batch; the results do not depend on it", ge=1)
    split: str = setting(
        "val",
        "data",
        "part of the data set to validate on: val, test, train, or a fold such as 2/5; see train",
    )
    val: bool | float = setting(True, "data", HELD_OUT_HELP)
    save_json: bool = setting(False, "output", "write the detections as COCO results, predictions.json")
    rect: bool = setting(True, "model", RECT_HELP)
    names: list[str] | None = setting(None, "model", NAMES_HELP)
    trust: bool = setting(False, "model", TRUST_HELP)
    compile: bool = setting(False, "machine", COMPILE_HELP)


class PredictSettings(Settings):
    """Settings of `predict`."""

    source: Any = setting(
        None, "data", "image, folder, glob, list or .txt list of images; from Python also arrays"
    )
    imgsz: Sides = setting(640, "model", "longer side of the network input, or [height, width]", unit="px")
    batch: int = setting(
        1,
        "data",
        "images per batch; a batch of several shapes is padded to the full size, so that results depend on the "
        "batch by a little: rect=false pads every image so",
        ge=1,
    )
    rect: bool = setting(True, "model", RECT_HELP)
    names: list[str] | None = setting(None, "model", NAMES_HELP)
    trust: bool = setting(False, "model", TRUST_HELP)
    compile: bool = setting(False, "machine", COMPILE_HELP)
    conf: float = probability(0.25, "validation", "minimum confidence of a detection")
    iou: float = probability(0.7, "validation", "IoU above which NMS suppresses a box")
    max_det: int = setting(300, "validation", "maximum detections per image", ge=1)
    classes: list[int] | None = setting(None, "data", "keep only these class ids")
    agnostic_nms: bool = setting(False, "validation", "let NMS suppress across classes")
    save: bool = setting(False, "output", "write annotated images (the command line does so by default)")
    save_txt: bool = setting(False, "output", "write boxes as YOLO label files")
    save_conf: bool = setting(False, "output", "add the confidence to label files")
    save_crop: bool = setting(False, "output", "write every detection as a separate image")
    show: bool = setting(False, "output", "show annotated images in a window")
    show_labels: bool = setting(True, "output", "draw class names")
    show_conf: bool = setting(True, "output", "draw confidences")
    show_boxes: bool = setting(True, "output", "draw boxes")
    line_width: int | None = setting(
        None, "output", "line width of boxes; none = by the image size", unit="px", ge=1
    )


class ExportSettings(Settings):
    """Settings of `export`."""

    format: str = setting(
        "pt2",
        "export",
        "onnx, openvino, torchscript, pt2, ncnn, executorch, safetensors, or a plug-in's format",
    )
    imgsz: Sides = setting(
        640, "model", "side of the square input, or [height, width]", unit="px, multiple of 32"
    )
    batch: int = setting(1, "export", "images per call of the file", ge=1)
    dynamic: bool = setting(False, "export", "leave batch, height and width of the input free")
    half: bool | Literal["fp16", "bf16"] = setting(
        False,
        "export",
        "16-bit weights: true or fp16 (onnx, openvino, ncnn, safetensors), bf16 (torchscript, pt2)",
    )
    int8: bool = setting(
        False, "export", "8-bit network, calibrated on the training images of data= (openvino)"
    )
    preprocess: bool = setting(
        False, "export", "take uint8 BGR images as OpenCV reads them; normalise inside the file"
    )
    conf: float = probability(0.25, "export", "minimum confidence of a detection inside the file (nms=true)")
    iou: float = probability(0.7, "export", "IoU above which the file suppresses a box (nms=true)")
    max_det: int = setting(
        300, "export", "detections per image that the file returns (nms=true or false)", ge=1
    )
    agnostic_nms: bool = setting(False, "export", "let the file suppress across classes")
    opset: int | None = setting(None, "export", "ONNX operator set; none = 20", ge=18)
    simplify: bool = setting(True, "export", "shorten the ONNX graph")
    data: DataSet | list[DataSet] | None = setting(
        None, "data", "data set whose images verify the file and calibrate int8; none = synthetic images"
    )
    errors: Literal["stop", "skip"] = setting(
        "stop", "data", "images whose labels are wrong: stop = name them and end, skip = train without them"
    )
    fraction: float = setting(1.0, "data", "part of the training images to calibrate on", gt=0.0, le=1.0)
    licence: str | None = setting(
        None, "export", "licence of the weights; none = that of those it started from, force:NAME = another"
    )
    folder: str | Path | None = setting(None, "output", "where to write; none = next to the weights")

    @field_validator("format")
    @classmethod
    def _format_is_lower_case(cls, value: str) -> str:
        return value.lower()


class BenchmarkSettings(Settings):
    """Settings of `benchmark`."""

    data: DataSet | list[DataSet] | None = setting(None, "data", "data set to measure accuracy and speed on")
    split: str = setting("val", "data", "part of the data set: val, test, train, or a fold such as 2/5")
    val: bool | float = setting(True, "data", HELD_OUT_HELP)
    imgsz: InputSize = setting(
        640, "model", "side of the square input, or [height, width]", unit="px, multiple of 32"
    )
    formats: str | list[str] | None = setting(
        None, "benchmark", "formats to measure, such as onnx,openvino; none = all that are installed"
    )
    repeats: int = setting(100, "benchmark", "images that speed is measured on", ge=1)
    workers: int | Literal["auto"] = setting("auto", "machine", "processes that load data; see train")
    compile: bool = setting(False, "machine", "measure the model through torch.compile as well; see predict")


class CheckSettings(CommandSettings):
    """Settings of `check`."""

    data: DataSet | list[DataSet] | None = setting(None, "data", DATA_HELP)
    imgsz: InputSize = setting(
        640,
        "data",
        "longer side of the input that objects are compared with, or [height, width]",
        unit="px, multiple of 32",
    )
    as_json: bool = setting(False, "output", JSON_HELP)
    grid: str | Path | None = setting(
        None,
        "output",
        "image file to draw the worst cases into, such as faults.jpg; none = no file is written",
    )


class ConvertSettings(CommandSettings):
    """Settings of `convert`."""

    data: DataSet | list[DataSet] | None = setting(None, "data", DATA_HELP)
    to: Literal["yolo", "coco", "voc"] = setting("yolo", "output", "format to write")
    out: str | Path | None = setting(None, "output", "folder to write; must not exist, or be empty")
    images: Literal["link", "copy"] = setting(
        "link", "output", "link = hard links to the images, where the file system can; copy = copies"
    )
    fix: bool = setting(
        False,
        "data",
        "mend the new folder: boxes over the edge, turned and broken images, copies, wrong labels (docs/data.md)",
    )


class RunsSettings(CommandSettings):
    """Settings of `runs`."""

    folder: str | Path = setting(
        "runs", "runs", "folder whose runs are listed, at any depth; the first bare word"
    )
    sort: str = setting(
        "started",
        "output",
        "column to sort by, as mAP50-95, epoch or a setting; with a minus sign, highest first",
    )
    filter: str | None = setting(
        None, "output", "conditions on columns, separated by commas, such as state=failed,mAP50>0.5"
    )
    as_json: bool = setting(False, "output", JSON_HELP)


class CompareSettings(CommandSettings):
    """Settings of `compare`."""

    runs: list[str] = setting([], "runs", "run folders, two or more; all bare words")
    out: str | Path | None = setting(
        "compare.png", "output", "image file to draw the curves into; none = no image"
    )
    as_json: bool = setting(False, "output", JSON_HELP)


class StopSettings(CommandSettings):
    """Settings of `stop`."""

    runs: list[str] = setting([], "runs", "run folders; all bare words")
    wait: float = setting(10.0, "runs", "time to wait until the run has noticed", unit="s", ge=0.0)


class ReportSettings(CommandSettings):
    """Settings of `report`."""

    runs: list[str] = setting([], "runs", "run folders to write report.html into; all bare words")


class MonitorSettings(CommandSettings):
    """Settings of `monitor`."""

    folder: str | Path = setting(
        "runs", "runs", "folder whose runs are shown, at any depth; the first bare word"
    )
    port: int = setting(8765, "network", "port of the page; 0 = a free one", ge=0, le=65535)
    host: str = setting(
        "127.0.0.1",
        "network",
        "address to listen on; on any other than this machine's own a token is needed, which is printed",
    )


SETTINGS_OF: Mapping[str, type[CommandSettings]] = types.MappingProxyType(
    {
        "train": TrainSettings,
        "val": ValSettings,
        "predict": PredictSettings,
        "export": ExportSettings,
        "benchmark": BenchmarkSettings,
        "show": ShowSettings,
        "tune": TuneSettings,
        "check": CheckSettings,
        "convert": ConvertSettings,
        "runs": RunsSettings,
        "compare": CompareSettings,
        "stop": StopSettings,
        "report": ReportSettings,
        "monitor": MonitorSettings,
    }
)
"""Command -> its settings."""
EXTENDS: Mapping[str, str] = types.MappingProxyType({"show": "train", "tune": "train"})
"""Command -> the command whose settings it takes as well."""
COMMAND_OF: Mapping[type[CommandSettings], str] = types.MappingProxyType(
    {cls: name for name, cls in SETTINGS_OF.items()}
)


def _problems_between(settings: CommandSettings) -> list[str]:
    """Name what is wrong with settings together."""
    val, split = getattr(settings, "val", True), getattr(settings, "split", "val")
    if isinstance(val, float) and fold_of(split) is not None:
        return [f"val={val:g} and split={split} both name images to validate on; give one of them"]
    return []


def is_unused(key: str, value: Any, in_file: bool) -> bool:
    """Return whether a setting that an engine does not have may be left out, as it asks for nothing.

    Args:
        key: its name.
        value: what was given.
        in_file: it comes from a file that holds the settings of other commands, too.
    """
    if key in ABSENT and ABSENT[key].is_off(value):
        return True
    fields = [cls.model_fields[key] for cls in _own_classes().values() if key in cls.model_fields]
    if not fields or in_file or key in ABSENT:
        return bool(fields) and in_file
    plain = [(plain_value(key, value, field), field.default) for field in fields]
    return any(
        value == default and isinstance(value, bool) == isinstance(default, bool) for value, default in plain
    )


def _own_classes() -> dict[str, type[CommandSettings]]:
    """Return the settings by command, of those commands that have their own."""
    return {name: cls for name, cls in SETTINGS_OF.items() if name not in EXTENDS}


def unknown_setting(key: str, engine: str, value: Any = None) -> str:
    """Return one sentence: `key` is not a setting of `engine`, and what to use instead if that is known."""
    allowed = SETTINGS_OF[engine].model_fields
    if key in RENAMED:
        return f"setting {key!r} is called {RENAMED[key]!r} here"
    if key in ABSENT and ABSENT[key].instead:
        return f"{key}={show_given(value)}: not available in {engine}; {ABSENT[key].instead}"
    others = [name for name, cls in _own_classes().items() if key in cls.model_fields]
    if others:
        return f"setting {key!r} belongs to {' and '.join(others)}, not to {engine}; leave it out"
    return f"unknown setting {key!r}{nearest(key, allowed) or f'; see: detector {engine} --help'}"


def _expected(key: str, field: FieldInfo) -> str:
    return f"expected {type_text(field)}; the default is {key}={format_value(field.default)}"
