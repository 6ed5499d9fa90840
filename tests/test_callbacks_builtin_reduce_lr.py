from types import SimpleNamespace

import pytest
from support.training import plain_trainer, play

from detector.callbacks.builtin.reduce_lr import ReduceLROnPlateau
from detector.errors import CallbackError


def run(callback, values, scale=1.0, state=None):
    """Play a run over these fitnesses; return the scale after each epoch."""
    trainer, scales = plain_trainer(schedule=SimpleNamespace(scale=scale)), []
    metrics = [None if value is None else {"fitness": value} for value in values]
    watch = {"on_fit_epoch_end": lambda trainer: scales.append(round(trainer.schedule.scale, 6))}
    play(callback, metrics, trainer, state, watch=watch)
    return scales


def test_the_rate_falls_after_patience_epochs_on_a_plateau(caplog):
    with caplog.at_level("INFO"):
        scales = run(ReduceLROnPlateau(factor=0.5, patience=2), [0.1, 0.1, 0.1, 0.2, 0.2, 0.1])
    assert scales == [1, 1, 0.5, 0.5, 0.5, 0.25]
    assert "no better fitness in 2 epochs: learning rates are now 0.5 times" in caplog.text


def test_epochs_without_validation_do_not_count():
    assert run(ReduceLROnPlateau(patience=1), [0.1, None, None, 0.2]) == [1, 1, 1, 1]


def test_nothing_counts_while_it_cools_down():
    scales = run(ReduceLROnPlateau(factor=0.5, patience=1, cooldown=2), [0.1] * 6)
    assert scales == [1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_the_rate_stays_above_its_minimum():
    assert run(ReduceLROnPlateau(factor=0.1, patience=1, min_scale=0.05), [0.1] * 4) == [1, 0.1, 0.05, 0.05]
    assert run(ReduceLROnPlateau(patience=1, min_scale=0.5), [0.1] * 3, scale=0.2) == [0.2, 0.2, 0.2]


def test_a_resumed_run_continues_counting():
    first = ReduceLROnPlateau(patience=3)
    assert run(first, [0.2, 0.1, 0.1]) == [1, 1, 1]
    assert run(ReduceLROnPlateau(patience=3), [0.1], state=first.state_dict()) == [0.1]


def test_a_second_run_starts_from_scratch():
    callback = ReduceLROnPlateau(patience=2)
    run(callback, [0.9, 0.1])
    assert run(callback, [0.1, 0.2]) == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 1}, r"factor=1.*: expected a number below 1"),
        ({"factor": 0}, r"factor=0\): expected a number > 0"),
        ({"patience": 0}, r"patience=0\): expected a whole number >= 1"),
        ({"cooldown": -1}, r"cooldown=-1\): expected a whole number >= 0"),
        ({"min_scale": -1}, r"min_scale=-1\): expected a number >= 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(CallbackError, match=message):
        ReduceLROnPlateau(**arguments)


def test_at_its_minimum_nothing_more_is_said(caplog):
    with caplog.at_level("INFO"):
        run(ReduceLROnPlateau(factor=0.1, patience=1, min_scale=1e-4), [0.1] * 9)
    assert len(caplog.records) == 4
