"""The process of a run, and whether it is still there: the number alone may be another process's by now."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

MAX_PID = 1 << 31


def describe_process() -> dict[str, Any]:
    """Return `pid`, `host` and `process` of this process, for status.json."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "process": _identity(os.getpid())}


def runs_here(status: Mapping[str, Any]) -> bool:
    """Return whether the process of a status would be seen from here: on this host, and since its last start.

    Containers share the kernel of their host, but not its processes.
    """
    pid, process = status["pid"], status["process"]
    if sys.platform == "win32" or status["host"] != socket.gethostname() or not pid or pid >= MAX_PID:
        return False
    here = _place()
    return here is None or process is None or all(process.get(key) == value for key, value in here.items())


def is_alive(status: Mapping[str, Any]) -> bool:
    """Return whether the process of a status of this machine is still there, and not another one of its number."""
    pid, process = status["pid"], status["process"] or {}
    started = _started(pid)
    if started is not None and "started" in process:
        return bool(started == process["started"])
    try:
        os.kill(pid, 0)
    except PermissionError:  # it is another user's
        return True
    except (OSError, OverflowError):
        return False
    return not _is_dead(pid)


def _identity(pid: int) -> dict[str, Any] | None:
    place, started = _place(), _started(pid)
    return None if place is None or started is None else place | {"started": started}


def _place() -> dict[str, str] | None:
    """Return what processes that see each other have in common; None where there is no /proc."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return {"boot": boot, "namespace": os.readlink("/proc/self/ns/pid")}  # noqa: PTH115 - it is not a path
    return None


def _started(pid: int) -> int | None:
    """Return when a process was started, in ticks since boot; None if it is gone, or there is no /proc."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def _is_dead(pid: int) -> bool:
    """Return whether a process has ended, and only waits for its parent to see it."""
    fields = _stat(pid)
    return bool(fields) and fields[0] in "ZX"


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third, the state, on; empty where there is none (`man proc`)."""
    with suppress(OSError):
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    return []
