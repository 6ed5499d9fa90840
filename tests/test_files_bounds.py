from __future__ import annotations

import time

import pytest

from detector.files.bounds import LIMITS, BoundsError, require_bounded, require_within


def test_a_number_within_its_limit_passes_and_one_beyond_is_refused() -> None:
    require_within("classes", LIMITS["classes"])
    with pytest.raises(BoundsError, match="2,000,000,000 classes; at most 100,000 are read"):
        require_within("classes", 2_000_000_000)
    with pytest.raises(BoundsError, match="nan weights"):
        require_within("weights", float("nan"))


def test_the_values_of_plain_data_are_counted() -> None:
    assert require_bounded({"a": [1, 2], "b": (3, {4})}) == 10


def test_lists_that_share_a_list_twice_34_deep_are_refused_at_once() -> None:
    shared: list[object] = [0]
    for _ in range(34):
        shared = [shared, shared]
    started = time.perf_counter()
    with pytest.raises(BoundsError):
        require_bounded(shared)
    assert time.perf_counter() - started < 1


def test_levels_count_through_shared_lists() -> None:
    inner: list[object] = [0]
    for _ in range(20):
        inner = [inner]
    outer: list[object] = [inner]
    for _ in range(20):
        outer = [outer]
    with pytest.raises(BoundsError, match="levels"):
        require_bounded([inner, outer])


def test_a_list_in_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(BoundsError, match="contains itself"):
        require_bounded(loop)
