import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest

import detector.callbacks
from detector.callbacks import READY_MADE
from detector.callbacks.registry import CallbackRegistry

TRIAL = SimpleNamespace(report=print, should_prune=bool)
REQUIRED = {
    "LRSchedule": [{0: 1.0}], "Notify": [print], "TimeLimit": [1], "TrialPruning": [TRIAL], "Unfreeze": [1],
}  # fmt: skip


def test_importing_the_callbacks_loads_no_torch():
    code = (
        "import sys; before = set(sys.modules); import detector.callbacks as c; new = len(set(sys.modules) - before); "
        "[getattr(c, name) for name in c.READY_MADE]; print('torch' in sys.modules, new)"
    )
    torch, modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert torch == "False"
    assert int(modules) < 100


@pytest.mark.parametrize("name", READY_MADE)
def test_every_ready_made_callback_can_be_registered_and_says_what_it_does(name):
    kind = getattr(detector.callbacks, name)
    registry = CallbackRegistry()
    registry.add(kind(*REQUIRED.get(name, [])))
    assert any(registry.values())
    assert kind.__doc__


@pytest.mark.parametrize(
    ("former", "name"),
    [
        ("csv_logger", "CSVLogger"), ("early_stopping", "EarlyStopping"), ("lr_schedule", "LRSchedule"),
        ("model_checkpoint", "ModelCheckpoint"), ("model_statistics", "ModelStatistics"), ("notify", "Notify"),
        ("pictures", "Pictures"), ("prediction_images", "PredictionImages"), ("progress_bar", "ProgressBar"),
        ("reduce_lr", "ReduceLROnPlateau"), ("resource_monitor", "ResourceMonitor"), ("time_limit", "TimeLimit"),
        ("unfreeze", "Unfreeze"),
    ],
)  # fmt: skip
def test_former_places_of_ready_made_callbacks_can_be_imported(former, name):
    found = getattr(import_module(f"detector.callbacks.{former}"), name)
    assert found is getattr(detector.callbacks, name)


def test_what_people_import_is_where_it_was():
    from detector.callbacks.monitor import Monitor

    from detector import YOLO, Callback
    from detector.callbacks.callback import Callback as SameCallback
    from detector.callbacks.loggers import Logger
    from detector.callbacks.loggers.base import Logger as SameLogger
    from detector.callbacks.registry import EVENTS, CallbackRegistry, resolve_event
    from detector.results import Boxes, Results

    assert Callback is SameCallback and Logger is SameLogger
    assert resolve_event("on_epoch_end") in EVENTS
    assert all(isinstance(kind, type) for kind in (YOLO, Monitor, CallbackRegistry, Boxes, Results))
    with pytest.raises(ImportError):
        from detector.callbacks.notify import NoSuchName  # noqa: F401


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"'detector\.callbacks' has no attribute 'Earlystopping'"):
        detector.callbacks.Earlystopping  # noqa: B018


def test_the_names_are_listed():
    assert {*READY_MADE, "Callback", "CallbackRegistry"} <= set(dir(detector.callbacks))
