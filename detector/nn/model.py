"""The detection network: built from a `ModelConfig`, with one or two heads."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from detector.errors import ModelError
from detector.nn.blocks import Concat, Conv, FusedConv
from detector.nn.config import BLOCKS, Layer, ModelConfig, load_model_config
from detector.nn.heads import Detect, HeadPreds

__all__ = ["DetectionModel", "HeadPreds", "ModelConfig", "ModelInfo", "load_model_config"]


@dataclass(frozen=True)
class ModelInfo:
    """Size of a network.

    Attributes:
        layers: modules without children.
        parameters: all parameters.
        trainable: parameters that take a gradient.
        gflops: 1e9 floating-point operations (two per multiply-add) of convolutions and matrix products when
            one image is run through the selected head.
        origin: the files the weights come from with their licences, in one line; empty where it is not known.
    """

    layers: int
    parameters: int
    trainable: int
    gflops: float
    origin: str = ""


class DetectionModel(nn.Module):
    """Backbone, neck and detection head.

    Args:
        config: the architecture.

    Attributes:
        config: the architecture.
        names: class name of every label; `class_0` ... unless the config has names.
        model: the layers in table order; their indices are part of the checkpoint keys.

    Raises:
        ModelError: a row's arguments can't be built.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.names = dict(enumerate(config.names))
        layers = config.layers()
        self.sources = [layer.source for layer in layers]
        last_use = {source: i for i, layer in enumerate(layers) for source in layer.source}
        self.freed_after = [[s for s, last in last_use.items() if last == i] for i in range(len(layers))]
        self.model = nn.ModuleList(_build(config, i, layer) for i, layer in enumerate(layers[:-1]))
        inputs = [layers[i] for i in layers[-1].source]
        self.model.append(
            Detect(
                tuple(layer.channels for layer in inputs),
                tuple(layer.stride for layer in inputs),
                config.num_classes,
                config.reg_max,
                config.dual_head,
                config.class_branch == "depthwise",
            )
        )

    @property
    def head(self) -> Detect:
        """The detection head, last of the layers."""
        return cast(Detect, self.model[-1])

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return self.config.num_classes

    @property
    def channels(self) -> int:
        """Channels of an image: 1 is grey, 3 colour."""
        return self.config.channels

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Values of images of 16 bits that become 0 and 255; None = their upper 8 bits are taken."""
        return self.config.value_range

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def reg_max(self) -> int:
        """Bins per box side, R; 1 means the distance itself."""
        return self.config.reg_max

    @property
    def dual_head(self) -> bool:
        """Whether the network has a one-to-one head as well."""
        return len(self.head.heads) > 1

    @property
    def strides(self) -> tuple[int, ...]:
        """Input px per cell of every level, fine to coarse."""
        return self.head.strides

    @property
    def selected_head(self) -> str:
        """The head run outside training: "one2many", whose predictions need suppression, or "one2one"."""
        return self.head.selected

    def head_for(self, nms: bool | None) -> str:
        """Return the name of the head that an `nms` setting asks for.

        Args:
            nms: False is the NMS-free one-to-one head, None and True the one-to-many head.

        Raises:
            ModelError: the network doesn't have that head.
        """
        name = "one2one" if nms is False else "one2many"
        if name not in self.head.heads:
            allowed = "None or True" if nms is False else "False"
            raise ModelError(f"nms={nms}: {self.config.name} has no {name} head; expected nms={allowed}.")
        return name

    def select_head(self, nms: bool | None) -> None:
        """Choose the head run outside training: see `head_for`."""
        self.head.selected = self.head_for(nms)

    def forward(self, images: Tensor) -> dict[str, HeadPreds]:
        """Predict.

        Args:
            images: (B, 3, H, W) float in [0, 1], RGB, or (B, 1, H, W), grey; H and W multiples of the coarsest
                stride. Cast to the dtype of the first layer.

        Returns:
            Raw predictions of every head in training, of the selected head otherwise, by head name.
        """
        outputs = {-1: images.to(next(self.parameters()).dtype)}
        for i, layer in enumerate(self.model):
            inputs = [outputs[source] for source in self.sources[i]]
            for source in self.freed_after[i]:  # free what no later layer reads
                del outputs[source]
            outputs[i] = layer(inputs if isinstance(layer, (Concat, Detect)) else inputs[0])
        return cast(dict[str, HeadPreds], outputs[i])

    def decode(self, preds: HeadPreds) -> Tensor:
        """Turn raw predictions into boxes and probabilities.

        Args:
            preds: the predictions of one head.

        Returns:
            (B, 4 + C, A) at least float32: cx, cy, w, h in input px, then C probabilities.
        """
        return self.head.decode(preds)

    @torch.no_grad()
    def fuse(self, dtype: torch.dtype | None = None, head: str | None = None) -> DetectionModel:
        """Return a faster copy for inference: normalisation folded, one head, eval mode.

        The network itself is left as it is. Fusing a fused network gives a plain copy.

        Args:
            dtype: dtype of all convolutions but the last of every branch, such as bfloat16, instead of the
                weights' own: slightly faster than autocast, which casts weights and inputs in every call.
            head: the head to keep; None keeps the selected one.
        """
        fused = deepcopy(self).eval()
        fused.head.selected = head or self.selected_head
        fused.head.drop_other_heads()
        for parent in list(fused.modules()):
            for name, child in parent.named_children():
                if isinstance(child, Conv):
                    setattr(parent, name, FusedConv(child))
        for module in fused.modules():
            if isinstance(module, FusedConv):
                module.to(dtype)
        return fused.requires_grad_(False)

    def info(self, imgsz: int | Sequence[int] = 640) -> ModelInfo:
        """Count layers, parameters and operations.

        Args:
            imgsz: side of the square input that operations are counted for, or height and width, px.
        """
        parameters = list(self.parameters())
        return ModelInfo(
            layers=sum(not list(module.children()) for module in self.modules()),
            parameters=sum(p.numel() for p in parameters),
            trainable=sum(p.numel() for p in parameters if p.requires_grad),
            gflops=count_gflops(self, imgsz, training=False),
        )


def count_gflops(model: DetectionModel, imgsz: int | Sequence[int], training: bool) -> float:
    """Count the operations of one forward pass without computing anything.

    Args:
        model: the network.
        imgsz: side of the square input, or height and width, px.
        training: run every head, not only the selected one.

    Returns:
        1e9 floating-point operations of convolutions and matrix products, two per multiply-add.
    """
    from torch.utils.flop_counter import FlopCounterMode

    height, width = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    twin = deepcopy(model).to("meta").train(training)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(torch.empty(1, model.channels, height, width, device="meta"))
    return float(counter.get_total_flops()) / 1e9


def _build(config: ModelConfig, index: int, layer: Layer) -> nn.Module:
    """Construct one layer; several copies follow each other."""
    arguments, copies = layer.arguments, []
    try:
        for _ in range(layer.copies):
            copies.append(BLOCKS[layer.block](**arguments))
            if "channels_in" in arguments:
                arguments = arguments | {"channels_in": arguments["channels_out"]}
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        row = config.rows[index]
        raise ModelError(f"{config.name}: row {index} {list(row)} can't be built: {error}") from error
    return copies[0] if len(copies) == 1 else nn.Sequential(*copies)
