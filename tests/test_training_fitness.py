import numpy as np
import pytest
import torch

from detector.checkpoints.checkpoint import load_checkpoint
from detector.errors import CallbackError, SettingsError
from detector.training.fitness import Fitness

TERMS = ("box_loss", "cls_loss", "dfl_loss")
METRICS = {
    "train/box_loss": 9.0, "metrics/precision": 0.5, "metrics/recall": 0.25, "metrics/mAP50": 0.75,
    "metrics/mAP50-95": 0.125, "val/loss": 4.0, "val/box_loss": 2.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (None, 0.125),
        ("mAP50", 0.75),
        ("metrics/recall", 0.25),
        ("-val/loss", -4.0),
        ("-box_loss", -2.0),
        ({"mAP50": 0.5, "mAP50-95": 2.0, "val/loss": -1, "recall": 0}, 0.5 * 0.75 + 2 * 0.125 - 4),
        ([1.0, 0.0, 2.0, 4.0], 0.5 + 1.5 + 0.5),
    ],
)
def test_the_fitness_is_a_metric_or_a_weighted_sum(given, value):
    assert Fitness(given, TERMS).of(METRICS) == value


def test_without_a_validation_there_is_no_fitness():
    assert Fitness("recall", TERMS).of({"train/box_loss": 9.0}) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mAP5", "fitness=mAP5: a validation gives no such metric; there are metrics/precision"),
        ("my/miscount", "For the metric of a callback, set trainer.fitness in on_fit_epoch_end"),
        ("val/loss", "a lower val/loss is better; give it a minus sign"),
        ({"val/box_loss": 1.0}, "a lower val/box_loss is better; give it a minus sign"),
        ([0.1, 0.9], "expected the 4 weights of metrics/precision, metrics/recall, metrics/mAP50, metrics/mAP50-95"),
        ({"recall": 0.0}, "expected finite weights, one of them other than 0"),
        ({"recall": float("nan")}, "expected finite weights"),
    ],
)  # fmt: skip
def test_what_cant_be_a_fitness_is_refused_with_a_sentence(given, message):
    with pytest.raises(SettingsError, match=message):
        Fitness(given, TERMS)


def test_a_wrong_name_is_refused_before_the_first_epoch(train_tiny):
    seen = []
    with pytest.raises(SettingsError, match="fitness=mAP"):
        train_tiny(("on_train_start", seen.append), fitness="mAP")
    assert seen == []


def test_the_setting_decides_which_epoch_is_the_best(train_tiny):
    rows = []
    trainer = train_tiny(
        ("on_fit_epoch_end", lambda t: rows.append((t.fitness, t.metrics["val/loss"]))),
        epochs=3,
        fitness="-val/loss",
    ).trainer
    assert all(fitness == -loss for fitness, loss in rows)
    best = min(range(3), key=lambda epoch: rows[epoch][1])
    assert trainer.best_epoch == best and trainer.best_fitness == rows[best][0]
    assert load_checkpoint(trainer.best)["epoch"] == best


@pytest.mark.parametrize("number", [float, np.float32, torch.tensor])
def test_a_callback_sets_the_fitness_before_the_best_is_chosen(number, train_tiny):
    """The second epoch is the best by the callback's own fitness, and patience counts from there."""
    own, bests = [0.25, 0.5, 0.25, 0.125, 0.125], []
    trainer = train_tiny(
        ("on_fit_epoch_end", lambda t: setattr(t, "fitness", number(own[t.epoch]))),
        ("on_fit_epoch_end", lambda t: bests.append((t.best_epoch, t.best_fitness))),
        epochs=5,
        patience=2,
    ).trainer
    assert bests == [(0, 0.25), (1, 0.5), (1, 0.5), (1, 0.5)]  # stopped early after the fourth
    assert type(trainer.best_fitness) is float
    assert load_checkpoint(trainer.best)["epoch"] == 1


def test_a_fitness_that_is_not_a_number_is_refused_in_the_callback(train_tiny):
    with pytest.raises(CallbackError, match=r"trainer\.fitness was set to 'high'; expected a number"):
        train_tiny(("on_fit_epoch_end", lambda t: setattr(t, "fitness", "high")), epochs=1)


def test_a_fitness_that_is_not_finite_is_never_the_best(train_tiny):
    own = [0.25, float("nan"), float("inf")]
    trainer = train_tiny(
        ("on_fit_epoch_end", lambda t: setattr(t, "fitness", own[t.epoch])), epochs=3
    ).trainer
    assert (trainer.best_epoch, trainer.best_fitness) == (0, 0.25)


def test_the_fitness_is_a_number_from_the_first_validation_on(train_tiny):
    seen = []

    def note(event):
        return event, lambda engine: seen.append((event, trainers[0].fitness))

    trainers = []
    yolo = train_tiny(
        ("on_pretrain_routine_start", trainers.append),
        *map(
            note, ("on_train_epoch_start", "on_loss", "on_train_epoch_end", "on_val_end", "on_fit_epoch_end")
        ),
        epochs=2,
    )
    after = seen[[event for event, _ in seen].index("on_fit_epoch_end") :]
    assert len(after) >= 6 and all(type(fitness) is float for _, fitness in after)
    train_tiny(
        ("on_pretrain_routine_end", lambda t: seen.append(t.fitness)), resume=yolo.trainer.save_dir, epochs=3
    )
    assert seen[-1] == after[-1][1]
