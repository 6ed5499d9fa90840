import pytest
import torch
from torch import nn
from vector_fill import VECTORS

from detector.engine.ema import ModelEMA


def test_the_decay_equals_the_vectors():
    ema = ModelEMA(nn.Linear(1, 1))
    for updates, decay in VECTORS["ema_decay"].items():
        assert ema.decay_at(int(updates)) == pytest.approx(decay)


def test_an_update_moves_weights_and_statistics_towards_the_model():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = ModelEMA(model, decay=0.5, tau=1e-9)
    start = ema.model[0].weight.clone()
    with torch.no_grad():
        model[0].weight.add_(1)
        model[1].running_mean.add_(2)
    ema.update()
    assert torch.allclose(ema.model[0].weight, start + 0.5)
    assert torch.allclose(ema.model[1].running_mean, torch.ones(2))


def test_the_state_has_the_models_counters():
    model = nn.BatchNorm1d(2)
    ema = ModelEMA(model)
    model(torch.randn(4, 2))
    assert ema.state_dict()["num_batches_tracked"] == 1
    assert not any(p.requires_grad for p in ema.model.parameters())
