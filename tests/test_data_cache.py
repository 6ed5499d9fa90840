from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

from detector.data.cache import ImageCache, build_cache
from detector.data.memory import start_method
from detector.errors import DataError

SHAPES = np.array([[4, 6], [6, 4], [5, 5], [6, 6]])


def image_of(index: int) -> np.ndarray:
    return np.full((*SHAPES[index], 3), index + 1, np.uint8)


def test_every_image_is_kept_when_all_fit():
    cache = ImageCache(SHAPES, budget=10_000)
    for index in range(4):
        assert cache.get(index) is None
        cache.put(index, image_of(index))

    assert cache.holds_all and cache.nbytes == SHAPES.prod(1).sum() * 3
    assert all(np.array_equal(cache.get(index), image_of(index)) for index in range(4))


def test_a_small_cache_keeps_the_last_image_of_each_slot():
    cache = ImageCache(SHAPES, budget=2 * 6 * 6 * 3)
    for index in range(3):
        cache.put(index, image_of(index))

    assert cache.num_slots == 2
    assert cache.get(0) is None  # slot 0 now holds image 2
    assert np.array_equal(cache.get(1), image_of(1))
    assert np.array_equal(cache.get(2), image_of(2))


def test_what_a_small_cache_gives_is_not_overwritten_later():
    cache = ImageCache(SHAPES, budget=6 * 6 * 3)
    cache.put(0, image_of(0))
    found = cache.get(0)
    cache.put(3, image_of(3))

    assert np.array_equal(found, image_of(0))


def test_an_image_overwritten_while_it_is_read_is_refused():
    class Torn(ImageCache):
        def _view(self, slot: int, index: int) -> np.ndarray:
            view = super()._view(slot, index)
            if self.tear:
                self._owners[slot] = 3  # as another process would meanwhile
            return view

    cache = Torn(SHAPES, budget=6 * 6 * 3)
    cache.tear = False
    cache.put(0, image_of(0))
    cache.tear = True

    assert cache.get(0) is None


def test_a_busy_shared_slot_is_left_alone():
    cache = ImageCache(SHAPES, budget=6 * 6 * 3, shared=True)
    with cache._lock:
        cache.put(0, image_of(0))
    assert cache.get(0) is None

    cache.put(0, image_of(0))
    assert np.array_equal(cache.get(0), image_of(0))


def fill(cache: ImageCache, index: int) -> None:
    cache.put(index, image_of(index))


@pytest.mark.parametrize("method", [start_method(), pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("budget", [10_000, 2 * 6 * 6 * 3])
def test_images_stored_by_another_process_are_found(method, budget, monkeypatch):
    monkeypatch.setattr("detector.data.cache.start_method", lambda: method)
    cache = ImageCache(SHAPES, budget, shared=True)
    process = multiprocessing.get_context(method).Process(target=fill, args=(cache, 1))
    process.start()
    process.join()

    assert process.exitcode == 0
    assert np.array_equal(cache.get(1), image_of(1))


def test_ram_that_does_not_exist_is_an_error():
    huge = np.full((1000, 2), 100_000)

    with pytest.raises(
        DataError, match=r"needs 27939\.7 GiB for 1000 images, but .* are free; use cache='auto'"
    ):
        build_cache("ram", huge, shared=False)


def test_auto_takes_a_share_of_the_free_memory():
    cache = build_cache("auto", np.full((1_000_000, 2), 100), shared=False, memory_fraction=1e-4)

    assert 0 < cache.num_slots < 1_000_000 and not cache.holds_all


def test_no_cache_stores_nothing():
    cache = build_cache(False, SHAPES, shared=True)
    cache.put(0, image_of(0))

    assert cache.get(0) is None and cache.nbytes == 0


def test_an_unknown_mode_is_named():
    with pytest.raises(DataError, match=r"cache='rom': .*did you mean 'ram'"):
        build_cache("rom", SHAPES, shared=False)
