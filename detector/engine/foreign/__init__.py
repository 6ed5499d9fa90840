"""Weights that another program wrote, read without running any of its code."""

from __future__ import annotations

from detector.engine.foreign.network import read_peer_checkpoint
from detector.engine.foreign.refusals import describe

__all__ = ["describe", "read_peer_checkpoint"]
