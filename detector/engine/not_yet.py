"""What a model has in place of an engine before its first run."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

ENGINES_KEPT = MappingProxyType(
    {"trainer": "train", "validator": "val", "predictor": "predict", "exporter": "export"}
)


def no_engines() -> dict[str, NotYet]:
    """Return what a model has before its first runs: the attribute of each engine."""
    return {engine: NotYet(engine, method) for engine, method in ENGINES_KEPT.items()}


class NotYet:
    """An engine that there is not yet: false, and whatever is read of it is answered with what to use instead."""

    def __init__(self, engine: str, method: str) -> None:
        self.__dict__ |= {"_engine": engine, "_method": method}

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"no {self.__dict__.get('_engine')} yet"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked by copy, pickle and notebooks
            raise AttributeError(name)
        engine, method = self.__dict__["_engine"], self.__dict__["_method"]
        raise AttributeError(
            f"model.{engine}.{name}: there is no {engine} before the first model.{method}(...); callbacks are added "
            f"with model.add_callback(...), settings are arguments of {method}, and a callback gets the {engine} itself"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        getattr(self, name)
