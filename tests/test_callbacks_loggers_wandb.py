"""Weights & Biases offline: the run's file, read back with W&B's own message types."""

import json
import logging
import os
import signal
import struct
from contextlib import suppress

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.mailbox import MailboxClosedError

from detector import YOLO
from detector.callbacks.loggers.wandb import WandbLogger


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """W&B is offline and reports nothing home."""
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    monkeypatch.chdir(tmp_path)
    yield
    end_service()


def end_service():
    """End W&B's own process, which writes the run's file; only then all of it is there."""
    with suppress(MailboxClosedError, ConnectionError):  # it was killed
        wandb.teardown()


def read(folder):
    """Return the records of the only offline run in a folder."""
    end_service()
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data, place, parts, records = path.read_bytes(), 7, [], []
    assert data.startswith(b":W&B")
    while place < len(data):  # LevelDB's log: blocks of 32 KB, messages in one part or several
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # a whole message, or its last part
            records.append(Record.FromString(b"".join(parts)))
            parts = []
    return records


def rows(records):
    """Return the history: one dict per row, in which images are dicts."""
    found = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            found.append({})
            for item in record.history.item:
                place = found[-1]
                *outer, last = item.nested_key or [item.key]
                for name in outer:
                    place = place.setdefault(name, {})
                place[last] = json.loads(item.value_json)
    return found


def config(records):
    changes = [record.config.update for record in records if record.WhichOneof("record_type") == "config"]
    changes += [record.run.config.update for record in records if record.WhichOneof("record_type") == "run"]
    return {item.key: json.loads(item.value_json) for change in changes for item in change}


def models(records):
    found = [record.artifact for record in records if record.WhichOneof("record_type") == "artifact"]
    return [artifact for artifact in found if artifact.type == "model"]


def summary(records):
    changes = [record.summary.update for record in records if record.WhichOneof("record_type") == "summary"]
    return {item.key: json.loads(item.value_json) for change in changes for item in change if item.key}


def exit_code(records):
    (code,) = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
    return code


def test_the_run_file_holds_the_whole_run(train_logged, tmp_path):
    mine = ("on_train_batch_end", lambda trainer: trainer.epoch == 1 and wandb.log({"mine": 7}))
    seen = train_logged(mine, wandb=True, project=tmp_path / "signs")
    records = read(tmp_path / "signs")
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.display_name) == ("signs", "train")
    history = rows(records)
    for name in seen[0]:
        values = [(row["epoch"], row[name]) for row in history if name in row]
        assert values == [(1, seen[0][name]), (2, seen[1][name])]
    assert summary(records)["stop_reason"] == "all 2 epochs are done"
    assert history[0]["_step"] == 1 and sum("mine" in row for row in history) == 2
    assert [row["epoch"] for row in history if "best/mAP50-95" in row] == [2]
    (image,) = [row["pictures/results"] for row in history if "pictures/results" in row]
    assert (image["_type"], image["width"], image["height"]) == ("image-file", 60, 40)
    assert len(list(tmp_path.glob("signs/wandb/offline-run-*/files/media/images/**/*.png"))) == 1
    settings = config(records)
    assert settings["epochs"] == 2 and settings["model/parameters"] > 1000
    (artifact,) = [
        r.artifact
        for r in records
        if r.WhichOneof("record_type") == "artifact" and r.artifact.type == "model"
    ]
    assert [entry.path for entry in artifact.manifest.contents] == ["best.pt"] and "best" in artifact.aliases
    axes = {r.metric.name: r.metric.step_metric for r in records if r.WhichOneof("record_type") == "metric"}
    assert axes["train/box_loss"] == "epoch" and "mine" not in axes
    assert exit_code(records) == 0 and wandb.run is None


@pytest.mark.parametrize(("error", "code"), [(ValueError, 1), (KeyboardInterrupt, 255)])
def test_a_run_that_did_not_end_well_says_so(train_logged, error, code, tmp_path):
    def fail(trainer):
        raise error

    with pytest.raises(error):
        train_logged(("on_train_batch_end", fail), wandb=True)
    assert exit_code(read(tmp_path)) == code


def test_a_resumed_training_continues_its_run(train_logged, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["detector", "callbacks=Notify('https://me:s3cret@host/s3cret')"])
    train_logged(wandb=True, epochs=1)
    (first,) = tmp_path.glob("wandb/offline-run-*")
    first.rename(tmp_path / "first")
    YOLO(tiny_model).train(resume=tmp_path / "train", epochs=2)
    records = read(tmp_path)
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (tmp_path / "first" / f"run-{run.run_id}.wandb").is_file()
    assert [row["_step"] for row in rows(records) if "train/box_loss" in row] == [2]
    assert b"s3cret" not in (tmp_path / "first" / f"run-{run.run_id}.wandb").read_bytes()


def test_an_active_run_is_joined_and_left_open(train_logged, tmp_path):
    with wandb.init(project="mine", dir=tmp_path) as run:
        train_logged(wandb=True, log_model=False, epochs=1)
        assert wandb.run is run
        run.log({"after": 1})
    records = read(tmp_path)
    assert [row["after"] for row in rows(records) if "after" in row] == [1]
    assert not [
        r for r in records if r.WhichOneof("record_type") == "artifact" and r.artifact.type == "model"
    ]


def test_the_environment_names_the_run(train_logged, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "street")
    monkeypatch.setenv("WANDB_NAME", "first")
    train_logged(wandb=True, epochs=1)
    (run,) = [record.run for record in read(tmp_path) if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.display_name) == ("street", "first")


def test_without_a_key_it_neither_asks_nor_logs(train_logged, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    seen = train_logged(WandbLogger(), epochs=1)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(seen) == 1 and "run `wandb login`, or set WANDB_API_KEY" in warning
    assert not (tmp_path / "wandb").exists()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (".netrc", "machine api.wandb.ai login user password key"),
        (".config/wandb/settings", "[default]\nmode = offline\n"),
        (".config/wandb/settings", "[default]\napi_key = key\n"),
    ],
)
def test_a_saved_login_counts_as_set_up(path, text, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert WandbLogger.needs() is not None
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text)
    assert WandbLogger.needs() is None
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert (WandbLogger.needs() is None) == ("netrc" not in path)


def test_a_service_that_dies_costs_one_warning(train_logged, caplog):
    def die(trainer):
        if trainer.epoch == 1:
            os.kill(wandb.setup()._connection._proc._process.pid, signal.SIGKILL)

    seen = train_logged(("on_train_epoch_start", die), wandb=True, epochs=3)
    assert len(seen) == 3
    ours = [record for record in caplog.records if record.name.startswith("detector")]
    (warning,) = [record.getMessage() for record in ours if record.levelno >= logging.WARNING]
    assert warning.startswith("Weights & Biases failed and is left out of the rest of this run: ")
