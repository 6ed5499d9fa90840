"""Values that a user's code may put anywhere, drawn at random."""

from __future__ import annotations

import collections
import datetime
import enum
import random
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch


class Level(enum.IntEnum):
    HIGH = 3


class Colour(str, enum.Enum):
    RED = "red"


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


LOOP: list[Any] = []
LOOP.append(LOOP)

PLAIN: tuple[Any, ...] = (
    0, 1, -1, 3, 2**31, 2**63, 2**64, -(2**200), 2**1900, 0.5, 0.0, -0.0, 1e-300, 1e300, True, False, None, "", "text",
    "a b\n\t", "ü\N{SNOWMAN}", "x" * 300, [], {}, (), [1, 2], {"a": 1}, {3: [4]}, (1, (2, "b")), nested(20),
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
"""What a file holds as it is."""

STRANGE: tuple[Any, ...] = (
    np.float64(0.5), np.float32(0.25), np.float16(2), np.longdouble(0.5), np.int64(3), np.uint8(3), np.bool_(True),
    np.array(0.5), np.array(3), np.array(Decimal("0.5"), object), np.mean([0.2, 0.4]), np.interp(0.5, [0, 1], [1, 0]),
    np.float64("nan"), np.str_("text"), np.array([1.0, 2.0]), np.array([]), np.datetime64("2026-01-01", "ns"),
    np.timedelta64(3, "s"), np.complex64(1), torch.tensor(0.5), torch.tensor(3), torch.tensor(True), torch.ones(2),
    torch.tensor(0.5, requires_grad=True), torch.ones(2, requires_grad=True) * 2, torch.nn.Parameter(torch.ones(2)),
    torch.tensor(float("nan")), torch.tensor(0.5, dtype=torch.bfloat16), torch.empty(2, device="meta"), torch.float32,
    torch.device("cpu"), torch.Size([1, 2]), Fraction(1, 2), Fraction(10**400, 3), Decimal("0.5"), Decimal("NaN"),
    Decimal("sNaN"), Decimal("1e999"), datetime.date(2026, 1, 1), datetime.timedelta(1), Level.HIGH, Colour.RED,
    Path("a/b"), PurePosixPath("a"), collections.defaultdict(int, a=1), collections.OrderedDict(a=np.int64(1)),
    collections.Counter("aab"), collections.deque([1]), collections.namedtuple("point", "x y")(1, np.int8(2)),
    {1, 2}, frozenset({1}), range(3), b"bytes", bytearray(b"b"), memoryview(b"m"), 1j, object(), int, len, lambda: 0,
    SimpleNamespace(a=1), Exception("x"), iter([1]), ..., NotImplemented, 10**700, -(10**700), 10**5000, nested(60),
    LOOP, "\udcff", "\x00", {1.5: 2}, {None: 1}, {True: 1}, {(1, 2): 3}, {np.int64(4): 1}, {"a": {"b": Path("c")}},
    [np.float32(1), [Decimal(2)]], {"a": np.ones(3)},
)  # fmt: skip
"""What a file does not hold, or only as another type."""


def draw(random_: random.Random) -> Any:
    """Draw a value: one of the above, or some of them within a container."""
    values = (*PLAIN, *STRANGE)
    kind = random_.random()
    if kind < 0.75:
        return random_.choice(values)
    parts = [random_.choice(values) for _ in range(random_.randrange(1, 4))]
    if kind < 0.85:
        return parts
    if kind < 0.9:
        return tuple(parts)
    return {random_.choice(["a", "b/c", "", 3, np.int64(5), "\udcff"]): part for part in parts}
