from pathlib import Path

import pytest
import torch

from detector import YOLO
from detector.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from detector.errors import CheckpointError, TrainingError
from detector.training.finite import NonFiniteCheck, find_non_finite
from detector.training.resume import find_run

GOOD, BAD, ITEMS = torch.tensor(1.0), torch.tensor(float("nan")), torch.tensor([0.5, float("nan")])


def test_a_loss_that_is_not_finite_names_the_step_the_terms_and_the_files():
    check = NonFiniteCheck(("box_loss", "cls_loss"), Path("weights"), late=False)
    check.check(0, 6, GOOD, ITEMS, ["a.jpg"])
    expected = r"epoch 1, step 7: box_loss=0.5, cls_loss=nan; .* in weights; .* Files of that batch: b.jpg"
    with pytest.raises(TrainingError, match=expected):
        check.check(0, 7, BAD, ITEMS, ["b.jpg"])


def test_a_late_check_looks_at_the_step_before():
    check = NonFiniteCheck(("box_loss", "cls_loss"), Path("weights"), late=True)
    check.check(0, 7, BAD, ITEMS, ["b.jpg"])
    with pytest.raises(TrainingError, match=r"step 7: .* Files of that batch: b.jpg"):
        check.check(0, 8, GOOD, ITEMS, ["c.jpg"])


def test_gradients_are_checked_before_the_weights_change_or_at_the_end_of_the_epoch():
    for late in (False, True):
        check = NonFiniteCheck(("box_loss", "cls_loss"), Path("weights"), late)
        check.check(0, 7, GOOD, ITEMS, ["b.jpg"])
        expected = r"^the gradients are not finite at epoch 1, step 7: .*, gradient norm=nan; .*: b.jpg$"
        if late:
            check.check_gradients(0, BAD)
        with pytest.raises(TrainingError, match=expected):
            check.finish(0) if late else check.check_gradients(0, BAD)


def test_what_is_not_finite_is_found_wherever_a_state_has_it():
    good, bad = torch.ones(2), torch.tensor([1.0, float("inf")])
    counts = torch.tensor([1, 2])
    assert find_non_finite({"weights": {"a": good, "n": counts}, "callbacks": {"Mine": bad}}) is None
    assert find_non_finite({"weights": {"a": good, "b": bad}}) == "weights['b']"
    assert find_non_finite({"weights": {}, "ema": {"b": bad}}) == "ema['b']"
    optimizer = {"state": {0: {"step": good, "momentum": bad}}, "param_groups": []}
    assert find_non_finite({"optimizer": optimizer}) == "optimizer['state'][0]['momentum']"
    assert find_non_finite({"grads": {"b": bad}}) == "grads['b']"
    assert find_non_finite({"grads": {"b": bad}, "scaler": {"scale": 2.0}}) is None, "the scaler skips these"


def _spoil_last_gradient(trainer):
    """Make a gradient NaN in the last step of the second epoch, whose loss is finite."""
    if trainer.epoch == 1 and trainer.batch_index == trainer.num_batches - 1:
        next(trainer.model.parameters()).register_hook(lambda grad: grad * float("nan"))


def test_a_gradient_that_is_not_finite_in_the_last_step_leaves_all_files_good(train_tiny, tmp_path):
    with pytest.raises(TrainingError, match=r"the gradients are not finite at epoch 2, step 3"):
        train_tiny(("on_train_batch_start", _spoil_last_gradient))
    for file in (tmp_path / "train/weights").glob("*.pt"):
        assert find_non_finite(load_checkpoint(file)) is None, file
    run = find_run(tmp_path / "train", tmp_path)
    assert run.content["epoch"] == 0 and run.place == "the end of epoch 1"


def test_a_late_check_of_the_last_step_comes_before_anything_is_saved(train_tiny, tmp_path):
    def late(trainer):
        trainer.finite.late = True

    with pytest.raises(TrainingError, match=r"the gradients are not finite at epoch 2, step 3"):
        train_tiny(("on_train_start", late), ("on_train_batch_start", _spoil_last_gradient))
    for file in (tmp_path / "train/weights").glob("*.pt"):
        assert find_non_finite(load_checkpoint(file)) is None, file
    assert find_run(tmp_path / "train", tmp_path).content["epoch"] == 0


def _spoil_weight(trainer):
    if trainer.epoch == 1:
        with torch.no_grad():
            next(trainer.ema.model.parameters()).fill_(float("nan"))


def test_weights_that_are_not_finite_are_never_saved_over_others(train_tiny, tmp_path):
    with pytest.raises(
        TrainingError, match=r"last.pt is not written: weights\['model.0.*'\] is not finite; the last"
    ):
        train_tiny(("on_fit_epoch_end", _spoil_weight))
    assert load_checkpoint(tmp_path / "train/weights/last.pt")["epoch"] == 0
    assert find_run(tmp_path / "train", tmp_path).content["epoch"] == 0


def test_a_callback_can_not_save_them_either(train_tiny, tmp_path):
    def save(trainer):
        _spoil_weight(trainer)
        trainer.save_checkpoint(tmp_path / "mine.pt")

    with pytest.raises(TrainingError, match=r"mine.pt is not written: "):
        train_tiny(("on_fit_epoch_end", save))
    assert load_checkpoint(tmp_path / "mine.pt")["epoch"] == 0


def test_an_interruption_does_not_save_them(train_tiny, tmp_path, caplog):
    def interrupt(trainer):
        _spoil_weight(trainer)
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tiny(("on_fit_epoch_end", interrupt))
    assert "last.pt is not written: " in caplog.text
    assert load_checkpoint(tmp_path / "train/weights/last.pt")["epoch"] == 0


def test_a_state_that_is_not_finite_is_left_for_the_previous_one(train_tiny, tmp_path, caplog):
    train_tiny(epochs=1)
    folder = tmp_path / "train/weights"
    good = load_checkpoint(folder / "state.pt")
    save_checkpoint(folder / "state-previous.pt", good)
    next(iter(good["weights"].values())).fill_(float("nan"))
    save_checkpoint(folder / "state.pt", good)
    assert find_non_finite(find_run(folder.parent, tmp_path).content) is None
    assert "state.pt: can't be resumed from, weights['model.0" in caplog.text


def test_opening_weights_that_are_not_finite_says_so_and_training_from_them_is_refused(
    tiny_model, drawn_dataset, tmp_path, caplog
):
    model = YOLO(tiny_model)
    with torch.no_grad():
        next(model.model.parameters()).fill_(float("nan"))
    model.save(tmp_path / "bad.pt")
    opened = YOLO(tmp_path / "bad.pt")
    assert "bad.pt: 1 of its" in caplog.text and "weights hold NaN or infinity (model.0" in caplog.text
    with pytest.raises(
        CheckpointError, match=r"^can't train from weights that hold NaN or infinity \(weights"
    ):
        opened.train(data=str(drawn_dataset), epochs=1, imgsz=64, project=str(tmp_path), plots=False)
