"""How much a file may ask for: one set of limits and one check, for every reader of untrusted files.

A few bytes can stand for endless work: `nc: 2000000000`, ten million layers, a list that holds another one twice, 34
levels deep, a tensor of shape (3000000000, 0). Readers ask here before they make anything of such a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

LIMITS: Mapping[str, int] = MappingProxyType(
    {
        "values": 200_000,  # of a document; what is shared counts as often as it is used
        "levels": 32,  # of lists within lists
        "classes": 100_000,  # the largest public lists of names have 22,000
        "images to draw": 100_000,  # of a synthetic data set; the packaged one has 1536
        "px of an image's side": 4096,  # likewise; it has 320
        "layers": 2000,  # of a network, repetitions counted; the largest that ships has about 60
        "as a number of a layer": 100_000,  # channels, kernels, bins; the largest that ships has 1024
        "weights": 1 << 31,  # of a network, together: 8 GiB in float32; the largest that ships has 60 million
        "px of a side of the input": 1 << 15,  # of an exported file
        "images per run": 1 << 14,  # likewise: that many are made of one
        "dimensions": 64,  # of a tensor: as many as torch has
        "elements along one dimension": 1 << 33,  # an empty tensor may state any number
    }
)
"""What is counted -> the most of it that a file may ask for."""


class BoundsError(ValueError):
    """A file asks for more than `LIMITS` allows; the text is a clause: "200,001 classes; at most 100,000 are read"."""


def require_within(what: str, number: float) -> None:
    """Refuse a number beyond its limit.

    Args:
        what: a key of `LIMITS`.
        number: what the file states.

    Raises:
        BoundsError: if it is larger.
    """
    if not number <= LIMITS[what]:  # also refuses nan
        raise BoundsError(f"{number:,} {what}; at most {LIMITS[what]:,} are read")


def children_of(value: Any) -> Iterable[Any] | None:
    """Return what a container of plain data holds, keys included; None for a single value."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, (list, tuple, set, frozenset)) else None


def require_bounded(root: Any, children: Callable[[Any], Iterable[Any] | None] = children_of) -> int:
    """Count the values of a tree, those that are shared as often as they are used, and refuse what exceeds a limit.

    The work is that of the tree as it lies in memory: what is shared is looked at once.

    Args:
        root: plain data, or the root of any tree that `children` knows.
        children: returns what a node holds, or None for a leaf.

    Returns:
        The number of values.

    Raises:
        BoundsError: for too many values or levels, or a value that contains itself.
    """
    counted: dict[int, tuple[int, int]] = {}  # values and levels of containers; (0, 0) while being counted

    def count(node: Any, level: int) -> tuple[int, int]:
        held = children(node)
        if held is None:
            return 1, 0
        require_within("levels", level)
        if id(node) not in counted:
            counted[id(node)] = 0, 0
            total, levels = 1, 1
            for child in held:
                values, below = count(child, level + 1)
                total, levels = total + values, max(levels, below + 1)
                if total > LIMITS["values"]:
                    raise BoundsError(f"more than {LIMITS['values']:,} values")
            counted[id(node)] = total, levels
        total, levels = counted[id(node)]
        if not total:
            raise BoundsError("a value that contains itself")
        require_within("levels", level + levels - 1)
        return total, levels

    return count(root, 1)[0]
