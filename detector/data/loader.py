"""Batches in order, from worker processes or from this one."""

from __future__ import annotations

import math
import os
import signal
import warnings
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from detector.data.batch import Batch, assemble
from detector.data.dataset import DetectionDataset, Key, TrainKey
from detector.data.memory import BufferRing, free_memory, slot_view, start_method
from detector.errors import DataError, DetectorError, first_line

_AHEAD = 2  # batches each worker prepares in advance
_IN_USE = 3  # batches the caller may hold before new memory is taken


class TrainLoader:
    """Augmented batches of any epoch, from any batch on.

    Which samples a batch holds, and what they look like, follows from the data set's seed, the epoch
    and the batch number; neither workers nor an interruption change them. The last batch of an epoch
    may be smaller.

    Args:
        dataset: with an augmentation.
        batch_size: images of a batch in this process.
        workers: processes that load, as many as there are batches at most; 0 loads in this process.
        pin_memory: give batches in page-locked memory, prepared by a thread; for training on a GPU.
        rank: of this process.
        world_size: processes that share the epoch; each takes its part of every batch, and where the
            last batch has too few images, the first ones of the epoch fill up.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        batch_size: int,
        workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        largest = (
            batch_size * dataset.channels * math.prod(math.ceil(side / 32) * 32 for side in dataset.input_hw)
        )
        self._feed = _BatchStream(dataset, largest, min(workers, len(self)), pin_memory)

    def __len__(self) -> int:
        return -(-len(self.dataset.visits) // (self.batch_size * self.world_size))

    def batches(self, epoch: int, start_batch: int = 0, mosaic: bool = True) -> Iterator[Batch]:
        """Iterate over one epoch.

        Args:
            epoch: from 0.
            start_batch: first batch to give; the ones before are not loaded.
            mosaic: whether mosaic, copy-paste, mixup and cutmix may happen.

        Raises:
            DataError: an image can't be read any more.
        """
        return self._feed.run([self.keys(epoch, number, mosaic) for number in range(start_batch, len(self))])

    def images_of(self, number: int) -> int:
        """The images of a batch, of all processes."""
        size = self.batch_size * self.world_size
        return min(size, len(self.dataset.visits) - number * size)

    def keys(self, epoch: int, number: int, mosaic: bool = True) -> list[Key]:
        """The keys of one batch of this process."""
        size, count = self.batch_size * self.world_size, len(self.dataset.visits)
        positions = range(number * size, min((number + 1) * size, count))[self.rank :: self.world_size]
        return [TrainKey(epoch, k, mosaic) for k in positions or [(number * size + self.rank) % count]]

    def close(self) -> None:
        """End the worker processes now; without this they end when the loader is dropped."""
        self._feed.close()


class ValLoader:
    """Letterboxed images, each once, in batches of equal shape.

    Images are sorted by aspect ratio. An image's input shape depends on that image alone, so batches
    hold at most ``batch_size`` images, fewer where the shape changes, and results do not depend on
    ``batch_size``.

    Args:
        dataset: without an augmentation.
        batch_size: maximum images per batch.
        workers: processes that load, as many as there are batches at most; 0 loads in this process.
        pin_memory: give batches in page-locked memory, prepared by a thread; for training on a GPU.
        rank: of this process.
        world_size: processes that share the images, one batch each in turn.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        batch_size: int,
        workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset = dataset
        self.groups = group_by_shape(dataset, batch_size)[rank::world_size]
        largest = max(
            (len(keys) * dataset.channels * math.prod(dataset.shape_of(keys[0])) for keys in self.groups),
            default=0,
        )
        self._feed = _BatchStream(dataset, largest, min(workers, len(self)), pin_memory)

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Batch]:
        return self._feed.run(self.groups)

    def close(self) -> None:
        """End the worker processes now; without this they end when the loader is dropped."""
        self._feed.close()


def group_by_shape(dataset: DetectionDataset, batch_size: int) -> list[list[Key]]:
    """Cut the images, sorted by aspect ratio, into runs of one input shape and at most ``batch_size``."""
    groups: list[list[Key]] = []
    shape = None
    for index in dataset.by_ratio.tolist() if dataset.rect else range(len(dataset)):
        if dataset.shape_of(index) != shape or len(groups[-1]) == batch_size:
            groups.append([])
            shape = dataset.shape_of(index)
        groups[-1].append(index)
    return groups


class _BatchStream:
    """Turns lists of keys into batches, in order."""

    def __init__(self, dataset: DetectionDataset, largest: int, workers: int, pin_memory: bool) -> None:
        self._dataset = dataset
        self._pin_memory = pin_memory
        self._todo: Sequence[Sequence[Key]] = []
        self._sent: set[int] = set()  # slots that workers are to fill
        self._loader: DataLoader[Any] | None = None
        slots = workers * _AHEAD + _IN_USE
        if workers and (free := free_memory(shared=True)) < slots * largest:
            raise DataError(
                f"workers={workers} needs {slots * largest / 2**20:.0f} MiB of shared memory for its batches, but "
                f"{free / 2**20:.0f} MiB are free; use fewer workers, or workers=0, or a larger /dev/shm "
                "(docker run --shm-size)."
            )
        self._ring = BufferRing(slots, largest, shared=workers > 0)
        if workers:
            self._loader = DataLoader(
                _WorkerDataset(dataset, self._ring.memory),  # type: ignore[arg-type]
                batch_sampler=_RequestSampler(self),  # type: ignore[arg-type]
                num_workers=workers,
                collate_fn=_unchanged,
                worker_init_fn=_begin_work,
                multiprocessing_context=start_method(),
                generator=torch.Generator(),  # else each epoch would draw from the global generator
                persistent_workers=True,
                prefetch_factor=_AHEAD,
            )

    def run(self, todo: Sequence[Sequence[Key]]) -> Iterator[Batch]:
        if self._loader is None:
            batches = self._load_here(todo)
            return _ahead(batches) if self._pin_memory else batches
        if self._loader._iterator is None:
            self._start(self._loader)  # here: a process forked from the thread below could not end properly
        batches = self._receive(self._loader, todo)
        return _ahead(batch.pin_memory() for batch in batches) if self._pin_memory else batches

    def _start(self, loader: DataLoader[Any]) -> None:
        """Start the worker processes, which then wait for the first orders."""
        self._todo = ()
        with warnings.catch_warnings():
            # Python warns of forking a process with threads; the workers use nothing that those may have locked
            warnings.filterwarnings("ignore", r".*multi-threaded, use of fork", DeprecationWarning)
            iter(loader)

    def _load_here(self, todo: Sequence[Sequence[Key]]) -> Iterator[Batch]:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # the images are too small to split among threads
        try:
            yield from map(self._load, todo)
        finally:
            cv2.setNumThreads(threads)

    def _load(self, keys: Sequence[Key]) -> Batch:
        shape = len(keys), self._dataset.channels, *self._dataset.shape_of(keys[0])
        if self._pin_memory:  # torch keeps pinned memory for the next batch itself
            images = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
            return assemble(images, self._dataset.fill(keys, images)).pin_memory()
        slot = self._ring.take()
        images = torch.empty(shape, dtype=torch.uint8) if slot is None else self._ring.as_tensor(slot, shape)
        return assemble(images, self._dataset.fill(keys, images))

    def orders(self) -> Iterator[_Request]:
        """What the workers are sent, each with a slot for its images if one is free."""
        # runs once all workers have answered what they were sent before, so stray slots are free
        while self._sent:
            self._ring.release(self._sent.pop())
        for keys in self._todo:
            slot = self._ring.take()
            if slot is not None:
                self._sent.add(slot)
            yield _Request(keys, slot)

    def _receive(self, loader: DataLoader[Any], todo: Sequence[Sequence[Key]]) -> Iterator[Batch]:
        if not todo:
            return
        self._todo = todo
        answers = iter(loader)
        for _ in todo:
            if self._todo is not todo:
                raise RuntimeError("this loader was iterated again; an older iterator of it can't continue")
            slot, found = next(answers)
            self._sent.discard(slot)
            if isinstance(found, DetectorError):
                if slot is not None:
                    self._ring.release(slot)
                try:
                    raise found
                finally:
                    del found, answers  # else the traceback would keep the workers, and itself, alive
            if isinstance(found, Batch):
                yield found
            else:
                shape, targets = found
                yield assemble(self._ring.as_tensor(slot, shape), targets)

    def close(self) -> None:
        workers = self._loader._iterator if self._loader is not None else None
        if isinstance(workers, _MultiProcessingDataLoaderIter):
            workers._shutdown_workers()  # torch has no public way to end them now
        self._loader = None


class _Request(NamedTuple):
    """What a worker is asked for: samples, and the slot to put the images into."""

    keys: Sequence[Key]
    slot: int | None


class _RequestSampler:
    """The batch sampler: asks the feed again at the start of each epoch."""

    def __init__(self, feed: _BatchStream) -> None:
        self._feed = weakref.proxy(feed)

    def __iter__(self) -> Iterator[_Request]:
        return self._feed.orders()  # type: ignore[no-any-return]


class _WorkerDataset:
    """The data set as a worker sees it: fills a slot, and returns errors as values, to be raised unchanged."""

    def __init__(self, dataset: DetectionDataset, memory: Tensor) -> None:
        self._dataset = dataset
        self._memory = memory

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, order: _Request) -> tuple[int | None, Any]:
        keys, slot = order
        try:
            if slot is None:
                return None, self._dataset.__getitems__(keys)
            shape = len(keys), self._dataset.channels, *self._dataset.shape_of(keys[0])
            return slot, (shape, self._dataset.fill(keys, slot_view(self._memory, slot, shape)))
        except DetectorError as error:
            return slot, error


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Get the next batch in a thread while a GPU works on this one.

    Without a GPU the thread would only compete with the training for the same cores.
    """
    pool = ThreadPoolExecutor(
        1, "detector-loader", partial(torch.cuda.set_device, torch.cuda.current_device())
    )
    try:
        waiting = pool.submit(next, batches, None)
        while (batch := waiting.result()) is not None:
            waiting = pool.submit(next, batches, None)
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


def _unchanged(found: Any) -> Any:
    return found


def worker_death(error: BaseException) -> DetectorError | None:
    """Return what to say instead of torch's error about a worker process that was killed; None of another error."""
    if not (isinstance(error, RuntimeError) and "DataLoader worker" in str(error)):
        return None
    return DetectorError(
        f"a process that loads images was killed from outside ({first_line(error)}), as systems do when memory runs "
        "out; use fewer workers= or a smaller batch="
    )


def _begin_work(_worker: int) -> None:
    """Set one thread per worker, as the workers themselves are the parallelism, and leave signals to the training.

    Ctrl-C, a terminal that is closed and service managers signal the workers as well. Were one of them to die of
    it, torch would raise an error in the training at any place instead of letting it end cleanly.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
