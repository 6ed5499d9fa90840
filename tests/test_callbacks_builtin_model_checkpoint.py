import math
import re
from pathlib import Path

import pytest
from support.training import plain_trainer, play

from detector import YOLO
from detector.callbacks.builtin import model_checkpoint
from detector.callbacks.builtin.model_checkpoint import ModelCheckpoint
from detector.errors import CallbackError


@pytest.fixture
def trainer(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/last.pt").write_text("last")
    return plain_trainer(save_dir=tmp_path, save_checkpoint=lambda path: Path(path).write_text("weights"))


def run(callback, trainer, values, state=None):
    """Play a run over these fitnesses from `start_epoch` on."""
    metrics = [None if value is None else {"fitness": value, "val/loss (a)": value} for value in values]
    play(callback, metrics, trainer, state)


def files(trainer):
    return sorted(path.name for path in (trainer.save_dir / "weights").iterdir())


def test_the_best_epochs_are_kept_and_the_others_deleted(trainer):
    callback = ModelCheckpoint(top_k=2)
    run(callback, trainer, [0.1, 0.3, 0.2, 0.1])
    assert files(trainer) == ["epoch2-fitness_0.3000.pt", "epoch3-fitness_0.2000.pt", "last.pt"]


def test_the_best_is_named_at_the_end(trainer, caplog):
    with caplog.at_level("INFO"):
        run(ModelCheckpoint(), trainer, [0.1, 0.3])
    assert f"best fitness 0.3000: {trainer.save_dir / 'weights/epoch2-fitness_0.3000.pt'}" in caplog.text


def test_lower_may_be_better_and_odd_names_become_file_names(trainer):
    run(ModelCheckpoint("val/loss (a)", "min"), trainer, [0.3, 0.1, 0.2])
    assert files(trainer) == ["epoch2-val_loss_a__0.1000.pt", "last.pt"]


def test_of_equals_the_later_one_is_kept(trainer):
    run(ModelCheckpoint(), trainer, [0.2, 0.2])
    assert files(trainer) == ["epoch2-fitness_0.2000.pt", "last.pt"]


def test_all_or_none_may_be_kept(trainer):
    run(ModelCheckpoint(top_k=0), trainer, [0.2, 0.3])
    assert files(trainer) == ["last.pt"]
    run(ModelCheckpoint(top_k=None), trainer, [0.2, 0.1, math.nan, None])
    assert files(trainer) == ["epoch1-fitness_0.2000.pt", "epoch2-fitness_0.1000.pt", "last.pt"]


def test_only_every_so_many_epochs_are_looked_at(trainer):
    run(ModelCheckpoint(top_k=None, every_epochs=2), trainer, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert files(trainer) == ["epoch2-fitness_0.2000.pt", "epoch4-fitness_0.4000.pt", "last.pt"]


def test_the_new_file_is_there_before_the_old_one_goes(trainer):
    def fail_on_the_second(path):
        if trainer.epoch == 1:
            raise OSError("disk full")
        Path(path).write_text("weights")

    trainer.save_checkpoint = fail_on_the_second
    with pytest.raises(OSError, match="disk full"):
        run(ModelCheckpoint(), trainer, [0.1, 0.2])
    assert files(trainer) == ["epoch1-fitness_0.1000.pt", "last.pt"]


def test_files_of_others_are_left_alone_by_a_second_run(trainer):
    callback = ModelCheckpoint()
    run(callback, trainer, [0.1])
    run(callback, trainer, [0.05, 0.2])
    assert files(trainer) == ["epoch1-fitness_0.1000.pt", "epoch2-fitness_0.2000.pt", "last.pt"]


def test_a_resumed_run_continues_with_its_files(trainer):
    first = ModelCheckpoint(top_k=2)
    run(first, trainer, [0.1, 0.3])
    trainer.start_epoch = 2
    run(ModelCheckpoint(top_k=2), trainer, [0.2, 0.15], state=first.state_dict())
    assert files(trainer) == ["epoch2-fitness_0.3000.pt", "epoch3-fitness_0.2000.pt", "last.pt"]


def test_files_that_are_gone_when_resumed_are_forgotten(trainer):
    first = ModelCheckpoint()
    run(first, trainer, [0.9])
    (trainer.save_dir / "weights/epoch1-fitness_0.9000.pt").unlink()
    trainer.start_epoch = 1
    run(ModelCheckpoint(), trainer, [0.2], state=first.state_dict())
    assert files(trainer) == ["epoch2-fitness_0.2000.pt", "last.pt"]


def test_minutes_save_in_the_middle_of_an_epoch(trainer, monkeypatch):
    now, saved = [0.0], []
    monkeypatch.setattr(model_checkpoint, "perf_counter", lambda: now[0])
    trainer.save_checkpoint = lambda path: saved.append((now[0], path.name))
    callback = ModelCheckpoint(top_k=0, every_minutes=0.5)
    callback.on_pretrain_routine_start(trainer)
    callback.on_train_start(trainer)
    for now[0] in (10.0, 29.0, 31.0, 40.0, 61.0, 70.0):
        callback.on_train_batch_end(trainer)
    assert saved == [(31.0, "timed.pt"), (61.0, "timed.pt")]


def test_a_run_without_validation_is_warned_of(trainer, caplog):
    run(ModelCheckpoint(), trainer, [None, None])
    assert "ModelCheckpoint did nothing: no epoch was validated" in caplog.text


def test_a_training_leaves_weights_that_open(train_tiny, tmp_path):
    yolo = train_tiny(ModelCheckpoint("train/box_loss", "min", top_k=None, every_minutes=1e-9))
    written = sorted(tmp_path.glob("train/weights/epoch*-train_box_loss_*.pt"))
    assert [path.name.split("-")[0] for path in written] == ["epoch1", "epoch2"]
    for path in (*written, tmp_path / "train/weights/timed.pt"):
        assert YOLO(path).names == yolo.names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": -1}, r"top_k=-1\): expected a whole number >= 0"),
        ({"every_epochs": 0}, r"every_epochs=0\): expected a whole number >= 1"),
        ({"every_minutes": 0}, r"every_minutes=0\): expected a number > 0"),
        ({"mode": "best"}, "expected 'max' or 'min'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(CallbackError, match=message):
        ModelCheckpoint(**arguments)


def test_files_are_called_as_the_pattern_says(trainer):
    run(ModelCheckpoint(top_k=2, filename="{epoch:02d}-{val/loss (a):.3f}.pt"), trainer, [0.1, 0.3, 0.25])
    assert files(trainer) == ["02-0.300.pt", "03-0.250.pt", "last.pt"]


def test_a_state_names_no_file_that_the_pattern_could_not_have_made():
    callback = ModelCheckpoint(filename="{epoch}.pt")
    own = {
        name: callback._is_own(name) for name in ("3.pt", "12.pt", "last.pt", "best.pt", "../3.pt", "3/4.pt")
    }
    assert [name for name, owned in own.items() if owned] == ["3.pt", "12.pt"]


def test_one_name_for_all_epochs_keeps_the_best(trainer):
    saved = []
    trainer.save_checkpoint = lambda path: saved.append(trainer.epoch) or Path(path).write_text("weights")
    run(ModelCheckpoint(filename="recall.pt"), trainer, [0.1, 0.3, 0.2])
    assert files(trainer) == ["last.pt", "recall.pt"]
    assert saved == [0, 1]


@pytest.mark.parametrize(
    ("filename", "message"),
    [
        ("../{epoch}.pt", "expected a file name that ends in .pt"),
        ("a\\{epoch}.pt", "expected a file name that ends in .pt"),
        ("{epoch:/>5}.pt", "expected a file name that ends in .pt"),
        ("{epoch}", "expected a file name that ends in .pt"),
        ("", "expected a file name that ends in .pt"),
        ("{epoch.pt", "expected a name such as"),
        (3, "expected a name such as"),
        ("{epoch!r}.pt", "in braces a name and a format are allowed"),
        ("last.pt", "the run itself writes this file; choose another name"),
    ],
)
def test_a_pattern_that_cant_be_used_is_refused(filename, message):
    with pytest.raises(CallbackError, match=re.escape(message)):
        ModelCheckpoint(filename=filename)


def test_several_files_need_the_epoch_in_their_names():
    with pytest.raises(CallbackError, match=r"top_k=3 keeps several files; put \{epoch\} into the name"):
        ModelCheckpoint(top_k=3, filename="{fitness:.3f}.pt")


@pytest.mark.parametrize(
    ("filename", "message"),
    [
        ("{epoch}-{fitnes:.3f}.pt", "no such metric as fitnes; did you mean 'fitness'?; there are"),
        ("{epoch}-{fitness:d}.pt", "fitness can't be written as 'd'; try {fitness:.3f}"),
    ],
)
def test_a_pattern_that_does_not_fit_the_metrics_names_what_is_wrong(filename, message, trainer):
    with pytest.raises(CallbackError, match=re.escape(message)):
        run(ModelCheckpoint(filename=filename), trainer, [0.1])
