"""MLflow, read back with its own client: a SQLite store, and a real server on loopback that is killed in the end."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest

from detector import YOLO
from detector.callbacks.loggers.mlflow import MLflowLogger, key, sqlite_file, sqlite_uri
from detector.files.locks import locked


@pytest.fixture
def train_logged(train_logged):
    """Train with MLflow."""
    return partial(train_logged, mlflow=True)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    """MLflow is as it is by itself before each test, and is left so; its default run writes into the folder."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "quiet")
    yield
    assert mlflow.active_run() is None and not mlflow.is_tracking_uri_set()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder of runs that the tests share: making its store takes MLflow seconds."""
    return tmp_path_factory.mktemp("mlflow") / "signs"


@pytest.fixture(scope="module", autouse=True)
def started(tmp_path_factory):
    """A `mlflow server` that starts while other tests run: its process, its address and its log."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "files"),
    ]  # fmt: skip
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | quiet, start_new_session=True
        )
    yield process, f"http://127.0.0.1:{port}", folder / "log"
    kill(process)


def kill(process):
    """Kill a process with all that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def server(started):
    """The address of the server, now that it answers, and its process."""
    process, uri, log = started
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=5):
                break
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
    return uri, process


def last_run(client, experiment):
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], order_by=["attributes.start_time DESC"])[0]


def files(client, run_id, path=None):
    found = client.list_artifacts(run_id, path)
    return {f.path for f in found if not f.is_dir} | {
        name for f in found if f.is_dir for name in files(client, run_id, f.path)
    }


def check_run(client, run, seen):
    """Compare every metric of every epoch, parameters, images and the artifact with what went in."""
    for name in seen[0]:
        history = sorted(client.get_metric_history(run.info.run_id, name), key=lambda m: m.step)
        assert [(m.step, m.value) for m in history] == [(i + 1, row[name]) for i, row in enumerate(seen)]
    assert "best/mAP50-95" in run.data.metrics
    assert run.data.params["epochs"] == "2" and run.data.params["optimizer"] == "auto"
    assert int(run.data.params["model/parameters"]) > 1000 and float(run.data.params["model/GFLOPs"]) > 0
    assert files(client, run.info.run_id) == {"pictures/results.png", "weights/best.pt"}
    assert run.info.status == "FINISHED"
    assert run.data.tags["stop_reason"] == "all 2 epochs are done"


def test_a_store_in_the_folder_of_the_runs(train_logged, project, caplog):
    caplog.set_level(logging.INFO, "detector.callbacks.loggers")
    mine = ("on_train_batch_end", lambda trainer: mlflow.log_metric("mine", 7, trainer.global_step))
    seen = train_logged(mine, project=project)
    store = f"sqlite:///{project}/mlflow.db"
    client = mlflow.MlflowClient(store)
    run = last_run(client, "signs")
    check_run(client, run, seen)
    assert run.info.run_name == "train"
    assert len(client.get_metric_history(run.info.run_id, "mine")) == 4
    assert run.info.artifact_uri.startswith((project / "mlartifacts").as_uri())
    assert caplog.messages[-1] == f"MLflow: mlflow ui --backend-store-uri {store}"


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_a_run_that_did_not_end_well_says_so(train_logged, error, status, project):
    def fail(trainer):
        raise error

    with pytest.raises(error):
        train_logged(("on_train_batch_end", fail), project=project)
    assert last_run(mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db"), "signs").info.status == status


def test_two_trainings_share_the_run_that_is_active(train_logged, project):
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    with mlflow.start_run() as run:
        train_logged(epochs=1, project=project)
        train_logged(epochs=1, log_model=False, project=project)
        assert mlflow.active_run().info.run_id == run.info.run_id
    client = mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)
    after = client.get_run(run.info.run_id)
    assert after.info.status == "FINISHED" and after.data.params["log_model"] == "True"
    assert len(client.get_metric_history(run.info.run_id, "train/box_loss")) == 2


def test_a_resumed_training_continues_its_run(train_logged, tiny_model, project, caplog):
    def fail(trainer):
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_logged(("on_train_epoch_start", fail), name="resumed", project=project)
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    first = last_run(client, "signs")
    assert first.info.status == "KILLED"
    yolo = YOLO(tiny_model)
    yolo.train(resume=project / "resumed", epochs=3)
    (run,) = [run for run in client.search_runs([first.info.experiment_id]) if run.info.run_name == "resumed"]
    assert (run.info.run_id, run.info.status) == (first.info.run_id, "FINISHED")
    history = client.get_metric_history(run.info.run_id, "train/box_loss")
    assert sorted(m.step for m in history) == [1, 2, 3]
    assert "weights/best.pt" in files(client, run.info.run_id)

    client.delete_run(run.info.run_id)
    caplog.set_level(logging.INFO, "detector.callbacks.loggers")
    YOLO(tiny_model).train(resume=project / "resumed", epochs=4)
    assert f"the run {run.info.run_id} is not in this store any more; a new one begins" in caplog.text
    new = last_run(client, "signs")
    assert new.info.run_id != run.info.run_id and new.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(new.info.run_id, "train/box_loss")] == [4]


def test_no_password_of_a_server_is_shown(train_logged, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@127.0.0.1:9")
    train_logged(epochs=1)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith("MLflow failed and is left out") and "s3cret" not in warning
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


def test_trainings_in_two_threads_do_not_mix(train_logged, tmp_path):
    out = sys.stdout
    seen = {}

    def work(name):
        seen[name] = train_logged(project=tmp_path / name)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.stdout is out and sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        "first",
        "second",
    ]
    for name, rows in seen.items():
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/{name}/mlflow.db")
        check_run(client, last_run(client, name), rows)


def logged(project, name):
    """What a training of three epochs makes of the logger, without the training; returns the logger."""
    settings = SimpleNamespace(project=project, imgsz=64, to_dict=lambda: {"lr0": 0.1})
    trainer = SimpleNamespace(
        settings=settings,
        save_dir=project / name,
        resume=None,
        exception=None,
        stop_reason=None,
        origin=None,
        is_data_found=True,
    )
    logger = MLflowLogger()
    logger.on_pretrain_routine_start(trainer)
    for trainer.epoch in range(3):
        trainer.metrics = {"fitness": 0.5}
        logger.on_fit_epoch_end(trainer)
    logger.teardown(trainer)
    return logger


def test_a_store_that_another_run_is_making_is_waited_for(project):
    with ThreadPoolExecutor(1) as pool:
        with locked(project / "mlflow.db.lock"):
            running = pool.submit(logged, project, "waits")
            with pytest.raises(FutureTimeoutError):
                running.result(timeout=1)
        logger = running.result(timeout=60)
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    assert not logger.is_broken
    assert len(client.get_metric_history(logger.run_id, "fitness")) == 3


@pytest.mark.slow
def test_runs_that_start_together_on_a_new_store_are_all_logged(tmp_path):
    code = (
        "import sys, mlflow\nfrom pathlib import Path\n"
        "from test_callbacks_loggers_mlflow import logged\n"
        "print('ready', flush=True); sys.stdin.read()\n"
        "print(logged(Path(sys.argv[1]), sys.argv[2]).run_id)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "new"), f"run{number}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
        )
        for number in range(3)
    ]  # fmt: skip
    for run in runs:
        assert run.stdout.readline() == b"ready\n"
    for run in runs:
        run.stdin.close()
        run.stdin = None  # or communicate() would want to flush it
    ids = [run.communicate()[0].decode().split()[-1] for run in runs]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert [len(client.get_metric_history(run_id, "fitness")) for run_id in ids] == [3, 3, 3]


def test_an_experiment_that_another_run_has_just_made_is_taken(project, monkeypatch):
    logged(project, "first")
    plain, asked = mlflow.MlflowClient.get_experiment_by_name, []

    def late(client, name):
        asked.append(name)
        return None if len(asked) == 1 else plain(client, name)

    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", late)
    assert not logged(project, "second").is_broken
    assert asked == ["signs", "signs"]


@pytest.mark.parametrize(
    ("uri", "path"),
    [("sqlite:///a/b.db", "a/b.db"), ("sqlite:////a/b.db?x=1", "/a/b.db"), ("sqlite:///:memory:", None),
     ("sqlite://", None), ("http://host", None), ("/runs", None)],
)  # fmt: skip
def test_the_file_of_a_store(uri, path):
    assert sqlite_file(uri) == (None if path is None else Path(path))


def test_names_keep_what_mlflow_allows():
    assert key("metrics/mAP50-95") == "metrics/mAP50-95"
    assert key("metrics/mAP50(B)") == "metrics/mAP50_B_"


def test_names_that_mlflow_refuses_cost_no_other_metric(train_logged, project, caplog):
    bad = ["/recall", "a//b", "", "x" * 300, "a/../b", ".", "a/"]
    many = {f"many/{number}": 1.0 for number in range(1200)}
    mine = (
        "on_fit_epoch_end",
        lambda trainer: trainer.metrics.update({**dict.fromkeys(bad, 0.5), "my/b": 1, **many}),
    )
    seen = train_logged(mine, project=project, epochs=1)
    run = last_run(mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db"), "signs")
    assert run.info.status == "FINISHED" and run.data.metrics["my/b"] == 1.0
    assert {name for name in seen[0] if name not in bad} | {"many/1199"} <= run.data.metrics.keys()
    left_out = [line for line in caplog.messages if line.startswith("MLflow: the metric ")]
    assert len(left_out) == len(bad) - 1, "the one without a name is left out of all metrics"


def test_a_server_gets_the_whole_run(train_logged, tmp_path, server, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server[0])
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "street")
    monkeypatch.setenv("MLFLOW_RUN", "first")
    seen = train_logged()
    client = mlflow.MlflowClient()
    run = last_run(client, "street")
    check_run(client, run, seen)
    assert run.info.run_name == "first" and not (tmp_path / "mlflow.db").exists()
    assert capsys.readouterr().out == ""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


def test_a_server_that_dies_costs_one_warning(train_logged, server, monkeypatch, caplog):
    uri, process = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    logger = MLflowLogger()

    def die(trainer):
        if trainer.epoch == 1:
            kill(process)

    began = time.perf_counter()
    callbacks = [logger, ("on_train_epoch_start", die)]
    seen = train_logged(*callbacks, mlflow=False, epochs=3)
    assert len(seen) == 3 and time.perf_counter() - began < 60
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.getMessage().startswith(
        "MLflow failed and is left out of the rest of this run: MlflowException: API request to " + uri
    )
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


@pytest.mark.parametrize("name", ["a?b", "My%20Drive", "a#b & c"])
def test_the_address_of_a_store_names_its_folder_whatever_its_letters(name, tmp_path):
    from sqlalchemy import create_engine

    folder = tmp_path / name
    folder.mkdir()
    create_engine(sqlite_uri(folder / "mlflow.db")).connect().close()
    assert (folder / "mlflow.db").is_file() and list(tmp_path.iterdir()) == [folder]


@pytest.mark.slow
def test_a_store_in_a_folder_with_odd_letters_is_in_that_folder(train_logged, tmp_path):
    """Both letters that an address reads otherwise; a migration of a new store takes MLflow half a minute."""
    train_logged(project=tmp_path / "My%20Drive?" / "runs", epochs=1)
    found = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("mlflow.db")}
    assert found == {"My%20Drive?"}
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"My%20Drive?"}
    run = last_run(mlflow.MlflowClient(sqlite_uri(tmp_path / "My%20Drive?/runs/mlflow.db")), "detector")
    assert run.info.status == "FINISHED"
