"""Batches in order, from worker processes or from this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from detector.data.batch import Batch
from detector.data.cache import start_method
from detector.data.dataset import DetectionDataset, Key, TrainKey
from detector.errors import DetectorError

_AHEAD = 2  # batches each worker prepares in advance


class TrainLoader:
    """Augmented batches of any epoch, from any batch on.

    Which samples a batch holds, and what they look like, follows from the data set's seed, the epoch
    and the batch number; neither workers nor an interruption change them. The last batch of an epoch
    may be smaller.

    Args:
        dataset: with an augmentation.
        batch_size: images of a batch in this process.
        workers: processes that load; 0 loads in a thread of this process.
        pin_memory: give batches in page-locked memory.
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
        self._feed = _Feed(dataset, workers, pin_memory)

    def __len__(self) -> int:
        return -(-len(self.dataset) // (self.batch_size * self.world_size))

    def batches(self, epoch: int, start_batch: int = 0, mosaic: bool | None = None) -> Iterator[Batch]:
        """Iterate over one epoch.

        Args:
            epoch: from 0.
            start_batch: first batch to give; the ones before are not loaded.
            mosaic: whether mosaic and mixup may happen; None follows the augmentation's ``close_mosaic``.

        Raises:
            DataError: an image can't be read any more.
        """
        return self._feed.run([self.keys(epoch, number, mosaic) for number in range(start_batch, len(self))])

    def keys(self, epoch: int, number: int, mosaic: bool | None = None) -> list[Key]:
        """The keys of one batch of this process."""
        size, count = self.batch_size * self.world_size, len(self.dataset)
        positions = range(number * size, min((number + 1) * size, count))[self.rank :: self.world_size]
        return [TrainKey(epoch, k, mosaic) for k in positions or [(number * size + self.rank) % count]]

    def close(self) -> None:
        """End the worker processes; happens by itself when the loader is dropped."""
        self._feed.close()


class ValLoader:
    """Letterboxed images, each once, in batches of equal shape.

    Images are sorted by aspect ratio. An image's input shape depends on that image alone, so batches
    hold at most ``batch_size`` images, fewer where the shape changes, and results do not depend on
    ``batch_size``.

    Args:
        dataset: without an augmentation.
        batch_size: most images of a batch.
        workers: processes that load; 0 loads in a thread of this process.
        pin_memory: give batches in page-locked memory.
        rank: of this process.
        world_size: processes that share the images, a batch each in turn.
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
        self._feed = _Feed(dataset, workers, pin_memory)

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Batch]:
        return self._feed.run(self.groups)

    def close(self) -> None:
        """End the worker processes; happens by itself when the loader is dropped."""
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


class _Feed:
    """Turns lists of keys into batches, in order."""

    def __init__(self, dataset: DetectionDataset, workers: int, pin_memory: bool) -> None:
        self._dataset = dataset
        self._pin_memory = pin_memory
        self._todo: list[Sequence[Key]] = []
        self._loader: DataLoader[Any] | None = None
        if workers:
            self._loader = DataLoader(
                _Guarded(dataset),  # type: ignore[arg-type]
                batch_sampler=self._todo,  # type: ignore[arg-type]
                num_workers=workers,
                collate_fn=_unchanged,
                pin_memory=pin_memory,
                worker_init_fn=_quiet_threads,
                multiprocessing_context=start_method(),
                generator=torch.Generator(),  # else each epoch would draw from the global generator
                persistent_workers=True,
                prefetch_factor=_AHEAD,
            )

    def run(self, todo: Sequence[Sequence[Key]]) -> Iterator[Batch]:
        if self._loader is None:
            return self._run_here(todo)
        self._todo[:] = todo
        return self._run_workers(self._loader)

    def _run_workers(self, loader: DataLoader[Any]) -> Iterator[Batch]:
        for found in loader if self._todo else ():
            if isinstance(found, DetectorError):
                raise found
            yield found

    def _run_here(self, todo: Sequence[Sequence[Key]]) -> Iterator[Batch]:
        """Prepare the next batch in a thread while the caller works on this one."""
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # the images are too small to be worth sharing out
        pool = ThreadPoolExecutor(1, thread_name_prefix="detector-loader")
        try:
            waiting: deque[Future[Batch]] = deque()
            for keys in todo:
                waiting.append(pool.submit(self._load, keys))
                if len(waiting) > 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            cv2.setNumThreads(threads)

    def _load(self, keys: Sequence[Key]) -> Batch:
        batch = self._dataset.__getitems__(keys)
        return batch.pin_memory() if self._pin_memory else batch

    def close(self) -> None:
        self._loader = None


class _Guarded:
    """A data set whose errors travel as values, so that the caller gets the original one."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, key: Key) -> Batch | DetectorError:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[Key]) -> Batch | DetectorError:
        try:
            return self._dataset.__getitems__(keys)
        except DetectorError as error:
            return error


def _unchanged(batch: Any) -> Any:
    return batch


def _quiet_threads(_worker: int) -> None:
    """One thread per worker: the workers themselves are the parallelism."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
