"""What a person sees while a training runs."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from time import perf_counter
from typing import Any

from detector.callbacks.builtin.checks import require_whole
from detector.callbacks.callback import Callback

log = logging.getLogger(__name__)

NOTEBOOK_COLUMNS = 100  # letters in a line of its output
SHOWN = ("metrics/mAP50", "metrics/mAP50-95")


class ProgressBar(Callback):
    """One tqdm bar per epoch on a terminal and in a notebook, one line per epoch otherwise; on stderr.

    In a notebook the bar is that of ipywidgets where it is installed, else text, and only the current epoch has one.

    Args:
        every: batches between updates of the metrics in the bar.

    Raises:
        CallbackError: if `every` is not a whole number >= 1.
    """

    def __init__(self, every: int = 10) -> None:
        self.every = require_whole("ProgressBar", "every", every, 1)
        self.bar: Any = None

    def on_train_start(self, trainer: Any) -> None:
        self.started = perf_counter()
        log.info("%s", summary(trainer))

    def on_train_epoch_start(self, trainer: Any) -> None:
        done, total = trainer.progress.batches_done, trainer.num_batches
        self.bar = open_bar(initial=done, total=total, desc=self._epoch(trainer))

    def on_train_batch_start(self, trainer: Any) -> None:
        """Open the bar of an epoch in the middle of which the run was resumed."""
        if self.bar is None:
            self.on_train_epoch_start(trainer)

    def on_train_batch_end(self, trainer: Any) -> None:
        """Advance the bar; rarely update the metrics, as reading them synchronises with the device."""
        if self.bar is None:
            return
        if trainer.batch_index % self.every == 0 or trainer.batch_index + 1 == trainer.num_batches:
            means = trainer.meters.mean_losses()
            losses = "  ".join(
                f"{n.removesuffix('_loss')} {v:.3f}" for n, v in zip(trainer.loss_names, means, strict=True)
            )
            size = "x".join(str(side) for side in trainer.batch.images.shape[-2:])
            self.bar.set_postfix_str(f"{losses}  {size} px{_memory(trainer.device)}", refresh=False)
        self.bar.update()

    def on_train_epoch_end(self, trainer: Any) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def on_fit_epoch_end(self, trainer: Any) -> None:
        metrics = trainer.metrics
        parts = [] if on_terminal() else [
            f"{name.removeprefix('train/').removesuffix('_loss')} {value:.3f}"
            for name, value in metrics.items() if name.startswith("train/")
        ]  # fmt: skip
        parts += [f"{name.removeprefix('metrics/')} {metrics[name]:.3f}" for name in SHOWN if name in metrics]
        if (speed := metrics.get("speed/images_per_second")) is not None:
            parts.append(f"{speed:.0f} images/s")
        log.info("%s  %s", self._epoch(trainer), "  ".join(parts))

    def on_exception(self, trainer: Any) -> None:
        self.on_train_epoch_end(trainer)

    def on_train_end(self, trainer: Any) -> None:
        if trainer.final_metrics is not None:
            log.info("\n%s", trainer.final_metrics.table())
        minutes, seconds = divmod(round(perf_counter() - self.started), 60)
        epochs = trainer.epoch + 1 - trainer.start_epoch
        why = f"; {trainer.stop_reason}" if trainer.stop and trainer.stop_reason else ""
        log.info("%d epochs in %d min %d s%s", epochs, minutes, seconds, why)
        log.info("results are in %s", trainer.save_dir)

    @staticmethod
    def _epoch(trainer: Any) -> str:
        width = len(str(trainer.epochs))
        return f"epoch {trainer.epoch + 1:>{width}}/{trainer.epochs}"


def open_bar(**words: Any) -> Any:
    """Return a progress bar that suits where messages go, None where they go to a file."""
    from detector.drawing import in_notebook

    if in_notebook():
        if find_spec("ipywidgets") is not None:
            from tqdm.notebook import tqdm as tqdm_notebook

            return tqdm_notebook(leave=False, **words)
        words |= {"leave": False, "ncols": NOTEBOOK_COLUMNS, "mininterval": 0.5}
    elif on_terminal():
        words |= {"leave": True, "dynamic_ncols": True}
    else:
        return None
    from tqdm import tqdm

    return tqdm(file=sys.stderr, **words)


def on_terminal() -> bool:
    """Return whether messages go to a terminal; a windowed program has no stderr at all."""
    return sys.stderr is not None and sys.stderr.isatty()


def summary(trainer: Any) -> str:
    """Return some lines of text: what is trained, how, and on which device."""
    model, imgsz, recipe = trainer.model, trainer.settings.imgsz, trainer.recipe
    info = model.info(imgsz)
    size = imgsz if isinstance(imgsz, int) else " x ".join(map(str, imgsz))
    lines = [
        f"model: {model.config.name}, {info.parameters:,} parameters, {info.gflops:.1f} GFLOPs at {size} px, "
        f"{model.num_classes} classes{', grey images' if model.channels == 1 else ''}",
        f"device: {trainer.device}, {trainer.precision.name}",
        f"recipe: {trainer.epochs} epochs of {trainer.num_batches} batches of {trainer.batch_size}; "
        f"{recipe.optimizer}, lr0 {recipe.lr0:g}{_chosen(trainer)}",
    ]
    if trainer.transfer is not None:
        lines.insert(1, f"weights: {trainer.transfer}")
    return "\n".join(lines)


def _chosen(trainer: Any) -> str:
    """Say what of the recipe was chosen, and by what."""
    settings = trainer.settings
    names = [name for name in ("epochs", "batch", "optimizer") if getattr(settings, name) == "auto"]
    names += ["lr0"] if settings.lr0 is None else []
    if not names:
        return ""
    steps = trainer.epochs * trainer.num_batches
    images = len(trainer.data.visits)
    return f" ({', '.join(names)} chosen for {images} images and {steps} steps)"


def _memory(device: Any) -> str:
    if device.type != "cuda":
        return ""
    import torch

    return f"  {torch.cuda.memory_reserved(device) / 2**30:.1f} GB"
