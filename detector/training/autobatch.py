"""Choose the batch size: by the number of training images, or by the memory of the GPU."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from detector.device import Precision
from detector.errors import SettingsError
from detector.training.auto import batch_for

log = logging.getLogger(__name__)

PROBES = (1, 2, 4, 8)
DEFAULT_PART = 0.6
ATTEMPTS = 3  # at a batch size that should fill the memory
NEAR = 0.03  # of the memory to fill; no further attempt when this near below it
COPIES = 4  # of the parameters during the first step: averaged weights, two momenta, the step itself

Step = Callable[[Tensor], Tensor]


def choose_batch(
    batch: int | float | str,
    images: int,
    model: nn.Module,
    shape: tuple[int, int, int],
    device: torch.device,
    precision: Precision,
    step: Step,
) -> int:
    """Return the batch size: the number given, for `auto` by the data, for -1 or a fraction what fits in GPU memory.

    Args:
        batch: the `batch` setting.
        images: training images; a batch holds no more of them.
        model: the network, on the device.
        shape: channels, height and width of an input, px.
        device: to train on.
        precision: to train in.
        step: (B, 3, H, W) float images -> the loss of a training step on them, () float.

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

    def bytes_for(count: int) -> float:
        """Return the peak of a step; infinite where the memory is too small."""
        torch.cuda.reset_peak_memory_stats(device)
        loss = None
        try:
            inputs = torch.zeros(count, *shape, device=device).to(memory_format=precision.layout)
            loss = step(inputs)
            loss.backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError:
            return float("inf")
        finally:
            del loss
            model.zero_grad(set_to_none=True)
        return torch.cuda.max_memory_allocated(device)

    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    modes = [(module, module.training) for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}  # the probes move BN statistics
    model.train()
    try:
        found = fit_batch(bytes_for, PROBES, part * total - COPIES * weights, images)
    finally:
        model.load_state_dict(state)
        for module, mode in modes:
            module.training = mode
        torch.cuda.empty_cache()
    log.info(
        "batch=%s: %d images, to use at most %.0f %% of %.1f GB", batch, found, 100 * part, total / 2**30
    )
    return found


def fit_batch(
    bytes_for: Callable[[int], float], probes: tuple[int, ...], budget: float, maximum: int = 2**31
) -> int:
    """Extend the line of small batches' memory to the budget, and correct the batch found by what it really takes.

    Args:
        bytes_for: batch size -> peak bytes, infinite if that is more than there is.
        probes: batch sizes to measure first, growing.
        budget: bytes to fill.
        maximum: largest batch to return.

    Returns:
        A batch that was measured to fit, or 1.
    """
    measured = [(n, bytes_for(n)) for n in probes if n <= maximum]
    fitting = [(n, taken) for n, taken in measured if taken <= budget]
    if not fitting:
        return 1
    (fewest, minimum), (found, used) = fitting[0], fitting[-1]
    slope = (used - minimum) / max(found - fewest, 1)
    for _ in range(ATTEMPTS):
        guess = min(int(found + (budget - used) / max(slope, 1.0)), maximum)
        if guess <= found or budget - used < NEAR * budget:
            break
        taken = bytes_for(guess)
        slope = (taken - used) / (guess - found) if math.isfinite(taken) else 2 * slope
        if taken <= budget:
            found, used = guess, taken
    return found
