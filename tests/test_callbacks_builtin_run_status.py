"""What a run writes about itself, however it ends."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.runs import row_of, status_of
from support.training import quick_settings

from detector import YOLO
from detector.callbacks import RunStatus, TimeLimit
from detector.callbacks.registry import CallbackRegistry
from detector.cli import main
from detector.errors import CallbackError
from detector.runs.record import read_classes, read_log, read_metrics, read_run


@pytest.fixture
def looks_at_once(monkeypatch):
    """Let the callback look for STOP after every batch."""
    monkeypatch.setattr("detector.callbacks.builtin.run_status.LOOK_EVERY", 0.0)


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
    summary = [{key: row[key] for key in row} for row in trainer.final_metrics.summary()]
    assert read_classes(tmp_path / "train") == summary


def test_every_key_is_written_and_the_rows_are_those_of_the_csv(train_tiny, tmp_path):
    train_tiny(("on_fit_epoch_end", lambda t: t.metrics.update({"my/nan": float("nan")})), epochs=1)
    assert json.loads((tmp_path / "train/status.json").read_text()).keys() == status_of().keys()
    (line,) = (tmp_path / "train/metrics.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row_of(1, 1).keys() <= row.keys() and row["my/nan"] is None
    columns = (tmp_path / "train/results.csv").read_text().splitlines()[0].split(",")
    assert row.keys() == {*columns, "seconds"}


def test_the_fingerprint_is_of_the_data(train_tiny, tmp_path):
    train_tiny(epochs=1)
    train_tiny(epochs=1, seed=3)
    train_tiny(epochs=1, fraction=0.5)
    found = [
        read_run(tmp_path / name).status["data"]["fingerprint"] for name in ("train", "train-2", "train-3")
    ]
    assert found[0] == found[1] != found[2]


def test_the_command_repeats_the_run(train_tiny, tmp_path):
    first = train_tiny(epochs=1, callbacks="TimeLimit(hours=2)", plugins=False)
    command = read_run(tmp_path / "train").status["command"]
    assert command.startswith("detector train ") and "'callbacks=TimeLimit(hours=2)'" in command
    assert main(shlex.split(command)[1:]) == 0
    before, again = read_metrics(first.trainer.save_dir), read_metrics(tmp_path / "train-2")
    assert [row["train/box_loss"] for row in again] == [row["train/box_loss"] for row in before]


def test_secrets_of_addresses_are_left_out(train_tiny, tmp_path):
    def ask(trainer):
        print("asking https://me:s3cret@example.com/x?key=s3cret")
        raise OSError("https://me:s3cret@example.com does not answer")

    with pytest.raises(OSError, match="does not answer"):
        train_tiny(
            ("on_train_start", ask), epochs=1, callbacks="Notify('https://127.0.0.1:9/s3cret', timeout=0.1)"
        )
    files = [path for path in (tmp_path / "train").rglob("*") if path.is_file()]
    assert not [path for path in files if b"s3cret" in path.read_bytes()]
    assert read_run(tmp_path / "train").status["error"] == "OSError: https://***@example.com does not answer"


# ------------------------------------------------------------------ why it ended


def test_a_file_stop_ends_the_run_after_the_batch_and_is_removed(looks_at_once, train_tiny, tmp_path, caplog):
    def ask(trainer):
        if (trainer.epoch, trainer.batch_index) == (1, 0):
            (trainer.save_dir / "STOP").touch()

    with caplog.at_level("INFO", logger="detector"):
        trainer = train_tiny(("on_train_batch_end", ask), epochs=5, batch=2).trainer
    assert (trainer.epoch, trainer.progress.global_step) == (1, 5)
    status = read_run(tmp_path / "train").status
    assert (status["state"], status["stop_reason"], status["epoch"]) == ("stopped", "STOP file", 2)
    assert not (tmp_path / "train/STOP").exists()
    assert f"stopped: there was a file STOP in {tmp_path / 'train'}" in caplog.messages
    assert trainer.final_metrics is not None and trainer.progress.finished


def test_the_file_is_looked_for_once_a_second(train_tiny, monkeypatch):
    looks, clock = [], [0.0]
    monkeypatch.setattr("detector.callbacks.builtin.run_status.perf_counter", lambda: clock[0])
    monkeypatch.setattr(RunStatus, "_look_for_stop", lambda self: looks.append(clock[0]))
    pass_time = ("on_train_batch_start", lambda trainer: clock.__setitem__(0, clock[0] + 0.25))
    train_tiny(pass_time, epochs=2, batch=1)
    assert looks == [1.0, 2.0, 3.0, 4.0]


def test_a_file_stop_from_before_is_not_meant_for_a_new_run(looks_at_once, train_tiny, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/STOP").touch()
    assert train_tiny(epochs=1, exist_ok=True).trainer.stop_reason == "all 1 epochs are done"
    assert not (tmp_path / "train/STOP").exists()


def interrupt(number):
    return "on_train_batch_end", lambda trainer: signal.raise_signal(number)


def fail(trainer):
    raise ValueError("no luck")


@pytest.mark.parametrize(
    ("what", "error", "state", "reason"),
    [
        (TimeLimit(hours=1e-9), None, "stopped", "time limit 3.6e-06 s"),
        (interrupt(signal.SIGINT), KeyboardInterrupt, "stopped", "Ctrl-C"),
        (interrupt(signal.SIGTERM), SystemExit, "stopped", "terminated (SIGTERM)"),
        (("on_train_epoch_end", fail), ValueError, "failed", "ValueError: no luck"),
    ],
)
def test_the_reason_of_the_end_is_in_status_and_log(what, error, state, reason, train_tiny, tmp_path, caplog):
    caplog.set_level("INFO", logger="detector")
    if error is None:
        train_tiny(what, verbose=True)
    else:
        with pytest.raises(error):
            train_tiny(what, verbose=True)
    status = read_run(tmp_path / "train").status
    assert (status["state"], status["stop_reason"]) == (state, reason)
    assert status["error"] == (reason if state == "failed" else None) and status["ended"] is not None
    text = read_log(tmp_path / "train")
    assert f"stopped: {reason}" in text if error is None else text.endswith(f"\nerror: {reason}\n")


def test_a_callback_from_a_file_is_named_with_its_line(train_tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("hooks.py").write_text("def on_fit_epoch_end(trainer):\n    trainer.stop = True\n")
    trainer = train_tiny(epochs=3, callbacks="hooks.py").trainer
    assert trainer.stop_reason == "stopped by hooks.py:2 (on_fit_epoch_end on on_fit_epoch_end)"


def test_a_loss_that_is_not_finite_is_a_failure(train_tiny, tmp_path):
    with pytest.raises(Exception, match="not finite"):
        train_tiny(("on_loss", lambda trainer: setattr(trainer, "loss", trainer.loss * float("nan"))))
    status = read_run(tmp_path / "train").status
    assert status["state"] == "failed" and "not finite" in status["error"]


def test_a_run_that_can_not_begin_leaves_no_folder(train_tiny, tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        train_tiny(data="nowhere.yaml")
    assert not (tmp_path / "train").exists()


# ------------------------------------------------------------------ resume and kill


def test_a_resumed_run_keeps_the_rows_before_and_drops_those_of_epochs_that_are_repeated(
    train_tiny, tiny_model, tmp_path
):
    folder = tmp_path / "train"
    with pytest.raises(KeyboardInterrupt):
        train_tiny(("on_train_start", lambda t: print("hello")), interrupt_in(2), epochs=4)
    before = read_metrics(folder)
    assert [row["epoch"] for row in before] == [1, 2]
    started = read_run(folder).status["started"]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "train/box_loss": 9}\n{"epoch": 4, "tra')
    YOLO(tiny_model).train(resume=folder)
    rows = read_metrics(folder)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4] and rows[:2] == before
    assert rows[2]["train/box_loss"] != 9 and rows[2]["seconds"] > rows[1]["seconds"]
    status = read_run(folder).status
    assert (status["state"], status["started"]) == ("finished", started)
    text = read_log(folder)
    assert text.index("hello") < text.index("Ctrl-C") < text.index("--- resumed")


def interrupt_in(epoch):
    def fire(trainer):
        if trainer.epoch == epoch:
            signal.raise_signal(signal.SIGINT)

    return "on_train_epoch_start", fire


def test_the_best_epoch_of_a_resumed_run_is_the_one_before(train_tiny, tiny_model, tmp_path):
    def grade(trainer):
        trainer.fitness = 1.0 / (trainer.epoch + 1)

    with pytest.raises(KeyboardInterrupt):
        train_tiny(("on_fit_epoch_end", grade), interrupt_in(1), epochs=2)
    yolo = YOLO(tiny_model)
    yolo.add_callback("on_fit_epoch_end", grade)
    yolo.train(resume=tmp_path / "train")
    best = read_run(tmp_path / "train").best
    assert (best["epoch"], best["fitness"]) == (1, 1.0) and "metrics/mAP50" in best


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.training import train
def wait(trainer):
    if trainer.epoch == 1:
        print("ready", flush=True)
        sys.stdin.read()
train(Path(sys.argv[2]), ("on_train_batch_end", wait), data=sys.argv[3], project=sys.argv[4], epochs=5, loggers="none")
"""


def test_a_run_that_is_killed_is_interrupted(tiny_model, drawn_dataset, tmp_path):
    arguments = [Path(__file__).parent, tiny_model, drawn_dataset, tmp_path]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "ready\n"
        run = read_run(tmp_path / "train")
        assert (run.state, run.status["epoch"], run.status["pid"]) == ("running", 1, child.pid)
        assert 0.2 <= run.status["progress"] < 0.4
    finally:
        child.kill()
        child.communicate()
    run = read_run(tmp_path / "train")
    assert (run.state, run.note) == ("interrupted", "its process is gone")
    assert [row["epoch"] for row in read_metrics(tmp_path / "train")] == [1]


# ------------------------------------------------------------------ as a callback


def test_it_can_be_removed(train_tiny, tmp_path):
    def remove(trainer):
        (status,) = [known for known in trainer.callbacks.objects if isinstance(known, RunStatus)]
        trainer.callbacks.remove(status)

    train_tiny(("on_pretrain_routine_end", remove), epochs=1)
    assert not (tmp_path / "train/metrics.jsonl").exists()


def test_a_run_with_it_trains_the_same(train_tiny):
    with_it = train_tiny(epochs=1).trainer.final_metrics
    without = train_tiny(
        ("on_pretrain_routine_start", lambda t: t.callbacks.clear()), epochs=1
    ).trainer.final_metrics
    assert with_it.results_dict == without.results_dict


def test_what_can_not_be_written_is_one_warning_and_the_run_continues(train_tiny, tmp_path, caplog):
    def spoil(trainer):
        (trainer.save_dir / "metrics.jsonl").mkdir()

    train_tiny(("on_pretrain_routine_end", spoil), epochs=2)
    assert sum(message.startswith("RunStatus: can't write to") for message in caplog.messages) == 1
    assert read_run(tmp_path / "train").state == "finished"


@pytest.mark.parametrize("every", [0, -1, "2", None])
def test_bad_arguments_are_refused(every):
    with pytest.raises(CallbackError, match=r"RunStatus\(every=.*\): expected a number > 0"):
        RunStatus(every)


def test_it_is_a_member_of_the_registry_like_any_other():
    registry, status = CallbackRegistry(), RunStatus()
    registry.add(status)
    registry.remove(status)
    assert not registry.objects and not any(registry.values())


def test_the_files_of_a_folder_that_are_links_are_replaced(drawn_dataset, tiny_model, tmp_path):
    folder, mine = tmp_path / "train", tmp_path / "thesis.txt"
    folder.mkdir()
    mine.write_text("three years")
    for name in ("status.json", "metrics.jsonl", "train.log", "classes.json", "STOP"):
        (folder / name).symlink_to(mine)
    YOLO(tiny_model).train(**quick_settings(data=drawn_dataset, project=tmp_path, exist_ok=True, epochs=1))
    assert mine.read_text() == "three years" and read_run(folder).state == "finished"


def test_a_log_that_can_not_be_opened_is_one_warning(train_tiny, tmp_path, caplog):
    (tmp_path / "train/train.log").mkdir(parents=True)
    train_tiny(epochs=1, exist_ok=True)
    assert sum(message.startswith("RunStatus: can't write to") for message in caplog.messages) == 1
    assert read_run(tmp_path / "train").state == "finished"
