"""Memory that this process keeps when it frees it."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of malloc.h


MIB = 2**20


_kept = 0  # bytes that `keep_freed_memory` was asked to keep so far


def keep_freed_memory(training: bool = False) -> None:
    """Let this process keep memory that it frees, instead of handing it back to the system at once.

    On a CPU every step frees and asks for the same activations again; with glibc's defaults each is mapped and
    cleared again, page by page. Does nothing without glibc. The change lasts for the process, and what training
    asked for is not undone.

    Args:
        training: keep up to 2 GiB, of blocks of any size; else 256 MiB, of blocks up to 32 MiB (glibc's greatest
            threshold), so that a program that only predicts returns its own large arrays to the system as before.
    """
    global _kept
    kept = 2**31 - 1 if training else 256 * MIB
    if sys.platform != "linux" or kept <= _kept:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    _kept = kept
    mallopt(M_TRIM_THRESHOLD, kept)
    if training:
        mallopt(M_MMAP_MAX, 0)
    else:
        mallopt(M_MMAP_THRESHOLD, 32 * MIB)
