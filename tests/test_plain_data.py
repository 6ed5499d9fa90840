import collections
import datetime
import enum
import io
import warnings
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from support.values import PLAIN, STRANGE

from detector.plain_data import NotPlainDataError, to_float, to_number, to_plain


class Level(enum.IntEnum):
    HIGH = 3


class Colour(str, enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (np.float64(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array(0.5), 0.5),
        (np.array(Decimal("0.5"), object), 0.5),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.tensor(3), 3),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (Fraction(1, 2), 0.5),
        (Decimal("0.5"), 0.5),
        (Level.HIGH, 3),
    ],
    ids=repr,
)
def test_numbers_of_every_library_become_pythons(value, number):
    found = to_number(value)
    assert found == number and type(found) is type(number)


@pytest.mark.parametrize(
    "value",
    [
        "0.5", b"1", None, [0.5], (1,), {}, 1j, np.complex64(1), np.array([0.5]), np.ones(3), torch.ones(1), object(),
        datetime.date(2026, 1, 1), np.datetime64("2026-01-01", "ns"), np.timedelta64(3, "s"), np.str_("3"),
        Decimal("sNaN"), torch.empty((), device="meta"), Path("3"),
    ],
    ids=lambda value: type(value).__name__,  # the repr of an object names its place in memory
)  # fmt: skip
def test_what_is_not_a_number_is_none(value):
    assert to_number(value) is None


def test_a_number_too_large_for_a_float_is_none():
    assert to_float(10**400) is None and to_float(10**300) == 1e300


def test_containers_and_texts_of_subclasses_become_plain():
    point = collections.namedtuple("point", "x y")(np.int8(1), Colour.RED)
    counts = collections.defaultdict(int, {np.int64(7): np.float32(0.5)})
    ordered = collections.OrderedDict(point=point)
    found = to_plain({"counts": counts, "ordered": ordered, np.str_("a"): [point]}, "it")
    assert found == {"counts": {7: 0.5}, "ordered": {"point": (1, "red")}, "a": [(1, "red")]}
    assert type(found["counts"]) is type(found["ordered"]) is dict and type(found["a"][0]) is tuple
    assert type(found["a"][0][1]) is str and all(
        type(key) in (int, str) for key in [*found, *found["counts"]]
    )


def test_tensors_stay_without_their_history():
    weight = torch.nn.Parameter(torch.ones(2))
    plain = torch.ones(2)
    found = to_plain([plain, weight, weight * 2], "it")
    assert found[0] is plain and not any(value.requires_grad for value in found)
    assert [type(value) for value in found] == [torch.Tensor] * 3


def test_the_place_of_what_is_not_plain_is_named():
    loop = []
    loop.append(loop)
    for value, message in (
        ({"a": [1, {2}]}, r"^it\['a'\]\[1\] is a set$"),
        ({"a": torch.empty(2, device="meta")}, r"^it\['a'\] is a tensor without memory \(device meta\)$"),
        ({"a": Path("b")}, r"^it\['a'\] is a PosixPath$"),
        ({(1, 2): 3}, r"^it has the key \(1, 2\)$"),
        ({True: 3}, r"^it has the key True$"),
        ({"a": 10**700}, r"^it\['a'\] is a whole number of 701 digits$"),
        (loop, r"^it\[0\].* is nested more than 50 levels deep, or contains itself$"),
    ):
        with pytest.raises(NotPlainDataError, match=message):
            to_plain(value, "it")


@pytest.mark.parametrize("value", [*PLAIN, *STRANGE], ids=lambda value: type(value).__name__)
def test_what_is_plain_can_be_written_and_read_back(value):
    try:
        plain = to_plain({"key": value}, "it")
    except NotPlainDataError:
        return
    file = io.BytesIO()
    torch.save(plain, file)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.load(file, weights_only=True)
