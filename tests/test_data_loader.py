from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detector.data.annotations import Annotations
from detector.data.augment import Augmentation
from detector.data.batch import Batch
from detector.data.dataset import DetectionDataset
from detector.data.epochs import EpochOrder
from detector.data.loader import TrainLoader, ValLoader
from detector.errors import DataError

COUNT = 11


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    sizes = [(48, 64), (64, 48), (60, 64)] * 4
    paths = []
    for number, (height, width) in enumerate(sizes[:COUNT]):
        paths.append(str(folder / f"{number}.png"))
        cv2.imwrite(paths[-1], cv2.resize(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8), (width, height)))
    boxes = np.tile(np.array([0.5, 0.5, 0.5, 0.25], np.float32), (COUNT, 1))
    return Annotations(
        paths, np.array(sizes[:COUNT]), np.arange(COUNT + 1), boxes, np.zeros(COUNT, np.int64), {0: "a"}
    )


def train(annotations, workers=0, batch_size=4, cache="auto", **kwargs):
    dataset = DetectionDataset(annotations, 64, Augmentation(mixup=0.3), cache=cache, workers=workers)
    return TrainLoader(dataset, batch_size, workers, **kwargs)


def same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.indices == b.indices
        assert (
            torch.equal(a.images, b.images)
            and torch.equal(a.boxes, b.boxes)
            and torch.equal(a.labels, b.labels)
        )
    return True


def test_an_epoch_shows_every_image_once_and_keeps_the_last_batch(annotations):
    loader = train(annotations)
    batches = list(loader.batches(0))

    assert len(loader) == len(batches) == 3
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert sorted(i for batch in batches for i in batch.indices) == list(range(COUNT))


def test_workers_and_interruptions_change_nothing(annotations):
    here, apart = train(annotations), train(annotations, workers=2)
    epochs = [list(here.batches(epoch)) for epoch in range(3)]
    assert not torch.equal(epochs[0][0].images, epochs[1][0].images)

    assert same(epochs[0], list(apart.batches(0)))
    next(apart.batches(1))  # given up after one batch
    assert same(epochs[2], list(apart.batches(2)))
    assert same(epochs[1][1:], list(apart.batches(1, start_batch=1)))
    assert same(epochs[1][2:], list(here.batches(1, start_batch=2)))
    assert list(apart.batches(1, start_batch=3)) == []
    apart.close()
    assert not multiprocessing.active_children()


def mixed(annotations, workers=0, batch_size=4, **kwargs):
    """A loader with everything on that changes what an epoch and a sample are."""
    empty = np.concatenate([annotations.offsets[:8], np.full(COUNT - 7, 7)])  # the last four have no objects
    labels = np.array([0, 0, 0, 0, 0, 1, 1])
    some = replace(
        annotations, offsets=empty, boxes=annotations.boxes[:7], labels=labels, names={0: "a", 1: "b"}
    )
    visits = EpochOrder(some, balance=1.0, background=0.25)
    more = Augmentation(mosaic=0.5, mixup=0.3, copy_paste=0.7, cutmix=0.7)
    dataset = DetectionDataset(some, 64, more, workers=workers, visits=visits)
    return TrainLoader(dataset, batch_size, workers, **kwargs)


def test_balanced_and_mixed_epochs_are_the_same_in_workers_and_after_interruptions(annotations):
    here, apart = mixed(annotations), mixed(annotations, workers=2)
    epochs = [list(here.batches(epoch)) for epoch in range(3)]

    assert len(here) == 3 and [sum(map(len, batches)) for batches in epochs] == [9, 9, 9]
    assert all(sum(index >= 7 for batch in batches for index in batch.indices) == 2 for batches in epochs)
    assert same(epochs[0], list(apart.batches(0)))
    next(apart.batches(1))  # given up after one batch
    assert same(epochs[1][1:], list(apart.batches(1, start_batch=1)))
    assert same(epochs[2][2:], list(mixed(annotations).batches(2, start_batch=2)))
    assert not torch.equal(next(here.batches(0)).images, next(here.batches(0, mosaic=False)).images)
    apart.close()


def test_processes_share_a_balanced_epoch(annotations):
    order = mixed(annotations).dataset.order(0).tolist()
    shares = [mixed(annotations, batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    assert len(order) == 9 and [len(share) for share in shares] == [3, 3]

    found = [i for share in shares for batch in share.batches(0) for i in batch.indices]
    assert sorted(found) == sorted([*order, order[0]])  # the second process has nothing left, and fills up


def test_a_small_shared_cache_changes_nothing(annotations):
    expected = list(train(annotations).batches(0))
    loader = train(annotations, workers=2)
    cache = loader.dataset.cache
    small = type(cache)(loader.dataset.loaded_hw, budget=3 * 64 * 64 * 3, shared=True)
    loader = train(annotations, workers=2)
    loader.dataset.cache = small

    assert small.num_slots == 3
    assert same(expected, list(loader.batches(0))) and same(expected, list(loader.batches(0)))
    loader.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_that_are_kept_are_not_overwritten(annotations, workers):
    loader = train(annotations, workers, batch_size=1)
    kept, copies = [], []
    for epoch in range(2):
        for batch in loader.batches(epoch):
            kept.append(batch.images[0])  # a view is enough to keep the memory
            copies.append(batch.images[0].clone())

    assert len(kept) == 2 * COUNT
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))
    loader.close()


def test_mosaic_can_be_turned_off_for_an_epoch(annotations):
    dataset = DetectionDataset(annotations, 64, Augmentation())
    loader = TrainLoader(dataset, 4)

    assert same(list(loader.batches(2)), list(loader.batches(2, mosaic=True)))
    assert not torch.equal(next(loader.batches(0)).images, next(loader.batches(0, mosaic=False)).images)


def test_processes_share_an_epoch(annotations):
    alone = [batch.indices for batch in train(annotations, batch_size=4).batches(0)]
    shares = [
        [batch.indices for batch in train(annotations, batch_size=2, rank=rank, world_size=2).batches(0)]
        for rank in range(2)
    ]

    for whole, first, second in zip(alone, *shares, strict=True):
        assert sorted(whole) == sorted(first + second)


def test_a_last_batch_too_small_for_all_processes_is_filled_from_the_start(annotations):
    shares = [
        [batch.indices for batch in train(annotations, batch_size=5, rank=rank, world_size=2).batches(0)]
        for rank in range(2)
    ]
    order = train(annotations).dataset.order(0).tolist()

    assert [len(share) for share in shares] == [2, 2]
    assert (shares[0][1], shares[1][1]) == ([order[10]], [order[0]])


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_gives_each_image_once_in_batches_of_one_shape(annotations, workers):
    dataset = DetectionDataset(annotations, 64, rect=True, workers=workers)
    loader = ValLoader(dataset, 3, workers)
    batches = list(loader)

    assert len(loader) == len(batches)
    assert sorted(i for batch in batches for i in batch.indices) == list(range(COUNT))
    assert {tuple(batch.images.shape[2:]) for batch in batches} == {(64, 96), (96, 64), (96, 96)}
    assert all(len(batch) <= 3 for batch in batches)
    assert same(batches, list(loader))
    loader.close()


def test_a_validation_image_does_not_depend_on_the_batch_size(annotations):
    dataset = DetectionDataset(annotations, 64, rect=True)
    ones = {batch.indices[0]: batch for batch in ValLoader(dataset, 1)}

    for batch in ValLoader(dataset, 8):
        for row, index in enumerate(batch.indices):
            assert torch.equal(batch.images[row], ones[index].images[0])
            assert torch.equal(batch.pads[row], ones[index].pads[0])


def test_processes_share_the_validation_images(annotations):
    dataset = DetectionDataset(annotations, 64, rect=True)
    indices = [
        i for rank in range(2) for b in ValLoader(dataset, 3, rank=rank, world_size=2) for i in b.indices
    ]

    assert sorted(indices) == list(range(COUNT))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_error_arrives_as_it_was_raised(annotations, workers):
    gone = Annotations(**{**vars(annotations), "paths": ["/gone.jpg"] * COUNT})
    loader = train(gone, workers, cache=False)

    with pytest.raises(DataError, match=r"^/gone\.jpg can't be read any more; .*meanwhile\?$"):
        next(loader.batches(0))
    with pytest.raises(DataError, match=r"^/gone\.jpg can't be read"):
        next(loader.batches(1))
    loader.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_pinned_batches_are_prepared_by_a_thread(annotations, workers, monkeypatch):
    """Without a GPU only the pinning itself can be left out."""
    threads = set()
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: threads.add(threading.current_thread().name))
    monkeypatch.setattr(Batch, "pin_memory", lambda batch: batch)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, pin_memory=False, **kwargs: empty(*args, **kwargs))
    expected = list(train(annotations).batches(0))

    loader = train(annotations, workers, pin_memory=True)
    next(loader.batches(1))

    assert same(expected, list(loader.batches(0)))
    assert threads == {"detector-loader_0"}
    processes = loader._feed._loader._iterator._workers if workers else []
    loader.close()
    assert all(process.exitcode == 0 for process in processes)


def test_an_iterator_that_was_overtaken_says_so(annotations):
    loader = train(annotations, workers=1)
    first = loader.batches(0)
    next(first)
    next(loader.batches(1))

    with pytest.raises(RuntimeError, match="iterated again"):
        next(first)
    loader.close()


def test_loading_leaves_the_random_state_and_threads_alone(annotations):
    threads = cv2.getNumThreads()
    torch.manual_seed(0)
    expected = torch.rand(1)
    for workers in (0, 1):
        torch.manual_seed(0)
        loader = train(annotations, workers)
        next(loader.batches(0))
        loader.close()
        assert torch.rand(1) == expected
    assert cv2.getNumThreads() == threads


def test_too_little_shared_memory_is_explained(annotations, monkeypatch):
    dataset = DetectionDataset(annotations, 64, Augmentation(), workers=2)
    monkeypatch.setattr("detector.data.loader.free_memory", lambda shared: 2**16)

    with pytest.raises(DataError, match=r"workers=2 needs .* MiB of shared memory .* --shm-size"):
        TrainLoader(dataset, 4, workers=2)


def test_a_program_that_stops_early_ends_without_a_sound(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        """
import cv2, numpy as np
from detector.data.annotations import Annotations
from detector.data.augment import Augmentation
from detector.data.batch import Batch
from detector.data.dataset import DetectionDataset
from detector.data.loader import TrainLoader
cv2.imwrite("a.png", np.zeros((64, 64, 3), np.uint8))
boxes, labels = np.full((20, 4), 0.5, np.float32), np.zeros(20, np.int64)
a = Annotations(["a.png"] * 20, np.full((20, 2), 64), np.arange(21), boxes, labels, {0: "a"})
loaders = [TrainLoader(DetectionDataset(a, 64, Augmentation(), workers=w), 2, w) for w in (0, 2)]
kept = [loader.batches(0) for loader in loaders]
for batches in kept:
    print(next(batches).images.shape)
"""
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout.count("torch.Size([2, 3, 64, 64])") == 2
    assert done.stderr == "" and done.returncode == 0


def test_there_are_never_more_workers_than_batches(annotations):
    loader = train(annotations, workers=50, batch_size=len(annotations) - 1)
    assert loader._feed._loader.num_workers == len(loader) == 2
    loader.close()
    val = ValLoader(DetectionDataset(annotations, 64, workers=50), 100, workers=50)
    assert val._feed._loader.num_workers == len(val) == 1
    val.close()
