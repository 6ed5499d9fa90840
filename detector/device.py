"""Which device to compute on, and in which precision."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import torch

from detector.errors import SettingsError


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def listed_devices(device: str | int | list[int]) -> list[int]:
    """Return the numbers of the CUDA devices in a setting such as `0,1`, [0, 1], `cuda:0,1` or -1; none of others.

    Raises:
        SettingsError: if one is named twice.
    """
    if isinstance(device, (list, int)):
        numbers = device if isinstance(device, list) else [device]
    else:
        parts = [part.strip() for part in device.lower().removeprefix("cuda").removeprefix(":").split(",")]
        if not all(part.removeprefix("-").isdigit() for part in parts):
            return []
        numbers = [int(part) for part in parts]
    if (twice := next((n for n in numbers if n >= 0 and numbers.count(n) > 1), None)) is not None:
        raise SettingsError(
            f"device={','.join(map(str, numbers))}: GPU {twice} is named twice; name each once, or -1 for an idle one"
        )
    return numbers


def select_device(device: str | int | list[int]) -> torch.device:
    """Turn the `device` setting into a torch device.

    Args:
        device: `auto`, `cpu`, `mps`, `cuda`, a CUDA index (`0`, `"0"`, `"cuda:0"`).

    Raises:
        SettingsError: if it does not exist here, or names several.
    """
    text = ",".join(map(str, device)) if isinstance(device, list) else str(device).lower().strip()
    if text == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if text == "cpu":
        return torch.device("cpu")
    if text == "mps":
        if torch.backends.mps.is_available():
            return torch.device("mps")
        raise SettingsError("device=mps: this machine has no Apple GPU; try device=cpu")
    index = text.removeprefix("cuda").removeprefix(":") or "0"
    if "," in index:
        raise SettingsError(f"device={text}: expected one device; try device={index.split(',')[0]}")
    if not index.isdigit():
        raise SettingsError(f"device={text}: expected auto, cpu, mps or a CUDA index such as 0")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index) >= count:
        found = f"CUDA devices 0-{count - 1}" if count else "no CUDA device"
        raise SettingsError(f"device={text}: this machine has {found}; try device=auto")
    return torch.device("cuda", int(index))


@dataclass(frozen=True)
class Precision:
    """The number format of the network's arithmetic on a device.

    Attributes:
        device_type: `cpu`, `cuda` or `mps`.
        dtype: the low-precision type of autocast, or None for float32 throughout.
    """

    device_type: str
    dtype: torch.dtype | None

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the autocast context, or one that does nothing."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)

    @property
    def layout(self) -> torch.memory_format:
        """Memory layout of images and weights: the one its convolutions are quickest in.

        Channels last, but for float32 on a GPU: CUDA's low-precision kernels and all of oneDNN's read it, and
        would turn anything else around at every layer.
        """
        plain = self.dtype is None and self.device_type != "cpu"
        return torch.contiguous_format if plain else torch.channels_last

    @property
    def name(self) -> str:
        """Short name for messages: fp32, bf16 or fp16."""
        return {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]


def select_precision(amp: bool | str, device: torch.device) -> Precision:
    """Turn the `amp` setting into a precision.

    `auto` (and true) is bfloat16 where the device computes in it: CUDA from compute capability 8.0, and
    processors with AVX512-BF16 or AMX instructions; elsewhere float32. bfloat16 has float32's range, so
    no loss scaling is needed.

    Raises:
        SettingsError: for fp16 on a device other than CUDA.
    """
    kind = device.type
    if amp in (False, "fp32"):
        return Precision(kind, None)
    if amp == "fp16":
        if kind != "cuda":
            raise SettingsError(f"amp=fp16: expected a CUDA device, this is {kind}; try amp=auto")
        return Precision(kind, torch.float16)
    if amp == "bf16" or computes_in_bfloat16(device):
        return Precision(kind, torch.bfloat16)
    return Precision(kind, None)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 arithmetic; where it has not, torch emulates it slowly."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def use_repeatable_algorithms() -> None:
    """Let CUDA compute the same bits every time, as far as it has such algorithms; call it before the first kernel."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # filling costs a kernel each, and nothing here reads such memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


class StageTimer:
    """Adds up the time that the stages of a batch take, once the device has done its work.

    Attributes:
        seconds: stage -> seconds of all batches so far.
    """

    def __init__(self, device: torch.device, stages: Sequence[str]) -> None:
        self.device = device
        self.seconds = dict.fromkeys(stages, 0.0)
        self.start()

    def start(self) -> None:
        """Begin the first stage of a batch."""
        self.last = perf_counter()

    def stop(self, stage: str) -> float:
        """Book the seconds since the start or the last stop under `stage`, and return them."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        before, self.last = self.last, perf_counter()
        self.seconds[stage] += self.last - before
        return self.last - before

    def ms_per_image(self, images: int) -> dict[str, float]:
        """Return stage -> milliseconds per image, over this many images."""
        return {stage: 1e3 * seconds / max(images, 1) for stage, seconds in self.seconds.items()}
