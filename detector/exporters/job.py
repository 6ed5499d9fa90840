"""What an export format is given to write: the network with its pre- and postprocessing, an example, the options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detector.boxes import NMSParams, cxcywh_to_xyxy
from detector.nn.model import DetectionModel

MAX_BATCH, MAX_SIDE = (
    256,
    4096,
)  # of a dynamic file, unless it is exported with more; exporters need upper bounds
MIN_CELLS = 2  # of a side of a dynamic file, in its largest stride: torch takes one for a constant

Suppress = Callable[[Tensor, Tensor, float, float], Tensor]
"""(boxes (B, A, 4) xyxy, scores (B, C, A), minimum score, maximum IoU) -> (B, A) float, 1 for boxes that stay."""


@dataclass(frozen=True)
class ExportSpec:
    """One export.

    Attributes:
        model: the network, on the CPU, not fused; it is the caller's own and stays as it is.
        head: the head to export.
        imgsz: height and width of the input, px.
        batch: images of the example.
        dynamic: leave batch, height and width free.
        precision: one of the format's.
        preprocess: take (B, H, W, 3) uint8 BGR instead of (B, 3, H, W) float RGB; one channel is grey.
        reduction: give detections instead of raw predictions, one class per anchor point; None for raw.
        opset: ONNX operator set, or None for the default.
        simplify: shorten the graph.
        calibration: yields (1, ...) inputs made of real images, for int8.
        checkpoint: the model as a checkpoint, without its weights.
    """

    model: DetectionModel
    head: str
    imgsz: tuple[int, int]
    batch: int
    dynamic: bool
    precision: str
    preprocess: bool
    reduction: NMSParams | None
    opset: int | None
    simplify: bool
    calibration: Callable[[], Iterator[NDArray[Any]]]
    checkpoint: Mapping[str, Any]

    def network(
        self, dtype: torch.dtype | None = None, suppress: Suppress | None = None, channels_last: bool = False
    ) -> Graph:
        """Return the fused network from images to predictions.

        Args:
            dtype: of all convolutions but the last of each branch; None keeps float32.
            suppress: the format's own non-maximum suppression; None is torchvision's.
            channels_last: lay out weights and features as processors like them.
        """
        layout = torch.channels_last if channels_last else torch.contiguous_format
        fused = self.model.fuse(dtype, self.head).to(memory_format=layout)
        return Graph(fused, self.preprocess, self.reduction, suppress or suppress_in_torch, layout).eval()

    def example(self) -> Tensor:
        """Return an input; of a dynamic file it has several images, as one would be taken for the only number."""
        batch = max(self.batch, 2) if self.dynamic else self.batch
        if self.preprocess:
            return torch.zeros(batch, *self.imgsz, self.model.channels, dtype=torch.uint8)
        return torch.zeros(batch, self.model.channels, *self.imgsz)

    def dynamic_shapes(self) -> tuple[dict[int, Any]] | None:
        """Return which dimensions of the input are free, as torch.export has it."""
        if not self.dynamic:
            return None
        stride = max(self.model.strides)
        dim = torch.export.Dim
        cells = max(MAX_SIDE, *self.imgsz) // stride
        height, width = (stride * dim(side, min=MIN_CELLS, max=cells) for side in ("rows", "columns"))
        first = 1 if self.preprocess else 2
        return ({0: dim("batch", min=1, max=max(MAX_BATCH, self.batch)), first: height, first + 1: width},)


class Graph(nn.Module):
    """A fused network from images to predictions: what an exported file computes.

    Args:
        network: fused, in evaluation mode.
        preprocess: take uint8 BGR images.
        reduction: give detections; None gives raw predictions.
        suppress: non-maximum suppression.
        layout: memory format of the features.
    """

    def __init__(
        self,
        network: DetectionModel,
        preprocess: bool,
        reduction: NMSParams | None,
        suppress: Suppress,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        super().__init__()
        self.network, self.preprocess, self.reduction = network, preprocess, reduction
        self.suppress, self.layout = suppress, layout

    def forward(self, images: Tensor) -> Tensor:
        """Predict.

        Args:
            images: (B, 3, H, W) float RGB in 0..1; with `preprocess` (B, H, W, 3) uint8 BGR; one channel is grey.

        Returns:
            (B, 4 + C, A) float, cx, cy, w, h in input px and probabilities; or with a reduction
            (B, max_det, 6) float, x1, y1, x2, y2 in input px, score, class, padded with zeros.
        """
        if self.preprocess:
            images = images if self.network.channels == 1 else images.flip(-1)
            images = images.permute(0, 3, 1, 2).float() / 255
        if self.layout == torch.channels_last:
            images = images.contiguous(memory_format=self.layout)
        preds = self.network.decode(self.network(images)[self.network.selected_head])
        return preds if self.reduction is None else self.reduce(preds, self.reduction)

    def reduce(self, preds: Tensor, params: NMSParams) -> Tensor:
        """Reduce raw predictions to detections; all shapes follow from the input's."""
        boxes = cxcywh_to_xyxy(preds[:, :4].transpose(1, 2))  # (B, A, 4)
        if params.iou is None and not params.agnostic:
            return rank_pairs(boxes, preds[:, 4:], params.max_det)
        scores, labels = preds[:, 4:].max(1)  # (B, A)
        if params.iou is not None:
            judged = (
                scores[:, None] if params.agnostic else preds[:, 4:].where(preds[:, 4:] == scores[:, None], 0)
            )
            scores = scores * self.suppress(boxes, judged, params.conf, params.iou)
        rows = torch.cat((boxes, scores[..., None], labels[..., None].to(boxes.dtype)), -1)
        rows = nn.functional.pad(rows, (0, 0, 0, params.max_det))  # so that there are enough to choose from
        best = rows[..., 4].topk(params.max_det).indices
        rows = rows.gather(1, best[..., None].expand(-1, -1, 6))
        return rows * (rows[..., 4:5] > 0)


def rank_pairs(boxes: Tensor, probabilities: Tensor, max_det: int) -> Tensor:
    """Rank the (box, class) pairs of an NMS-free head as `boxes.top_detections` does, padded to `max_det` rows.

    At most A rows are filled.

    Args:
        boxes: (B, A, 4) float, xyxy.
        probabilities: (B, C, A) float.
        max_det: rows wanted.

    Returns:
        (B, max_det, 6) float: x1, y1, x2, y2, score, class; best first, zeros at the end.
    """
    num_classes = probabilities.shape[1]
    rows = nn.functional.pad(torch.cat((boxes, probabilities.transpose(1, 2)), -1), (0, 0, 0, max_det))
    best = rows[..., 4:].amax(-1).topk(max_det).indices  # (B, max_det) anchor points
    rows = rows.gather(1, best[..., None].expand(-1, -1, 4 + num_classes))
    scores, order = rows[..., 4:].flatten(1).topk(max_det)
    labels = (order % num_classes).to(boxes.dtype)
    anchors = torch.div(order, num_classes, rounding_mode="floor")
    # whole rows: OpenVINO's gather wants as many columns as there are
    boxes = rows.gather(1, anchors[..., None].expand(-1, -1, 4 + num_classes))[..., :4]
    filled = torch.arange(max_det, device=boxes.device) < probabilities.shape[2]
    return torch.cat((boxes, scores[..., None], labels[..., None]), -1) * (filled & (scores > 0))[..., None]


def suppress_in_torch(boxes: Tensor, scores: Tensor, conf: float, iou: float) -> Tensor:
    """Suppress with torchvision: see `Suppress`. Images and classes are moved apart, in float64.

    Two empty boxes are put after the others, which suppress nothing: torch.export takes it for granted that two or
    more boxes stay, and its program would fail on an image without.
    """
    from torchvision.ops import nms

    pad = nn.functional.pad
    best, labels = scores.max(1)
    images, anchors = (best > conf).nonzero().unbind(1)
    some, values = boxes[images, anchors].double(), best[images, anchors]
    planes = images * scores.shape[1] + labels[images, anchors]
    span = boxes.amax() - boxes.amin() + 1
    moved = pad(some + (planes * span.double())[:, None], (0, 0, 0, 2))
    kept = nms(moved, pad(values.double(), (0, 2), value=-1.0), iou)
    places = pad(images * best.shape[1] + anchors + 1, (0, 2))[kept]  # the empty boxes' place is 0
    stay = pad(torch.zeros_like(best).flatten(), (1, 0))
    return stay.index_put((places,), stay.new_ones(1))[1:].reshape(best.shape)
