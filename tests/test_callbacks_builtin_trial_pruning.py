import optuna
import pytest
from support.training import play

from detector.callbacks import TrialPruning
from detector.errors import CallbackError


@pytest.fixture
def study():
    return optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(1, n_warmup_steps=1))


def train(trial, *fitness):
    callback = TrialPruning(trial)
    return callback, play(callback, [None if value is None else {"fitness": value} for value in fitness])


def test_epochs_are_reported_and_a_training_worse_than_the_others_is_ended(study):
    good = study.ask()
    callback, trainer = train(good, 0.5, None, 0.6, 0.7)
    assert not callback.pruned and not trainer.stop
    study.tell(good, 0.7)
    assert study.trials[0].intermediate_values == {0: 0.5, 2: 0.6, 3: 0.7}
    bad = study.ask()
    callback, trainer = train(bad, 0.1, 0.2, 0.3, 0.9)
    assert callback.pruned and trainer.stop
    assert (
        trainer.stop_reason == "pruned after epoch 3"
    )  # epoch 1 is warm-up, epoch 2 was not validated before
    assert callback.state_dict() == {"pruned": True, "is_given_up": False}


def test_a_trial_that_another_process_counted_as_dead_is_ended(study):
    trial = study.ask()
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    callback, trainer = train(trial, 0.5, 0.6)
    assert callback.is_given_up and not callback.pruned
    assert trainer.stop_reason == "another process repeats this trial after epoch 1"


def test_anything_but_a_trial_is_refused():
    with pytest.raises(CallbackError, match=r"TrialPruning\(trial=3\): expected a trial of Optuna"):
        TrialPruning(3)
