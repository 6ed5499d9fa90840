"""Batch norm over the batch of several processes, which are played by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detector.scale.batch_norm import SyncBatchNorm, moments, synchronise_batch_norm
from detector.scale.ranks import Ranks


class Played(Ranks):
    """A process whose other half of the exchange is known."""

    size = 2

    def __init__(self, statistics: Tensor, sums: Tensor) -> None:
        self.statistics, self.sums = statistics, sums

    def gather_tensor(self, values: Tensor, what: str) -> list[Tensor]:
        return [values, self.statistics]

    def sum(self, values: Tensor, what: str) -> Tensor:
        return values + self.sums


def test_a_part_of_the_batch_is_normalised_and_differentiated_as_within_the_whole() -> None:
    torch.manual_seed(0)
    whole = torch.randn(6, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    grad = torch.randn_like(whole)
    plain = nn.BatchNorm2d(3).double()
    expected = plain(whole)
    expected.backward(grad)
    theirs = whole[2:].detach()
    var, mean = torch.var_mean(theirs, (0, 2, 3), correction=0)
    normed = (theirs - plain_mean(whole)) / (plain_var(whole) + 1e-5).sqrt()
    sums = torch.stack([grad[2:].sum((0, 2, 3)), (grad[2:] * normed).sum((0, 2, 3))])
    ranks = Played(torch.cat([mean, var, mean.new_tensor([4 * 4 * 5])]), sums)
    shared = nn.Sequential(nn.BatchNorm2d(3).double())
    synchronise_batch_norm(shared, ranks)
    own = whole[:2].detach().requires_grad_()
    output = shared(own)
    output.backward(grad[:2])
    assert isinstance(shared[0], SyncBatchNorm)
    assert torch.allclose(output, expected[:2], atol=1e-12)
    assert torch.allclose(own.grad, whole.grad[:2], atol=1e-12)  # type: ignore[arg-type, index]
    assert torch.allclose(shared[0].running_var, plain.running_var, atol=1e-12)  # type: ignore[arg-type]
    assert torch.allclose(shared[0].running_mean, plain.running_mean, atol=1e-12)  # type: ignore[arg-type]


def plain_mean(whole: Tensor) -> Tensor:
    return whole.detach().mean((0, 2, 3)).view(1, -1, 1, 1)


def plain_var(whole: Tensor) -> Tensor:
    return whole.detach().var((0, 2, 3), correction=0).view(1, -1, 1, 1)


def test_a_placeholder_takes_no_part_in_statistics_and_has_no_gradients() -> None:
    theirs = torch.tensor([5.0, 2.0, 8.0])  # mean, variance, count of one channel
    ranks = Played(theirs, torch.full((2, 1), 7.0))
    ranks.has_share = False
    shared = nn.Sequential(nn.BatchNorm2d(1))
    synchronise_batch_norm(shared, ranks)
    images = torch.rand(1, 1, 2, 2, requires_grad=True)
    (shared(images) * 0).sum().backward()
    assert torch.allclose(shared[0].running_mean, torch.tensor([0.5]))  # type: ignore[arg-type]
    assert images.grad is not None and not images.grad.any()


def test_it_is_a_plain_batch_norm_in_eval_mode() -> None:
    plain, shared = nn.BatchNorm2d(2).eval(), nn.Sequential(nn.BatchNorm2d(2)).eval()
    synchronise_batch_norm(shared, Played(torch.zeros(5), torch.zeros(2, 2)))
    images = torch.rand(1, 2, 3, 3)
    assert torch.equal(plain(images), shared(images))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (1, 8, 1, 1), (2, 64, 16, 16)])
def test_moments_are_mean_and_biased_variance(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = (torch.randn(shape) * 3 + 50).contiguous(memory_format=layout)
    mean, var = moments(x)
    exact_var, exact_mean = torch.var_mean(x.double(), dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(mean, exact_mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(var, exact_var, rtol=1e-11, atol=1e-11)
