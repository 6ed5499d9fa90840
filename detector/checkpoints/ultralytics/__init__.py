"""Weights that another program wrote, read without running any of its code."""

from __future__ import annotations

from detector.checkpoints.ultralytics.describe import describe
from detector.checkpoints.ultralytics.network import read_peer_checkpoint

__all__ = ["describe", "read_peer_checkpoint"]
