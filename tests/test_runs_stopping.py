import threading
import time

import pytest
from support.runs import write_run

from detector.cli import main
from detector.errors import DataError, SettingsError
from detector.runs.record import read_run
from detector.runs.stopping import request_stop, stop_run


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_a_run_that_has_ended_can_not_be_stopped(tmp_path, state):
    folder = write_run(tmp_path / "a", state=state, stop_reason="Ctrl-C")
    with pytest.raises(SettingsError, match=f"does not run: {state}, Ctrl-C; there is nothing to stop"):
        request_stop(folder)
    assert not (folder / "STOP").exists()


def test_the_file_is_made_and_is_not_written_through_a_link(tmp_path):
    folder, mine = write_run(tmp_path / "a", state="running"), tmp_path / "mine"
    request_stop(folder)
    assert (folder / "STOP").read_bytes() == b""
    request_stop(folder)  # again
    (folder / "STOP").unlink()
    (folder / "STOP").symlink_to(mine)
    with pytest.raises(SettingsError, match="can't write"):
        request_stop(folder)
    assert not mine.exists()


def test_a_run_that_does_not_notice_is_said(tmp_path):
    folder = write_run(tmp_path / "a", state="running", epoch=1, epochs=9)
    assert "not noticed within 0.01 s" in stop_run(folder, 0.01)
    assert stop_run(folder, 0).endswith("it ends after the current batch; 1 of 9 epochs are done")


def test_a_run_that_notices_is_said(tmp_path):
    folder = write_run(tmp_path / "a", state="running", epoch=1, epochs=9)

    def notice():
        while not (folder / "STOP").exists():
            time.sleep(0.01)
        (folder / "STOP").unlink()

    thread = threading.Thread(target=notice)
    thread.start()
    assert stop_run(folder, 10) == f"{folder}: stops; it validates and saves now, 1 of 9 epochs are done"
    thread.join()


def test_a_training_is_stopped_from_the_command_line(train_tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("detector.callbacks.builtin.run_status.LOOK_EVERY", 0.0)
    codes = []

    def ask(trainer):
        if trainer.epoch == 1:
            codes.append(main(["stop", str(trainer.save_dir), "wait=0"]))

    train_tiny(("on_train_epoch_start", ask), epochs=9)
    assert codes == [0] and "1 of 9 epochs are done" in capsys.readouterr().out
    run = read_run(tmp_path / "train")
    assert (run.state, run.status["stop_reason"], run.status["epoch"]) == ("stopped", "STOP file", 2)
    assert main(["stop", str(tmp_path / "train")]) == 2
    assert "does not run: stopped, STOP file" in capsys.readouterr().err


def test_what_is_no_run_is_said(tmp_path, capsys):
    with pytest.raises(DataError, match=r"has no status.json; expected a folder that a training wrote"):
        stop_run(tmp_path, 0)
    assert main(["stop"]) == 2
    assert capsys.readouterr().err == "error: stop: no run was given, such as detector stop runs/train\n"
