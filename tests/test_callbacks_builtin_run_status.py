import json
import os
import shlex

from support.runs import row_of, status_of

from detector.cli import main
from detector.runs.record import read_metrics, read_run


def test_a_run_describes_itself(train_tiny, drawn_dataset, tmp_path):
    trainer = train_tiny(epochs=2, lr0=0.003).trainer
    run = read_run(tmp_path / "train")
    status = run.status
    assert (run.state, status["epoch"], status["epochs"], status["progress"]) == ("finished", 2, 2, 1.0)
    assert (status["stop_reason"], status["error"], status["eta_s"]) == ("all 2 epochs are done", None, None)
    assert status["data"] | {"fingerprint": ""} == {
        "name": drawn_dataset.name, "fingerprint": "", "train_images": 8, "val_images": 4, "classes": 6,
    }  # fmt: skip
    assert status["started"] <= status["updated"] <= status["ended"]
    assert status["pid"] == os.getpid() and status["hardware"]["device"] == "cpu"
    assert status["settings"]["lr0"] == 0.003 and "momentum" not in status["settings"]
    assert run.best["epoch"] == trainer.best_epoch + 1 and run.best["fitness"] == trainer.best_fitness


def test_the_keys_are_those_of_the_helper_that_tests_of_readers_use(train_tiny, tmp_path):
    train_tiny(epochs=1)
    written = json.loads((tmp_path / "train/status.json").read_text())
    assert written.keys() == status_of().keys()
    (row,) = [json.loads(line) for line in (tmp_path / "train/metrics.jsonl").read_text().splitlines()]
    assert row_of(1, 1).keys() <= row.keys()
    assert not {"lr0", "recipe"} & row.keys()


def test_the_command_repeats_the_run(train_tiny, tmp_path):
    first = train_tiny(epochs=2, callbacks="TimeLimit(hours=2)")
    command = read_run(tmp_path / "train").status["command"]
    assert command.startswith("detector train ") and "'callbacks=TimeLimit(hours=2)'" in command
    assert main(shlex.split(command)[1:]) == 0
    again = read_metrics(tmp_path / "train-2")
    before = read_metrics(first.trainer.save_dir)
    assert [row["train/box_loss"] for row in again] == [row["train/box_loss"] for row in before]
