"""Comet offline: the archive, read back line by line."""

import json
import logging
import os
from zipfile import ZipFile

import pytest

from detector import YOLO
from detector.callbacks.loggers.comet import CometLogger


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Comet is offline, and is not imported with its hooks into other packages, such as MLflow."""
    for name in [name for name in os.environ if name.startswith("COMET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COMET_START_ONLINE", "0")
    monkeypatch.setenv("COMET_DISABLE_AUTO_LOGGING", "1")
    monkeypatch.chdir(tmp_path)


def read(folder):
    """Return the head of the only archive in a folder, and its messages by type."""
    (path,) = folder.glob("*.zip")
    with ZipFile(path) as archive:
        head = json.loads(archive.read("experiment.json"))
        found = {}
        for line in archive.read("messages.json").splitlines():
            message = json.loads(line)
            found.setdefault(message["type"], []).append(message["payload"])
    return head, found


def others(messages):
    return {payload["key"]: payload["value"] for payload in messages["log_other"]}


def test_the_archive_holds_the_whole_run(train_logged, tmp_path):
    def mine(trainer):
        import comet_ml

        comet_ml.get_running_experiment().log_metric("mine", 7, step=trainer.global_step)

    seen = train_logged(("on_train_batch_end", mine), comet=True, project=tmp_path / "signs")
    head, messages = read(tmp_path / "signs/comet")
    assert head["project_name"] == "signs" and head["tags"] == []
    assert others(messages)["Name"] == "train" and others(messages)["state"] == "finished"
    assert others(messages)["stop_reason"] == "all 2 epochs are done"
    metrics = [payload["metric"] for payload in messages["metric_msg"]]
    for name in seen[0]:
        values = [(m["step"], m["metricValue"]) for m in metrics if m["metricName"] == name]
        assert values == [(1, seen[0][name]), (2, seen[1][name])]
    assert sum(m["metricName"] == "mine" for m in metrics) == 4
    parameters = {p["param"]["paramName"]: p["param"]["paramValue"] for p in messages["parameter_msg"]}
    assert parameters["epochs"] == 2 and parameters["model/parameters"] > 1000
    uploads = {u["upload_type"]: u["additional_params"] for u in messages["file_upload"]}
    assert set(uploads) == {"visualization", "model-element"}
    assert (uploads["visualization"]["figName"], uploads["visualization"]["step"]) == ("pictures/results", 2)
    assert uploads["model-element"]["fileName"] == "best.pt"


def test_a_failed_run_says_so(train_logged, tmp_path, monkeypatch):
    monkeypatch.setenv("COMET_OFFLINE_DIRECTORY", str(tmp_path / "mine"))

    def fail(trainer):
        raise ValueError

    with pytest.raises(ValueError):
        train_logged(("on_train_batch_end", fail), comet=True)
    head, messages = read(tmp_path / "mine")
    assert head["tags"] == ["failed"] and others(messages)["state"] == "failed"


def test_an_interrupted_run_says_so_and_a_resumed_one_continues_it(train_logged, tiny_model, tmp_path):
    def interrupt(trainer):
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_logged(("on_train_batch_end", interrupt), comet=True)
    first, messages = read(tmp_path / "comet")
    assert first["tags"] == ["killed"] and others(messages)["state"] == "killed"
    (tmp_path / "comet").rename(tmp_path / "first")
    YOLO(tiny_model).train(resume=tmp_path / "train")
    head, messages = read(tmp_path / "comet")
    assert head["offline_id"] == first["offline_id"] and head["resume_strategy"] == "get_or_create"
    losses = [p["metric"] for p in messages["metric_msg"] if p["metric"]["metricName"] == "train/box_loss"]
    assert [metric["step"] for metric in losses] == [2]


def test_a_running_experiment_is_joined_and_left_open(train_logged, tmp_path):
    import comet_ml

    config = comet_ml.ExperimentConfig(offline_directory=str(tmp_path / "mine"), log_env_host=False)
    experiment = comet_ml.start(online=False, project_name="mine", experiment_config=config)
    train_logged(comet=True, log_model=False, epochs=1)
    assert comet_ml.get_running_experiment() is experiment and not experiment.ended
    experiment.end()
    head, messages = read(tmp_path / "mine")
    assert head["project_name"] == "mine"
    assert "train/box_loss" in {p["metric"]["metricName"] for p in messages["metric_msg"]}
    assert "model-element" not in {u["upload_type"] for u in messages.get("file_upload", [])}


def test_without_a_key_it_neither_asks_nor_logs(train_logged, monkeypatch, caplog):
    monkeypatch.delenv("COMET_START_ONLINE")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    seen = train_logged(CometLogger(), epochs=1)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(seen) == 1 and "run `comet login`, or set COMET_API_KEY" in warning


def test_a_saved_key_or_a_folder_counts_as_set_up(tmp_path, monkeypatch):
    monkeypatch.delenv("COMET_START_ONLINE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert CometLogger.needs() is not None
    monkeypatch.setenv("COMET_OFFLINE_DIRECTORY", str(tmp_path))
    assert CometLogger.needs() is None
    monkeypatch.delenv("COMET_OFFLINE_DIRECTORY")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.comet.config").write_text("[comet]\napi_key = key\n")
    assert CometLogger.needs() is None
