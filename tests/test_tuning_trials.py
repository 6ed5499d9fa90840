"""Which trial is run next; and processes that are killed while they share a study."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from detector.tuning.storage import close_storage, has_heartbeat, no_experimental_warnings, open_storage
from detector.tuning.trials import Attempts, ProcessMark, slots_of, state_of

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study():
    return optuna.create_study(direction="maximize")


@pytest.fixture
def attempts(study, tmp_path):
    return Attempts(study, 2, ProcessMark(tmp_path), silence=0.0, has_heartbeat=False)


def begin(study, **attributes):
    """Begin a trial, as another process does."""
    trial = study.ask()
    trial.suggest_float("lr0", 0, 1)
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
    return trial


def test_a_trial_without_signs_of_life_is_repeated_with_its_settings(study, attempts):
    trial = begin(study, host="elsewhere", process="a" * 32, alive=1)
    assert attempts.left() == "some"  # the first look only notes its sign of life
    trial.set_user_attr("alive", 2)
    attempts.left()
    assert [state_of(one) for one in study.trials] == ["running"]
    attempts.left()
    assert [state_of(one) for one in study.trials] == ["interrupted", "waiting"]
    assert study.trials[1].params == trial.params
    with no_experimental_warnings():
        assert optuna.storages.RetryHeartbeatStaleTrialCallback.retried_trial_number(study.trials[1]) == 0
    again = study.ask()
    assert again.number == 1 and attempts.is_needed(1) and attempts.slot_of(1) == 0


def test_in_a_database_optunas_heartbeat_says_which_trial_of_another_machine_is_dead(tmp_path):
    storage = open_storage(None, tmp_path, 60)
    study = optuna.create_study(storage=storage)
    attempts = Attempts(study, 2, ProcessMark(tmp_path), silence=0.0, has_heartbeat=has_heartbeat(storage))
    with pytest.warns(UserWarning, match="Heartbeat of storage is supposed to be used with Study.optimize"):
        trial = begin(study, host="elsewhere", process="a" * 32)
    storage.record_heartbeat(trial._trial_id)
    for _ in range(3):
        attempts.left()
    assert [state_of(one) for one in study.trials] == ["running"]
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")
    attempts.left()
    assert [state_of(one) for one in study.trials] == ["interrupted", "waiting"]
    close_storage(storage)


def test_a_process_of_this_machine_that_has_ended_is_known_at_once(study, tmp_path):
    attempts = Attempts(study, 2, ProcessMark(tmp_path), silence=1e6, has_heartbeat=True)
    with ProcessMark(tmp_path) as other:
        trial = begin(study, host=socket.gethostname(), process=other.token)
        attempts.left()
        assert [state_of(one) for one in study.trials] == ["running"]
        os.link(other._path(other.token), tmp_path / "kept")
    os.link(
        tmp_path / "kept", other._path(other.token)
    )  # as after SIGKILL: the file stays, the lock does not
    attempts.left()
    assert [state_of(one) for one in study.trials] == ["interrupted", "waiting"]
    assert study.trials[1].params == trial.params


@pytest.mark.parametrize("token", ["../../x", "", None, 3, "A" * 32])
def test_what_a_storage_says_of_a_process_is_no_path(token, tmp_path):
    assert not ProcessMark(tmp_path).knows_as_ended(socket.gethostname(), token)


def test_a_trial_that_failed_is_not_repeated_but_one_that_was_stopped_is(study, attempts):
    study.tell(begin(study, error="TrainingError: non-finite"), state=TrialState.FAIL)
    study.tell(begin(study, stopped=True), state=TrialState.FAIL)
    assert attempts.left() == "some"
    assert [state_of(one) for one in study.trials] == ["failed", "interrupted", "waiting"]
    study.tell(study.ask(), 0.5)
    assert attempts.left() == "none"


def test_a_trial_whose_process_dies_three_times_is_left_out(study, attempts):
    study.tell(begin(study, error="x"), state=TrialState.FAIL)
    for _ in range(3):
        assert attempts.left() == "some"
        study.tell(begin(study), state=TrialState.FAIL)
    assert attempts.left() == "none"
    assert [len(slot) for slot in slots_of(study.trials).values()] == [1, 3]


def test_what_two_processes_begin_at_once_is_run_once(study, attempts):
    for trial in (begin(study), begin(study), begin(study)):
        assert attempts.is_needed(trial.number) == (trial.number < 2)
    study.tell(0, state=TrialState.FAIL)
    attempts.repeat_interrupted()
    study.add_trial(study.get_trials()[-1])  # the same by another process
    assert [study.ask().number, study.ask().number] == [3, 4]
    assert attempts.is_needed(3) and not attempts.is_needed(4)


def test_the_last_trials_may_run_elsewhere(study, tmp_path):
    attempts = Attempts(study, 1, ProcessMark(tmp_path), silence=60.0, has_heartbeat=False)
    trial = begin(study, host="elsewhere", process="a" * 32)
    assert attempts.left() == "elsewhere" and [one.number for one in attempts.running()] == [0]
    study.tell(trial, 0.1)
    assert attempts.left() == "none"


def kill_and_resume(folder, storage, trials=3, kills=2):
    """Run a study in two processes that are killed, in a process of its own: the test runner's is not to be forked."""
    words = [folder / "study", "--storage", storage, "--trials", trials, "--kills", kills]
    command = [sys.executable, "-W", "error", "-m", "tests.support.studies", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 of" not in done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_two_processes_that_are_killed_lose_no_trial_and_double_none(storage, tmp_path):
    kill_and_resume(tmp_path, storage)


@pytest.fixture
def postgres():
    """URL of a PostgreSQL server on loopback that ends with the test."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:] or [Path(shutil.which("initdb")).parent]
    account = {"user": "postgres"} if os.getuid() == 0 else {}  # it does not run as root
    with socket.socket() as free, tempfile.TemporaryDirectory() as name:
        free.bind(("127.0.0.1", 0))
        port, folder = free.getsockname()[1], Path(name)
        free.close()
        (folder / "password").write_text("s3cr3t")
        if account:
            shutil.chown(folder, "postgres")
            shutil.chown(folder / "password", "postgres")

        def call(program, *words):
            command = [programs[0] / program, "-D", folder / "data", *words]
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, **account)

        call("initdb", "-U", "tuner", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"
        call("pg_ctl", "-w", "-l", folder / "log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://tuner:s3cr3t@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")


@pytest.mark.postgres
def test_the_same_on_a_postgresql_server(postgres, tmp_path):
    kill_and_resume(tmp_path, postgres, trials=8, kills=6)
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert texts and not any(b"s3cr3t" in text for text in texts)
