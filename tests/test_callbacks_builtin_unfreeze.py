import pytest
from support.training import plain_trainer, play

from detector.callbacks.builtin.unfreeze import Unfreeze
from detector.errors import CallbackError


def run(callback, epochs, start_epoch=0):
    """Play a run; return (epoch, layers) of every call of `trainer.unfreeze`."""
    calls = []
    trainer = plain_trainer(start_epoch=start_epoch)
    trainer.unfreeze = lambda layers: calls.append((trainer.epoch, layers))
    play(callback, [None] * (epochs - start_epoch), trainer)
    return calls


def test_all_layers_are_unfrozen_once_after_the_epochs():
    assert run(Unfreeze(2), 5) == [(2, None)]


def test_some_layers_may_be_chosen():
    assert run(Unfreeze(1, [0, "model.1."]), 3) == [(1, [0, "model.1."])]
    assert run(Unfreeze(1, 4), 3) == [(1, [4])]
    assert run(Unfreeze(1, "cv3"), 3) == [(1, ["cv3"])]


def test_a_run_resumed_later_unfreezes_at_once():
    callback = Unfreeze(2)
    assert run(callback, 5) == [(2, None)]
    assert run(callback, 5, start_epoch=3) == [(3, None)]


def test_a_training_holds_a_layer_and_then_trains_it(train_tiny):
    weights = []

    def keep(trainer):
        weights.append(trainer.model.state_dict()["model.0.conv.weight"].clone())

    train_tiny(("on_train_start", keep), ("on_train_epoch_end", keep), Unfreeze(1), freeze=1, warmup_epochs=0)
    at_start, after_one, after_two = weights
    assert at_start.equal(after_one)
    assert not after_one.equal(after_two)


@pytest.mark.parametrize("layers", [[], [True], [1.5], {"a": 1}, 2.5])
def test_bad_layers_are_refused(layers):
    with pytest.raises(CallbackError, match=r"Unfreeze\(layers=.*\): expected a list of layer numbers"):
        Unfreeze(1, layers)


@pytest.mark.parametrize("epoch", [0, -1, 1.5, "3"])
def test_a_bad_epoch_is_refused(epoch):
    with pytest.raises(CallbackError, match=r"Unfreeze\(epoch=.*\): expected a whole number >= 1"):
        Unfreeze(epoch)
