import inspect
from dataclasses import dataclass, field
from functools import partial
from time import sleep

import numpy as np
import pytest

from detector.callbacks.callback import Callback
from detector.callbacks.events import ALIASES, EVENTS
from detector.callbacks.registry import CallbackRegistry
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


def test_once_is_called_in_the_first_event_only_and_again_in_the_next_run():
    registry, calls = CallbackRegistry(), []
    registry.add("on_train_batch_end", calls.append, once=True)
    for run in ("first run", "second run"):
        of_run = registry.copy()
        of_run.fire("on_train_batch_end", run)
        of_run.fire("on_train_batch_end", run)
    assert calls == ["first run", "second run"]
    assert registry["on_train_batch_end"] == [calls.append]


def test_clear_empties_one_event_or_all():
    class Mine(Callback):
        def on_train_end(self, trainer):
            """One event."""

    registry, mine = CallbackRegistry(), Mine()
    registry.add("teardown", print)
    registry.add(mine)
    registry.clear("on_train_end")
    assert registry["teardown"] == [print] and registry["on_train_end"] == [] and registry.objects == []
    registry.clear()
    assert not any(registry.values())
    with pytest.raises(CallbackError, match="did you mean 'teardown'"):
        registry.clear("tear_down")


def test_added_holds_for_the_block_even_when_it_raises():
    class Mine(Callback):
        def teardown(self, trainer):
            """One event."""

    registry, mine = CallbackRegistry(), Mine()
    registry.add("teardown", print)
    with pytest.raises(KeyError), registry.added(mine):
        assert registry["teardown"] == [print, mine.teardown]
        raise KeyError
    assert registry["teardown"] == [print] and registry.objects == []


def test_add_any_takes_objects_functions_pairs_and_dicts():
    def on_epoch_end(trainer):
        """Named as an alias."""

    registry = CallbackRegistry()
    for item in (on_epoch_end, ("teardown", print), {"on_val_end": [print, len], "on_train_end": id}):
        registry.add_any(item)
    assert {event: fns for event, fns in registry.items() if fns} == {
        "on_fit_epoch_end": [on_epoch_end],
        "teardown": [print],
        "on_val_end": [print, len],
        "on_train_end": [id],
    }


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (3, "3 is not a callback; expected an object with event methods, a function named as an event"),
        (Callback, "Callback is a class; give an object of it, such as Callback()"),
        (object(), "object has no method named as an event, such as on_fit_epoch_end"),
        (lambda trainer: None, "unknown event '<lambda>'"),
    ],
)
def test_what_is_no_callback_is_refused(item, message):
    with pytest.raises(CallbackError, match=message.replace("(", r"\(").replace(")", r"\)")):
        CallbackRegistry().add_any(item)


def test_an_object_with_one_wrong_method_is_not_half_registered():
    class Mine:
        def on_train_end(self, trainer):
            """Fine."""

        def teardown(self):
            """Takes no engine."""

    registry = CallbackRegistry()
    with pytest.raises(CallbackError, match=r"teardown \(.*\) takes \(\)"):
        registry.add(Mine())
    assert not any(registry.values()) and registry.objects == []


def test_an_exception_carries_the_event_the_function_and_its_place():
    def broken(trainer):
        raise ZeroDivisionError

    registry = CallbackRegistry()
    registry.add("on_fit_epoch_end", broken)
    with pytest.raises(ZeroDivisionError) as caught:
        registry.fire("on_fit_epoch_end", None)
    (note,) = caught.value.__notes__
    assert note.startswith("in the callback ") and note.endswith(") on on_fit_epoch_end")
    assert "broken (" in note and "test_callbacks_registry.py:" in note


def test_fire_every_calls_all_and_returns_the_first_error(caplog):
    registry, calls = CallbackRegistry(), []
    registry.add("teardown", lambda engine: 1 / 0)
    registry.add("teardown", lambda engine: {}["x"])
    registry.add("teardown", calls.append)
    assert isinstance(registry.fire_every("teardown", "engine"), ZeroDivisionError)
    assert calls == ["engine"]
    assert "KeyError: 'x'" in caplog.text


def test_time_is_kept_by_event_and_function():
    registry = CallbackRegistry()

    def slow(engine):
        sleep(0.02)

    registry.add("on_train_end", slow)
    registry.add("on_train_end", print)
    registry.fire("on_train_end", None)
    ((event, name, seconds),) = registry.slow_callbacks(1.0)
    assert (event, name) == ("on_train_end", "slow")
    assert seconds >= 0.02
    assert registry.slow_callbacks(100.0) == []


def test_slow_callbacks_are_named_slowest_first():
    registry = CallbackRegistry()
    registry.seconds = {
        ("on_train_end", "quick"): 0.1,
        ("on_fit_epoch_end", "CSVLogger.on_fit_epoch_end"): 1.25,
        ("teardown", "send"): 2.0,
    }
    assert registry.slow_callbacks_text(50.0) == (
        "callbacks that took over 1 % of the run: send on teardown 2.0 s (4%), CSVLogger.on_fit_epoch_end 1.2 s (2%)"
    )
    assert registry.slow_callbacks_text(1000.0) is None


def test_time_of_methods_is_kept_by_the_class_of_their_object():
    class Base:
        def teardown(self, trainer):
            """Inherited."""

    class Mine(Base):
        """Its method is Base's."""

    registry = CallbackRegistry()
    registry.add(Mine())
    registry.fire("teardown", None)
    assert list(registry.seconds) == [("teardown", "Mine.teardown")]


async def coroutine(trainer):
    """Never awaited."""


def generator(trainer):
    yield


async def async_generator(trainer):
    yield


class NeverRuns:
    async def on_train_end(self, trainer):
        """Never awaited."""

    async def __call__(self, trainer):
        """Never awaited."""

    def yields(self, more, trainer):
        yield


@pytest.mark.parametrize(
    ("fn", "reason"),
    [
        (
            coroutine,
            r"coroutine \(.*test_callbacks_registry.py:\d+\) is an async function, and nothing awaits",
        ),
        (generator, r"generator \(.*\) is a generator function, whose call runs nothing"),
        (async_generator, "is an async function"),
        (NeverRuns().on_train_end, "is an async function"),
        (NeverRuns(), "NeverRuns is an async function"),
        (partial(NeverRuns().yields, 1), "is a generator function"),
        (partial(partial(NeverRuns())), "is an async function"),
    ],
)
def test_a_function_that_would_never_run_is_refused_when_registered(fn, reason):
    registry = CallbackRegistry()
    with pytest.raises(CallbackError, match=f"^on_train_end: .*{reason}"):
        registry.add("on_train_end", fn)
    assert registry["on_train_end"] == []


def test_an_object_with_a_method_that_would_never_run_is_refused():
    registry = CallbackRegistry()
    with pytest.raises(CallbackError, match=r"NeverRuns.on_train_end \(.*\) is an async function"):
        registry.add(NeverRuns())
    with pytest.raises(CallbackError, match="is an async function"):
        registry.add_any({"on_train_end": coroutine})


@pytest.mark.parametrize(
    ("fn", "kind"), [(lambda t: coroutine(t), "coroutine"), (lambda t: (n for n in "x"), "generator")]
)
def test_a_result_of_which_nothing_has_run_ends_the_run_with_the_place(fn, kind):
    registry = CallbackRegistry()
    registry.add("on_train_end", fn)
    with pytest.raises(CallbackError, match=f"returned a {kind}, of which nothing has run") as caught:
        registry.fire("on_train_end", None)
    assert "test_callbacks_registry.py:" in caught.value.__notes__[0]


@dataclass
class Equal:
    """Equal to every other one, and callable; arrays among its attributes can't be compared."""

    seen: np.ndarray = field(default_factory=lambda: np.zeros(2))

    def __call__(self, trainer):
        self.seen += 1

    def on_train_end(self, trainer):
        self.seen += 1


def test_callables_are_the_same_by_identity_not_by_equality():
    registry, one, two = CallbackRegistry(), Equal(), Equal()
    for fn in (one, two, one):
        registry.add("teardown", fn, once=True)
        registry.add(fn)
    for event in ("on_train_end", "teardown", "teardown"):
        registry.fire(event, None)
    assert [one.seen.tolist(), two.seen.tolist()] == [[2, 2], [2, 2]]
    assert registry["teardown"] == []
    registry.remove(one)
    registry.fire("on_train_end", None)
    assert [one.seen.tolist(), two.seen.tolist()] == [[2, 2], [3, 3]]
    with pytest.raises(CallbackError, match="is not registered for on_train_end"):
        registry.remove(one)
