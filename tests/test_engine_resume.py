"""A run that ended early goes on and ends as one that did not."""

import csv

import pytest
import torch

from detector import YOLO
from detector.engine.checkpoint import load_checkpoint
from detector.engine.resume import find_run
from detector.errors import CheckpointError, SettingsError

QUICK = {
    "imgsz": 96, "batch": 4, "epochs": 4, "workers": 0, "plots": False, "verbose": False, "device": "cpu",
    "close_mosaic": 1,
}  # fmt: skip


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


@pytest.mark.parametrize(("model", "optimizer"), [("tiny_model", "AdamW"), ("tiny_dual_model", "MuSGD")])
def test_a_resumed_run_ends_bit_identical(model, optimizer, drawn_dataset, tmp_path, request):
    model = request.getfixturevalue(model)
    settings = QUICK | {"data": drawn_dataset, "optimizer": optimizer}
    YOLO(model).train(project=tmp_path / "whole", **settings)
    yolo = YOLO(model)
    killed_after(yolo, 1, project=tmp_path / "killed", **settings)
    YOLO(model).train(resume=tmp_path / "killed/train")
    for name in ("last.pt", "best.pt"):
        assert_equal_weights(
            tmp_path / "whole/train/weights" / name, tmp_path / "killed/train/weights" / name
        )
    states = [load_checkpoint(tmp_path / run / "train/weights/state.pt") for run in ("whole", "killed")]
    assert all(torch.equal(states[0]["weights"][key], value) for key, value in states[1]["weights"].items())
    assert states[0]["counters"] == states[1]["counters"]
    assert rows(tmp_path / "whole/train") == rows(tmp_path / "killed/train")


def test_callbacks_get_their_state_back(tiny_model, drawn_dataset, tmp_path, caplog):
    settings = QUICK | {"data": drawn_dataset, "project": tmp_path}
    yolo = YOLO(tiny_model)
    yolo.add_callback(Counting())
    killed_after(yolo, 1, **settings)
    again, counting = YOLO(tiny_model), Counting()
    again.add_callback(counting)
    again.train(resume=True, project=tmp_path)
    assert counting.epochs == [0, 1, 2, 3]
    assert "starts anew" not in caplog.text


def test_a_callback_that_is_missing_is_warned_of(tiny_model, drawn_dataset, tmp_path, caplog):
    yolo = YOLO(tiny_model)
    yolo.add_callback(Counting())
    killed_after(yolo, 1, data=drawn_dataset, project=tmp_path, **QUICK)
    YOLO(tiny_model).train(resume=True, project=tmp_path)
    assert "holds the state of a callback Counting, but none is registered now" in caplog.text


def test_a_finished_run_goes_on_when_epochs_are_raised(tiny_model, drawn_dataset, tmp_path):
    YOLO(tiny_model).train(data=drawn_dataset, project=tmp_path, **(QUICK | {"epochs": 1}))
    folder = tmp_path / "train"
    with pytest.raises(
        CheckpointError, match="is complete after 1 epochs; give more to go on, such as epochs=2"
    ):
        YOLO(tiny_model).train(resume=folder)
    YOLO(tiny_model).train(resume=folder, epochs=3)
    assert [row["epoch"] for row in rows(folder)] == ["1", "2", "3"]


def test_a_change_that_makes_it_another_run_is_refused(tiny_model, drawn_dataset, tmp_path):
    YOLO(tiny_model).train(data=drawn_dataset, project=tmp_path, **(QUICK | {"epochs": 1}))
    with pytest.raises(SettingsError) as caught:
        YOLO(tiny_model).train(resume=tmp_path / "train", epochs=2, imgsz=64, lr0=0.1)
    assert str(caught.value).splitlines() == [
        f"imgsz=64: the run in {tmp_path}/train has imgsz=96; leave it out to resume, or start a new run",
        f"lr0=0.1: the run in {tmp_path}/train has lr0=none; leave it out to resume, or start a new run",
    ]


def test_resuming_what_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="there is no unfinished run in"):
        find_run(True, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"resume=.*nowhere.*state.pt does not exist; expected a run folder"
    ):
        find_run(tmp_path / "nowhere", tmp_path)
