"""Checkpoints of the `ultralytics` package, read without running any of its code."""

from __future__ import annotations

from detector.checkpoints.ultralytics.describe import describe
from detector.checkpoints.ultralytics.network import read_ultralytics_checkpoint

__all__ = ["describe", "read_ultralytics_checkpoint"]
