import logging

import pytest
import torch

from detector.callbacks import OnNonFinite
from detector.checkpoints.checkpoint import load_checkpoint
from detector.errors import CallbackError, TrainingError


def spoil(*steps):
    """Let the loss be NaN at these steps."""

    def on_loss(trainer):
        if trainer.global_step in steps:
            trainer.loss = trainer.loss * float("nan")

    return "on_loss", on_loss


def test_the_weights_of_the_epochs_start_are_put_back_and_the_rates_lowered(train_tiny, caplog):
    kept, after = {}, {}

    def note(into):
        return lambda t: into.setdefault(t.global_step, t.model.model[0].conv.weight.detach().clone())

    trainer = train_tiny(
        OnNonFinite(lr_scale=0.25), spoil(3), ("on_train_epoch_start", note(kept)), ("on_train_batch_end", note(after)),
        epochs=2, batch=3,
    ).trainer  # fmt: skip
    assert torch.equal(after[4], kept[3]) and not torch.equal(after[5], kept[3])
    assert trainer.schedule.scale == 0.25 and trainer.global_step == 6
    assert all(torch.isfinite(value).all() for value in load_checkpoint(trainer.last)["weights"].values())
    assert "the loss is not finite at epoch 2, step 3" in caplog.text
    assert "learning rates are now 0.25 times the scheduled ones (try 1 of 2)" in caplog.text


def test_after_its_tries_the_run_ends_as_without_it(train_tiny):
    with pytest.raises(TrainingError, match="the loss is not finite at epoch 1, step 2"):
        train_tiny(OnNonFinite(tries=2), spoil(0, 1, 2), epochs=1, batch=2)


def test_without_rollback_only_the_batch_is_left_out(train_tiny, caplog):
    caplog.set_level(logging.WARNING)
    trainer = train_tiny(OnNonFinite(rollback=False, lr_scale=1.0), spoil(1), epochs=1).trainer
    assert trainer.schedule.scale == 1 and trainer.ema.updates == 1 and "The batch is left out" in caplog.text


def test_weights_that_are_not_finite_are_neither_validated_nor_saved(train_tiny):
    def break_weights(trainer):
        if trainer.global_step == 4:
            trainer.model.model[0].conv.weight.data.fill_(float("inf"))

    trainer = train_tiny(OnNonFinite(), ("on_train_batch_end", break_weights), epochs=2).trainer
    assert torch.isfinite(load_checkpoint(trainer.last)["weights"]["model.0.conv.weight"]).all()
    assert trainer.schedule.scale == 0.5 and trainer.final_metrics is not None


@pytest.mark.parametrize("arguments", [{"lr_scale": 0}, {"lr_scale": 2}, {"tries": 0}])
def test_arguments_that_cant_be_used_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(CallbackError, match=rf"^OnNonFinite\({name}="):
        OnNonFinite(**arguments)
