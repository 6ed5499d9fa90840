import pytest
import torch
from support.vector_fill import VECTORS
from torch import nn

from detector.training.schedule import Schedule, cosine_decay, linear_decay


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
