import logging
import math

import pytest
from support.training import plain_trainer, play

from detector.callbacks.builtin.early_stopping import EarlyStopping
from detector.errors import CallbackError


def run(callback, values, start_epoch=0, name="fitness", state=None):
    """Play a run, one epoch per value; return the epoch it was stopped at, or None."""
    metrics = [None if value is None else {"fitness": value, name: value} for value in values]
    trainer = play(callback, metrics, plain_trainer(start_epoch=start_epoch), state)
    return trainer.epoch if trainer.stop else None


def test_it_stops_after_patience_epochs_without_a_better_one(caplog):
    with caplog.at_level(logging.INFO):
        assert run(EarlyStopping(patience=2), [0.1, 0.2, 0.2, 0.1, 0.9]) == 3
    assert "patience 2 without improvement of fitness; the best was epoch 2" in caplog.text


def test_it_does_not_stop_while_things_get_better():
    assert run(EarlyStopping(patience=1), [0.1, 0.2, 0.3]) is None


def test_any_metric_may_be_watched_and_lower_may_be_better():
    values = [3.0, 2.0, 2.5, 1.0, 1.5, 1.5]
    assert run(EarlyStopping("val/loss", "min", 2), values, name="val/loss") == 5


def test_small_gains_do_not_count_below_min_delta():
    assert run(EarlyStopping(patience=2, min_delta=0.05), [0.1, 0.12, 0.14, 0.16]) == 2


def test_epochs_without_validation_do_not_count():
    assert run(EarlyStopping(patience=2), [0.2, None, None, None, 0.1]) is None


def test_an_unknown_monitor_names_the_nearest():
    with pytest.raises(CallbackError, match="did you mean 'metrics/mAP50'"):
        run(EarlyStopping("metrics/map50", patience=2), [0.1], name="metrics/mAP50")


def test_a_second_run_starts_from_scratch():
    callback = EarlyStopping(patience=2)
    assert run(callback, [0.9, 0.1, 0.1]) == 2
    assert run(callback, [0.1, 0.2]) is None


def test_a_resumed_run_continues_counting():
    values = [0.3, 0.1, 0.2, 0.1]
    first = EarlyStopping(patience=3)
    assert run(first, values[:2]) is None
    assert run(EarlyStopping(patience=3), values[2:], start_epoch=2, state=first.state_dict()) == 3


@pytest.mark.parametrize("patience", [0, -1, 2.5, True, "3"])
def test_a_bad_patience_is_refused(patience):
    with pytest.raises(CallbackError, match=r"EarlyStopping\(patience=.*\): expected a whole number >= 1"):
        EarlyStopping(patience=patience)


def test_a_training_is_stopped(train_tiny):
    mine = ("on_fit_epoch_end", lambda trainer: trainer.metrics.update({"mine/figure": 1.0}))
    yolo = train_tiny(mine, EarlyStopping("mine/figure", patience=2), epochs=9, patience=0)
    assert yolo.trainer.epoch == 2


def test_epochs_at_the_start_do_not_count():
    values = [0.9, 0.1, 0.1, 0.2, 0.2, 0.2]
    assert run(EarlyStopping(patience=2), values) == 2
    assert (
        run(EarlyStopping(patience=2, start_from_epoch=3), values) == 5
    )  # the best is 0.2 of the fourth epoch


def test_nothing_counts_as_better_until_the_baseline_is_passed(caplog):
    caplog.set_level(logging.INFO)
    assert run(EarlyStopping(patience=3, baseline=0.5), [0.1, 0.2, 0.3, 0.4]) == 2
    assert "patience 3 without improvement of fitness beyond 0.5; the best was epoch 3" in caplog.text
    assert run(EarlyStopping(patience=3, baseline=0.5), [0.1, 0.2, 0.6, 0.7, 0.7, 0.7, 0.7]) == 6
    low = EarlyStopping("val/loss", "min", patience=2, baseline=1.0)
    assert run(low, [3.0, 0.5, 0.6, 0.6], name="val/loss") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": math.nan}, r"EarlyStopping\(baseline=nan\): expected a finite number"),
        ({"start_from_epoch": -1}, r"EarlyStopping\(start_from_epoch=-1\): expected a whole number >= 0"),
    ],
)
def test_options_that_cant_be_used_are_refused(arguments, message):
    with pytest.raises(CallbackError, match=message):
        EarlyStopping(**arguments)
    EarlyStopping(baseline=-3)
