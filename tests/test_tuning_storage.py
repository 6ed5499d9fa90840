import subprocess
import sys

import optuna
import pytest

from detector.cli import main
from detector.errors import MissingPackageError, SettingsError, TrainingError
from detector.tuning import storage as storages
from detector.tuning.storage import (
    close_storage,
    mask_storage,
    open_storage,
    storage_failures,
    without_password,
)

URL = "postgresql+psycopg://anna:s3cr%40t@127.0.0.1:9/studies?sslmode=disable"


def test_what_is_shown_of_a_url_is_no_way_in():
    assert mask_storage(URL) == "postgresql+psycopg://***@127.0.0.1:9/studies?***"
    assert mask_storage("shared/study.log") == "shared/study.log"
    assert without_password(f"at {URL}: user anna, password s3cr@t or s3cr%40t", URL) == (
        f"at {mask_storage(URL)}: user anna, password *** or ***"
    )


def test_a_server_that_does_not_answer_is_named_without_the_password(tmp_path):
    with pytest.raises(
        SettingsError, match=r"storage=postgresql\+psycopg://\*\*\*@127.*can't be opened"
    ) as caught:
        open_storage(URL, tmp_path, 60)
    assert "s3cr" not in str(caught.value) and caught.value.__suppress_context__
    with pytest.raises(
        SettingsError, match=r"storage=mariadbb://\*\*\*@host/db: expected the path of a journal file"
    ):
        open_storage("mariadbb://anna:s3cret@host/db", tmp_path, 60)
    with pytest.raises(MissingPackageError, match="needs the database's driver") as missing:
        open_storage("mysql+pyodbc://anna:s3cret@host/db", tmp_path, 60)
    assert "s3cret" not in str(missing.value)


def test_other_files_are_no_storages(tmp_path):
    with pytest.raises(SettingsError, match=r"a SQLite file is given as storage=sqlite:///study\.db"):
        open_storage("study.db", tmp_path, 60)
    path = tmp_path / "notes.txt"
    path.write_text("not a journal\nat all\n")
    with pytest.raises(SettingsError, match="is not a journal file of Optuna"):
        open_storage(str(path), tmp_path, 60)
    (tmp_path / "study.db").write_text("x" * 2000)
    with pytest.raises(SettingsError, match="can't be opened"):
        open_storage(None, tmp_path, 60)


def test_a_database_that_fails_later_is_one_sentence_without_the_password():
    text = r"the storage of the study failed \(mysql://\*\*\*@h/d: .*\*\*\*"
    with pytest.raises(TrainingError, match=text) as caught, storage_failures("mysql://anna:s3cret@h/d"):
        raise optuna.exceptions.StorageInternalError("lost the connection of anna with s3cret")
    assert "s3cret" not in str(caught.value)


def test_one_of_two_processes_gets_a_trial_that_waits_in_a_sqlite_file(tmp_path, monkeypatch):
    monkeypatch.setattr(storages, "LOCK_SECONDS", 0)
    first, second = open_storage(None, tmp_path, 60), open_storage(None, tmp_path, 60)
    study = optuna.create_study(storage=first)
    study.enqueue_trial({"x": 1})
    number, running = study.get_trials()[0]._trial_id, optuna.trial.TrialState.RUNNING
    with first.engine.begin() as connection:
        connection.exec_driver_sql("SELECT state FROM trials")  # it has only read so far, and may write next
        with pytest.raises(optuna.exceptions.StorageInternalError):
            second.set_trial_state_values(number, running)
    assert first.set_trial_state_values(number, running)
    assert not second.set_trial_state_values(number, running)
    close_storage(first)
    close_storage(second)


def test_an_error_on_the_command_line_shows_no_password(capsys):
    assert main(["tune", "data=none.yaml", "--storage", "postgresql://anna:s3cret@host/db"]) == 2
    assert "postgresql://***@host/db" in (err := capsys.readouterr().err) and "s3cret" not in err


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(storages, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'detector\[tune\]'"):
        storages.require_optuna()


def test_a_command_line_loads_optuna_only_to_tune():
    loaded = "sys.exit('optuna' in sys.modules or 'torch' in sys.modules)"
    code = f"import sys, detector.cli as c; c.main(['tune', '--help']); {loaded}"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == 0
