"""Decoded images in memory, shared by the loader's processes."""

from __future__ import annotations

import logging
import multiprocessing
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detector.data.letterbox import image_shape
from detector.data.memory import allocate, free_memory, start_method
from detector.errors import DataError, nearest

log = logging.getLogger(__name__)

CacheMode: TypeAlias = "str | bool"  # "auto", "ram" or False
_EMPTY = -1


class ImageCache:
    """A direct-mapped store of images: image i has slot i modulo the number of slots, or none.

    When the budget holds every image, each has a slot of its own size and is read without a copy.
    When not, slots are shared and the last image stored is the one found. What the cache holds
    decides how fast an image comes, never which pixels come.

    The memory is shared with worker processes, forked or spawned, unless ``shared`` is False.

    Args:
        shapes_hw: (n, 2) int64, height and width of each image as it is stored, px.
        budget: bytes to use at most; 0 stores nothing.
        shared: place the slots in shared memory.
        channels: of the images; 1 is grey.
    """

    def __init__(
        self, shapes_hw: NDArray[np.int64], budget: int, shared: bool = False, channels: int = 3
    ) -> None:
        self.shapes_hw, self.channels = shapes_hw, channels
        sizes = shapes_hw.prod(1) * channels
        self.holds_all = bool(sizes.sum() <= budget)
        if self.holds_all:
            self._starts = np.concatenate([[0], np.cumsum(sizes)])
        else:
            largest = int(sizes.max())
            self._starts = np.arange(budget // largest + 1, dtype=np.int64) * largest
        self.num_slots = len(self._starts) - 1
        self.nbytes = int(self._starts[-1])
        # several writers of one slot would need more than an owner to be told apart
        self._lock = (
            multiprocessing.get_context(start_method()).Lock() if shared and not self.holds_all else None
        )
        self._pixels_tensor = allocate(self.nbytes, shared)
        self._owners_tensor = allocate(self.num_slots * 8, shared)
        self._map()
        self._owners[:] = _EMPTY

    def _map(self) -> None:
        self._pixels: NDArray[np.uint8] = self._pixels_tensor.numpy()
        self._owners: NDArray[np.int64] = self._owners_tensor.numpy().view(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_pixels"], state["_owners"]  # numpy would copy what torch shares
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()

    def get(self, index: int) -> NDArray[np.uint8] | None:
        """The (H, W, 3) or (H, W) uint8 image, not to be written to, or None if it is not stored."""
        if not self.num_slots:
            return None
        slot = index % self.num_slots
        if self._owners[slot] != index:
            return None
        if self.holds_all:  # nothing else is ever written here
            return self._view(slot, index)
        image = self._view(slot, index).copy()
        # a writer clears the owner first: unchanged before and after means nothing was written between
        return image if self._owners[slot] == index else None

    def put(self, index: int, image: NDArray[np.uint8]) -> None:
        """Store an image in its slot; left out when another process is storing one in a shared slot."""
        if not self.num_slots:
            return
        slot = index % self.num_slots
        if self._lock is not None and not self._lock.acquire(block=False):
            return
        try:
            if not self.holds_all:
                self._owners[slot] = _EMPTY
            self._view(slot, index)[...] = image
            self._owners[slot] = index
        finally:
            if self._lock is not None:
                self._lock.release()

    def _view(self, slot: int, index: int) -> NDArray[np.uint8]:
        height, width = self.shapes_hw[index].tolist()
        start = int(self._starts[slot])
        shape = image_shape((height, width), self.channels)
        return self._pixels[start : start + height * width * self.channels].reshape(shape)


def build_cache(
    mode: CacheMode,
    shapes_hw: NDArray[np.int64],
    shared: bool,
    memory_fraction: float = 0.25,
    channels: int = 3,
) -> ImageCache:
    """Make the cache a data set asks for.

    Args:
        mode: "auto" stores what fits in ``memory_fraction`` of the memory that is free, "ram" or True
            stores every image, False none.
        shapes_hw: (n, 2) int64, height and width of each image as it is stored, px.
        shared: worker processes will use the cache.
        memory_fraction: share of the free memory for "auto".
        channels: of the images; 1 is grey.

    Raises:
        DataError: unknown mode, or "ram" and the images do not fit.
    """
    if mode not in ("auto", "ram", True, False):
        raise DataError(
            f"cache={mode!r}: expected 'auto', 'ram' or False{nearest(str(mode), ['auto', 'ram'])}."
        )
    needed = int(shapes_hw.prod(1).sum()) * channels
    if mode is False:
        return ImageCache(shapes_hw, 0, channels=channels)
    free = free_memory(shared)
    if mode in ("ram", True):
        if needed > free * 0.9:  # the rest is for what this process still allocates
            where = "shared memory (/dev/shm)" if shared else "memory"
            raise DataError(
                f"cache='ram' needs {needed / 2**30:.1f} GiB for {len(shapes_hw)} images, but {free / 2**30:.1f} GiB "
                f"of {where} are free; use cache='auto', which stores what fits, or a smaller imgsz."
            )
        budget = needed
    else:
        budget = min(needed, int(free * memory_fraction))
    cache = ImageCache(shapes_hw, budget, shared, channels)
    log.debug("image cache: %d of %d images, %.2f GiB", cache.num_slots, len(shapes_hw), cache.nbytes / 2**30)
    return cache
