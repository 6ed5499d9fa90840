"""Settings of `train`, and of the commands that take all of them: `show` and `tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from detector.errors import nearest
from detector.settings.base import DataSettings, probability, setting

DEFAULT_MODEL = "yolo11n.yaml"

LOGGER_NAMES = ("tensorboard", "mlflow", "wandb", "comet")

OPTIMIZERS = ("auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSProp")


class TrainSettings(DataSettings):
    """Settings of `train`."""

    command: ClassVar[str] = "train"

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
        True,
        "training",
        "start from the weights of model=, a bare architecture from starter weights if there are any; starter = from "
        "these, a path = from that file, false = random ones",
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

    command: ClassVar[str] = "show"

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

    command: ClassVar[str] = "tune"

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
