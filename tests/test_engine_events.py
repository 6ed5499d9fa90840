"""Which events fire, in which order, and what callbacks can do there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.training import quick_settings

from detector import YOLO
from detector.callbacks.callback import Callback
from detector.callbacks.events import EVENTS
from detector.checkpoints.checkpoint import load_checkpoint
from detector.errors import CallbackError

QUICK = quick_settings(imgsz=96, batch=3)

VAL_EVENTS = [name for name, event in EVENTS.items() if event.engine == "val"]
TRAIN_EVENTS = [name for name, event in EVENTS.items() if event.engine == "train"]


@pytest.fixture
def run(train_tiny, tiny_model):
    """Train two epochs of three batches on a model; returns the trainer."""

    def train(model=None, **settings):
        return train_tiny(model=model or tiny_model, **(QUICK | settings)).trainer

    return train


@pytest.fixture
def yolo(tiny_model):
    return YOLO(tiny_model)


def record(yolo, events=EVENTS):
    """Register a function for every event that writes down its name; returns the list."""
    seen = []
    for name in events:
        yolo.add_callback(name, lambda engine, name=name: seen.append(name))
    return seen


TRACE = """
on_pretrain_routine_start on_pretrain_routine_end on_train_start
on_train_epoch_start
on_train_batch_start on_loss on_before_optimizer_step optimizer_step on_before_zero_grad on_train_batch_end
on_train_batch_start on_loss on_before_optimizer_step optimizer_step on_before_zero_grad on_train_batch_end
on_train_batch_start on_loss on_before_optimizer_step optimizer_step on_before_zero_grad on_train_batch_end
on_train_epoch_end on_val_start on_val_batch_start on_val_batch_end on_val_batch_start on_val_batch_end on_val_end
on_fit_epoch_end on_model_save
on_params_update
on_train_epoch_start
on_train_batch_start on_loss on_before_optimizer_step optimizer_step on_before_zero_grad on_train_batch_end
on_train_batch_start on_loss on_before_optimizer_step optimizer_step on_before_zero_grad on_train_batch_end
on_train_batch_start on_loss on_before_optimizer_step optimizer_step on_before_zero_grad on_train_batch_end
on_train_epoch_end on_val_start on_val_batch_start on_val_batch_end on_val_batch_start on_val_batch_end on_val_end
on_fit_epoch_end on_model_save
on_val_start on_val_batch_start on_val_batch_end on_val_batch_start on_val_batch_end on_val_end
on_final_eval_end on_train_end teardown
"""


def test_the_events_of_a_run_of_two_epochs_and_three_batches(run, yolo):
    seen = record(yolo)
    run(yolo, close_mosaic=1)
    assert seen == TRACE.split()


def test_the_events_of_a_validation(run, yolo, drawn_dataset, tmp_path):
    run(yolo, epochs=1)
    seen = record(yolo)
    yolo.val(
        data=drawn_dataset, batch=1, imgsz=96, project=tmp_path, plots=False, verbose=False, device="cpu"
    )
    assert seen == ["on_val_start", *["on_val_batch_start", "on_val_batch_end"] * 4, "on_val_end"]


PREDICT_BATCH = [
    "on_predict_batch_start", "on_predict_postprocess_end", "on_predict_batch_end",
]  # fmt: skip


def predict(yolo, drawn_dataset, **settings):
    source = drawn_dataset.parent / "data/images/val"
    return yolo.predict(source, imgsz=96, device="cpu", verbose=False, **settings)


def test_the_events_of_a_prediction(yolo, drawn_dataset):
    seen = record(yolo)
    predict(yolo, drawn_dataset, batch=2)
    assert seen == ["on_predict_start", *PREDICT_BATCH * 2, "on_predict_end"]


def test_the_events_of_a_prediction_that_is_closed_early(yolo, drawn_dataset):
    seen = record(yolo)
    results = predict(yolo, drawn_dataset, stream=True)
    next(results)
    results.close()
    assert seen == ["on_predict_start", *PREDICT_BATCH, "on_predict_end"]


def test_what_a_callback_sees(run, yolo):
    def at(event):
        return lambda check: yolo.add_callback(event, check)

    seen = []

    @at("on_train_batch_end")
    def batch_end(trainer):
        assert len(trainer.batch.paths) in (2, 3)
        assert trainer.batch_index in (0, 1, 2)
        assert trainer.preds is not None
        assert torch.isfinite(trainer.loss) and trainer.loss_items.shape == (3,)
        assert list(trainer.lr) == [f"lr/pg{n}" for n in range(len(trainer.optimizer.param_groups))]
        seen.append("batch")

    @at("on_train_epoch_end")
    def epoch_end(trainer):
        assert trainer.batch is None and trainer.preds is None
        assert set(trainer.metrics) >= {"train/box_loss", "lr/pg0"}
        assert "metrics/mAP50-95" not in trainer.metrics
        seen.append("epoch")

    @at("on_fit_epoch_end")
    def fit_end(trainer):
        assert trainer.metrics["metrics/mAP50-95"] == pytest.approx(trainer.fitness)
        assert trainer.best_fitness >= trainer.fitness
        assert trainer.settings is trainer.args
        assert trainer.epochs == 2 and trainer.device.type == "cpu"
        assert trainer.model is not trainer.ema.model and trainer.optimizer.param_groups
        seen.append("fit")

    @at("on_model_save")
    def saved(trainer):
        assert trainer.last.is_file() and trainer.best.is_file() and trainer.csv.is_file()
        seen.append("saved")

    run(yolo)
    assert seen == [*["batch"] * 3, "epoch", "fit", "saved"] * 2


def test_what_a_callback_changes_at_the_epochs_end_is_in_the_checkpoint(run, yolo):
    def fill(trainer):
        trainer.ema.model.state_dict()["model.0.conv.weight"].fill_(0.25)
        trainer.metrics["mine"] = 3.5

    yolo.add_callback("on_fit_epoch_end", fill)
    trainer = run(yolo)
    saved = load_checkpoint(trainer.last)
    assert (saved["weights"]["model.0.conv.weight"] == 0.25).all()
    assert saved["metrics"]["mine"] == 3.5
    assert "mine" in trainer.csv.read_text().splitlines()[0].split(",")


@pytest.mark.parametrize("event", [name for name in (*TRAIN_EVENTS, *VAL_EVENTS) if name != "on_exception"])
def test_stop_from_any_event_ends_the_run_cleanly(event, run, yolo):
    seen = record(yolo)
    yolo.add_callback(event, lambda engine: setattr(yolo.trainer, "stop", True))
    trainer = run(yolo, epochs=3, close_mosaic=1)
    late = ("on_model_save", "on_params_update", "on_final_eval_end", "on_train_end", "teardown")
    in_batches = {
        "on_params_update": 6 + 1,
        "on_model_save": 3,
        "on_fit_epoch_end": 3,
        "on_train_epoch_end": 3,
        **dict.fromkeys(VAL_EVENTS, 3),
    }
    expected = 9 if event in late[2:] else in_batches.get(event, 1)
    assert seen.count("on_train_batch_end") == expected
    assert seen[-3:] == ["on_final_eval_end", "on_train_end", "teardown"]
    assert seen.count("on_fit_epoch_end") == seen.count("on_train_epoch_start")
    assert trainer.last.is_file() and trainer.final_metrics is not None


def test_a_raising_callback_ends_the_run_with_its_place_and_the_weights_are_safe(run, yolo, caplog):
    seen = record(yolo)

    def broken(trainer):
        if trainer.epoch == 1:
            raise ZeroDivisionError("my mistake")

    yolo.add_callback("on_fit_epoch_end", broken)
    with pytest.raises(ZeroDivisionError, match="my mistake") as caught:
        run(yolo)
    (note,) = caught.value.__notes__
    assert "broken (" in note and "test_engine_events.py:" in note and note.endswith("on on_fit_epoch_end")
    trainer = yolo.trainer
    assert trainer.exception is caught.value
    assert seen[-2:] == ["on_exception", "teardown"]
    saved = load_checkpoint(trainer.last)
    assert saved["epoch"] == 1
    assert all(torch.equal(value, trainer.ema.state_dict()[key]) for key, value in saved["weights"].items())
    assert "its weights are in" in caplog.text


def test_teardown_and_on_exception_of_every_callback_run_and_the_first_error_is_raised(run, yolo, caplog):
    def fail(words):
        def function(trainer):
            raise ValueError(words)

        return function

    seen = []
    yolo.add_callback("on_train_start", fail("the first"))
    for event in ("on_exception", "teardown"):
        yolo.add_callback(event, fail(f"in {event}"))
        yolo.add_callback(event, lambda trainer, event=event: seen.append(event))
    with pytest.raises(ValueError, match="the first"):
        run(yolo)
    assert seen == ["on_exception", "teardown"]
    assert "in on_exception" in caplog.text and "in teardown" in caplog.text


def test_a_raising_teardown_alone_is_raised_once_the_run_is_done(run, yolo):
    yolo.add_callback("teardown", lambda trainer: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(yolo)
    assert yolo.trainer.final_metrics is not None


def test_teardown_runs_when_set_up_fails(yolo, drawn_dataset, tmp_path):
    seen = record(yolo)
    (tmp_path / "bad.yaml").write_text(f"path: {tmp_path}\ntrain: nowhere\nval: nowhere\nnames: [a]\n")
    with pytest.raises(ValueError, match="nowhere"):
        yolo.train(data=tmp_path / "bad.yaml", project=tmp_path / "runs", **QUICK)
    assert seen == ["on_pretrain_routine_start", "on_exception", "teardown"]


def test_ctrl_c_finishes_the_step_and_leaves_the_weights(run, yolo):
    seen = record(yolo)

    def interrupt(trainer):
        if trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    yolo.add_callback("optimizer_step", interrupt)  # in the middle of a step
    with pytest.raises(KeyboardInterrupt):
        run(yolo)
    end = ["optimizer_step", "on_before_zero_grad", "on_train_batch_end", "on_exception", "teardown"]
    assert seen[-5:] == end
    trainer = yolo.trainer
    assert isinstance(trainer.exception, KeyboardInterrupt)
    assert load_checkpoint(trainer.last)["epoch"] == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


SCRIPT = """
import os, signal
from detector import YOLO
model = YOLO({model!r})
model.add_callback("on_train_batch_end", lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
model.add_callback("teardown", lambda trainer: print("torn down", trainer.exception))
model.train(data={data!r}, project={project!r}, imgsz=96, batch=4, epochs=2, workers=0, plots=False, device="cpu",
            loggers="none")
"""


def test_sigterm_tears_down_and_exits_with_143(tiny_model, drawn_dataset, tmp_path):
    script = SCRIPT.format(model=str(tiny_model), data=str(drawn_dataset), project=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 143, done.stderr
    assert done.stdout == "torn down terminated (SIGTERM)\n"
    assert "Traceback" not in done.stderr
    assert (tmp_path / "train/weights/last.pt").is_file()


def test_callbacks_of_one_run_do_not_stay(run, yolo):
    seen = []

    class Mine(Callback):
        def on_train_start(self, trainer):
            seen.append("object")

    def on_train_start(trainer):
        seen.append("function")

    for _ in range(2):
        run(
            yolo,
            epochs=1,
            callbacks=[Mine(), on_train_start, ("on_train_start", lambda t: seen.append("pair"))],
        )
    assert seen == ["object", "function", "pair"] * 2
    assert not any(yolo.callbacks.values())
    with yolo.added(Mine()):
        run(yolo, epochs=1)
    run(yolo, epochs=1)
    assert seen[6:] == ["object"]


def test_callbacks_of_one_validation_and_prediction(run, yolo, drawn_dataset, tmp_path):
    run(yolo, epochs=1)
    seen = []
    quick = {"imgsz": 96, "device": "cpu", "verbose": False, "project": tmp_path}
    yolo.val(
        data=drawn_dataset, plots=False, callbacks={"on_val_end": lambda v: seen.append(v.metrics)}, **quick
    )
    source = drawn_dataset.parent / "data/images/val"
    yolo.predict(source, callbacks=[("on_predict_end", lambda p: seen.append(p.speed))], **quick)
    assert seen[0].results_dict["fitness"] >= 0
    assert set(seen[1]) == {"preprocess", "inference", "postprocess"}


def test_default_callbacks_are_members_of_the_dict_and_can_be_removed(run, yolo):
    def without_csv(trainer):
        (logger,) = [obj for obj in trainer.callbacks.objects if type(obj).__name__ == "CSVLogger"]
        trainer.callbacks.remove(logger)

    yolo.add_callback("on_pretrain_routine_start", without_csv)
    assert not run(yolo, epochs=1).csv.exists()


def test_a_learning_rate_set_by_a_callback_holds_when_the_schedule_is_paused(run, yolo):
    seen = []

    def start(trainer):
        trainer.schedule.paused = True
        for group in trainer.optimizer.param_groups:
            group["lr"] = 0.00025

    yolo.add_callback("on_train_start", start)
    yolo.add_callback("optimizer_step", lambda trainer: seen.append(set(trainer.lr.values())))
    run(yolo)
    assert seen == [{0.00025}] * 6


def test_the_schedule_can_be_scaled(run, tiny_model):
    def rates(scale):
        yolo, seen = YOLO(tiny_model), []
        yolo.add_callback("on_train_start", lambda trainer: setattr(trainer.schedule, "scale", scale))
        yolo.add_callback("optimizer_step", lambda trainer: seen.append(trainer.lr["lr/pg0"]))
        run(yolo, exist_ok=True)
        return seen

    assert rates(0.5) == pytest.approx([rate / 2 for rate in rates(1.0)])


def test_frozen_layers_can_be_unfrozen(run, yolo):
    before = yolo.model.model[0].conv.weight.detach().clone()
    kept = {}

    def epoch_end(trainer):
        kept[trainer.epoch] = trainer.model.model[0].conv.weight.detach().clone()
        trainer.unfreeze([0])

    yolo.add_callback("on_train_epoch_end", epoch_end)
    trainer = run(yolo, freeze=2, seed=0)
    fresh = kept[0]
    assert not torch.equal(kept[1], fresh), "layer 0 learns in the second epoch"
    assert before.shape == fresh.shape
    assert not trainer.model.model[1].conv.weight.requires_grad
    assert not trainer.model.model[1].bn.training


def test_slow_callbacks_are_named_at_the_end(run, yolo, caplog):
    import time

    def slow(trainer):
        time.sleep(0.5)

    yolo.add_callback("on_train_start", slow)
    caplog.set_level("INFO", logger="detector")
    run(yolo, epochs=1)
    assert "callbacks that took over 1 % of the run: slow on on_train_start 0.5 s" in caplog.text


def test_two_trainings_have_separate_lists(run, yolo):
    first = run(yolo, epochs=1)
    second = run(yolo, epochs=1)
    assert first.callbacks is not second.callbacks
    assert first.callbacks["on_fit_epoch_end"] is not second.callbacks["on_fit_epoch_end"]
    assert Path(first.save_dir) != Path(second.save_dir)


def trained(trainer):
    return [(name, weight) for name, weight in trainer.model.named_parameters() if weight.requires_grad]


def gradients(run, model, *callbacks, **settings):
    """Train one batch; return the gradients before clipping, after it, and the trainer."""
    raw, clipped = {}, {}

    def keep(into):
        return lambda t: into.update({n: p.grad.clone() for n, p in trained(t)})

    yolo = YOLO(model)
    for callback in callbacks:
        yolo.add_callback(*callback)
    yolo.add_callback("on_before_optimizer_step", keep(raw))
    yolo.add_callback("on_before_zero_grad", keep(clipped))
    once = [("on_train_batch_end", lambda trainer: setattr(trainer, "stop", True))]
    return raw, clipped, run(yolo, epochs=1, batch=8, seed=0, callbacks=once, exist_ok=True, **settings)


def test_a_loss_term_added_in_on_loss_changes_the_gradients_as_computed_by_hand(run, tiny_model):
    before = {}

    def add(trainer):
        before.update({n: p.detach().clone() for n, p in trained(trainer)})
        trainer.loss = trainer.loss + 0.5 * sum((p**2).sum() for p in trainer.model.parameters())

    plain, _, _ = gradients(run, tiny_model)
    changed, _, _ = gradients(run, tiny_model, ("on_loss", add))
    assert plain.keys() == changed.keys() == before.keys()
    for name, weight in before.items():  # the gradient of w^2 / 2 is w
        torch.testing.assert_close(changed[name], plain[name] + weight, rtol=1e-4, atol=1e-5)
    assert max(weight.abs().max() for weight in before.values()) > 0.1


def test_a_loss_scaled_in_place_scales_the_gradients(run, tiny_model):
    losses = []

    def four_times(trainer):
        losses.append((float(trainer.loss.detach()), trainer.loss_items.sum().item() * len(trainer.batch)))
        trainer.loss *= 4

    plain, _, _ = gradients(run, tiny_model)
    scaled, _, trainer = gradients(run, tiny_model, ("on_loss", four_times))
    for name, gradient in plain.items():  # a power of two changes no digit
        assert torch.equal(scaled[name], 4 * gradient)
    ((loss, sum_over_the_batch),) = losses
    assert loss == pytest.approx(sum_over_the_batch)
    assert trainer.loss.item() == pytest.approx(4 * loss) and not trainer.loss.requires_grad


def test_gradients_in_on_before_optimizer_step_are_not_clipped_yet(run, tiny_model):
    raw, clipped, _ = gradients(run, tiny_model)

    def norm(tensors):
        return torch.linalg.vector_norm(torch.stack([t.norm() for t in tensors.values()])).item()

    assert norm(raw) > 10
    assert norm(clipped) == pytest.approx(10, rel=1e-3)


def test_a_gradient_changed_in_on_before_optimizer_step_is_what_the_optimizer_uses(run, yolo):
    def only_the_head(trainer):
        for name, parameter in trainer.model.named_parameters():
            if name.startswith("model.0."):
                parameter.grad.zero_()

    yolo.add_callback("on_before_optimizer_step", only_the_head)
    kept = []
    yolo.add_callback("on_train_start", lambda t: kept.append(t.model.model[0].conv.weight.detach().clone()))
    trainer = run(yolo, epochs=1, weight_decay=0.0)
    assert torch.equal(trainer.model.model[0].conv.weight, kept[0])


@pytest.mark.parametrize(
    ("loss", "given"),
    [
        (lambda loss: loss.item(), "float"),
        (lambda loss: loss.detach(), "a tensor without gradients"),
        (lambda loss: loss.repeat(3), r"a tensor of shape \(3,\)"),
    ],
)
def test_a_loss_that_cant_be_trained_on_is_refused_with_a_sentence(loss, given, run, yolo):
    yolo.add_callback("on_loss", lambda trainer: setattr(trainer, "loss", loss(trainer.loss)))
    with pytest.raises(
        CallbackError, match=f"trainer.loss was set to {given} in on_loss; expected one number"
    ):
        run(yolo, epochs=1)
