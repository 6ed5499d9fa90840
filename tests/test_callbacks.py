import subprocess
import sys

import pytest

import detector.callbacks
from detector.callbacks import READY_MADE
from detector.callbacks.registry import CallbackRegistry

REQUIRED = {"LRSchedule": [{0: 1.0}], "Notify": [print], "TimeLimit": [1], "Unfreeze": [1]}


def test_importing_the_callbacks_loads_no_torch():
    code = (
        "import sys, detector.callbacks as c; few = len(sys.modules); "
        "[getattr(c, name) for name in c.READY_MADE]; print('torch' in sys.modules, few)"
    )
    torch, modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert torch == "False"
    assert int(modules) < 150


@pytest.mark.parametrize("name", READY_MADE)
def test_every_ready_made_callback_can_be_registered_and_says_what_it_does(name):
    kind = getattr(detector.callbacks, name)
    registry = CallbackRegistry()
    registry.add(kind(*REQUIRED.get(name, [])))
    assert any(registry.values())
    assert kind.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"'detector\.callbacks' has no attribute 'Earlystopping'"):
        detector.callbacks.Earlystopping  # noqa: B018


def test_the_names_are_listed():
    assert {*READY_MADE, "Callback", "CallbackRegistry"} <= set(dir(detector.callbacks))
