"""A teacher for tests: a convolution per stride, of fixed weights."""

from __future__ import annotations

import torch
from torch import nn


class Maps(nn.Module):
    """Gives maps of 4, 5 and 6 channels at the strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(3, out, stride, stride) for stride, out in ((8, 4), (16, 5), (32, 6))
        )
        generator = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.1, generator=generator)
        self.requires_grad_(False)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [layer(images) for layer in self.layers]
