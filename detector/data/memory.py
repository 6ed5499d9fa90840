"""Memory the loader's processes share, how much of it there is, and how the processes start."""

from __future__ import annotations

import math
import os
import sys
import weakref
from pathlib import Path

import torch
from torch import Tensor


def free_memory(shared: bool = False) -> int:
    """Bytes this process may still use; 0 where the system does not report it.

    Counts the limit of the control group (a container's) and, for shared memory, the space left in
    ``/dev/shm``.
    """
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").exists() and (limit := (group / "memory.max").read_text().strip()) != "max":
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # pages of files are released when memory is needed
        used = int((group / "memory.current").read_text()) - int(stat["inactive_file"])
        limits.append(max(0, int(limit) - used))
    if shared and Path("/dev/shm").is_dir():
        space = os.statvfs("/dev/shm")
        limits.append(space.f_bavail * space.f_frsize)
    return min(limits, default=0)


def start_method() -> str | None:
    """How worker processes start: forked where that is safe and quick (Linux), else as Python does."""
    return "fork" if sys.platform == "linux" else None


def allocate(nbytes: int, shared: bool) -> Tensor:
    """(nbytes,) uint8, not touched yet, so that memory is taken only as images are stored."""
    if not shared or not nbytes:
        return torch.empty(nbytes, dtype=torch.uint8)
    # share_memory_() would write every byte once; torch's own collate allocates like this
    storage = torch.UntypedStorage._new_shared(nbytes)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage)


class BufferRing:
    """Buffers for batches of images, reused as soon as the last batch in them is released.

    Fresh memory costs a page fault every 4 KiB, which is a good part of the cost of a batch.

    Args:
        slots: number of buffers.
        nbytes: size of each.
        shared: worker processes fill them.
    """

    def __init__(self, slots: int, nbytes: int, shared: bool) -> None:
        self.memory = allocate(slots * nbytes, shared).view(slots, nbytes)
        self._free = list(range(slots))

    def take(self) -> int | None:
        """A free slot, or None."""
        return self._free.pop() if self._free else None

    def release(self, slot: int) -> None:
        """Return a slot that was taken and not lent."""
        self._free.append(slot)

    def as_tensor(self, slot: int, shape: tuple[int, ...]) -> Tensor:
        """A uint8 tensor over a taken slot; the slot is free again when its last view is gone."""
        array = slot_view(self.memory, slot, shape).numpy()[...]
        # the storage of a tensor made from an array keeps that array alive, and so do all views of it
        weakref.finalize(array, self._free.append, slot).atexit = False
        return torch.from_numpy(array)


def slot_view(memory: Tensor, slot: int, shape: tuple[int, ...]) -> Tensor:
    """A uint8 tensor of this shape at the start of a (slots, nbytes) memory's slot."""
    return memory[slot, : math.prod(shape)].view(shape)
