import pytest
import torch

from detector.nn import blocks


@pytest.mark.parametrize(
    ("block", "shape"),
    [
        (blocks.Conv(8, 12, 3, 2), (2, 12, 8, 8)),
        (blocks.DWConv(8, 12, 3), (2, 12, 16, 16)),
        (blocks.Bottleneck(8, 8), (2, 8, 16, 16)),
        (blocks.C2f(8, 12, 2), (2, 12, 16, 16)),
        (blocks.C3(8, 12, 2), (2, 12, 16, 16)),
        (blocks.C3k(8), (2, 8, 16, 16)),
        (blocks.Attention(8, 2), (2, 8, 16, 16)),
        (blocks.PSABlock(8), (2, 8, 16, 16)),
        (blocks.C2PSA(8, 8), (2, 8, 16, 16)),
        (blocks.SPPF(8, 12), (2, 12, 16, 16)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else "",
)
def test_a_block_gives_its_shape_and_a_gradient_to_every_parameter(block, shape):
    out = block(torch.rand(2, 8, 16, 16))
    assert out.shape == shape
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


def test_a_shortcut_adds_the_input_where_the_channels_agree():
    x = torch.rand(1, 8, 4, 4)
    for block, passed in ((blocks.Bottleneck(8, 8), x), (blocks.Bottleneck(8, 8, shortcut=False), 0 * x)):
        torch.nn.init.zeros_(block.cv2.conv.weight)
        assert torch.equal(block.eval()(x), passed)


def test_a_block_that_keeps_its_channels_says_so():
    with pytest.raises(ValueError, match="C2PSA keeps its channels, but gets 8 and shall give 16"):
        blocks.C2PSA(8, 16)


@torch.no_grad()
def test_a_folded_convolution_equals_convolution_and_normalisation():
    conv = blocks.Conv(6, 8, 3, groups=2).eval()
    conv.bn.running_mean.normal_()
    conv.bn.running_var.uniform_(0.5, 2)
    conv.bn.weight.normal_()
    conv.bn.bias.normal_()
    x = torch.randn(1, 6, 5, 5)
    torch.testing.assert_close(blocks.FusedConv(conv)(x), conv(x))
