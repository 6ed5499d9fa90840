"""The processes of a training: what they exchange, and who waits for whom.

`Ranks` is a training alone in its process: everything here is then nothing. `RankGroup` is one of several that train
together. Tensors travel by the device's own backend (NCCL, or gloo on a CPU), Python objects and flags by gloo, so that
no GPU is waited for. The objects are pickled: they come from the other processes of this training only.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from time import time
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from detector.device import listed_devices, select_device
from detector.errors import DetectorError, SettingsError, TrainingError, first_line
from detector.messages import configure_logging
from detector.scale.gradients import exchange_gradients, flat, unflat
from detector.scale.meeting import meet
from detector.scale.watch import Watch

T = TypeVar("T")


class RankLostError(DetectorError):
    """Another process of the training ended; why it did is what counts."""


class Ranks:
    """A training in one process.

    Attributes:
        rank: of this process, from 0.
        size: how many processes there are.
        local_rank: of this process among those of its machine, of which there are `local_size`.
        has_share: whether the current batch has images for this process.
    """

    rank = local_rank = 0
    size = local_size = 1
    has_share = True
    backend: str | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files, logs, and calls the callbacks that are not for all."""
        return self.rank == 0

    @property
    def is_group(self) -> bool:
        """Whether it is one of a group; a group may have one process."""
        return self.backend is not None

    def device_of(self, device: str | int | list[int]) -> torch.device:
        """Return the device of this process."""
        return select_device(device)

    def share_of(self, batch: int) -> int:
        """Return how many images of a batch are this process's at most."""
        return batch // self.size

    def whole_batch(self, chosen: int, setting: object) -> int:
        """Return the batch of all processes, from what was chosen in this one.

        Args:
            chosen: what the setting says, or what was found to fit on this process's device.
            setting: the `batch` setting.

        Raises:
            SettingsError: if a number of images was given that the processes can't share.
        """
        return chosen

    def joined(self, images: Tensor, count: int) -> Tensor:
        """Return the (N, ...) images of a whole batch, in its order, from those of this process.

        Args:
            images: of this process.
            count: N, of all processes.
        """
        return images

    def accumulated(self, gradients: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return to the main process what every process has accumulated for itself, by parameter."""
        return [gradients]

    def describe_by(self, describe: Callable[[], str | None]) -> None:
        """Let the others know what this process does while they wait, such as the callback it calls.

        Args:
            describe: says so; None is its work.
        """

    def fail(self) -> None:
        """Say that this process does not do what the others do from now on."""

    def sum(self, values: Tensor, what: str) -> Tensor:
        """Return the sum over all processes of a tensor, which is changed."""
        return values

    def maximum(self, values: list[float], what: str) -> list[float]:
        """Return the largest of each of some numbers over all processes."""
        return values

    def whole_loss(self, loss: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return loss and terms of the whole batch from this process's parts, without a history."""
        return loss, items

    def scaled(self, loss: Tensor) -> Tensor:
        """Return a loss whose gradients, averaged over the processes as they exchange them, are summed."""
        return loss

    def gather_tensor(self, values: Tensor, what: str) -> list[Tensor]:
        """Return the tensors of all processes, which have one shape."""
        return [values]

    def gather(self, value: T, what: str) -> list[T]:
        """Return the objects of all processes."""
        return [value]

    def from_main(self, make: Callable[[], T], what: str) -> T:
        """Return what a function returns in the main process, which alone calls it; an exception of it ends all."""
        return make()

    def first(self, what: str) -> AbstractContextManager[None]:
        """Let the main process do the `with` block before the others do it."""
        return nullcontext()

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """Say what this process waits for within the `with` block, should it take too long."""
        return nullcontext()

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return what to call in place of the model in training; gradients are then those of all processes."""
        return model

    def synchronised(self, network: nn.Module, wanted: bool) -> AbstractContextManager[None]:
        """Let the processes exchange gradients in the `with` block, or not while they accumulate."""
        return nullcontext()

    def close(self, failed: bool = False) -> None:
        """Leave the group."""


class RankGroup(Ranks):
    """One of the processes of a training.

    Args:
        limit: seconds that a process waits for the others.
        environment: what torchrun sets: `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR` ...

    Raises:
        SettingsError: if the processes can't meet.
    """

    def __init__(self, limit: float, environment: Mapping[str, str] = os.environ) -> None:
        self.rank, self.size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        self.local_rank = int(environment.get("LOCAL_RANK", self.rank))
        self.local_size = int(environment.get("LOCAL_WORLD_SIZE", self.size))
        self.backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        self.limit, self.failed_at = limit, 0.0
        try:
            self._meet(next(rendezvous("env://", self.rank, self.size, timeout=timedelta(seconds=limit)))[0])
        except (RuntimeError, ValueError, TimeoutError) as error:
            place = f"{environment.get('MASTER_ADDR')}:{environment.get('MASTER_PORT')}"
            raise SettingsError(
                f"rank {self.rank} of {self.size} can't meet the others at {place} ({first_line(error)}); see "
                "docs/scale.md"
            ) from None
        self.watch = Watch(self.rank, self.size, limit, dist.distributed_c10d._get_default_store())
        self._failed = False

    def _meet(self, store: Any) -> None:
        """Connect the processes.

        Args:
            store: where they find each other's addresses.
        """
        token = meet(store, self.rank, self.size, self.limit)
        place = dist.PrefixStore(token, store)  # type: ignore[attr-defined]
        span = timedelta(seconds=self.limit)
        dist.init_process_group(self.backend, store=place, rank=self.rank, world_size=self.size, timeout=span)
        self._objects: Any = dist.new_group(backend="gloo", timeout=span)

    def __deepcopy__(self, memo: object) -> RankGroup:
        """Return the group itself: copies of the network are of its processes as well."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Be a training alone where it is loaded again."""
        return Ranks, ()

    def device_of(self, device: str | int | list[int]) -> torch.device:
        listed = listed_devices(device)
        if len(listed) > 1 and len(listed) != self.local_size:
            raise SettingsError(
                f"device={','.join(map(str, listed))} names {len(listed)} devices for {self.local_size} processes; "
                "leave device= out under torchrun"
            )
        if len(listed) > 1 or (device == "auto" and torch.cuda.is_available()):
            place = select_device((listed or range(self.local_size))[self.local_rank])
        else:
            place = select_device(device)
        if place.type == "cuda":
            torch.cuda.set_device(place)
        return place

    def share_of(self, batch: int) -> int:
        require_shareable(batch, self.size)
        return batch // self.size

    def whole_batch(self, chosen: int, setting: object) -> int:
        if isinstance(setting, (int, float)) and setting >= 1:
            self.share_of(chosen)
            return chosen
        if setting == "auto":  # of all processes, as a number that is given is
            return -(-chosen // self.size) * self.size
        return int(-self.maximum([-float(chosen)], "the batch that fits")[0]) * self.size

    def joined(self, images: Tensor, count: int) -> Tensor:
        every = self.gather(images, "the images of batch-norm statistics")
        largest = max(map(len, every))
        return torch.stack([part[k] for k in range(largest) for part in every if k < len(part)][:count])

    def accumulated(self, gradients: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        if not gradients:
            return [gradients]
        if self._failed:
            raise TrainingError(
                "the state of this moment is not saved, as gradients of other processes are part of it; the run "
                "resumes from the last one"
            )
        own = flat(gradients)
        every = [torch.empty_like(own) for _ in range(self.size)] if self.is_main else None
        with self.waiting("accumulated gradients"):
            dist.gather(own, every, group=self._objects)
        return [unflat(sent, gradients) for sent in every or [own]]

    def describe_by(self, describe: Callable[[], str | None]) -> None:
        self.watch.describe = lambda: describe() or "its work"

    def fail(self) -> None:
        self._failed, self.failed_at = True, time()

    def sum(self, values: Tensor, what: str) -> Tensor:
        with self.waiting(what):
            dist.all_reduce(values)
        return values

    def whole_loss(self, loss: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        whole = self.sum(torch.cat([loss.reshape(1), items]), "the loss of a batch")
        return whole[0], whole[1:]

    def scaled(self, loss: Tensor) -> Tensor:
        return loss * self.size

    def maximum(self, values: list[float], what: str) -> list[float]:
        both = torch.tensor(values, dtype=torch.float64)
        with self.waiting(what):
            dist.all_reduce(both, dist.ReduceOp.MAX, group=self._objects)
        largest: list[float] = both.tolist()
        return largest

    def gather_tensor(self, values: Tensor, what: str) -> list[Tensor]:
        found = [torch.empty_like(values) for _ in range(self.size)]
        with self.waiting(what):
            dist.all_gather(found, values)
        return found

    def gather(self, value: T, what: str) -> list[T]:
        found: list[Any] = [None] * self.size
        with self.waiting(what):
            dist.all_gather_object(found, value, group=self._objects)
        return found

    def from_main(self, make: Callable[[], T], what: str) -> T:
        sent: list[Any] = [None, None]
        error: BaseException | None = None
        if self.is_main:
            try:
                sent[0] = make()
            except BaseException as problem:
                error = problem
                stated = problem if isinstance(problem, DetectorError) else RankLostError(first_line(problem))
                sent[1] = type(stated), str(stated)
        with self.waiting(what):
            dist.broadcast_object_list(sent, 0, group=self._objects)
        if error is not None:
            raise error
        if sent[1] is not None:
            kind, text = sent[1]
            stated = kind(text)
            stated.of_main = True
            raise stated
        return sent[0]  # type: ignore[no-any-return]

    @contextmanager
    def first(self, what: str) -> Iterator[None]:
        if not self.is_main:
            self.from_main(lambda: None, what)
            yield
            return
        failed: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failed = error

        def give() -> None:
            if failed is not None:
                raise failed

        self.from_main(give, what)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        began = self.watch.begin(what)
        try:
            yield
        except RuntimeError as error:
            if not _is_of_backend(error):
                raise
            raise self._lost(what) from error
        finally:
            self.watch.end(began)

    def _lost(self, what: str) -> DetectorError:
        """Return what to raise in place of a backend's error: the others are late, or gone."""
        if (late := self.watch.late()) is not None:
            return TrainingError(late)
        return RankLostError(f"rank {self.rank} lost the other processes while it waited for {what}")

    def wrap(self, model: nn.Module) -> nn.Module:
        with self.waiting("the weights of rank 0"):
            return exchange_gradients(model)

    def synchronised(self, network: nn.Module, wanted: bool) -> AbstractContextManager[None]:
        assert isinstance(network, DistributedDataParallel)
        return nullcontext() if wanted else network.no_sync()

    def close(self, failed: bool = False) -> None:
        self.watch.close()
        if not failed and dist.is_initialized():
            dist.destroy_process_group()


def join(limit: float) -> Ranks:
    """Return the group that torchrun, or the launcher here, has put this process into; else a training alone.

    Of a group, the main process alone says more than errors.

    Args:
        limit: seconds that a process waits for the others.

    Raises:
        SettingsError: if the processes can't meet.
    """
    if not is_launched():
        return Ranks()
    ranks = RankGroup(limit)
    if not ranks.is_main:
        configure_logging(verbose=False)
        logging.getLogger("detector").setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
    return ranks


def require_shareable(batch: int, size: int) -> None:
    """Refuse a batch of which some processes would get more images than others.

    Raises:
        SettingsError: with the nearest sizes.
    """
    if batch % size:
        below = batch // size * size
        near = " or ".join(f"batch={number}" for number in (below, below + size) if number)
        raise SettingsError(
            f"batch={batch}: it is shared by {size} processes, expected a multiple of {size}; try {near}"
        )


def _is_of_backend(error: RuntimeError) -> bool:
    """Return whether an error is one of the exchange, and not of what is computed meanwhile."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in text or "nccl" in text


def is_launched() -> bool:
    """Return whether a launcher has started this process as one of a group."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ
