"""Which devices a training in several processes is given."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from dataclasses import dataclass

import torch

from detector.device import listed_devices, usable_cores
from detector.errors import SettingsError
from detector.fields import format_value
from detector.settings import TrainSettings

log = logging.getLogger(__name__)

IDLE_MEMORY, IDLE_LOAD = 0.05, 10  # part of the memory, and percent, that a GPU without work uses at most
QUERY = "index,uuid,memory.used,memory.total,utilization.gpu"


@dataclass(frozen=True)
class GPU:
    """What nvidia-smi says of a GPU.

    Attributes:
        index: as torch counts.
        used: part of the memory, 0..1.
        load: percent of the time.
        processes: those that compute on it, as "name (pid)".
    """

    index: int
    used: float
    load: int
    processes: tuple[str, ...] = ()

    @property
    def is_idle(self) -> bool:
        """Whether nobody works on it."""
        return self.used <= IDLE_MEMORY and self.load <= IDLE_LOAD and not self.processes

    def __str__(self) -> str:
        by = f" by {', '.join(self.processes)}" if self.processes else ""
        return f"GPU {self.index} is taken{by}: {self.used:.0%} of its memory, {self.load} % busy"


def settle_devices(settings: TrainSettings) -> int:
    """Put the devices to train on in place of what asks for idle ones, and return the number of processes.

    Raises:
        SettingsError: if `device` and `processes` contradict each other or the machine.
    """
    listed, count = listed_devices(settings.device), settings.processes
    if any(number == -1 for number in listed):
        listed = with_idle(listed, gpus())
        settings.device = listed if len(listed) > 1 else listed[0]
        log.info("device=%s: the idle GPUs", format_value(settings.device))
    shown = f"device={format_value(settings.device)}"
    if len(listed) > 1:
        if count not in (None, len(listed)):
            raise SettingsError(
                f"processes={count}: {shown} names {len(listed)} GPUs, one per process; leave processes= out"
            )
        available = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if max(listed) >= available:
            found = f"CUDA devices 0-{available - 1}" if available else "no CUDA device"
            raise SettingsError(f"{shown}: this machine has {found}; try device=cpu processes={len(listed)}")
        return len(listed)
    if count is None or count == 1:
        return 1
    if listed or settings.device in ("mps", "cuda"):
        raise SettingsError(
            f"processes={count}: {shown} is one device; name as many, such as device=0,1, or try device=cpu"
        )
    if settings.device == "auto" and torch.cuda.is_available():
        if torch.cuda.device_count() < count:
            raise SettingsError(
                f"processes={count}: this machine has {torch.cuda.device_count()} GPUs; each process needs one"
            )
        settings.device = list(range(count))
    if settings.device in ("cpu", "auto") and count > usable_cores():
        log.warning("processes=%d share %d cores: fewer are faster", count, usable_cores())
    return count


def with_idle(listed: list[int], found: list[GPU]) -> list[int]:
    """Return the devices with an idle GPU in place of each -1.

    Args:
        listed: GPU numbers, -1 for any that is idle.
        found: the GPUs of this machine.

    Raises:
        SettingsError: if too few are idle; it names who has the others.
    """
    idle = [gpu.index for gpu in found if gpu.is_idle and gpu.index not in listed]
    if listed.count(-1) > len(idle):
        taken = "; ".join(str(gpu) for gpu in found if not gpu.is_idle) or f"there are {len(found)} GPUs"
        raise SettingsError(
            f"device={','.join(map(str, listed))}: expected {listed.count(-1)} idle GPUs, {len(idle)} are: {taken}"
        )
    return [idle.pop(0) if number == -1 else number for number in listed]


def gpus() -> list[GPU]:
    """Return the GPUs that torch sees, as nvidia-smi finds them.

    Raises:
        SettingsError: without NVIDIA's driver.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None or not torch.cuda.is_available():
        raise SettingsError("device=-1: nvidia-smi finds no GPU on this machine; try device=auto")
    working: dict[str, list[str]] = {}
    for uuid, pid, name in _rows(tool, "--query-compute-apps=gpu_uuid,pid,process_name"):
        working.setdefault(uuid, []).append(f"{os.path.basename(name)} ({pid})")  # noqa: PTH119
    indices = {_uuid(index): index for index in range(torch.cuda.device_count())}
    return [
        GPU(
            indices[uuid],
            float(used) / max(float(total), 1),
            int(load) if load.isdigit() else 0,
            tuple(working.get(uuid, ())),
        )
        for _, uuid, used, total, load in _rows(tool, f"--query-gpu={QUERY}")
        if uuid in indices
    ]


def _rows(tool: str, query: str) -> list[list[str]]:
    done = subprocess.run(
        [tool, query, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=60
    )
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]


def _uuid(index: int) -> str:
    return f"GPU-{torch.cuda.get_device_properties(index).uuid}"
