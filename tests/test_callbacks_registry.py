import inspect

import pytest

from detector.callbacks.callback import Callback
from detector.callbacks.registry import ALIASES, EVENTS, CallbackRegistry
from detector.errors import CallbackError


def test_functions_are_called_in_order_with_the_engine():
    registry, calls, engine = CallbackRegistry(), [], object()
    registry.add("on_fit_epoch_end", lambda e: calls.append(("second", e)))
    registry.add("on_fit_epoch_end", lambda e: calls.append(("first", e)), first=True)
    registry.fire("on_fit_epoch_end", engine)
    assert calls == [("first", engine), ("second", engine)]


def test_add_is_a_decorator_and_returns_the_function():
    registry = CallbackRegistry()

    @registry.add("on_train_end")
    def report(trainer):
        """Nothing."""

    assert registry["on_train_end"] == [report]
    assert inspect.isfunction(report)


def test_the_registry_is_a_plain_dict_of_lists():
    registry = CallbackRegistry()
    assert isinstance(registry, dict)
    assert set(registry) == set(EVENTS)
    registry["teardown"].append(print)
    assert registry.copy()["teardown"] == [print]


def test_a_copy_does_not_share_its_lists():
    registry = CallbackRegistry()
    twin = registry.copy()
    twin.add("teardown", print)
    assert registry["teardown"] == []


def test_the_same_function_stays_once():
    registry = CallbackRegistry()
    for _ in range(2):
        registry.add("teardown", print)
    assert registry["teardown"] == [print]


def test_aliases_are_resolved():
    registry = CallbackRegistry()
    for alias, event in ALIASES.items():
        registry.add(alias, print)
        assert registry[event] == [print]


def test_an_unknown_event_is_refused_with_the_nearest():
    with pytest.raises(
        CallbackError, match="unknown event 'on_fit_epoch_ends'; did you mean 'on_fit_epoch_end'"
    ):
        CallbackRegistry().add("on_fit_epoch_ends", print)


def test_a_function_of_two_arguments_is_refused_with_its_place():
    def two(trainer, more):
        """Nothing."""

    with pytest.raises(
        CallbackError, match=r"two \(.*test_callbacks_registry.py:\d+\) takes \(trainer, more\)"
    ):
        CallbackRegistry().add("teardown", two)


def test_an_object_is_registered_by_its_method_names():
    class Mine(Callback):
        def on_epoch_end(self, trainer):
            """An alias."""

        def teardown(self, trainer):
            """An event."""

    registry, mine = CallbackRegistry(), Mine()
    assert registry.add(mine) is mine
    assert {event: fns for event, fns in registry.items() if fns} == {
        "on_fit_epoch_end": [mine.on_epoch_end],
        "teardown": [mine.teardown],
    }
    registry.remove(mine)
    assert not any(registry.values())


def test_an_object_with_a_misspelt_event_is_refused():
    class Mine:
        def on_trian_end(self, trainer):
            """Misspelt."""

    with pytest.raises(CallbackError, match="did you mean 'on_train_end'"):
        CallbackRegistry().add(Mine())


def test_removing_what_is_not_there_is_an_error():
    with pytest.raises(CallbackError, match="print is not registered for teardown"):
        CallbackRegistry().remove("teardown", print)


def test_the_base_class_declares_every_event_and_no_other():
    declared = {name for name, method in vars(Callback).items() if getattr(method, "is_empty_event", False)}
    assert declared == set(EVENTS)
