"""What is left of a trainer that ran in another process."""

from __future__ import annotations

from typing import Any

KEPT = (
    "settings", "initial_settings", "save_dir", "csv", "last", "best", "epoch", "epochs", "start_epoch", "global_step",
    "batch_size", "num_batches", "loss_names", "metrics", "fitness", "best_fitness", "best_epoch", "stop",
    "stop_reason", "final_metrics", "final_weights", "final_checkpoint", "origin", "transfer", "recipe", "lr",
)  # fmt: skip


class TrainerRecord:
    """The trainer of a training in several processes, once it has ended: what can be read of it.

    Attributes:
        (all): see `KEPT`; they are those of the trainer of rank 0.
    """

    def __init__(self, trainer: Any) -> None:
        self.__dict__ |= {name: getattr(trainer, name) for name in KEPT}
        self.args = self.settings
        self.metrics = dict(self.metrics)

    settings: Any
    metrics: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"trainer.{name}: the training ran in processes of its own, of which this is a record: "
            f"{', '.join(sorted(self.__dict__))}; a callback gets the trainer itself"
        )
