"""How long MuSGD's orthogonalization takes in bfloat16 and in float32: which of them this device is quick in."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

import torch

from benchmarks.bench import now
from detector.device import computes_in_bfloat16
from detector.nn.model import DetectionModel, load_model_config
from detector.training import musgd

if TYPE_CHECKING:
    from benchmarks.bench import Bench


def measure(model: DetectionModel, in_bfloat16: bool, repeats: int) -> float:
    """Return the shortest time in ms that all convolution kernels of a network take."""
    grads = [torch.randn_like(p) for p in model.parameters() if p.ndim == 4]
    times = []
    with mock.patch.object(musgd, "computes_in_bfloat16", return_value=in_bfloat16):
        for _ in range(repeats + 1):
            start = now()
            musgd.orthogonalize(grads)
            times.append(now() - start)
    return 1e3 * min(times[1:])


def run(bench: Bench) -> list[list[str]]:
    """Return the table; the row's own choice is what training uses on this device."""
    chosen = "bf16" if computes_in_bfloat16(bench.device) else "fp32"
    rows = [["orthogonalization, ms per step", "bf16", "fp32", "chosen"]]
    for name in bench.models:
        model = DetectionModel(load_model_config(f"{name}.yaml")).to(bench.device)
        cells = [f"{measure(model, in_bfloat16, bench.repeats):.0f}" for in_bfloat16 in (True, False)]
        rows.append([name, *cells, chosen])
    return rows
