"""What the processes of a training have to agree on, so that all do the same.

Callbacks run in the main process only, unless they are marked: what they set of the run's state is its word. Only
`stop` counts wherever it is set. Here `trainer` is the one of `detector/engine/train.py`, which asks at the right
moments.
"""

from __future__ import annotations

import signal
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from detector.callbacks.every_rank import is_every_rank
from detector.callbacks.registry import CallbackRegistry
from detector.errors import TrainingError
from detector.scale.ranks import Ranks
from detector.training.signals import Terminated

AGREED = frozenset(
    {
        *("on_pretrain_routine_end", "on_train_start", "on_train_epoch_start", "on_train_epoch_end"),
        *("on_fit_epoch_end", "on_model_save", "on_final_eval_end", "on_train_end"),
    }
)
"""Events after which the processes agree; all of them fire these, at the same place."""

RATES = ("lr", "momentum", "weight_decay")


def keep_every_rank(registry: CallbackRegistry) -> None:
    """Leave those callbacks that are called in every process, in a process that is not the main one."""
    for functions in registry.values():
        functions[:] = [fn for fn in functions if is_every_rank(fn)]
    left = [fn for functions in registry.values() for fn in functions]
    registry.objects = [o for o in registry.objects if any(getattr(fn, "__self__", None) is o for fn in left)]


def agree(trainer: Any) -> None:
    """Let every process have the main one's progress, schedule and metrics; a stop of any of them stops all.

    Raises:
        TrainingError: if the processes train different parameters.
    """
    ranks: Ranks = trainer.ranks
    if not ranks.is_group:
        return
    own = trainer.stop, trainer.stop_reason, sorted(trainer.frozen.parameters)
    every = ranks.gather(own, f"the end of an event of epoch {trainer.epoch + 1}")
    for rank, (_, _, frozen) in enumerate(every):
        if frozen != every[0][2]:
            name = sorted({*frozen} ^ {*every[0][2]})[0]
            raise TrainingError(
                f"rank 0 and rank {rank} train different parameters ({name}): mark the callback that freezes or "
                "unfreezes layers with @every_rank"
            )
    _stop(trainer, every)
    schedule = trainer.schedule
    values = ranks.from_main(
        lambda: {
            "progress": dict(vars(trainer.progress)),
            "schedule": (schedule.epochs, schedule.scale, schedule.paused),
            "metrics": dict(trainer.metrics),
            "kept": (trainer._fitness, trainer._best_before),
        },
        f"what rank 0 says of epoch {trainer.epoch + 1}",
    )
    if not ranks.is_main:
        vars(trainer.progress).update(values["progress"])
        schedule.epochs, schedule.scale, schedule.paused = values["schedule"]
        trainer.metrics = values["metrics"]
        trainer._fitness, trainer._best_before = values["kept"]


def agree_on_batch(trainer: Any) -> bool:
    """After a batch: a stop or a signal in any process is one in all.

    Returns:
        Whether the state of the training is to be saved, as the main process says.

    Raises:
        KeyboardInterrupt, Terminated: if a signal arrived anywhere; what `tear_down` saves is the state of now.
    """
    ranks: Ranks = trainer.ranks
    if not ranks.is_group:
        return bool(trainer.saver.is_due)
    number = trainer.signals.pending_number
    stop, number, due = ranks.maximum(
        [float(trainer.stop), float(number), float(ranks.is_main and trainer.saver.is_due)],
        f"the end of batch {trainer.batch_index + 1} of epoch {trainer.epoch + 1}",
    )
    if stop:
        _stop(trainer, ranks.gather((trainer.stop, trainer.stop_reason), "the reason of a stop"))
    if number:
        trainer.keep_state()
        trainer.signals.take()
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(int(number))
    return bool(due)


def _stop(trainer: Any, every: list[Any]) -> None:
    """Stop if any process has stopped, for the first reason there is."""
    stopped = [(rank, state[1]) for rank, state in enumerate(every) if state[0]]
    if stopped and not trainer.stop:
        rank, reason = stopped[0]
        trainer.progress.stop = True
        trainer.progress.stop_reason = f"{reason or 'stop was set'}, on rank {rank}"


def same_rates(optimizer: Optimizer, ranks: Ranks) -> None:
    """Let every process step with the main one's learning rates, momenta and decays, which callbacks may set."""
    if not ranks.is_group:
        return
    places = [(g, key) for g in optimizer.param_groups for key in RATES if isinstance(g.get(key), float)]
    own = [float(group[key]) if ranks.is_main else -float("inf") for group, key in places]
    for (group, key), value in zip(places, ranks.maximum(own, "the learning rates of rank 0"), strict=True):
        if group[key] != value:
            group[key] = value


def same_weights(model: nn.Module, ranks: Ranks, epoch: int) -> None:
    """Make sure that all processes still train the same weights.

    Raises:
        TrainingError: naming the first parameter that differs; the cause is code that changes weights in one process.
    """
    if ranks.size == 1:
        return
    parameters = dict(model.named_parameters())
    sums = torch.stack([p.detach().double().sum() for p in parameters.values()]).cpu()
    every = ranks.gather(sums, f"the sums of the weights after epoch {epoch + 1}")
    for rank, theirs in enumerate(every):
        differs = (theirs != every[0]) & ~(theirs.isnan() & every[0].isnan())
        if bool(differs.any()):
            name = list(parameters)[int(differs.nonzero()[0])]
            raise TrainingError(
                f"the weights of rank 0 and rank {rank} differ after epoch {epoch + 1} ({name}): a callback that "
                "changes weights or gradients has to do so in every process; mark it with @every_rank"
            )
