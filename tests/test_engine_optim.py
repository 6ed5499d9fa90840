import numpy as np
import pytest
import torch
from support.vector_fill import VECTORS, hashed
from torch import nn

from detector.engine.optim import (
    MuSGD,
    Schedule,
    build_optimizer,
    choose_recipe,
    cosine_decay,
    linear_decay,
    orthogonalize,
)
from detector.nn.model import DetectionModel, load_model_config


def test_musgd_steps_equal_the_vectors():
    weight = nn.Parameter((hashed(108, 31) - 0.5).float().view(4, 3, 3, 3))
    bias = nn.Parameter((hashed(4, 32) - 0.5).float())
    groups = [{"params": [weight], "use_muon": True, "weight_decay": 5e-4}, {"params": [bias]}]
    optimizer = MuSGD(groups, lr=0.01, momentum=0.9)
    for k, expected in enumerate(VECTORS["musgd"]["steps"]):
        weight.grad = (hashed(108, 41 + k) - 0.5).float().view_as(weight)
        bias.grad = (hashed(4, 51 + k) - 0.5).float()
        optimizer.step()
        assert weight.flatten()[:8].tolist() == pytest.approx(expected["W_flat_first8"], abs=1e-4)
        assert bias.tolist() == pytest.approx(expected["b"], abs=1e-6)


def test_orthogonalize_makes_singular_values_near_one():
    matrix = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(orthogonalize([matrix])[0].view(8, -1))
    assert singular.min() > 0.6
    assert singular.max() < 1.3


def test_orthogonalize_equals_the_vector():
    given = VECTORS["newton_schulz"]
    (found,) = orthogonalize([torch.tensor(given["in"])])
    np.testing.assert_allclose(found.numpy(), np.array(given["out"]), atol=0.03)  # bfloat16 inside


def test_orthogonalizing_together_equals_one_by_one():
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 3, 3), (8, 4), (4, 3, 3, 3), (4, 27)]
    matrices = [torch.randn(shape, generator=generator) for shape in shapes]
    for together, matrix in zip(orthogonalize(matrices), matrices, strict=True):
        assert torch.allclose(together, orthogonalize([matrix])[0], atol=0.02)


def test_the_warm_up_equals_the_vectors():
    given = VECTORS["warmup"]
    schedule = Schedule(
        given["epochs"], given["nb"], warmup_bias_lr=given["bias_lr"], accumulate=given["acc0"]
    )
    assert schedule.warmup_steps == given["nw"]
    groups = [
        {"params": [nn.Parameter(torch.zeros(1))], "role": role, "initial_lr": given["lr0"]}
        for role in ("weight", "bias")
    ]
    optimizer = torch.optim.SGD(groups, lr=given["lr0"], momentum=0.9)
    for step, accumulate, lr_other, lr_bias, momentum in given["rows"]:
        assert schedule.apply(optimizer, step // given["nb"], step) == accumulate
        weight, bias = optimizer.param_groups
        assert weight["lr"] == pytest.approx(lr_other)
        assert bias["lr"] == pytest.approx(lr_bias)
        assert weight["momentum"] == pytest.approx(momentum)


@pytest.mark.parametrize(("decay", "key"), [(linear_decay, "lf_linear_e100"), (cosine_decay, "lf_cos_e100")])
def test_decays_equal_the_vectors(decay, key):
    for epoch, factor in VECTORS[key].items():
        assert decay(int(epoch) / 100, 0.01) == pytest.approx(factor)


def test_one_epoch_has_no_warm_up():
    assert Schedule(epochs=1, batches=10).warmup_steps == 0


def test_a_learning_rate_that_is_given_is_kept():
    assert choose_recipe("auto", 0.5, None, 80, 100).lr0 == 0.5


def group_sizes(name):
    model, recipe = DetectionModel(load_model_config("yolo26n")), choose_recipe(name, None, None, 80, 100)
    optimizer = build_optimizer(model, recipe, 0.9, 5e-4)
    groups = optimizer.param_groups
    return {(g["role"], round(g["lr"] / recipe.lr0, 3)): len(g["params"]) for g in groups}, optimizer


def test_adamw_groups_hold_weights_norms_and_biases():
    sizes, optimizer = group_sizes("AdamW")
    assert sorted((role, count) for (role, _), count in sizes.items()) == [
        ("bias", 126), ("norm", 114), ("weight", 126),
    ]  # fmt: skip
    assert {g["role"]: g["weight_decay"] for g in optimizer.param_groups} == {
        "weight": 5e-4, "norm": 0.0, "bias": 0.0,
    }  # fmt: skip


def test_musgd_groups_split_class_branches():
    assert group_sizes("MuSGD")[0] == {
        ("norm", 3.0): 24, ("norm", 1.0): 90, ("bias", 3.0): 30, ("bias", 1.0): 96,
        ("muon", 3.0): 30, ("muon", 1.0): 96,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adamax", "NAdam", "RAdam", "RMSProp", "AdamW", "MuSGD"])
def test_every_optimizer_lowers_a_small_loss(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = build_optimizer(model, choose_recipe(name, 0.01, None, 2, 100), 0.9, 5e-4)
    x, y = torch.randn(64, 4), torch.randn(64, 1)
    losses = []
    for _ in range(20):
        loss = ((model(x) - y) ** 2).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]


def test_auto_is_musgd_with_a_larger_rate_in_short_runs():
    short, long = (choose_recipe("auto", None, None, 80, steps) for steps in (500, 50_000))
    assert (short.optimizer, short.lr0, short.warmup_bias_lr) == ("MuSGD", 0.02, 0.0)
    assert (long.optimizer, long.lr0) == ("MuSGD", 0.01)
    assert choose_recipe("AdamW", None, None, 2, 500).lr0 == 0.001667
