import pytest
import torch
from torch import nn

from detector.nn.model import DetectionModel, load_model_config
from detector.training.optim import build_optimizer, choose_recipe, clip_gradients


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


def test_gradients_are_scaled_down_to_a_norm_and_their_norm_before_is_known():
    parameter = nn.Parameter(torch.zeros(2))
    for limit, after in ((10.0, [3.0, 4.0]), (1.0, [0.6, 0.8]), (0.0, [3.0, 4.0])):
        parameter.grad = torch.tensor([3.0, 4.0])
        assert clip_gradients([parameter], limit) == 5.0
        assert torch.allclose(parameter.grad, torch.tensor(after))


def test_a_training_clips_to_its_setting_and_knows_the_norm(train_tiny):
    norms = []

    def look(trainer):
        grads = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        norms.append(
            (
                trainer.grad_norm.item(),
                torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads])).item(),
            )
        )

    train_tiny(("on_before_zero_grad", look), clip_grad=0.5, epochs=1)
    assert all(before > 0.5 and after == pytest.approx(0.5, rel=1e-3) for before, after in norms)
    norms.clear()
    train_tiny(("on_before_zero_grad", look), clip_grad=0.0, epochs=1)
    assert all(after == pytest.approx(before, rel=1e-4) for before, after in norms)
    assert max(before for before, _ in norms) > 0.5
