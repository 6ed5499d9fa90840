"""A run that ended early is resumed and ends as one that did not."""

import csv
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from support.models import write_tiny
from support.training import quick_settings

from detector import YOLO
from detector.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from detector.errors import CheckpointError, DataError, SettingsError
from detector.training.resume import RunState, find_run

QUICK = quick_settings(epochs=3, close_mosaic=1)


@pytest.fixture(scope="module")
def left_alone(drawn_dataset, tmp_path_factory):
    """Give the folder of a training that nothing happened to; each is done once."""
    done = {}

    def train(dual=False, **settings):
        key = str((dual, sorted(settings.items())))
        if key not in done:
            folder = tmp_path_factory.mktemp("whole")
            tiny = write_tiny(folder / "tiny.yaml", dual)
            YOLO(tiny).train(**(QUICK | {"data": drawn_dataset, "project": folder} | settings))
            done[key] = folder / "train"
        return done[key]

    return train


class Counting:
    """A callback with state."""

    def __init__(self):
        self.epochs = []

    def on_fit_epoch_end(self, trainer):
        self.epochs.append(trainer.epoch)

    def state_dict(self):
        return {"epochs": self.epochs}

    def load_state_dict(self, state):
        self.epochs = list(state["epochs"])


def killed_after(yolo, epoch, **settings):
    """Train until an exception in the middle of the epoch that follows."""

    def die(trainer):
        if trainer.epoch == epoch + 1 and trainer.batch_index == 1:
            raise KeyError("killed")

    with pytest.raises(KeyError, match="killed"):
        yolo.train(callbacks=[("on_train_batch_end", die)], **settings)


def rows(folder):
    """results.csv without what differs from run to run: time and speed."""
    with (folder / "results.csv").open() as file:
        return [
            {k: v for k, v in row.items() if k != "time" and not k.startswith("speed/")}
            for row in csv.DictReader(file)
        ]


def assert_equal_weights(one, other):
    one, other = load_checkpoint(one), load_checkpoint(other)
    assert one["epoch"] == other["epoch"]
    assert all(torch.equal(value, other["weights"][key]) for key, value in one["weights"].items())


def assert_equal_runs(one, other):
    """Weights, averages, optimizer, counters and metrics are the same to the last bit."""
    for name in ("last.pt", "best.pt"):
        assert_equal_weights(one / "weights" / name, other / "weights" / name)
    assert digest(state(one)) == digest(state(other))
    assert rows(one) == rows(other)


def state(folder):
    """What the run would resume from, without clocks."""
    content = load_checkpoint(folder / "weights/state.pt")
    keys = ("weights", "ema", "ema_updates", "optimizer", "grads", "counters", "epoch", "batches", "schedule")
    return {key: content[key] for key in keys}


def digest(value):
    """Return the value with the bytes of every tensor."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: digest(part) for key, part in value.items()}
    return [digest(part) for part in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize(("model", "optimizer"), [("tiny_model", "AdamW"), ("tiny_dual_model", "MuSGD")])
def test_a_resumed_run_ends_bit_identical(model, optimizer, left_alone, drawn_dataset, tmp_path, request):
    whole = left_alone(dual=model == "tiny_dual_model", optimizer=optimizer)
    model = request.getfixturevalue(model)
    settings = QUICK | {"data": drawn_dataset, "optimizer": optimizer}
    killed_after(YOLO(model), 1, project=tmp_path / "killed", **settings)
    YOLO(model).train(resume=tmp_path / "killed/train")
    assert_equal_runs(whole, tmp_path / "killed/train")


@pytest.mark.parametrize(
    ("event", "settings"),
    [
        ("on_train_batch_start", {}),
        ("optimizer_step", {"workers": 2}),
        ("on_train_batch_end", {"nbs": 12, "batch": 2, "cache": "ram"}),  # with gradients that wait
        (
            "on_train_batch_start",
            {"copy_paste": 0.5, "cutmix": 0.5, "balance": 0.9, "batch": 2, "workers": 2},
        ),
        ("on_train_epoch_end", {}),
        ("on_val_batch_end", {}),
        ("on_fit_epoch_end", {}),
        ("on_model_save", {}),
    ],
)
def test_an_interrupt_at_any_event_loses_nothing(
    event, settings, left_alone, tiny_model, drawn_dataset, tmp_path, caplog
):
    whole = left_alone(**settings)
    settings = QUICK | {"data": drawn_dataset} | settings
    calls = []

    def interrupt(_):
        calls.append(event)
        if len(calls) == (3 if "batch" in event or "step" in event else 2):
            os.kill(os.getpid(), signal.SIGINT)

    killed = YOLO(tiny_model)
    killed.add_callback(Counting())
    with pytest.raises(KeyboardInterrupt):
        killed.train(callbacks=[(event, interrupt)], project=tmp_path / "killed", **settings)
    assert f"resume={tmp_path}/killed/train continues it" in caplog.text
    again, counted = YOLO(tiny_model), Counting()
    again.add_callback(counted)
    again.train(resume=tmp_path / "killed/train")
    assert_equal_runs(whole, tmp_path / "killed/train")
    assert counted.epochs == [0, 1, 2]


def test_a_long_epoch_is_saved_within(left_alone, tiny_model, drawn_dataset, tmp_path):
    whole = left_alone(epochs=2, batch=2)
    settings = QUICK | {"data": drawn_dataset, "epochs": 2, "batch": 2}
    folder, copy = tmp_path / "killed/train", tmp_path / "copy/train"

    def take_a_copy(trainer):
        if trainer.epoch == 1 and trainer.batch_index == 2:
            shutil.copytree(folder, copy)  # as a power cut would leave it

    YOLO(tiny_model).train(
        project=tmp_path / "killed",
        save_minutes=1e-9,
        callbacks=[("on_train_batch_start", take_a_copy)],
        **settings,
    )
    found = load_checkpoint(copy / "weights/state.pt")
    assert (found["epoch"], found["batches"]) == (0, 2)
    YOLO(tiny_model).train(resume=copy)
    assert_equal_runs(whole, copy)


def test_a_run_killed_in_its_final_evaluation_finishes(tiny_model, drawn_dataset, tmp_path):
    settings = QUICK | {"data": drawn_dataset, "epochs": 2}

    def die(_):
        raise KeyError("killed")

    with pytest.raises(KeyError):
        YOLO(tiny_model).train(project=tmp_path, callbacks=[("on_final_eval_end", die)], **settings)
    seen = []
    yolo = YOLO(tiny_model)
    yolo.add_callback("on_train_batch_start", lambda trainer: seen.append("batch"))
    yolo.add_callback("on_train_end", lambda trainer: seen.append("end"))
    assert yolo.train(resume=True, project=tmp_path) is not None
    assert seen == ["end"]
    with pytest.raises(CheckpointError, match="there is no unfinished run in"):
        YOLO(tiny_model).train(resume=True, project=tmp_path)


def test_a_damaged_state_is_found_and_the_previous_one_used(
    left_alone, tiny_model, drawn_dataset, tmp_path, caplog
):
    settings = QUICK | {"data": drawn_dataset}
    killed_after(YOLO(tiny_model), 1, project=tmp_path, **settings)
    file = tmp_path / "train/weights/state.pt"
    file.write_bytes(file.read_bytes()[:-1000])
    YOLO(tiny_model).train(resume=tmp_path / "train")
    assert "state.pt: is damaged: cut short" in caplog.text
    assert "continues from the previous state, the end of epoch 2" in caplog.text
    assert_equal_runs(left_alone(), tmp_path / "train")
    assert not (tmp_path / "train/weights/state-previous.pt").exists()


def test_random_states_come_back(tiny_model, drawn_dataset, tmp_path):
    drawn = {"whole": [], "killed": []}

    def draw(into):
        return lambda _: into.append((random.random(), np.random.rand(), torch.rand(1).item()))

    settings = QUICK | {"data": drawn_dataset}
    for name, into in drawn.items():
        seed_everything()
        yolo = YOLO(tiny_model)
        yolo.add_callback("on_train_batch_end", draw(into))
        if name == "whole":
            yolo.train(project=tmp_path / name, **settings)
        else:
            killed_after(yolo, 0, project=tmp_path / name, **settings)
    seed_everything(5)
    again = YOLO(tiny_model)
    again.add_callback("on_train_batch_end", draw(drawn["killed"]))
    again.train(resume=tmp_path / "killed/train")
    assert drawn["killed"] == drawn["whole"]


def seed_everything(seed=0):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def test_callbacks_get_their_state_back(tiny_model, drawn_dataset, tmp_path, caplog):
    settings = QUICK | {"data": drawn_dataset, "project": tmp_path}
    yolo = YOLO(tiny_model)
    yolo.add_callback(Counting())
    killed_after(yolo, 1, **settings)
    again, counting = YOLO(tiny_model), Counting()
    again.add_callback(counting)
    again.train(resume=True, project=tmp_path)
    assert counting.epochs == [0, 1, 2]
    assert "starts from scratch" not in caplog.text


def test_a_callback_that_is_missing_is_warned_of(tiny_model, drawn_dataset, tmp_path, caplog):
    yolo = YOLO(tiny_model)
    yolo.add_callback(Counting())
    killed_after(yolo, 1, data=drawn_dataset, project=tmp_path, **QUICK)
    YOLO(tiny_model).train(resume=True, project=tmp_path)
    assert "holds the state of a callback Counting, but none is registered now" in caplog.text


def test_a_finished_run_is_resumed_when_epochs_are_raised(tiny_model, drawn_dataset, tmp_path):
    YOLO(tiny_model).train(data=drawn_dataset, project=tmp_path, **(QUICK | {"epochs": 1}))
    folder = tmp_path / "train"
    with pytest.raises(
        CheckpointError, match="is complete after 1 epochs; give more to continue, such as epochs=2"
    ):
        YOLO(tiny_model).train(resume=folder)
    YOLO(tiny_model).train(resume=folder, epochs=2)
    assert [row["epoch"] for row in rows(folder)] == ["1", "2"]


def test_a_launcher_that_restarts_a_finished_run_ends_it_once_more(
    tiny_model, drawn_dataset, tmp_path, monkeypatch
):
    metrics = YOLO(tiny_model).train(data=drawn_dataset, project=tmp_path, **(QUICK | {"epochs": 1}))
    weights = [(tmp_path / "train/weights" / name).read_bytes() for name in ("best.pt", "last.pt")]
    complete = RunState.complete
    monkeypatch.setattr(RunState, "complete", lambda run, settings, _: complete(run, settings, True))
    again = YOLO(tiny_model).train(resume=tmp_path / "train")
    assert again.results_dict == metrics.results_dict
    assert [(tmp_path / "train/weights" / name).read_bytes() for name in ("best.pt", "last.pt")] == weights
    assert [row["epoch"] for row in rows(tmp_path / "train")] == ["1"]


def test_a_change_that_makes_it_another_run_is_refused(tiny_model, drawn_dataset, tmp_path, caplog):
    YOLO(tiny_model).train(data=drawn_dataset, project=tmp_path, **(QUICK | {"epochs": 1}))
    folder = tmp_path / "train"
    with pytest.raises(SettingsError) as caught:
        YOLO(tiny_model).train(resume=folder, epochs=2, imgsz=96, lr0=0.1)
    advice = f"leave it out to resume, start a new run, or give resume=force:{folder}"
    assert str(caught.value).splitlines() == [
        f"imgsz=96: the run in {folder} has imgsz=64; {advice}",
        f"lr0=0.1: the run in {folder} has lr0=none; {advice}",
    ]
    YOLO(tiny_model).train(resume=f"force:{folder}", epochs=2, lr0=0.1)
    assert f"lr0=0.1: the run in {folder} has lr0=none; the run continues with the new value" in caplog.text
    assert [row["epoch"] for row in rows(folder)] == ["1", "2"]


def test_other_data_is_refused(tiny_model, drawn_dataset, tmp_path, caplog):
    data = tmp_path / "data"
    shutil.copytree(Path(drawn_dataset).parent, data)
    settings = QUICK | {"data": data / Path(drawn_dataset).name, "project": tmp_path}
    killed_after(YOLO(tiny_model), 0, **settings)
    label = next(data.rglob("labels/train/*.txt"))
    label.write_text(label.read_text().replace("0.", "0.0", 1))
    with pytest.raises(DataError, match=r"train: \d+ images .*, or other file names.*resume=force:"):
        YOLO(tiny_model).train(resume=tmp_path / "train")
    YOLO(tiny_model).train(resume="force", project=tmp_path)
    assert "the run continues, but its results will differ from the original run" in caplog.text


def test_a_data_set_may_move(tiny_model, drawn_dataset, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(Path(drawn_dataset).parent, data)
    killed_after(YOLO(tiny_model), 0, data=data / Path(drawn_dataset).name, project=tmp_path, **QUICK)
    data.rename(tmp_path / "moved")
    YOLO(tiny_model).train(resume=tmp_path / "train", data=tmp_path / "moved" / Path(drawn_dataset).name)
    assert len(rows(tmp_path / "train")) == 3


def test_resuming_what_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="there is no unfinished run in"):
        find_run(True, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"resume=.*nowhere.*state.pt does not exist; expected a run folder"
    ):
        find_run(tmp_path / "nowhere", tmp_path)


def test_settings_are_in_the_state_alone(left_alone, tiny_model, drawn_dataset, tmp_path):
    """args.yaml is for people."""
    killed_after(YOLO(tiny_model), 0, data=drawn_dataset, project=tmp_path, **QUICK)
    (tmp_path / "train/args.yaml").unlink()
    (tmp_path / "train/results.csv").unlink()
    YOLO(tiny_model).train(resume=tmp_path / "train")
    assert_equal_runs(left_alone(), tmp_path / "train")
    assert (tmp_path / "train/args.yaml").exists()


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_weights_that_could_not_be_written_are_not_lost(
    name, left_alone, tiny_model, drawn_dataset, tmp_path, monkeypatch
):
    """The disk is full at one file only, and not a moment later, when the exception saves the state."""

    def save(path, content, keep=None):
        if path.name == name and content["epoch"] == 0:
            monkeypatch.undo()
            raise CheckpointError(f"can't write {path}: No space left on device")
        save_checkpoint(path, content, keep)

    monkeypatch.setattr("detector.training.saving.save_checkpoint", save)
    with pytest.raises(CheckpointError, match="No space left"):
        YOLO(tiny_model).train(data=drawn_dataset, project=tmp_path, **QUICK)
    YOLO(tiny_model).train(resume=tmp_path / "train")
    assert_equal_runs(left_alone(), tmp_path / "train")


def test_a_state_of_another_version_is_one_sentence(left_alone, tmp_path):
    content = load_checkpoint(left_alone() / "weights/state.pt")
    del content["grads"], content["format"]
    (tmp_path / "weights").mkdir()
    save_checkpoint(tmp_path / "weights/state.pt", content | {"version": "0.0.1"})
    with pytest.raises(
        CheckpointError, match=r"was written by detector 0\.0\.1 and lacks grads; resume with"
    ):
        find_run(tmp_path, tmp_path)
