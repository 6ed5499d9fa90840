"""Batch norm over the whole batch of several processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from detector.scale.ranks import Ranks


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm whose batch is that of all processes: training by N processes is that by one.

    Mean and variance of the processes are joined by their counts (Chan, Golub & LeVeque, Updating formulae and a
    pairwise algorithm for computing sample variances, 1979, eq. 2.1). torch's own class of this name needs a GPU, and
    can't leave out the images of a process that has none of its own. In eval mode it is the plain one.

    Attributes:
        ranks: the processes.
    """

    ranks: Ranks

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        output, mean, var, count = _SyncNorm.apply(input, self.weight, self.bias, self.eps, self.ranks)
        # no momentum: the mean over all batches so far
        part = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        with torch.no_grad():
            assert self.running_var is not None
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), part)
            self.running_var.lerp_((var * count / (count - 1)).to(self.running_var.dtype), part)
        return output  # type: ignore[no-any-return]


def synchronise_batch_norm(model: nn.Module, ranks: Ranks) -> None:
    """Turn every batch norm of a network into one over all processes, in place; its parameters and name stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm
            module.ranks = ranks  # type: ignore[assignment]


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance of each channel of (B, C, H, W), each (C,) and at least float32."""
    if x.device.type == "cpu":
        # torch's kernel for batch norm, which adds up one by one: in float32 it is wrong by up to 1e-4 of the variance.
        # In float64 it is still 2 to 9 times as fast as var_mean
        return torch.batch_norm_update_stats(x.double(), None, None, 0.0)
    var, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
    return mean, var


class _SyncNorm(torch.autograd.Function):
    """Normalise (B, C, H, W) by the mean and the variance of all processes' inputs."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels = x.shape[1]
        own_mean, own_var = moments(x)
        own = torch.cat(
            [own_mean, own_var, own_mean.new_tensor([x.numel() / channels if ranks.has_share else 0.0])]
        )
        parts = torch.stack(ranks.gather_tensor(own, "the statistics of a batch norm")).double()
        means, variances, counts = parts[:, :channels], parts[:, channels:-1], parts[:, -1:]
        count = counts.sum()
        mean = (means * counts).sum(0) / count
        var = ((variances + (means - mean).square()) * counts).sum(0) / count
        # a placeholder is normalised by itself: by another image's statistics its values might grow beyond bounds
        used_mean, used_var = (mean, var) if ranks.has_share else (own_mean, own_var)
        used_mean, used_var = used_mean.to(weight.dtype), used_var.to(weight.dtype)
        ctx.save_for_backward(x, weight, used_mean, used_var, count)
        ctx.eps, ctx.ranks = eps, ranks
        ctx.mark_non_differentiable(mean, var, count)
        return batch_norm(x, used_mean, used_var, weight, bias, False, 0.0, eps), mean, var, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, count = ctx.saved_tensors
        inverse = torch.rsqrt(var + ctx.eps)
        # the derivative at fixed statistics, and the sums over this process's part of the batch
        by_input, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, mean, inverse, False, ctx.eps, [True, True, True]
        )
        sums = ctx.ranks.sum(torch.stack([by_bias, by_weight]), "the gradients of a batch norm")
        if ctx.ranks.has_share:  # the loss does not depend on a placeholder
            sums = sums / count.to(weight.dtype)
            slope = -weight * inverse * sums[1] * inverse
            offset = -weight * inverse * sums[0] - slope * mean
            slope, offset = (part.to(x.dtype).view(1, -1, 1, 1) for part in (slope, offset))
            by_input = by_input.addcmul_(x, slope).add_(offset)
        return by_input, by_weight, by_bias, None, None
