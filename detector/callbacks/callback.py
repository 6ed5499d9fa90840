"""The class form of callbacks: one object whose methods are named as the events they answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _empty(method: Callable[..., None]) -> Callable[..., None]:
    """Mark a method as declared only, so that registering an object leaves it out."""
    method.is_empty_event = True  # type: ignore[attr-defined]
    return method


class Callback:
    """Base class for callbacks that keep state or answer several events.

    Override the methods you need and register an object with `model.add_callback(obj)`. The base class
    is a convenience for editors and type checkers: any object with methods named as events will do.
    Engines are typed `Any` here, because callbacks are a layer below the engines.
    """

    # One method per event of `EVENTS`; a test compares the two.
    @_empty
    def on_pretrain_routine_start(self, trainer: Any) -> None:
        """Before set-up."""

    @_empty
    def on_pretrain_routine_end(self, trainer: Any) -> None:
        """After set-up: model, optimizer and data are available."""

    @_empty
    def on_train_start(self, trainer: Any) -> None:
        """Before the first epoch."""

    @_empty
    def on_train_epoch_start(self, trainer: Any) -> None:
        """Before the first batch of an epoch."""

    @_empty
    def on_train_batch_start(self, trainer: Any) -> None:
        """Before the forward pass."""

    @_empty
    def on_loss(self, trainer: Any) -> None:
        """After the loss, before backward: a term may be added to `trainer.loss`."""

    @_empty
    def on_before_optimizer_step(self, trainer: Any) -> None:
        """Before gradients are clipped and the optimizer steps."""

    @_empty
    def optimizer_step(self, trainer: Any) -> None:
        """After an optimizer step."""

    @_empty
    def on_before_zero_grad(self, trainer: Any) -> None:
        """Before gradients are cleared."""

    @_empty
    def on_train_batch_end(self, trainer: Any) -> None:
        """After the step of a batch."""

    @_empty
    def on_train_epoch_end(self, trainer: Any) -> None:
        """After the last batch of an epoch."""

    @_empty
    def on_fit_epoch_end(self, trainer: Any) -> None:
        """After validation: the metrics of this epoch are available."""

    @_empty
    def on_model_save(self, trainer: Any) -> None:
        """After a checkpoint is in place."""

    @_empty
    def on_params_update(self, trainer: Any) -> None:
        """After the trainer itself changed a setting."""

    @_empty
    def on_final_eval_end(self, trainer: Any) -> None:
        """After the best weights are validated."""

    @_empty
    def on_train_end(self, trainer: Any) -> None:
        """After training went well."""

    @_empty
    def on_exception(self, trainer: Any) -> None:
        """When training fails; `trainer.exception` says why."""

    @_empty
    def teardown(self, trainer: Any) -> None:
        """Last of all, always."""

    @_empty
    def on_val_start(self, validator: Any) -> None:
        """Before the first validation batch."""

    @_empty
    def on_val_batch_start(self, validator: Any) -> None:
        """Before the forward pass of a validation batch."""

    @_empty
    def on_val_batch_end(self, validator: Any) -> None:
        """After post-processing a validation batch."""

    @_empty
    def on_val_end(self, validator: Any) -> None:
        """After validation: the metrics are computed."""

    @_empty
    def on_predict_start(self, predictor: Any) -> None:
        """Before the first image."""

    @_empty
    def on_predict_batch_start(self, predictor: Any) -> None:
        """Before the forward pass of a batch of images."""

    @_empty
    def on_predict_postprocess_end(self, predictor: Any) -> None:
        """When the results of a batch are made."""

    @_empty
    def on_predict_batch_end(self, predictor: Any) -> None:
        """Before the results of a batch are handed out; what is left in `results` is what the user gets."""

    @_empty
    def on_predict_end(self, predictor: Any) -> None:
        """After the last image, or when a lazy prediction is closed early."""

    @_empty
    def on_export_start(self, exporter: Any) -> None:
        """Before an export."""

    @_empty
    def on_export_end(self, exporter: Any) -> None:
        """After the exported file is in place."""


BaseCallback = Callback
"""A name that some look for."""
