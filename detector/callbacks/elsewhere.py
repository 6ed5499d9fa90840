"""Names that events and callbacks have in other trainers, so that messages can say what they are here.

Nothing of them is imported: an object's class says by its module's name where it is from.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

EVENTS_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "setup": "on_pretrain_routine_start",
        "on_init_end": "on_pretrain_routine_end",
        "on_fit_start": "on_pretrain_routine_end",
        "on_load_checkpoint": "on_pretrain_routine_end",
        "on_before_backward": "on_loss",
        "on_after_backward": "on_before_optimizer_step",
        "on_pre_optimizer_step": "on_before_optimizer_step",
        "on_optimizer_step": "optimizer_step",
        "on_validation_epoch_start": "on_val_start",
        "on_validation_epoch_end": "on_val_end",
        "on_test_epoch_start": "on_val_start",
        "on_test_epoch_end": "on_val_end",
        "on_evaluate": "on_val_end",
        "on_log": "on_fit_epoch_end",
        "on_save": "on_model_save",
        "on_save_checkpoint": "on_model_save",
        "on_checkpoint": "on_model_save",
        "on_fit_end": "on_train_end",
        "on_predict_epoch_start": "on_predict_start",
        "on_predict_epoch_end": "on_predict_end",
    }
)
"""Names of Keras, Lightning and the like that the words below don't translate -> the event here."""

WORDS = MappingProxyType(
    {
        "begin": "start", "begins": "start", "started": "start", "finish": "end", "finished": "end", "ended": "end",
        "training": "train", "validation": "val", "validate": "val", "test": "val", "eval": "val", "evaluation": "val",
        "prediction": "predict", "step": "batch",
    }
)  # fmt: skip
"""A word of an event's name elsewhere -> the word here."""

CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "BackboneFinetuning": "detector.callbacks.Unfreeze with freeze=",
        "BackupAndRestore": "resume=",
        "BatchSizeFinder": "batch=auto",
        "CometLogger": "comet=true",
        "CSVLogger": "detector.callbacks.CSVLogger, which every training has",
        "DeviceStatsMonitor": "detector.callbacks.ResourceMonitor",
        "EarlyStopping": "detector.callbacks.EarlyStopping",
        "EMAWeightAveraging": "nothing to add: the weights are averaged in every training (trainer.ema)",
        "GradientAccumulationScheduler": "nbs=",
        "LambdaCallback": "a plain function with model.add_callback(event, function)",
        "LearningRateMonitor": "nothing to add: every logger gets the rates as lr/...",
        "LearningRateScheduler": "detector.callbacks.LRSchedule",
        "MLFlowLogger": "mlflow=true",
        "ModelCheckpoint": "detector.callbacks.ModelCheckpoint",
        "ProgbarLogger": "detector.callbacks.ProgressBar, which every training has",
        "ProgressBar": "detector.callbacks.ProgressBar, which every training has",
        "ReduceLROnPlateau": "detector.callbacks.ReduceLROnPlateau",
        "RemoteMonitor": "detector.callbacks.Notify",
        "StochasticWeightAveraging": "detector.callbacks.WeightAveraging",
        "SwapEMAWeights": "nothing to add: the weights are averaged in every training (trainer.ema)",
        "TensorBoard": "tensorboard=true",
        "TensorBoardLogger": "tensorboard=true",
        "TerminateOnNaN": "nothing to add: a loss that is not finite ends every training (OnNonFinite continues it)",
        "Timer": "detector.callbacks.TimeLimit",
        "WandbLogger": "wandb=true",
        "WeightAveraging": "detector.callbacks.WeightAveraging",
    }
)
"""A class of Keras or Lightning -> what does the same here."""

FAMILIES = MappingProxyType(
    {
        "keras": "Keras", "tf_keras": "Keras", "tensorflow": "Keras", "lightning": "Lightning",
        "lightning_fabric": "Lightning", "pytorch_lightning": "Lightning",
    }
)  # fmt: skip
"""Top-level module -> what people call it."""

KERAS_ARGUMENTS = (("epoch", "logs"), ("batch", "logs"), ("logs",))
"""The parameters of a method as Keras calls it."""


def translated(event: str) -> str:
    """Return an event's name elsewhere in the words used here; it need not be an event."""
    if event in EVENTS_ELSEWHERE:
        return EVENTS_ELSEWHERE[event]
    return "_".join(WORDS.get(word, word) for word in event.split("_"))


def described_elsewhere(obj: object) -> str | None:
    """Say which other trainer an object is a callback of, and what does the same here; None if it is of none."""
    kind = type(obj)
    for base in kind.__mro__:
        family = FAMILIES.get((base.__module__ or "").partition(".")[0])
        if family is None:
            continue
        same = CLASSES.get(base.__name__)
        todo = f"here it is {same}" if same else (
            "derive it from detector.Callback: its methods take one argument, the engine"
        )  # fmt: skip
        of = "is a callback" if base is kind else f"derives from {base.__name__}, a callback"
        return (
            f"{kind.__name__} {of} of {family}, whose methods take other arguments; {todo} "
            "(docs/callbacks.md lists what is which)"
        )
    return None
