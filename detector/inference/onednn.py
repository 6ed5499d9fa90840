"""Convolutions for oneDNN on a CPU: weights reordered once, SiLU fused into the convolution."""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn

from detector.nn.blocks import Activation, FusedConv

DTYPES = (torch.float32, torch.bfloat16)


def can_pack(dtype: torch.dtype | None) -> bool:
    """Whether this torch and processor have oneDNN's fused convolutions: on x86 only, not verified elsewhere.

    Args:
        dtype: what the network computes in; None for float32.
    """
    return (
        bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)  # type: ignore[no-untyped-call]
        and platform.machine().lower() in ("x86_64", "amd64")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and (dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )


class PackedConv(nn.Module):
    """A `FusedConv` whose weight is in the order in which oneDNN reads it, and whose activation is part of it.

    Through `nn.Conv2d` the weight is put in order by every call, and in bfloat16 SiLU reads what was rounded. In
    float32 both give the same numbers.

    Args:
        fused: the block to pack, of float32 or bfloat16, on the CPU; it stays as it is.
    """

    def __init__(self, fused: FusedConv) -> None:
        super().__init__()
        conv = fused.conv
        self.where = [list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups]
        self.act = "swish" if isinstance(fused.act, Activation) else "none"
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight, *self.where, None)
        self.bias = conv.bias

    def __deepcopy__(self, memo: dict[int, object]) -> PackedConv:
        """Return the block itself: it never changes, and torch can't copy such a weight."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and activate (B, C_in, H, W); returns (B, C_out, H', W') of the same dtype."""
        return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
            x, self.weight, self.bias, *self.where, self.act, [], ""
        )


def pack_convolutions(network: nn.Module) -> None:
    """Replace the fused convolutions of a network; afterwards it can run, but not be saved."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, FusedConv) and child.conv.weight.dtype in DTYPES:
                setattr(parent, name, PackedConv(child))
