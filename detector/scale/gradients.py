"""The exchange of gradients: in one order from the first step on, so that a resumed run adds them up as before."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class _Warmed(nn.Module):
    """Calls a model; without inputs it returns the sum of what is trained in it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> Any:
        if inputs:
            return self.model(*inputs)
        return torch.stack([p.sum() for p in self.model.parameters() if p.requires_grad]).sum()


def exchange_gradients(model: nn.Module) -> DistributedDataParallel:
    """Return what to call in place of a model, so that its gradients are the means over all processes.

    DistributedDataParallel orders its buckets again after its first step. Where three or more processes add up, the
    last bits depend on the place in a bucket: that of the first step after a resume would be another one. So the first
    step is one without images, and leaves nothing.
    """
    place = next(model.parameters()).device
    with warnings.catch_warnings():
        # from torch 2.14 on it is called forward_sync_buffers; statistics are recomputed before every validation
        warnings.simplefilter("ignore", FutureWarning)
        ids = [place.index] if place.type == "cuda" else None
        network = DistributedDataParallel(_Warmed(model), device_ids=ids, broadcast_buffers=False)
    accumulated = [(p, p.grad) for p in model.parameters()]
    for parameter, _ in accumulated:
        parameter.grad = None
    network().backward()
    for parameter, grad in accumulated:
        parameter.grad = grad
    return network


def flat(gradients: dict[str, Tensor]) -> Tensor:
    """Return gradients as one tensor on the CPU, to send."""
    return torch.cat([grad.flatten() for grad in gradients.values()]).cpu()


def unflat(sent: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return sent gradients by name, each laid out in memory as that of the same name in `like`."""
    parts = torch.split(sent, [grad.numel() for grad in like.values()])
    return {
        name: torch.empty_like(grad, device="cpu").copy_(part.view(grad.shape))
        for (name, grad), part in zip(like.items(), parts, strict=True)
    }


def mean_of(shares: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the means of what several processes have accumulated, laid out in memory as that is."""
    return {
        name: torch.empty_like(first).copy_(torch.stack([share[name] for share in shares]).mean(0))
        for name, first in shares[0].items()
    }
