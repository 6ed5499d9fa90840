import math
from types import SimpleNamespace

import pytest
from support.training import plain_trainer, play

from detector.callbacks.builtin.lr_schedule import LRSchedule
from detector.errors import CallbackError


def make_trainer(num_batches=2, scale=1.0):
    groups = [{"initial_lr": 0.1, "lr": 0.0}, {"initial_lr": 0.3, "lr": 0.0}]
    schedule, optimizer = SimpleNamespace(paused=False, scale=scale), SimpleNamespace(param_groups=groups)
    return plain_trainer(num_batches=num_batches, schedule=schedule, optimizer=optimizer)


def rates(callback, trainer, epochs):
    """Play a run; return the first group's rate at every batch."""
    found = []

    def note(trainer):
        found.append(round(trainer.optimizer.param_groups[0]["lr"], 6))

    watch = {"on_train_batch_start": note}
    play(callback, [None] * epochs, trainer, batches=trainer.num_batches, watch=watch)
    return found


def test_a_function_gives_the_factor_of_every_batch():
    trainer = make_trainer()
    assert rates(LRSchedule(lambda epoch: 1 - epoch / 4), trainer, 2) == [0.1, 0.0875, 0.075, 0.0625]
    assert trainer.schedule.paused
    assert trainer.optimizer.param_groups[1]["lr"] == pytest.approx(0.3 * 0.625)


def test_a_table_gives_steps():
    table = {1: 0.5, 2: 0.25}
    assert rates(LRSchedule(table), make_trainer(), 3) == [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]


def test_a_step_may_lie_within_an_epoch():
    assert rates(LRSchedule({0: 1.0, 0.5: 0.1}), make_trainer(), 1) == [0.1, 0.01]


def test_the_scale_of_the_schedule_counts_too():
    assert rates(LRSchedule({0: 1.0}), make_trainer(1, scale=0.1), 1) == [0.01]


def test_a_training_has_these_rates(train_tiny):
    found = []
    note = ("on_train_batch_end", lambda trainer: found.append(round(trainer.lr["lr/pg0"], 6)))
    train_tiny(LRSchedule({0: 1.0, 1: 0.1}), note, optimizer="SGD", lr0=0.01)
    assert found == [0.01, 0.01, 0.001, 0.001]


@pytest.mark.parametrize("result", [math.nan, -1.0, None, "1"])
def test_a_factor_that_is_no_number_is_an_error_naming_the_epoch(result):
    trainer = make_trainer()
    callback = LRSchedule(lambda epoch: result)
    trainer.epoch, trainer.batch_index = 3, 1
    with pytest.raises(CallbackError, match=r"factor of epoch 3.5=.*: expected a number >= 0"):
        callback.on_train_batch_start(trainer)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (0.1, r"LRSchedule\(0.1\): expected a function of the epoch or a table"),
        ({}, "expected at least one step"),
        ({-1: 1.0}, r"epoch=-1\): expected a number >= 0"),
        ({"a": 1.0}, r"epoch='a'\): expected a number >= 0"),
        ({5: -1.0}, r"factor of 5=-1.0\): expected a number >= 0"),
    ],
)
def test_bad_arguments_are_refused(fn, message):
    with pytest.raises(CallbackError, match=message):
        LRSchedule(fn)
