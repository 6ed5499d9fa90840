from __future__ import annotations

import gc
from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.data.memory import BufferRing, free_memory, slot_view


def test_a_buffer_is_free_again_when_its_last_view_is_gone():
    ring = BufferRing(1, 100, shared=False)
    slot = ring.take()
    tensor = ring.as_tensor(slot, (2, 3))
    view = tensor[1]
    assert ring.take() is None

    del tensor
    gc.collect()
    assert ring.take() is None  # the view still looks at it

    del view
    gc.collect()
    assert ring.take() == slot


def test_what_a_worker_writes_is_what_is_lent():
    ring = BufferRing(2, 100, shared=True)
    slot = ring.take()
    slot_view(ring.memory, slot, (2, 3))[:] = 7

    assert ring.as_tensor(slot, (2, 3)).tolist() == [[7, 7, 7], [7, 7, 7]]


def test_free_memory_is_plausible():
    assert all(2**20 < free_memory(shared) < 2**50 for shared in (False, True))


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory has no space of its own here")
def test_shared_memory_is_limited_by_its_own_space(monkeypatch):
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_bavail=3, f_frsize=4096))
    assert free_memory(shared=True) == 3 * 4096 < free_memory()
