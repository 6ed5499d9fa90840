import pytest
import torch

from detector.callbacks.state import gather_states, restore_states
from detector.errors import CallbackError


class Counter:
    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_states_are_named_by_class_and_number():
    states = gather_states([Counter(3), object(), Counter(4)])
    assert states == {"Counter": {"value": 3}, "Counter#2": {"value": 4}}
    first, second = Counter(), Counter()
    restore_states([first, second], states)
    assert (first.value, second.value) == (3, 4)


def test_what_does_not_match_is_warned_of_on_both_sides(caplog):
    restore_states([Counter()], {"Other": {}})
    assert "the saved run holds the state of a callback Other, but none is registered now" in caplog.text
    assert "the saved run holds no state of the callback Counter: it starts from scratch" in caplog.text


def test_a_state_of_plain_data_and_tensors_is_taken():
    value = {"a": [1, 2.5, None, True, "x"], 3: (torch.ones(2),)}
    assert gather_states([Counter(value)])["Counter"]["value"] == value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (object(), r"its state_dict\(\)\['value'\] is a object"),
        ([1, {2}], r"its state_dict\(\)\['value'\]\[1\] is a set"),
        ({(1, 2): 3}, r"its state_dict\(\)\['value'\] has the key \(1, 2\)"),
    ],
)
def test_a_state_of_more_than_plain_data_is_refused_with_its_place(value, problem):
    with pytest.raises(CallbackError, match=f"the state of the callback Counter can't be saved: {problem}"):
        gather_states([Counter(value)])
