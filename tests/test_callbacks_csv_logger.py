import csv
from types import SimpleNamespace

import pytest

from detector.callbacks import csv_logger
from detector.callbacks.csv_logger import CSVLogger


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(csv_logger, "perf_counter", lambda: now[0])
    return now


def run(clock, path, epochs, start_epoch=0, seconds=10.0, callback=None):
    """Play a run; `epochs` holds the metrics of each. Return the rows of the file."""
    callback = callback or CSVLogger()
    trainer = SimpleNamespace(csv=path, start_epoch=start_epoch, epoch=0, metrics={})
    callback.on_train_start(trainer)
    for trainer.epoch, trainer.metrics in enumerate(epochs, start_epoch):
        clock[0] += seconds
        callback.on_fit_epoch_end(trainer)
    return read(path)


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_row_an_epoch_with_epoch_and_time(clock, tmp_path):
    rows = run(clock, tmp_path / "results.csv", [{"train/loss": 1.5}, {"train/loss": 0.25}])
    assert rows == [
        {"epoch": "1", "time": "10", "train/loss": "1.5"},
        {"epoch": "2", "time": "20", "train/loss": "0.25"},
    ]


def test_columns_are_ordered_by_kind_and_new_ones_added(clock, tmp_path):
    path = tmp_path / "results.csv"
    rows = run(clock, path, [{"mine/x": 1, "lr/pg0": 0.1}, {"mine/x": 2, "lr/pg0": 0.1, "train/loss": 3}])
    assert list(rows[0]) == ["epoch", "time", "train/loss", "lr/pg0", "mine/x"]
    assert [row["train/loss"] for row in rows] == ["", "3"]


def test_a_fresh_run_starts_with_an_empty_file(clock, tmp_path):
    path, callback = tmp_path / "results.csv", CSVLogger()
    run(clock, path, [{"a": 1}, {"a": 2}], callback=callback)
    assert [row["b"] for row in run(clock, path, [{"b": 3}], callback=callback)] == ["3"]
    assert "a" not in read(path)[0]


def test_a_resumed_run_keeps_what_it_builds_on_and_goes_on_counting_time(clock, tmp_path):
    path = tmp_path / "results.csv"
    run(clock, path, [{"train/loss": n, "lr/pg0": 0.1} for n in (3, 2, 1)])
    rows = run(clock, path, [{"train/loss": 1.5, "lr/pg0": 0.1}], start_epoch=2, seconds=5)
    assert [(row["epoch"], row["time"], row["train/loss"]) for row in rows] == [
        ("1", "10", "3"),
        ("2", "20", "2"),
        ("3", "25", "1.5"),
    ]
    assert list(rows[0]) == ["epoch", "time", "train/loss", "lr/pg0"]
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]


def test_a_row_cut_off_in_writing_is_dropped_when_resumed(clock, tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("epoch,time,train/loss\n1,10,0.5\n2,20,0.4\n3,")
    rows = run(clock, path, [{"train/loss": 0.3}], start_epoch=3)
    assert [row["epoch"] for row in rows] == ["1", "2", "4"]


def test_a_resumed_run_without_its_file_starts_one(clock, tmp_path):
    rows = run(clock, tmp_path / "results.csv", [{"a": 1}], start_epoch=4)
    assert rows == [{"epoch": "5", "time": "10", "a": "1"}]


def test_a_resumed_run_over_an_empty_file_starts_anew(clock, tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("")
    assert run(clock, path, [{"a": 1}], start_epoch=1) == [{"epoch": "2", "time": "10", "a": "1"}]
