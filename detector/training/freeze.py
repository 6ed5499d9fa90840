"""Frozen layers."""

from __future__ import annotations

from detector.errors import SettingsError
from detector.nn.model import DetectionModel


class FrozenLayers:
    """Frozen layers: their parameters get no gradients and their batch-norm statistics stay.

    Args:
        model: the model.
        freeze: number of layers to freeze, from the first on, or a list of layer indices and parts of names.

    Raises:
        SettingsError: if one of them matches nothing, or nothing is left to train.
    """

    def __init__(self, model: DetectionModel, freeze: int | list[int | str] | None) -> None:
        last = len(model.model) - 1
        if isinstance(freeze, int) and not 0 <= freeze <= last:
            raise SettingsError(
                f"freeze={freeze}: expected a count of layers from 0 to {last}; the model has {last + 1}, and the last "
                f"one, the head, has to be trained"
            )
        parts = name_parts(model, list(range(freeze)) if isinstance(freeze, int) else freeze or [], "freeze")
        self.model = model
        self.modules = {n: m for n, m in model.named_modules() if _matches(f"{n}.", parts)}
        self.parameters = {
            n: p for n, p in model.named_parameters() if p.requires_grad and _matches(n, parts)
        }
        for parameter in self.parameters.values():
            parameter.requires_grad_(False)
        if not any(p.requires_grad for p in model.parameters()):
            raise SettingsError(
                f"freeze={freeze}: this freezes every layer; leave out some, such as the head model.{last}"
            )

    def keep_in_eval(self) -> None:
        """Put the layers into eval mode, after `model.train()`."""
        for module in self.modules.values():
            module.eval()

    def unfreeze(self, layers: list[int | str] | None = None) -> None:
        """Unfreeze layers: those given by index or by a part of their name, None = all.

        Raises:
            SettingsError: if one of them matches nothing.
        """
        parts = [""] if layers is None else name_parts(self.model, layers, "unfreeze")
        for name in [n for n in self.modules if _matches(f"{n}.", parts)]:
            self.modules.pop(name).train()
        for name in [n for n in self.parameters if _matches(n, parts)]:
            self.parameters.pop(name).requires_grad_(True)
        self.keep_in_eval()  # layers still frozen may lie inside a module set to train

    def restrict(self, names: list[str]) -> None:
        """Unfreeze everything but the parameters of these names, as in a resumed run."""
        gone = [n for n in self.parameters if n not in names]
        for name in gone:
            self.parameters.pop(name).requires_grad_(True)
        for name in [n for n in self.modules if not any(p.startswith(f"{n}.") for p in self.parameters)]:
            del self.modules[name]


def name_parts(model: DetectionModel, layers: list[int | str], setting: str) -> list[str]:
    """Turn layer indices and parts of names into parts of names that occur in the model."""
    parts = [f"model.{part}." if isinstance(part, int) else part for part in layers]
    for part in parts:
        if not any(part in f"{name}." for name, _ in model.named_modules()):
            raise SettingsError(
                f"{setting}={layers}: nothing in the model is named {part!r}; "
                f"layers are model.0 to model.{len(model.model) - 1}"
            )
    return parts


def _matches(name: str, parts: list[str]) -> bool:
    return any(part in name for part in parts)
