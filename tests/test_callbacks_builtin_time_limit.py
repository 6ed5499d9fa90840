from types import SimpleNamespace

import pytest

from detector.callbacks.builtin import time_limit
from detector.callbacks.builtin.time_limit import TimeLimit
from detector.errors import CallbackError


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time_limit, "perf_counter", lambda: now[0])
    return now


def test_it_stops_after_the_batch_in_which_the_time_is_up(clock, caplog):
    callback, trainer = TimeLimit(minutes=1, seconds=30), SimpleNamespace(stop=False)
    callback.on_pretrain_routine_start(trainer)
    clock[0] = 189.9
    callback.on_train_batch_end(trainer)
    assert not trainer.stop
    with caplog.at_level("INFO"):
        clock[0] = 190.0
        callback.on_train_batch_end(trainer)
        callback.on_fit_epoch_end(trainer)
    assert trainer.stop
    assert [record.message for record in caplog.records] == ["stopped: time limit 90 s"]


def test_it_stops_after_a_validation_that_took_the_rest(clock):
    callback, trainer = TimeLimit(hours=1), SimpleNamespace(stop=False)
    callback.on_pretrain_routine_start(trainer)
    clock[0] += 3601
    callback.on_fit_epoch_end(trainer)
    assert trainer.stop


def test_a_second_run_has_its_own_time(clock):
    callback, trainer = TimeLimit(seconds=5), SimpleNamespace(stop=False)
    callback.on_pretrain_routine_start(trainer)
    clock[0] += 60
    callback.on_pretrain_routine_start(trainer)
    callback.on_train_batch_end(trainer)
    assert not trainer.stop


def test_a_training_ends_cleanly(train_tiny, tmp_path):
    yolo = train_tiny(TimeLimit(seconds=1e-6), epochs=3)
    assert (yolo.trainer.epoch, yolo.trainer.batch_index) == (0, 0)
    assert (tmp_path / "train/weights/last.pt").exists()
    assert yolo.metrics is not None


@pytest.mark.parametrize("arguments", [{}, {"hours": -1}, {"minutes": "3"}, {"seconds": float("inf")}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(CallbackError, match=r"TimeLimit\(.*\): expected a"):
        TimeLimit(**arguments)
