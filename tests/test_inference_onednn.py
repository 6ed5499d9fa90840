import copy
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from detector import YOLO
from detector.device import select_precision
from detector.inference.onednn import PackedConv, can_pack
from detector.inference.torch_backend import TorchBackend
from detector.nn.blocks import Conv, FusedConv
from detector.nn.model import DetectionModel, load_model_config

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(not can_pack(None), reason="oneDNN packs convolutions on x86 only")


def fused(*args, dtype=torch.float32, **options):
    torch.manual_seed(0)
    conv = Conv(*args, **options).eval()
    with torch.no_grad():
        conv.bn.running_mean.normal_()
        conv.bn.weight.normal_()
        return FusedConv(conv).to(dtype).to(memory_format=torch.channels_last)


def image(channels, dtype=torch.float32, size=(2, 13, 18)):
    values = torch.randn(size[0], channels, *size[1:], generator=torch.Generator().manual_seed(1))
    return values.to(dtype).to(memory_format=torch.channels_last)


@needs_onednn
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 16, 3, 2), {}),
        ((16, 24, 1), {}),
        ((16, 16, 3), {"groups": 16}),
        ((16, 32, 3), {"groups": 4}),
        ((16, 24, 1), {"act": False}),
    ],
)
@torch.inference_mode()
def test_a_packed_convolution_computes_what_the_plain_one_does(shape, options):
    block = fused(*shape, **options)
    given = image(shape[0])
    expected = block(given.clone())
    packed = PackedConv(block)(given.clone())
    assert torch.allclose(packed, expected, atol=1e-6)
    assert packed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not can_pack(torch.bfloat16), reason="needs a processor with bf16 instructions")
@torch.inference_mode()
def test_in_bfloat16_it_is_closer_to_the_exact_result():
    exact = fused(16, 24, 3, dtype=torch.float64)(image(16).bfloat16().double())
    block = fused(16, 24, 3, dtype=torch.bfloat16)
    given = image(16, torch.bfloat16)
    plain, packed = block(given.clone()), PackedConv(block)(given.clone())
    assert packed.dtype == torch.bfloat16
    assert (packed - exact).abs().mean() <= (plain - exact).abs().mean()


def count_packed(network: nn.Module) -> int:
    return sum(isinstance(module, PackedConv) for module in network.modules())


@needs_onednn
def test_a_backend_packs_its_copy_alone():
    network = DetectionModel(load_model_config("yolo11n")).eval()
    backend = TorchBackend(network, CPU, select_precision("fp32", CPU))
    assert count_packed(backend.network) > 50
    assert count_packed(network) == 0
    given = torch.rand(1, 3, 64, 96)
    with mock.patch("detector.inference.torch_backend.can_pack", return_value=False):
        plain = TorchBackend(network, CPU, select_precision("fp32", CPU))
    assert count_packed(plain.network) == 0
    assert torch.allclose(backend.forward(given)[0], plain.forward(given)[0], atol=1e-4)


def test_a_model_that_has_predicted_can_be_copied():
    model = YOLO("yolo11n.yaml")
    image = np.zeros((64, 64, 3), np.uint8)
    (mine,) = model.predict(image, imgsz=64, conf=0.0, verbose=False)
    (theirs,) = copy.deepcopy(model).predict(image, imgsz=64, conf=0.0, verbose=False)
    assert torch.equal(mine.boxes.data, theirs.boxes.data)


def test_nothing_is_packed_where_the_network_is_compiled_or_in_float64():
    network = DetectionModel(load_model_config("yolo11n")).eval()
    assert count_packed(TorchBackend(network, CPU, select_precision("fp32", CPU), compile=True).network) == 0
    assert count_packed(TorchBackend(network.double(), CPU, select_precision("fp32", CPU)).network) == 0


def test_bfloat16_is_left_alone_where_the_processor_lacks_it():
    network = DetectionModel(load_model_config("yolo11n")).eval()
    with mock.patch.object(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", return_value=False):
        assert not can_pack(torch.bfloat16)
        backend = TorchBackend(network, CPU, select_precision("bf16", CPU))
    assert count_packed(backend.network) == 0
