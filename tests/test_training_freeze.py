from dataclasses import replace

import pytest

from detector.errors import SettingsError
from detector.nn.model import DetectionModel, load_model_config
from detector.training.freeze import FrozenLayers


@pytest.fixture
def model():
    return DetectionModel(replace(load_model_config("yolo11n"), names=("a",)))


def test_layers_are_frozen_by_count_and_by_name(model):
    layers = FrozenLayers(model, 2)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad and "dfl" not in name}
    assert {name.split(".")[1] for name in frozen} == {"0", "1"}
    model.train()
    layers.keep_in_eval()
    assert not model.get_submodule("model.0.bn").training and model.get_submodule("model.2").training
    FrozenLayers(model, ["cv3"])
    assert not model.state_dict(keep_vars=True)["model.23.cv3.0.2.weight"].requires_grad


def test_freezing_what_is_not_there_is_an_error(model):
    with pytest.raises(
        SettingsError, match=r"freeze=\['backbone'\]: nothing in the model is named 'backbone'"
    ):
        FrozenLayers(model, ["backbone"])


def test_layers_are_unfrozen_by_index_and_name(model):
    layers = FrozenLayers(model, 3)
    model.train()
    layers.keep_in_eval()
    layers.unfreeze([1])
    assert (
        model.get_submodule("model.1.conv").weight.requires_grad
        and model.get_submodule("model.1.bn").training
    )
    assert not model.get_submodule("model.0.conv").weight.requires_grad
    layers.unfreeze()
    assert all(p.requires_grad for name, p in model.named_parameters() if "dfl" not in name)
    assert not layers.parameters and not layers.modules
    with pytest.raises(SettingsError, match=r"unfreeze=\['neck'\]: nothing in the model is named 'neck'"):
        layers.unfreeze(["neck"])


@pytest.mark.parametrize("freeze", [-1, 24, 999])
def test_a_count_of_layers_that_can_not_be_is_one_sentence(model, freeze):
    with pytest.raises(SettingsError) as caught:
        FrozenLayers(model, freeze)
    assert str(caught.value) == (
        f"freeze={freeze}: expected a count of layers from 0 to 23; the model has 24, and the last one, the head, has "
        f"to be trained"
    )
    assert len(FrozenLayers(model, 23).parameters) > 0


def test_freezing_everything_is_one_sentence(model):
    with pytest.raises(
        SettingsError, match=r"freeze=\['model'\]: this freezes every layer; leave out some, such as"
    ):
        FrozenLayers(model, ["model"])


def test_modes_that_a_callback_changed_are_restored_with_one_warning(model, caplog):
    layers = FrozenLayers(model, 2)
    model.train()
    layers.keep_in_eval()
    modes = [module.training for module in model.modules()]
    for change in (model.eval, model.train, model.model[5].eval):
        change()
        layers.restore()
        assert [module.training for module in model.modules()] == modes
    (warning,) = caplog.messages
    assert warning.startswith("train() or eval() was called by a callback on the model and ")


def test_what_freeze_froze_stays_frozen_unless_it_is_unfrozen(model, caplog):
    layers = FrozenLayers(model, 1)
    layers.keep_in_eval()
    model.requires_grad_(True)
    layers.restore()
    assert not model.get_submodule("model.0.conv").weight.requires_grad
    assert "freeze= is undone by a callback for model.0.conv.weight and 2 more" in caplog.text
    layers.unfreeze()
    layers.restore()
    assert model.get_submodule("model.0.conv").weight.requires_grad


def test_what_a_callback_freezes_is_part_of_the_state_until_it_is_unfrozen(model):
    layers = FrozenLayers(model, 1)
    weight = model.get_submodule("model.5.conv").weight
    weight.requires_grad_(False)
    layers.restore()
    assert "model.5.conv.weight" in layers.parameters
    again = DetectionModel(replace(load_model_config("yolo11n"), names=("a",)))
    resumed = FrozenLayers(again, 1)
    resumed.restrict(list(layers.parameters))
    assert not again.get_submodule("model.5.conv").weight.requires_grad
    weight.requires_grad_(True)
    layers.restore()
    assert "model.5.conv.weight" not in layers.parameters and weight.requires_grad
