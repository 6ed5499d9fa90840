"""Statistics of gradients, weights and activations."""

from __future__ import annotations

from functools import partial
from typing import Any

from detector.callbacks.builtin.checks import require_whole
from detector.callbacks.callback import Callback

# A channel that moves by less than this over a batch counts as constant: after batch normalisation, activations
# are of the order of one.
DEAD_RANGE = 1e-3
TINY = 1e-12  # keeps the ratio of a weight that is all zeros finite; far below any norm of a real weight


class ModelStatistics(Callback):
    """Adds statistics of one optimizer step to the metrics, every n epochs.

    | metric | meaning |
    |---|---|
    | statistics/grad_norm | norm of all gradients, before clipping |
    | statistics/grad_norm/model.0 | the same of each layer |
    | statistics/update_ratio_median | norm of a step over the norm of the weight, median over the weights |
    | statistics/update_ratio_max | the largest of them |
    | statistics/dead_channels | channels of activations that are constant over a batch, as a part of all |

    About 0.001 is a healthy update ratio. A layer whose gradient norm stays far below the others' learns
    nothing; dead channels only cost time.

    *Callback or hook?* A callback is called by the trainer at events of the run, with the trainer: it sees
    what the trainer holds (weights, gradients, the loss, metrics), and it may steer. A hook is called by
    PyTorch whenever a module runs, with that module's input and output: only there can activations be seen,
    which are not kept, and gradients before they are clipped. A hook knows nothing of epochs and runs in
    validation too, so here a callback sets the hooks for a single batch (those of gradients until the
    optimizer steps) and removes them at once. The batch in the middle of the epoch is measured; only
    this batch synchronises with the device.

    Args:
        every: epochs from one sample to the next.

    Raises:
        CallbackError: if `every` is not a whole number >= 1.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = require_whole("ModelStatistics", "every", every, 1)
        self._forget()

    def _forget(self) -> None:
        self.hooks: list[Any] = []  # on activations
        self.grad_hooks: list[Any] = []
        self.norms: dict[str, Any] = {}  # name of a parameter -> norm of its gradient, scaled
        self.scale = 1.0  # of the loss, by which float16 gradients are scaled
        self.dead: list[Any] = []  # one tensor per layer: number of dead channels
        self.channels = 0
        self.before: list[tuple[str, Any, Any]] = []  # name, parameter, its value before the step
        self.statistics: dict[str, float] = {}

    def on_train_batch_start(self, trainer: Any) -> None:
        """On the chosen batch, set the hooks and keep the weights."""
        if (trainer.epoch + 1) % self.every or trainer.batch_index != trainer.num_batches // 2:
            return
        self.teardown(trainer)  # a step that never came
        parameters = trainer.model.named_parameters()
        self.before = [(name, p, p.detach().clone()) for name, p in parameters if p.requires_grad]
        self.scale = trainer.scaler.get_scale()
        for name, parameter, _ in self.before:
            self.grad_hooks.append(
                parameter.register_post_accumulate_grad_hook(partial(self._keep_norm, name))
            )
        for module in trainer.model.modules():
            if _is_activation(module):
                self.hooks.append(module.register_forward_hook(self._look))

    def on_train_batch_end(self, trainer: Any) -> None:
        _remove(self.hooks)

    def on_before_zero_grad(self, trainer: Any) -> None:
        """Compare weights and gradients; with accumulation, this is some batches after the hooks."""
        if self.before:
            _remove(self.grad_hooks)
            self.statistics = self._measure()
            self.before, self.dead, self.norms = [], [], {}

    def on_fit_epoch_end(self, trainer: Any) -> None:
        trainer.metrics |= self.statistics
        self.statistics = {}

    def teardown(self, trainer: Any) -> None:
        """Leave nothing on the model, also after a failure."""
        _remove(self.hooks)
        _remove(self.grad_hooks)
        self._forget()

    def _keep_norm(self, name: str, parameter: Any) -> None:
        """Hook: keep the norm of a gradient; with accumulation, that of the last batch stays."""
        self.norms[name] = parameter.grad.float().norm()

    def _look(self, module: Any, inputs: Any, output: Any) -> None:
        """Hook: count the channels of a (B, C, ...) output that are constant; does not synchronise with the device."""
        values = output.detach()
        if values.ndim < 2:
            return
        over = [axis for axis in range(values.ndim) if axis != 1]
        spread = values.amax(over) - values.amin(over)  # (C,)
        self.dead.append((spread <= DEAD_RANGE).sum())
        self.channels += len(spread)

    def _measure(self) -> dict[str, float]:
        """Return the statistics of the step just done, fetched from the device in one transfer."""
        import torch

        trained = [row for row in self.before if row[0] in self.norms]
        if not trained:
            return {}
        norms = torch.stack([self.norms[name] for name, _, _ in trained]) / self.scale
        matrices = [(p.detach(), old) for _, p, old in trained if p.ndim > 1]
        ratios = [(p - old).float().norm() / old.float().norm().clamp(min=TINY) for p, old in matrices]
        sums = [torch.stack(part).float() for part in (ratios, self.dead) if part]
        numbers = torch.cat([norms, *sums]).tolist()
        norms_list, ratio_list = numbers[: len(norms)], sorted(numbers[len(norms) :][: len(ratios)])
        squares: dict[str, float] = {}
        for (name, _, _), norm in zip(trained, norms_list, strict=True):
            layer = ".".join(name.split(".")[:2])
            squares[layer] = squares.get(layer, 0.0) + norm**2
        found = {"grad_norm": sum(squares.values()) ** 0.5}
        found |= {f"grad_norm/{layer}": square**0.5 for layer, square in squares.items()}
        if ratio_list:
            found["update_ratio_median"] = ratio_list[len(ratio_list) // 2]
            found["update_ratio_max"] = ratio_list[-1]
        if self.channels:
            found["dead_channels"] = sum(numbers[len(norms) + len(ratios) :]) / self.channels
        return {f"statistics/{name}": value for name, value in found.items()}


def _remove(hooks: list[Any]) -> None:
    while hooks:
        hooks.pop().remove()


def _is_activation(module: Any) -> bool:
    """Return whether a module is an activation: one of PyTorch's, or one named so."""
    kind = type(module)
    return bool(kind.__module__ == "torch.nn.modules.activation" or kind.__name__ == "Activation")
