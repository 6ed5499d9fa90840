import copy
import csv

import pytest
from support.training import plain_trainer, play

from detector.callbacks.builtin import csv_logger
from detector.callbacks.builtin.csv_logger import CSVLogger


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(csv_logger, "perf_counter", lambda: now[0])
    return now


def run(clock, path, epochs, start_epoch=0, seconds=10.0, callback=None, state=None):
    """Play a run; `epochs` holds the metrics of each. Return the rows of the file."""

    def tick(trainer):
        clock[0] += seconds

    trainer = plain_trainer(csv=path, start_epoch=start_epoch)
    play(callback or CSVLogger(), epochs, trainer, state, watch={"on_train_epoch_end": tick})
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


def test_a_resumed_run_keeps_what_it_builds_on_and_continues_to_count_time(clock, tmp_path):
    path, first = tmp_path / "results.csv", CSVLogger()
    run(clock, path, [{"train/loss": n, "lr/pg0": 0.1} for n in (3, 2)], callback=first)
    state = copy.deepcopy(first.state_dict())
    with path.open("a") as file:
        file.write("3,29,1,0.1\n4,3")  # an epoch it does not build on, and a row cut off in writing
    rows = run(clock, path, [{"train/loss": 1.5, "lr/pg0": 0.1}], start_epoch=2, seconds=5, state=state)
    assert [(row["epoch"], row["time"], row["train/loss"]) for row in rows] == [
        ("1", "10", "3"),
        ("2", "20", "2"),
        ("3", "25", "1.5"),
    ]
    assert list(rows[0]) == ["epoch", "time", "train/loss", "lr/pg0"]
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]


def test_a_resumed_run_whose_file_is_gone_writes_it_again(clock, tmp_path):
    first = CSVLogger()
    run(clock, tmp_path / "first.csv", [{"a": 1}], callback=first)
    rows = run(clock, tmp_path / "results.csv", [{"a": 2}], start_epoch=1, state=first.state_dict())
    assert [(row["epoch"], row["a"]) for row in rows] == [("1", "1"), ("2", "2")]
