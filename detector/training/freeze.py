"""Frozen layers."""

from __future__ import annotations

import logging

from torch import nn

from detector.errors import SettingsError
from detector.nn.model import DetectionModel

log = logging.getLogger(__name__)


class FrozenLayers:
    """Frozen layers: their parameters get no gradients and their batch-norm statistics stay.

    Attributes:
        modules: name -> module, those in eval mode.
        parameters: name -> parameter, those that are frozen.
        by_callbacks: names of those that callbacks froze.

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
        self._trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._modes: list[tuple[str, nn.Module, bool]] = []
        self._warned: set[str] = set()
        self.by_callbacks: set[str] = set()
        self.modules = {n: m for n, m in model.named_modules() if _matches(f"{n}.", parts)}
        self.parameters = {n: p for n, p in self._trainable.items() if _matches(n, parts)}
        for parameter in self.parameters.values():
            parameter.requires_grad_(False)
        if not any(p.requires_grad for p in model.parameters()):
            raise SettingsError(
                f"freeze={freeze}: this freezes every layer; leave out some, such as the head model.{last}"
            )

    def keep_in_eval(self) -> None:
        """Put the layers into eval mode, after `model.train()`; the modes are then those of training."""
        for module in self.modules.values():
            module.eval()
        self._modes = [(name, module, module.training) for name, module in self.model.named_modules()]

    def restore(self) -> None:
        """Undo what a callback left: `model.eval()`, `model.train()`, frozen parameters that take a gradient.

        What a callback froze itself (`requires_grad = False`) stays frozen, as a part of the run's state.
        """
        changed = [name for name, module, mode in self._modes if module.training is not mode]
        if changed:
            self.restore_modes()
            self._warn("train() or eval() was called by a callback on", changed, "it is as before again")
        thawed = [n for n, p in self.parameters.items() if p.requires_grad and n not in self.by_callbacks]
        if thawed:
            for name in thawed:
                self.parameters[name].requires_grad_(False)
            self._warn(
                "freeze= is undone by a callback for", thawed, "it is frozen again; call trainer.unfreeze()"
            )
        by_callbacks = {n for n, p in self._trainable.items() if not p.requires_grad} - (
            self.parameters.keys() - self.by_callbacks
        )
        if by_callbacks != self.by_callbacks:
            for name in self.by_callbacks - by_callbacks:
                del self.parameters[name]
            self.parameters |= {name: self._trainable[name] for name in by_callbacks}
            self.by_callbacks = by_callbacks
            log.info("%d parameters are frozen by callbacks now", len(by_callbacks))

    def restore_modes(self) -> None:
        """Put every module into its mode of training."""
        for _, module, mode in self._modes:
            module.training = mode

    def _warn(self, what: str, names: list[str], then: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            log.warning("%s %s%s: %s", what, names[0] or "the model", more, then)

    def unfreeze(self, layers: list[int | str] | None = None) -> None:
        """Unfreeze layers: those given by index or by a part of their name, None = all.

        Raises:
            SettingsError: if one of them matches nothing.
        """
        parts = [""] if layers is None else name_parts(self.model, layers, "unfreeze")
        self.restore_modes()
        for name in [n for n in self.modules if _matches(f"{n}.", parts)]:
            self.modules.pop(name).train()
        for name in [n for n in self.parameters if _matches(n, parts)]:
            self._thaw(name)
        self.keep_in_eval()  # layers still frozen may lie inside a module set to train

    def restrict(self, names: list[str]) -> None:
        """Freeze the parameters of these names and no others, as in a resumed run."""
        for name in [n for n in self.parameters if n not in names]:
            self._thaw(name)
        for name in [n for n in names if n not in self.parameters and n in self._trainable]:
            self._trainable[name].requires_grad_(False)
            self.parameters[name] = self._trainable[name]
            self.by_callbacks.add(name)
        for name in [n for n in self.modules if not any(p.startswith(f"{n}.") for p in self.parameters)]:
            del self.modules[name]

    def _thaw(self, name: str) -> None:
        self.parameters.pop(name).requires_grad_(True)
        self.by_callbacks.discard(name)


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
