"""The fitness of an epoch: the one number that decides which weights are the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from detector.errors import CallbackError, SettingsError, excerpt, nearest
from detector.metrics.metrics import KEYS
from detector.plain_data import to_float

DEFAULT = "metrics/mAP50-95"


class Fitness:
    """The weighted sum of some metrics of a validation.

    Args:
        given: a metric's name, with a minus sign in front where lower is better; name -> weight; the four weights of
            precision, recall, mAP50 and mAP50-95; or None for mAP50-95. Names may lack `metrics/` and `val/`.
        terms: names of the loss terms.

    Attributes:
        weights: full name of a metric -> its weight.

    Raises:
        SettingsError: for names that a validation does not give, a loss that would be maximised, or no weights.
    """

    def __init__(
        self, given: str | Mapping[str, float] | Sequence[float] | None, terms: Sequence[str]
    ) -> None:
        if given is None:
            pairs = {DEFAULT: 1.0}
        elif isinstance(given, str):
            pairs = {given.removeprefix("-"): -1.0 if given.startswith("-") else 1.0}
        elif isinstance(given, Mapping):
            pairs = dict(given)
        else:
            if len(given) != len(KEYS):
                raise SettingsError(
                    f"fitness={list(given)}: expected the {len(KEYS)} weights of {', '.join(KEYS)}"
                )
            pairs = dict(zip(KEYS, given, strict=True))
        known = [*KEYS, "val/loss", *(f"val/{term}" for term in terms)]
        self.weights = {_full_name(name, known): float(weight) for name, weight in pairs.items() if weight}
        if not self.weights or not all(map(math.isfinite, self.weights.values())):
            raise SettingsError(f"fitness={given}: expected finite weights, one of them other than 0")
        for name, weight in self.weights.items():
            if weight > 0 and name.startswith("val/"):
                raise SettingsError(f"fitness={given}: a lower {name} is better; give it a minus sign")

    def of(self, metrics: Mapping[str, float]) -> float | None:
        """Return the fitness of an epoch's metrics, or None if they are not of a validation."""
        if not self.weights.keys() <= metrics.keys():
            return None
        if list(self.weights.values()) == [1.0]:
            return metrics[next(iter(self.weights))]
        return sum(weight * metrics[name] for name, weight in self.weights.items())


def _full_name(name: str, known: Sequence[str]) -> str:
    for full in (name, f"metrics/{name}", f"val/{name}"):
        if full in known:
            return full
    raise SettingsError(
        f"fitness={name}: a validation gives no such metric{nearest(name, known)}; there are {', '.join(known)}. For "
        "the metric of a callback, set trainer.fitness in on_fit_epoch_end"
    )


def as_fitness(value: Any) -> float | None:
    """Return what a callback sets as the fitness as a Python number, or None.

    Raises:
        CallbackError: if it is not a number.
    """
    number = to_float(value)
    if number is None and value is not None:
        raise CallbackError(f"trainer.fitness was set to {excerpt(value, 60)}; expected a number, or None")
    return number
