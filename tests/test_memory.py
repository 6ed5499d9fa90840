"""A long training does not grow, and many trainings in one process leave nothing behind."""

import gc
import os
import signal
import threading
import weakref
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch

linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")


@pytest.fixture
def train_tiny(train_tiny):
    """Train on the smallest images and save after every batch."""
    return partial(train_tiny, imgsz=32, patience=0, optimizer="AdamW", save_minutes=1e-9)


def resident():
    """Bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def holdings():
    """What this process holds: tensors and other objects, threads, open files."""
    gc.collect()
    objects = gc.get_objects()
    found = Counter(tensors=sum(issubclass(type(o), torch.Tensor) for o in objects), objects=len(objects))
    found["threads"] = threading.active_count()
    found["files"] = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    return found


class Watch:
    """Notes holdings and memory after every epoch, or every few."""

    def __init__(self, every=1):
        self.every, self.found, self.resident = every, [], []

    def on_model_save(self, trainer):
        if (trainer.epoch + 1) % self.every == 0:
            self.found.append(holdings())
            self.resident.append(resident())


def assert_level(watch, epochs):
    """Nothing but the rows of results.csv grows, and those by a few objects an epoch."""
    first, last = watch.found[0], watch.found[-1]
    for name in ("tensors", "threads", "files"):
        assert last[name] == first[name], (name, [found[name] for found in watch.found])
    assert last["objects"] - first["objects"] <= 4 * epochs, [found["objects"] for found in watch.found]


@linux
def test_epochs_add_nothing(train_tiny, tiny_dual_model):
    watch = Watch()
    train_tiny(model=tiny_dual_model, epochs=8, callbacks=[watch])
    watch.found = watch.found[2:]
    assert_level(watch, 6)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_hundred_epochs_do_not_grow(workers, train_tiny, tiny_dual_model):
    watch = Watch(every=10)
    train_tiny(model=tiny_dual_model, epochs=100, callbacks=[watch], workers=workers, plots=True)
    watch.found, watch.resident = watch.found[2:], watch.resident[2:]
    print(f"RSS from epoch 30 on, MiB: {[value >> 20 for value in watch.resident]}")
    print(f"objects: {[found['objects'] for found in watch.found]}")
    assert_level(watch, 70)
    assert watch.resident[-1] - watch.resident[0] < 8 << 20


def train_once(train_tiny, **settings):
    """Train; return a weak reference to what held everything."""
    yolo = train_tiny(**settings)
    return weakref.ref(yolo.trainer), weakref.ref(yolo.model)


@linux
@pytest.mark.parametrize(
    ("trainings", "epochs"), [(4, 1), pytest.param(10, 3, marks=pytest.mark.slow, id="ten")]
)
def test_trainings_leave_nothing(trainings, epochs, train_tiny):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    found, sizes = [], []
    for number in range(trainings):
        left = train_once(train_tiny, epochs=epochs, workers=2 * (number % 2))
        found.append(holdings())
        sizes.append(resident())
        assert [reference() for reference in left] == [None, None]
    print(f"RSS after each training, MiB: {[size >> 20 for size in sizes]}")
    print(f"objects: {[each['objects'] for each in found]}")
    for name in ("tensors", "threads", "files"):
        assert len({each[name] for each in found[1:]}) == 1, (name, [each[name] for each in found])
    assert found[-1]["objects"] - found[1]["objects"] <= 200
    assert sizes[-1] - sizes[1] < 16 << 20
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@linux
def test_a_failed_training_leaves_nothing_either(train_tiny):
    def train():
        with pytest.raises(KeyError):
            train_once(train_tiny, epochs=1, workers=2, callbacks=[("on_train_batch_end", fail)])

    def fail(_):
        raise KeyError("no")

    for _ in range(2):
        train()
    before = holdings()
    for _ in range(2):
        train()
    after = holdings()
    assert {name: after[name] - before[name] for name in ("tensors", "threads", "files")} == {
        "tensors": 0, "threads": 0, "files": 0,
    }  # fmt: skip
