"""How busy the machine is on which the live page is served."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

GB = 1e9


def describe_machine(folder: Path) -> dict[str, Any]:
    """Return the load per core, the memory, the space left on the disk of a folder, and how busy the GPUs are.

    Returns:
        `cores`; `load`: processes that run or wait, mean of a minute; `memory_used` and `memory`, GB; `disk_free`, GB;
        `gpus`: name, use in 0..1, memory used and in all, GB. What the system does not say is left out.
    """
    found: dict[str, Any] = {"cores": os.cpu_count()}
    with suppress(OSError, AttributeError):  # Windows has no load
        found["load"] = round(os.getloadavg()[0], 2)
    with suppress(OSError, ValueError, KeyError):  # only Linux has this file
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
        found["memory"] = round(kib["MemTotal"] * 1024 / GB, 1)
        found["memory_used"] = round((kib["MemTotal"] - kib["MemAvailable"]) * 1024 / GB, 1)
    with suppress(OSError):
        found["disk_free"] = round(shutil.disk_usage(folder).free / GB, 1)
    if find_spec("pynvml") is not None:
        found["gpus"] = _gpus()
    return found


def _gpus() -> list[dict[str, Any]]:
    nvml = import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # there is none
        return []
    try:
        gpus = []
        for number in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
            memory, name = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlDeviceGetName(handle)
            gpus.append(
                {
                    "name": name if isinstance(name, str) else name.decode("utf-8", "replace"),
                    "use": nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
                    "memory_used": round(memory.used / GB, 1),
                    "memory": round(memory.total / GB, 1),
                }
            )
        return gpus
    except nvml.NVMLError:  # such as a GPU that doesn't say
        return []
    finally:
        nvml.nvmlShutdown()
