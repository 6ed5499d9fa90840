"""Processes meet, whatever earlier groups left in their store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch.distributed as dist

from detector.scale.meeting import meet


def meet_all(store: dist.Store, size: int, late: float = 0) -> set[str]:
    """Let as many threads as there are processes meet, rank 0 and 1 being late; return their tokens."""

    def come(rank: int) -> str:
        time.sleep(late if rank < 2 else 0)
        return meet(store, rank, size, 10)

    with ThreadPoolExecutor(size) as threads:
        return set(threads.map(come, range(size)))


def test_processes_of_several_groups_meet_those_of_their_own_in_one_store() -> None:
    store = dist.HashStore()
    tokens = [meet_all(store, size) for size in (3, 3, 4, 2, 1, 3)]
    assert all(len(found) == 1 for found in tokens)
    assert len(set.union(*tokens)) == len(tokens)


def test_what_lost_processes_left_does_not_keep_others_from_meeting() -> None:
    store = dist.HashStore()
    for rank in (1, 2):
        with pytest.raises(TimeoutError, match="no invitation of rank 0"):
            meet(store, rank, 3, 0.01)
    with pytest.raises(TimeoutError, match="no answer of rank 1, rank 2"):
        meet(store, 0, 3, 0.01)
    assert len(meet_all(store, 3, late=0.2)) == 1


def test_a_process_that_does_not_come_is_named() -> None:
    store = dist.HashStore()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(meet, store, 1, 3, 0.3)
        with pytest.raises(TimeoutError, match=r"no answer of rank 2$"):
            meet(store, 0, 3, 0.2)
        with pytest.raises(TimeoutError):
            waiting.result()


@pytest.mark.slow
def test_two_launchers_that_meet_train_as_one_with_two_processes() -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.two_machines", "--loopback"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
