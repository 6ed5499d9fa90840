import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from detector import YOLO
from detector.engine.run_folder import RunLock, make_run_folder
from detector.errors import DataError, SettingsError


def test_folders_are_numbered(tmp_path):
    names = [make_run_folder(tmp_path, "train", exist_ok=False).name for _ in range(3)]
    assert names == ["train", "train-2", "train-3"]


def test_exist_ok_reuses(tmp_path):
    assert [make_run_folder(tmp_path, "train", exist_ok=True).name for _ in range(2)] == ["train", "train"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(SettingsError, match="project="):
        make_run_folder(tmp_path / "runs", "train", exist_ok=False)


TRAINING = """
import sys
from pathlib import Path
from detector.engine.run_folder import RunLock

lock = RunLock(Path(sys.argv[1]))
print("trains", flush=True)
sys.stdin.read()
"""


def test_one_process_trains_in_a_folder_at_a_time(tmp_path):
    command = [sys.executable, "-c", TRAINING, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"trains\n"
        with pytest.raises(SettingsError, match=r"another training runs in .*; wait until it has ended"):
            RunLock(tmp_path)
        other.kill()  # without a word of good-bye
    lock = RunLock(tmp_path)
    lock.release()
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_one_thread_trains_in_a_folder_at_a_time(tmp_path):
    lock = RunLock(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(SettingsError, match="another training runs in"):
            pool.submit(RunLock, tmp_path).result()
        lock.release()
        pool.submit(RunLock, tmp_path).result().release()


def test_a_callback_that_copies_its_run_folder_leaves_it_locked(train_tiny, tmp_path):
    refused = []

    def copy(trainer):
        shutil.copytree(trainer.save_dir, tmp_path / "copy")
        with subprocess.Popen(
            [sys.executable, "-c", TRAINING, trainer.save_dir],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as other:
            refused.append(b"another training runs in" in other.stderr.read())

    train_tiny(("on_train_start", copy), epochs=1)
    assert refused == [True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_lock_ends_with_its_training_whatever_it_forked(tmp_path):
    lock = RunLock(tmp_path)
    ready, begun = os.pipe()
    waiting, end = os.pipe()
    if (child := os.fork()) == 0:  # as a worker of the loader, which may outlive a training that is killed
        os.close(end)
        os.write(begun, b"x")
        os.read(waiting, 1)
        os._exit(0)
    try:
        os.read(ready, 1)
        lock.close()  # as the system does when the process is killed
        RunLock(tmp_path).release()
    finally:
        for descriptor in (ready, begun, waiting, end):
            os.close(descriptor)
        os.waitpid(child, 0)


def test_a_lock_file_that_its_owner_has_just_removed_is_not_taken_for_one(tmp_path, monkeypatch):
    first, opened = RunLock(tmp_path), []
    plain_open = Path.open

    def open_late(path, *rest):
        file = plain_open(path, *rest)
        if path.name == "run.lock" and not opened:
            opened.append(file)
            first.release()  # between opening and locking
        return file

    monkeypatch.setattr(Path, "open", open_late)
    second = RunLock(tmp_path)
    with pytest.raises(SettingsError, match="another training runs in"):
        RunLock(tmp_path)
    second.release()


def test_a_second_training_leaves_the_folder_of_the_first_alone(tmp_path, drawn_dataset, tiny_model):
    """Even where the first has written nothing but its settings."""
    folder = tmp_path / "train"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(SettingsError, match="another training runs in"):
            YOLO(tiny_model).train(data=drawn_dataset, project=tmp_path, exist_ok=True, device="cpu")
        assert sorted(path.name for path in folder.iterdir()) == ["run.lock", "weights"]
        other.kill()


@pytest.mark.parametrize("before", [[], ["args.yaml"], ["night/"], ["args.yaml", "data/images/"]])
def test_a_training_that_fails_in_its_set_up_deletes_nothing_that_was_there(before, tiny_model, tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    for name in before:
        if name.endswith("/"):
            (folder / name).mkdir(parents=True)
        else:
            (folder / name).write_text("epochs: 300")
    with pytest.raises(DataError):
        YOLO(tiny_model).train(data=tmp_path / "no.yaml", project=tmp_path, exist_ok=True, device="cpu")
    assert folder.is_dir() and all((folder / name).exists() for name in before)
    assert "args.yaml" not in before or (folder / "args.yaml").read_text() == "epochs: 300"


def test_a_training_that_fails_in_its_set_up_leaves_no_folder_of_its_own(tiny_model, tmp_path):
    with pytest.raises(DataError):
        YOLO(tiny_model).train(data=tmp_path / "no.yaml", project=tmp_path, name="x", device="cpu")
    assert not (tmp_path / "x").exists()


def test_a_run_that_can_not_be_resumed_keeps_its_args(train_tiny, tiny_model, drawn_dataset, tmp_path):
    train_tiny(epochs=1)
    args = tmp_path / "train/args.yaml"
    text = args.read_text()
    with pytest.raises(SettingsError):
        YOLO(tiny_model).train(resume=tmp_path / "train", epochs=2, imgsz=96)
    with pytest.raises(DataError):
        YOLO(tiny_model).train(resume=tmp_path / "train", epochs=2, data=tmp_path / "no.yaml")
    assert args.read_text() == text


def test_what_killed_trainings_left_is_removed(tmp_path):
    (tmp_path / "weights").mkdir()
    mine = ["weights/notes.tmp", "weights/best.pt", "export.tmp", "notes.2024.tmp"]
    for name in [*mine, "weights/state.pt.123.tmp", "args.yaml.7.tmp"]:
        (tmp_path / name).touch()
    RunLock(tmp_path).release()
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(mine)


@pytest.mark.parametrize("missing", ["fcntl", "support"])
def test_where_there_are_no_locks_a_training_continues(tmp_path, monkeypatch, caplog, missing):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    if missing == "fcntl":
        monkeypatch.setattr("detector.engine.run_folder.sys.platform", "win32")
    else:
        monkeypatch.setattr("fcntl.flock", unsupported)
    RunLock(tmp_path).release()
    assert ("can't be locked ([Errno" in caplog.text) == (missing == "support")


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("what", ["weights", "run.lock", "args.yaml"])
def test_a_folder_that_cant_be_written_is_one_sentence(
    what, code, tmp_path, drawn_dataset, tiny_model, monkeypatch
):
    def refusing(function):
        def ask(path, *rest, **options):
            if path.name.startswith(what):
                raise OSError(code, os.strerror(code))
            return function(path, *rest, **options)

        return ask

    monkeypatch.setattr(Path, "mkdir", refusing(Path.mkdir))
    monkeypatch.setattr(Path, "open", refusing(Path.open))
    message = rf"can't write to .*train \({os.strerror(code)}\); .*another project="
    with pytest.raises(SettingsError, match=message) as caught:
        YOLO(tiny_model).train(data=drawn_dataset, project=tmp_path, device="cpu")
    assert "\n" not in str(caught.value)
    assert ("free some space" in str(caught.value)) == (code == errno.ENOSPC)
