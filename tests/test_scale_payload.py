"""What a training hands to its processes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from detector.callbacks.registry import CallbackRegistry
from detector.errors import CallbackError
from detector.scale.payload import dumps, not_returned, owners, require_portable

rows: list[int] = []


class Gatherer:
    """A callback without a state to return."""

    def __init__(self) -> None:
        self.seen = 0

    def note(self, trainer: Any) -> None:
        self.seen += 1


class Stateful(Gatherer):
    def state_dict(self) -> dict[str, int]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seen = state["seen"]


def registry(event: str, fn: Any) -> CallbackRegistry:
    found = CallbackRegistry()
    found.add(event, fn)
    return found


def test_a_callback_that_has_captured_an_open_file_is_refused_by_name(tmp_path: Path) -> None:
    refused = r"on_fit_epoch_end can't be carried.* captured notes, .*notes\.txt"
    with (tmp_path / "notes.txt").open("w") as notes, pytest.raises(CallbackError, match=refused):
        require_portable(registry("on_fit_epoch_end", lambda trainer: notes.write("x")))


def test_a_file_opened_for_reading_is_not_replaced_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a")
    with (tmp_path / "names.txt").open() as names, pytest.raises(pickle.PicklingError, match=r"an open file"):
        dumps(lambda trainer: names.read())


def test_an_attribute_that_cannot_be_carried_is_named() -> None:
    gatherer = Gatherer()
    gatherer.seen = (number for number in range(3))  # type: ignore[assignment]
    with pytest.raises(CallbackError, match=r"captured Gatherer\.seen, <generator"):
        require_portable(registry("on_train_start", gatherer.note))


def test_a_lambda_a_closure_and_a_bound_method_travel() -> None:
    factor = 3
    sent = [lambda x: x + 1, lambda x: x * factor, Stateful().note]
    add, multiply, note = pickle.loads(dumps(sent))
    note(None)
    assert (add(1), multiply(2), note.__self__.seen) == (2, 6, 1)


def test_what_a_closure_gathers_is_warned_of() -> None:
    found: list[int] = []
    count = 0

    def gather(trainer: Any) -> None:
        found.append(1)

    def add(trainer: Any) -> None:
        nonlocal count
        count += 1

    lines = [*not_returned(registry("on_train_start", gather)), *not_returned(registry("on_train_end", add))]
    assert "works on a copy of found" in lines[0]
    assert "works on a copy of count" in lines[1]


def test_an_object_without_a_state_is_warned_of_and_one_with_a_state_is_not() -> None:
    (line,) = not_returned(registry("on_train_start", Gatherer().note))
    assert line.startswith("Gatherer has no state_dict")
    assert [*not_returned(registry("on_train_start", Stateful().note))] == []


def test_the_object_of_a_method_registered_alone_has_its_place_among_the_owners() -> None:
    one = Stateful()
    assert owners(registry("on_train_start", one.note)) == [one]
