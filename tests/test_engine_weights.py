from dataclasses import replace

import pytest
import torch

from detector.engine.weights import FrozenLayers, transfer_weights
from detector.errors import SettingsError
from detector.nn.model import DetectionModel, load_model_config


def model_of(*names):
    return DetectionModel(replace(load_model_config("yolo11n"), names=names))


def test_the_same_classes_take_everything():
    source, target = model_of("a", "b"), model_of("a", "b")
    report = transfer_weights(target, source.state_dict(), source.names)
    assert not report.left
    assert not report.by_class
    for key, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key


def test_class_rows_go_by_name():
    source, target = model_of("Cat", "dog", "cow"), model_of("horse", "dog", "cat ")
    before = target.state_dict()["model.23.cv3.0.2.weight"].clone()
    report = transfer_weights(target, source.state_dict(), source.names)
    rows, theirs = (
        target.state_dict()["model.23.cv3.0.2.weight"],
        source.state_dict()["model.23.cv3.0.2.weight"],
    )
    assert torch.equal(rows[1], theirs[1])
    assert torch.equal(rows[2], theirs[0])
    assert torch.equal(rows[0], before[0])
    assert len(report.by_class) == 6
    assert "by class name" in str(report)


def test_another_size_says_what_was_left():
    source, target = DetectionModel(load_model_config("yolo11s")), model_of("a")
    report = transfer_weights(target, source.state_dict(), source.names)
    assert "not taken: model.0.conv.weight" in str(report)


def test_freezing_holds_layers_by_count_and_by_name():
    model = model_of("a")
    held = FrozenLayers(model, 2)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad and "dfl" not in name}
    assert {name.split(".")[1] for name in frozen} == {"0", "1"}
    model.train()
    held.hold()
    assert not model.get_submodule("model.0.bn").training and model.get_submodule("model.2").training
    FrozenLayers(model, ["cv3"])
    assert not model.state_dict(keep_vars=True)["model.23.cv3.0.2.weight"].requires_grad


def test_freezing_what_is_not_there_is_an_error():
    with pytest.raises(
        SettingsError, match=r"freeze=\['backbone'\]: nothing in the model is named 'backbone'"
    ):
        FrozenLayers(model_of("a"), ["backbone"])


def test_frozen_layers_are_released_by_index_and_name():
    model = model_of("a")
    held = FrozenLayers(model, 3)
    model.train()
    held.hold()
    held.release([1])
    assert (
        model.get_submodule("model.1.conv").weight.requires_grad
        and model.get_submodule("model.1.bn").training
    )
    assert not model.get_submodule("model.0.conv").weight.requires_grad
    held.release()
    assert all(p.requires_grad for name, p in model.named_parameters() if "dfl" not in name)
    assert not held.parameters and not held.modules
    with pytest.raises(SettingsError, match=r"unfreeze=\['neck'\]: nothing in the model is named 'neck'"):
        held.release(["neck"])
