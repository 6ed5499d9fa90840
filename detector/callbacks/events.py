"""Every event: which engine fires it, when, how often, and the attributes of the engine that are available then."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from detector.callbacks.elsewhere import translated
from detector.errors import CallbackError, nearest


class Event(NamedTuple):
    """One event: which engine fires it, when, how often, and which attributes of the engine are new then."""

    engine: str
    when: str
    often: str
    sees: str


EVENTS: Mapping[str, Event] = MappingProxyType(
    {
        "on_pretrain_routine_start": Event("train", "before set-up", "once", "settings (args), save_dir"),
        "on_pretrain_routine_end": Event(
            "train", "after set-up", "once", "model, ema, optimizer, schedule, data, validator, device"
        ),
        "on_train_start": Event("train", "before the first epoch", "once", "epochs, start_epoch"),
        "on_train_epoch_start": Event("train", "before the first batch of an epoch", "epoch", "epoch, lr"),
        "on_train_batch_start": Event("train", "before the forward pass", "batch", "batch, batch_index"),
        "on_loss": Event(
            "train", "after the loss, before backward", "batch", "preds, loss (may be added to), loss_items"
        ),
        "on_before_optimizer_step": Event(
            "train", "before gradients are clipped", "step", "gradients on model, not scaled"
        ),
        "optimizer_step": Event("train", "after each optimizer step", "step", "optimizer, ema, global_step"),
        "on_before_zero_grad": Event("train", "before gradients are cleared", "step", "gradients on model"),
        "on_train_batch_end": Event("train", "after the step", "batch", "batch, preds, loss, loss_items"),
        "on_train_epoch_end": Event(
            "train", "after the last batch of an epoch", "epoch", "metrics: mean losses, lr, speed"
        ),
        "on_fit_epoch_end": Event(
            "train", "after validation", "epoch", "metrics of this epoch, fitness, best_fitness"
        ),
        "on_model_save": Event("train", "after the checkpoints are in place", "epoch", "last, best"),
        "on_params_update": Event(
            "train", "when the trainer itself changes a setting", "change", "settings, epochs"
        ),
        "on_final_eval_end": Event("train", "after the best weights are validated", "once", "final_metrics"),
        "on_train_end": Event("train", "after training went well", "once", "everything"),
        "on_exception": Event("train", "when training fails or is interrupted", "once", "exception"),
        "teardown": Event("train", "last of all, always", "once", "exception, or None"),
        "on_val_start": Event("val", "before the first batch", "once", "names, save_dir, final"),
        "on_val_batch_start": Event("val", "before the forward pass", "batch", "batch"),
        "on_val_batch_end": Event("val", "after post-processing", "batch", "batch, preds"),
        "on_val_end": Event("val", "after the metrics are computed", "once", "metrics, speed"),
        "on_predict_start": Event("predict", "before the first image", "once", "settings, save_dir"),
        "on_predict_batch_start": Event("predict", "before the forward pass", "batch", "batch"),
        "on_predict_postprocess_end": Event("predict", "when results are made", "batch", "batch, results"),
        "on_predict_batch_end": Event(
            "predict",
            "before results are handed out",
            "batch",
            "batch, results: what remains there is returned",
        ),
        "on_predict_end": Event("predict", "after the last image, or when closed early", "once", "speed"),
        "on_export_start": Event("export", "before the export", "once", "settings"),
        "on_export_end": Event("export", "after the file is in place", "once", "path"),
    }
)
"""Every event, in the order of a run."""


ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "on_epoch_start": "on_train_epoch_start",
        "on_epoch_end": "on_fit_epoch_end",
        "on_batch_start": "on_train_batch_start",
        "on_batch_end": "on_train_batch_end",
    }
)
"""Names known from other trainers, resolved when a callback is registered."""


def resolve_event(name: str) -> str:
    """Return the event that a name or alias stands for.

    Raises:
        CallbackError: if there is no such event, with the one that is meant or has the nearest name.
    """
    name = ALIASES.get(name, name)
    if name not in EVENTS:
        meant = ALIASES.get(translated(name), translated(name))
        near = f"; did you mean {meant!r}?" if meant in EVENTS else nearest(meant, [*EVENTS, *ALIASES])
        raise CallbackError(f"unknown event {name!r}{near or '; expected one of ' + ', '.join(EVENTS)}")
    return name
