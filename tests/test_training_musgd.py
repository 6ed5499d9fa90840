import numpy as np
import pytest
import torch
from support.vector_fill import VECTORS, hashed
from torch import nn

from detector.training.musgd import MuSGD, _iterate_alike, _iterate_padded, orthogonalize


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


@pytest.mark.parametrize(("in_bfloat16", "error"), [(True, 0.05), (False, 1e-5)])
def test_the_device_decides_what_orthogonalizing_is_computed_in(in_bfloat16, error, monkeypatch):
    monkeypatch.setattr("detector.training.musgd.computes_in_bfloat16", lambda device: in_bfloat16)
    matrix = torch.randn(6, 20, generator=torch.Generator().manual_seed(0))
    x = matrix.double() / (matrix.double().norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    found = orthogonalize([matrix])[0]
    assert found.dtype == torch.float32
    assert (found - x).abs().max() < error
    assert in_bfloat16 == bool((found - x).abs().max() > 1e-4)


def test_padded_matrices_are_orthogonalized_as_without_padding():
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 27), (16, 9), (64, 144), (80, 64), (1, 5), (24, 24), (64, 140), (9, 16)]
    matrices = [torch.randn(shape, generator=generator) for shape in shapes]
    alike, padded = (together(matrices, torch.float32, 5) for together in (_iterate_alike, _iterate_padded))
    for one, other, matrix in zip(alike, padded, matrices, strict=True):
        assert other.is_contiguous() and other.shape == matrix.shape
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_groups_weigh_the_two_steps_by_themselves():
    start = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    moved = {}
    for name, weights in {"muon": {"sgd": 0.0}, "sgd": {"muon": 0.0}, "both": {}}.items():
        parameter = nn.Parameter(start.clone())
        parameter.grad = start.sin()
        MuSGD([{"params": [parameter], "use_muon": True, **weights}], lr=0.01, muon=0.3, sgd=0.5).step()
        moved[name] = (parameter - start).detach()
    assert torch.allclose(moved["muon"] + moved["sgd"], moved["both"], atol=1e-6)
    assert torch.allclose(moved["sgd"], -0.01 * 0.5 * 1.9 * start.sin(), atol=1e-6)


def test_a_state_without_weights_of_the_steps_goes_on_with_those_of_its_time():
    optimizer = MuSGD([{"params": [nn.Parameter(torch.ones(2, 3))], "use_muon": True}], sgd=0.2)
    state = optimizer.state_dict()
    del state["param_groups"][0]["sgd"], state["param_groups"][0]["muon"]
    optimizer.load_state_dict(state)
    assert (optimizer.param_groups[0]["muon"], optimizer.param_groups[0]["sgd"]) == (0.2, 1.0)
