"""Export: write a model in another format, and prove the file against the model before it counts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detector import __version__
from detector.callbacks.failures import error_text
from detector.callbacks.registry import CallbackRegistry
from detector.errors import ExportError, nearest
from detector.exporters import EXPORTERS
from detector.nn.model import DetectionModel
from detector.settings import ExportSettings

log = logging.getLogger(__name__)

MAX_BOX_ERROR, MAX_SCORE_ERROR = 0.05, 1e-3  # input px, probability


class Exporter:
    """Exports a model.

    Attributes:
        settings: checked export settings (also `args`).
        path: the exported file, once it is in place.
        metadata: what the file says of itself: classes, stride, image size, head ...
        parity: greatest differences from the model on the same input: `box` in input px, `score`.

    Args:
        settings: checked export settings.
        model: the model; left as it is.
        path: where to write, without the suffix.
        callbacks: this export's callbacks.
    """

    def __init__(
        self, settings: ExportSettings, model: DetectionModel, path: Path, callbacks: CallbackRegistry
    ) -> None:
        self.settings = self.args = settings
        self.model, self.stem, self.callbacks = model, path, callbacks
        self.path: Path | None = None
        self.metadata: dict[str, Any] = {}
        self.parity: dict[str, float] = {}

    def add_callback(self, event: Any, fn: Any = None, **options: Any) -> Any:
        """Register a callback on this exporter; see `CallbackRegistry.add`."""
        return self.callbacks.add(event, fn, **options)

    def fire(self, event: str) -> None:
        """Call the callbacks of an event."""
        self.callbacks.fire(event, self)

    def run(self) -> Path:
        """Write the file, run it, compare it with the model, and put it in place.

        Raises:
            ExportError: for an unknown format; or when the file's predictions differ from the model's, which
                leaves it under the suffix `.rejected`.
        """
        s = self.settings
        if s.format not in EXPORTERS:
            allowed = ", ".join(f"{name} ({known.what})" for name, known in EXPORTERS.items())
            raise ExportError(f"format={s.format}: expected one of {allowed}{nearest(s.format, EXPORTERS)}")
        kind = EXPORTERS[s.format]
        self.fire("on_export_start")
        self.model.select_head(s.nms)
        network = Decoded(self.model.cpu().fuse())
        images = torch.rand(s.batch, 3, s.imgsz, s.imgsz, generator=torch.Generator().manual_seed(0))
        self.metadata = {
            "format": s.format,
            "task": "detect",
            "names": self.model.names,
            "stride": max(self.model.strides),
            "imgsz": s.imgsz,
            "batch": s.batch,
            "head": self.model.selected_head,
            "version": __version__,
        }
        unproved = self.stem.with_name(f"{self.stem.name}.unproved{kind.suffix}")
        try:
            kind.export(network, images, unproved, self.metadata)
            run, _ = kind.load(unproved)
            with torch.inference_mode():
                self.parity = difference(network(images), run(images))
        except (RuntimeError, OSError, ValueError) as error:
            unproved.unlink(missing_ok=True)
            raise ExportError(
                f"format={s.format}: the model can't be exported: {error_text(error)}"
            ) from error
        shown = f"boxes differ by {self.parity['box']:.2g} px, scores by {self.parity['score']:.2g}"
        if self.parity["box"] > MAX_BOX_ERROR or self.parity["score"] > MAX_SCORE_ERROR:
            rejected = unproved.replace(self.stem.with_name(f"{self.stem.name}{kind.suffix}.rejected"))
            raise ExportError(f"the exported file is not the model: {shown}; it is kept as {rejected}")
        self.path = unproved.replace(self.stem.with_name(f"{self.stem.name}{kind.suffix}"))
        log.info("%s: %s", self.path, shown)
        self.fire("on_export_end")
        return self.path


class Decoded(nn.Module):
    """A fused network from images to decoded predictions.

    (B, 3, H, W) float in 0..1 -> (B, 4 + C, A): cx, cy, w, h in input px, then class probabilities.
    """

    def __init__(self, network: DetectionModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Predict."""
        return self.network.decode(self.network(images)[self.network.selected_head])


def difference(expected: Tensor, found: Tensor) -> dict[str, float]:
    """Return the greatest difference of boxes (`box`, input px) and probabilities (`score`).

    Args:
        expected: (B, 4 + C, A), boxes first.
        found: likewise.
    """
    gap = (expected - found).abs().nan_to_num(nan=float("inf"))
    return {"box": float(gap[:, :4].max()), "score": float(gap[:, 4:].max())}
