"""The layers that architecture tables are written in.

Attribute names (`conv`, `bn`, `cv1`, `m` ...) become checkpoint keys and are frozen.
Every block takes (B, channels_in, H, W) and gives (B, channels_out, H', W').
"""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

BN_EPS, BN_MOMENTUM = 1e-3, 0.03  # those of the published YOLO weights, which rely on the first


class Activation(nn.Module):
    """SiLU; in place where no gradient needs its input."""

    def forward(self, x: Tensor) -> Tensor:
        return silu(x, inplace=not torch.is_grad_enabled())


ACTIVATION = Activation()  # stateless, so one serves every convolution


class Conv(nn.Module):
    """Convolution without bias, batch normalisation, activation.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        kernel: odd kernel size; padding keeps H and W at stride 1.
        stride: step in both directions.
        groups: groups of channels convolved apart.
        act: apply SiLU.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(channels_out, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = ACTIVATION if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class FusedConv(nn.Module):
    """A `Conv` for inference: its normalisation is folded into weight and bias.

    w' = w * g / sqrt(var + eps) and b' = beta - mean * g / sqrt(var + eps), computed in at least float32.

    Args:
        trained: the block to fold; it stays as it is.
    """

    def __init__(self, trained: Conv) -> None:
        super().__init__()
        conv, bn = trained.conv, trained.bn
        assert isinstance(bn.running_mean, Tensor) and isinstance(bn.running_var, Tensor)
        dtype = torch.promote_types(conv.weight.dtype, torch.float32)
        gain = bn.weight.detach().to(dtype) / (bn.running_var.to(dtype) + bn.eps).sqrt()
        # skip_init: random values would be thrown away, and drawing them moves the global generator
        self.conv = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Conv2d,
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            groups=conv.groups,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        ).requires_grad_(False)
        assert self.conv.bias is not None
        self.conv.weight.copy_(conv.weight.detach().to(dtype) * gain[:, None, None, None])
        self.conv.bias.copy_(bn.bias.detach().to(dtype) - bn.running_mean.to(dtype) * gain)
        self.act = trained.act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))  # type: ignore[no-any-return]


class DWConv(Conv):
    """`Conv` in which every group has as few channels as in and out allow: depthwise when they agree."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1, act: bool = True
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, gcd(channels_in, channels_out), act)


class Bottleneck(nn.Module):
    """Two convolutions through `int(channels_out * expansion)` channels.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        shortcut: add the input to the result where the channels agree.
        expansion: hidden channels as a part of `channels_out`.
        kernel: kernel of the first convolution; the second has 3.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        shortcut: bool = True,
        expansion: float = 0.5,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        hidden = int(channels_out * expansion)
        self.cv1 = Conv(channels_in, hidden, kernel)
        self.cv2 = Conv(hidden, channels_out, 3)
        self.add = shortcut and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C2f(nn.Module):
    """Split in two, send one half through a chain of bottlenecks, concatenate every stage.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        repeats: bottlenecks in the chain.
        shortcut: the bottlenecks add their input.
        expansion: channels of each half as a part of `channels_out`.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        repeats: int = 1,
        shortcut: bool = False,
        expansion: float = 0.5,
    ) -> None:
        super().__init__()
        hidden = int(channels_out * expansion)
        self.cv1 = Conv(channels_in, 2 * hidden)
        self.cv2 = Conv((2 + repeats) * hidden, channels_out)
        self.m = nn.ModuleList(self.stage(hidden, shortcut) for _ in range(repeats))

    def stage(self, channels: int, shortcut: bool) -> nn.Module:
        """Build one item of the chain."""
        return Bottleneck(channels, channels, shortcut, expansion=1.0)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        for stage in self.m:
            parts.append(stage(parts[-1]))
        return self.cv2(torch.cat(parts, 1))  # type: ignore[no-any-return]


class C3(nn.Module):
    """Two 1x1 branches, one of them through bottlenecks, concatenated (CSPNet, arXiv:1911.11929).

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        repeats: bottlenecks in the first branch.
        shortcut: the bottlenecks add their input.
        expansion: channels of a branch as a part of `channels_out`.
        kernel: kernel of the bottlenecks' first convolution.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        repeats: int = 1,
        shortcut: bool = True,
        expansion: float = 0.5,
        kernel: int = 1,
    ) -> None:
        super().__init__()
        hidden = int(channels_out * expansion)
        self.cv1 = Conv(channels_in, hidden)
        self.cv2 = Conv(channels_in, hidden)
        self.cv3 = Conv(2 * hidden, channels_out)
        self.m = nn.Sequential(
            *(Bottleneck(hidden, hidden, shortcut, expansion=1.0, kernel=kernel) for _ in range(repeats))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))  # type: ignore[no-any-return]


class C3k(C3):
    """`C3` of two bottlenecks whose kernels are all 3x3: the deep stage of `C3k2`."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, repeats=2, kernel=3)


class Attention(nn.Module):
    """Self-attention over the positions of a feature map, values positioned by a depthwise convolution.

    Queries and keys have half the channels of the values. The scaled dot product is that of Vaswani et
    al. 2017 (arXiv:1706.03762, eq. 1).

    Args:
        channels: channels in and out.
        heads: attention heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.value_channels = channels // heads
        self.key_channels = self.value_channels // 2
        self.scale = self.key_channels**-0.5
        self.qkv = Conv(channels, channels + 2 * self.key_channels * heads, act=False)
        self.proj = Conv(channels, channels, act=False)
        self.pe = Conv(channels, channels, 3, groups=channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(x).reshape(batch, self.heads, -1, height * width)  # (B, heads, 2 key + value, HW)
        q, k, v = qkv.split((self.key_channels, self.key_channels, self.value_channels), 2)
        weight = ((q.transpose(2, 3) @ k) * self.scale).softmax(-1)  # (B, heads, HW, HW)
        attended = (v @ weight.transpose(2, 3)).reshape(batch, channels, height, width)
        return self.proj(attended + self.pe(v.reshape(batch, channels, height, width)))  # type: ignore[no-any-return]


class PSABlock(nn.Module):
    """Attention, then a two-layer feed-forward net of 1x1 convolutions, each added to its input.

    Args:
        channels: channels in and out; a head for every 64 of them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attn = Attention(channels, heads=max(channels // 64, 1))
        self.ffn = nn.Sequential(Conv(channels, 2 * channels), Conv(2 * channels, channels, act=False))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.ffn(x)  # type: ignore[no-any-return]


class C3k2(C2f):
    """`C2f` wiring whose chain is made of bottlenecks, of `C3k` or of attention blocks.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        repeats: items in the chain.
        c3k: the items are `C3k`.
        expansion: channels of each half as a part of `channels_out`.
        attn: the items are a bottleneck followed by a `PSABlock`; goes before `c3k`.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        repeats: int = 1,
        c3k: bool = False,
        expansion: float = 0.5,
        attn: bool = False,
    ) -> None:
        self.kind = "attention" if attn else "c3k" if c3k else "bottleneck"
        super().__init__(channels_in, channels_out, repeats, shortcut=True, expansion=expansion)

    def stage(self, channels: int, shortcut: bool) -> nn.Module:
        if self.kind == "attention":
            return nn.Sequential(Bottleneck(channels, channels, shortcut), PSABlock(channels))
        return C3k(channels) if self.kind == "c3k" else Bottleneck(channels, channels, shortcut)


class C2PSA(nn.Module):
    """Split in two, send one half through attention blocks, join.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output; must equal `channels_in`.
        repeats: attention blocks.
        expansion: channels of each half as a part of `channels_out`.
    """

    def __init__(self, channels_in: int, channels_out: int, repeats: int = 1, expansion: float = 0.5) -> None:
        if channels_in != channels_out:
            raise ValueError(
                f"C2PSA keeps its channels, but gets {channels_in} and shall give {channels_out}"
            )
        super().__init__()
        hidden = int(channels_out * expansion)
        self.cv1 = Conv(channels_in, 2 * hidden)
        self.cv2 = Conv(2 * hidden, channels_out)
        self.m = nn.Sequential(*(PSABlock(hidden) for _ in range(repeats)))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.cv1(x).chunk(2, 1)
        return self.cv2(torch.cat((a, self.m(b)), 1))  # type: ignore[no-any-return]


class SPPF(nn.Module):
    """Successive max pools of stride 1, all stages joined: spatial pyramid pooling, fast.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        kernel: odd size of each pool.
        pools: how many pools follow each other.
        residual: add the input to the result where the channels agree.
        act: the first convolution has an activation.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 5,
        pools: int = 3,
        residual: bool = False,
        act: bool = True,
    ) -> None:
        super().__init__()
        hidden = channels_in // 2
        self.cv1 = Conv(channels_in, hidden, act=act)
        self.cv2 = Conv((pools + 1) * hidden, channels_out)
        self.m = nn.MaxPool2d(kernel, stride=1, padding=kernel // 2)
        self.pools = pools
        self.add = residual and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        stages = [self.cv1(x)]
        for _ in range(self.pools):
            stages.append(self.m(stages[-1]))
        y: Tensor = self.cv2(torch.cat(stages, 1))
        return x + y if self.add else y


class Upsample(nn.Module):
    """Repeat every pixel `scale` times along both axes.

    Args:
        scale: whole-number enlargement.
    """

    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge H and W, in the dtype of the input."""
        return nn.functional.interpolate(x, scale_factor=float(self.scale), mode="nearest")


class Concat(nn.Module):
    """Join feature maps of equal size along their channels."""

    def forward(self, features: list[Tensor]) -> Tensor:
        """Join (B, C_i, H, W) to (B, sum of C_i, H, W)."""
        return torch.cat(features, 1)
