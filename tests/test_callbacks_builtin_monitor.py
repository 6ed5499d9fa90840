import logging
import math
from types import SimpleNamespace

import pytest

from detector.callbacks.builtin.monitor import Monitor
from detector.errors import CallbackError


def trainer(fitness=0.5, **metrics):
    return SimpleNamespace(fitness=fitness, metrics=metrics)


def test_higher_is_better_in_mode_max_and_lower_in_mode_min():
    highest, lowest = Monitor("Mine", "fitness", "max"), Monitor("Mine", "val/loss", "min")
    values = [0.2, 0.1, 0.2, 0.3]
    assert [highest.improves(value) for value in values] == [True, False, False, True]
    assert [lowest.improves(value) for value in values] == [True, True, False, False]
    assert (highest.best, lowest.best) == (0.3, 0.1)
    assert sorted(values, key=highest.rank)[0] == 0.3
    assert sorted(values, key=lowest.rank)[0] == 0.1


def test_less_than_min_delta_is_no_improvement():
    monitor = Monitor("Mine", "fitness", "max", min_delta=0.1)
    assert [monitor.improves(value) for value in (0.25, 0.3, 0.375)] == [True, False, True]


def test_of_equal_values_the_one_with_the_smaller_loss_is_an_improvement():
    monitor = Monitor("Mine", "fitness", "max")
    epochs = [(0.0, 3.0), (0.0, 2.0), (0.0, 2.5), (0.0, 2.0), (0.1, 9.0), (0.0, 1.0), (0.1, math.nan)]
    found = [monitor.improves(monitor.read(trainer(value, **{"val/loss": loss}))) for value, loss in epochs]
    assert found == [True, True, False, False, True, False, False]
    assert (monitor.best, monitor.best_loss) == (0.1, 9.0)


def test_nan_and_infinity_are_never_better():
    monitor = Monitor("Mine", "fitness", "max")
    assert [monitor.improves(v) for v in (math.nan, math.inf, 0.1, math.nan)] == [False, False, True, False]
    assert monitor.best == 0.1


def test_fitness_and_metrics_are_read():
    assert Monitor("Mine", "fitness", "max").read(trainer(0.25)) == 0.25
    assert Monitor("Mine", "mine/figure", "max").read(trainer(None, **{"mine/figure": 2})) == 2.0


def test_an_epoch_without_validation_has_no_value():
    assert Monitor("Mine", "fitness", "max").read(trainer(None)) is None
    assert Monitor("Mine", "metrics/mAP50", "max").read(trainer(None)) is None


def test_an_unknown_metric_names_the_nearest_and_all():
    with pytest.raises(CallbackError) as caught:
        Monitor("Mine", "metrics/mAP5O", "max").read(trainer(**{"metrics/mAP50": 0.1, "lr/pg0": 0.1}))
    assert str(caught.value) == (
        "Mine(monitor='metrics/mAP5O'): no such metric; did you mean 'metrics/mAP50'?; "
        "there are fitness, metrics/mAP50, lr/pg0"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fitness", "up"), r"Mine\(mode='up'\): expected 'max' or 'min'"),
        ((3, "max"), r"Mine\(monitor=3\): expected 'fitness'"),
        (("fitness", "max", -1), r"Mine\(min_delta=-1\): expected a number >= 0"),
        (("fitness", "max", math.nan), r"Mine\(min_delta=nan\): expected a number >= 0"),
        (("fitness", "max", "0.1"), r"Mine\(min_delta='0.1'\): expected a number >= 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(CallbackError, match=message):
        Monitor("Mine", *arguments)


def test_a_loss_that_should_grow_is_warned_of(caplog):
    Monitor("Mine", "val/loss", "max")
    assert "use mode='min'" in caplog.text


def test_a_run_without_the_figure_is_warned_of(caplog):
    monitor = Monitor("Mine", "fitness", "max")
    monitor.read(trainer(0.1))
    with caplog.at_level(logging.WARNING):
        monitor.warn_if_never_read()
        assert not caplog.records
        monitor.reset()
        monitor.warn_if_never_read()
    assert "Mine did nothing: no epoch was validated" in caplog.text
