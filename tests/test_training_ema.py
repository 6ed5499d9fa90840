import torch
from torch import nn

from detector.training.ema import ModelEMA


def test_the_average_reaches_back_over_a_part_of_the_run():
    ema = ModelEMA(nn.Linear(1, 1))
    assert [ema.decay_at(n) for n in (1, 48, 450)] == [2 / 51, 49 / 98, 451 / 500]
    assert ema.decay_at(10**9) == 0.9999


def test_an_update_moves_weights_and_statistics_towards_the_model():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = ModelEMA(model)
    start = ema.model[0].weight.clone()
    with torch.no_grad():
        model[0].weight.add_(1)
        model[1].running_mean.add_(2)
    ema.update()
    assert torch.allclose(ema.model[0].weight, start + 49 / 51)
    assert torch.allclose(ema.model[1].running_mean, 2 * torch.full((2,), 49 / 51))


def test_the_state_has_the_models_counters():
    model = nn.BatchNorm1d(2)
    ema = ModelEMA(model)
    model(torch.randn(4, 2))
    assert ema.state_dict()["num_batches_tracked"] == 1
    assert not any(p.requires_grad for p in ema.model.parameters())
