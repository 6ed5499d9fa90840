"""Signals: they end a training in good order, wherever they arrive."""

import os
import pickle
import signal
from functools import partial

import pytest

from detector import YOLO
from detector.checkpoints.checkpoint import load_checkpoint
from detector.errors import CheckpointError, DetectorError
from detector.training.saving import STATE, RunSaver
from detector.training.signals import Interrupts, Terminated


@pytest.fixture
def train_tiny(train_tiny):
    """Train for one epoch."""
    return partial(train_tiny, epochs=1, optimizer="AdamW")


@pytest.fixture(autouse=True)
def terminal():
    """Let a closed terminal end this process, also where the tests themselves run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def send(number):
    os.kill(os.getpid(), number)


def test_a_signal_waits_for_the_end_of_a_deferred_block():
    done = []
    with Interrupts() as interrupts, pytest.raises(Terminated), interrupts.deferred():
        send(signal.SIGTERM)
        done.append("all")
    assert done == ["all"]


def test_the_same_signal_again_does_not_wait():
    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt), interrupts.deferred():
        send(signal.SIGINT)
        send(signal.SIGTERM)
        send(signal.SIGINT)
        send(signal.SIGINT)
        pytest.fail("continued")


def test_a_signal_that_python_swallows_is_raised_at_the_next_deferred_block(monkeypatch):
    monkeypatch.setattr("sys.unraisablehook", lambda _: None)

    class Noisy:
        def __del__(self):
            send(signal.SIGTERM)  # what is raised in here is lost

    with Interrupts() as interrupts:
        Noisy()
        with pytest.raises(Terminated), interrupts.deferred():
            pass


def test_a_signal_of_another_kind_waits_as_the_first_does():
    done = []
    with (
        Interrupts() as interrupts,
        pytest.raises(Terminated, match="SIGTERM") as caught,
        interrupts.deferred(),
    ):
        send(signal.SIGHUP)
        send(signal.SIGTERM)
        done.append("all")
    assert (done, caught.value.code) == (["all"], 143)


def test_a_closed_terminal_saves_as_sigterm_does(train_tiny, tmp_path, caplog):
    def close(trainer):
        if trainer.global_step == 3:
            for process in trainer.data.train_loader._feed._loader._iterator._workers:
                os.kill(process.pid, signal.SIGHUP)  # it goes to the whole group
            send(signal.SIGHUP)

    with pytest.raises(Terminated, match="SIGHUP") as caught:
        train_tiny(workers=1, callbacks=[("on_train_batch_end", close)], epochs=3)
    assert caught.value.code == 129
    state = load_checkpoint(tmp_path / "train" / STATE)
    assert state["counters"]["global_step"] == 3
    assert "the run ends by terminated (SIGHUP)" in caplog.text


@pytest.mark.parametrize("event", ["on_train_batch_end", "on_model_save", "on_fit_epoch_end"])
def test_a_worker_that_is_killed_is_the_reason_and_costs_no_step(train_tiny, tmp_path, event):
    def kill(trainer):
        if trainer.epoch == 1:
            process = trainer.data.train_loader._feed._loader._iterator._workers[0]
            os.kill(process.pid, signal.SIGKILL)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            trainer.save_checkpoint(tmp_path / "mine.pt")  # where torch raises its error, unless it waits

    with pytest.raises(
        DetectorError, match=r"a process that loads images was killed from outside .*fewer workers="
    ):
        train_tiny(workers=1, callbacks=[(event, kill)], epochs=3)
    state = load_checkpoint(tmp_path / "train" / STATE)
    assert state["counters"]["global_step"] == {"on_train_batch_end": 3}.get(event, 4)


def test_validation_names_a_killed_worker_too(train_tiny, drawn_dataset, tmp_path):
    def die(validator):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    yolo = train_tiny()
    with pytest.raises(
        DetectorError, match=r"killed from outside \(DataLoader worker \(pid 7\) .*Killed\), as"
    ):
        yolo.val(
            data=drawn_dataset, workers=0, project=tmp_path, plots=False, callbacks=[("on_val_start", die)]
        )


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a job that a shell put into the background
    try:
        with Interrupts():
            send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("event", ["on_train_end", "on_exception", "teardown"])
def test_a_signal_at_the_end_still_tears_down(train_tiny, event, tiny_model, tmp_path, caplog):
    seen = []
    yolo = YOLO(tiny_model)
    yolo.add_callback(event, lambda _: send(signal.SIGTERM))
    yolo.add_callback("teardown", lambda _: seen.append("teardown"))
    if event == "on_exception":
        yolo.add_callback("on_train_batch_end", lambda _: send(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt if event == "on_exception" else Terminated):
        train_tiny(model=yolo)
    assert seen == ["teardown"]
    finished = load_checkpoint(tmp_path / "train" / STATE)["finished"]
    assert finished == (event == "teardown")
    assert ("continues it" in caplog.text) == (event != "teardown")


def test_a_signal_in_the_last_save_leaves_a_finished_run(
    train_tiny, tiny_model, tmp_path, caplog, monkeypatch
):
    save_state = RunSaver.save_state

    def save_and_signal(saver, state):
        if state["finished"]:
            send(signal.SIGTERM)
        save_state(saver, state)

    monkeypatch.setattr(RunSaver, "save_state", save_and_signal)
    with pytest.raises(Terminated):
        train_tiny()
    assert load_checkpoint(tmp_path / "train" / STATE)["finished"]
    assert "continues it" not in caplog.text
    with pytest.raises(CheckpointError, match="is complete after 1 epochs"):
        YOLO(tiny_model).train(resume=tmp_path / "train")


def test_workers_that_are_signalled_too_do_not_disturb_the_end(train_tiny, tmp_path):
    """Service managers send SIGTERM to every process of a job; within a save, here."""

    def end_all(trainer):
        workers = trainer.data.train_loader._feed._loader._iterator._workers
        for process in workers:
            os.kill(process.pid, signal.SIGTERM)
        for process in workers:
            process.join(10)
        assert not any(process.is_alive() for process in workers)
        send(signal.SIGTERM)

    with pytest.raises(Terminated):
        train_tiny(workers=2, callbacks=[("on_model_save", end_all)], epochs=2)
    assert load_checkpoint(tmp_path / "train" / STATE)["epoch"] == 0


def test_a_signal_is_the_same_one_in_another_process():
    found = pickle.loads(pickle.dumps(Terminated(signal.SIGHUP)))
    assert (found.number, found.code) == (signal.SIGHUP, 129)
