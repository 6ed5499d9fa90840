"""Choose the batch size: by the number of training images, or by the memory of the GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import nn

from detector.device import Precision
from detector.errors import SettingsError
from detector.training.auto import batch_for

log = logging.getLogger(__name__)

PROBES = (1, 2, 4, 8)
DEFAULT_PART = 0.6


def choose_batch(
    batch: int | float | str,
    images: int,
    model: nn.Module,
    imgsz: int,
    device: torch.device,
    precision: Precision,
) -> int:
    """Return the batch size: the number given, for `auto` by the data, for -1 or a fraction what fits in GPU memory.

    Raises:
        SettingsError: if it is to be chosen on a device other than CUDA.
    """
    if isinstance(batch, str):
        return batch_for(images)
    if batch >= 1:
        return int(batch)
    if device.type != "cuda":
        raise SettingsError(
            f"batch={batch}: expected a whole number on {device.type}, only CUDA chooses; try batch=16"
        )
    part = DEFAULT_PART if batch == -1 else batch
    total = torch.cuda.get_device_properties(device).total_memory
    taken = torch.cuda.memory_reserved(device)

    def bytes_for(images: int) -> int:
        torch.cuda.reset_peak_memory_stats(device)
        with precision.autocast():
            preds = model(torch.zeros(images, 3, imgsz, imgsz, device=device))
            loss = torch.stack([p.boxes.float().sum() + p.scores.float().sum() for p in preds.values()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)
        return torch.cuda.max_memory_allocated(device)

    was_training = model.training
    state = {key: value.clone() for key, value in model.state_dict().items()}  # the probes move BN statistics
    found = fit_batch(bytes_for, PROBES, part * total - taken)
    model.load_state_dict(state)
    model.train(was_training)
    torch.cuda.empty_cache()
    log.info("batch=%s: %d images use about %.0f %% of %.1f GB", batch, found, 100 * part, total / 2**30)
    return found


def fit_batch(bytes_for: Callable[[int], int], probes: tuple[int, ...], budget: float) -> int:
    """Fit a line to the memory of small batches and solve it for the budget.

    Args:
        bytes_for: batch size -> peak bytes.
        probes: batch sizes to measure, growing.
        budget: bytes to fill.
    """
    sizes = torch.tensor(probes, dtype=torch.float64)
    used = torch.tensor([bytes_for(n) for n in probes], dtype=torch.float64)
    slope = ((sizes - sizes.mean()) * (used - used.mean())).sum() / ((sizes - sizes.mean()) ** 2).sum()
    base = used.mean() - slope * sizes.mean()
    return max(int((budget - base) / slope.clamp(min=1.0)), 1)
