"""Devices and processes of a training."""

from __future__ import annotations

import pytest

from detector.errors import SettingsError
from detector.scale.placement import GPU, settle_devices, with_idle
from detector.settings import TrainSettings

BUSY = GPU(0, 0.9, 98, ("python (4711)",))


@pytest.mark.parametrize(("given", "expected"), [({}, 1), ({"processes": 1}, 1), ({"processes": 2}, 2)])
def test_processes_on_the_cpu_are_as_many_as_are_given(given: dict[str, int], expected: int) -> None:
    assert settle_devices(TrainSettings.parse({"device": "cpu"} | given)) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"device": [0, 1], "processes": 3}, "processes=3: device=[0,1] names 2 GPUs"),
        ({"device": "0,0"}, "GPU 0 is named twice"),
        ({"device": 0, "processes": 2}, "device=0 is one device; name as many"),
    ],
)
def test_devices_and_processes_that_contradict_are_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settle_devices(TrainSettings.parse(given))
    assert words in str(refused.value)


def test_idle_gpus_take_the_places_of_minus_one() -> None:
    assert with_idle([-1, -1], [BUSY, GPU(1, 0.01, 0), GPU(2, 0.0, 3)]) == [1, 2]
    assert with_idle([1, -1], [GPU(0, 0.02, 0), GPU(1, 0.0, 0)]) == [1, 0]


def test_whoever_has_a_gpu_is_named() -> None:
    with pytest.raises(
        SettingsError, match=r"expected 2 idle GPUs, 1 are: GPU 0 is taken by python \(4711\): 90%"
    ):
        with_idle([-1, -1], [BUSY, GPU(1, 0.0, 0)])
