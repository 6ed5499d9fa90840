"""Training.

`Trainer.run` is the whole of it; every named step is a method below. What a reader would call policy
(early stopping, the CSV file, progress, pictures) is a callback from `detector/callbacks`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from detector.callbacks.registry import CallbackRegistry
from detector.engine import checkpoint
from detector.engine.autobatch import choose_batch
from detector.engine.data import TrainingData
from detector.engine.defaults import add_default_callbacks
from detector.engine.device import keep_freed_memory, select_device, select_precision
from detector.engine.ema import ModelEMA
from detector.engine.engine import Engine
from detector.engine.inference import Runner
from detector.engine.interrupt import Interrupts
from detector.engine.optim import Schedule, build_optimizer, choose_recipe
from detector.engine.resume import RunState, restore_state, save_state, take_state
from detector.engine.run_folder import RunLock, discard_if_unused, make_run_folder, write_yaml
from detector.engine.val import Validator, validation_suppression
from detector.engine.weights import FrozenLayers, Transfer, transfer_weights
from detector.errors import DetectorError, TrainingError, error_text
from detector.nn.losses import build_loss
from detector.nn.model import DetectionModel, ModelConfig
from detector.settings import TrainSettings

if TYPE_CHECKING:
    from detector.callbacks.loggers.base import Logger
    from detector.data.batch import Batch
    from detector.metrics import Metrics

log = logging.getLogger(__name__)

MAX_GRAD_NORM = 10.0


class Trainer(Engine):
    """Trains a detection model.

    Callbacks are handed the trainer. What they may read: `epoch` (from 0), `epochs`, `batch`,
    `batch_index`, `preds`, `loss`, `loss_items` (see `loss_names`), `lr`, `metrics`, `fitness`,
    `best_fitness`, `model`, `ema`, `optimizer`, `settings` (also `args`), `save_dir`, `last`, `best`,
    `csv`, `validator`, `device`, `loggers`, `exception`; what they may do: set `stop = True`, which ends
    the run cleanly after the batch in work; `save_checkpoint(path)`; `unfreeze(layers)`;
    `schedule.scale` and `schedule.paused`, see `Schedule`.

    Args:
        settings: checked training settings.
        config: the architecture; its class count is replaced by the data set's.
        weights: state dict to start from, or None to start from random weights.
        weight_names: class id -> name of those weights.
        callbacks: this run's callbacks; the default ones and the loggers are added behind them.
        resume: the state to go on from, see `engine/resume.py`, or None.
    """

    def __init__(
        self,
        settings: TrainSettings,
        config: ModelConfig,
        weights: Mapping[str, Tensor] | None = None,
        weight_names: Mapping[int, str] | None = None,
        callbacks: CallbackRegistry | None = None,
        resume: RunState | None = None,
    ) -> None:
        super().__init__(callbacks)
        self.settings = self.args = settings
        self.config, self.initial_weights, self.weight_names = config, weights, weight_names
        self.resume = resume
        self.loggers: list[Logger] = []
        self.epochs, self.start_epoch, self.epoch = settings.epochs, 0, 0
        self.global_step = 0
        self.batch: Batch | None = None
        self.batch_index = 0
        self.preds: Any = None
        self.loss: Tensor | None = None
        self.loss_items: Tensor | None = None
        self.metrics: dict[str, float] = {}
        self.fitness: float | None = None
        self.best_fitness: float | None = None
        self.best_epoch: int | None = None
        self.stop = self.done = self.finished = False
        self.epochs_done = self.batches_done = 0
        self.in_step = False
        self.saved_step = 0
        self.boundary: dict[str, Any] | None = None
        self.lock: RunLock | None = None
        self.epoch_seconds = 0.0
        self.interrupts = Interrupts()
        self.exception: BaseException | None = None
        self.final_metrics: Metrics | None = None

    # ------------------------------------------------------------------ the run

    def run(self) -> Metrics | None:
        """Train, from set-up to teardown.

        Returns:
            The figures of the best weights, or None if there was nothing to validate.
        """
        began, failure = perf_counter(), None
        with self.interrupts:
            try:
                self.set_up()
                self.fit()
            except BaseException as error:
                self.exception = self.interrupts.take() or error
            try:
                with self.interrupts.held():
                    failure = self.wind_up()
            except (KeyboardInterrupt, SystemExit) as error:
                self.exception = self.exception or error
        discard_if_unused(getattr(self, "save_dir", None))
        self.name_costly_callbacks(perf_counter() - began)
        if self.exception is not None or failure is not None:
            raise self.exception or failure  # type: ignore[misc]
        return self.final_metrics

    def fit(self) -> None:
        """The training loop."""
        self.fire("on_train_start")
        for self.epoch in self.epochs_left():
            self.begin_epoch()
            if not self.batches_done:
                self.fire("on_train_epoch_start")
            for self.batch_index, self.batch in self.batches():
                with self.interrupts.held():
                    self.fire("on_train_batch_start")
                    self.step(self.batch)
                    self.fire("on_train_batch_end")
                    self.save_in_time()
                if self.stop:
                    break
            self.end_epoch()
            self.fire("on_train_epoch_end")
            self.validate()
            self.fire("on_fit_epoch_end")
            with self.interrupts.held():
                self.save()
        self.final_eval()
        self.fire("on_train_end")
        with self.interrupts.held():
            self.finish()

    def wind_up(self) -> BaseException | None:
        """After the run, however it went: save what was not, tell the callbacks and end the workers.

        Returns:
            The first exception of a callback.
        """
        if self.exception is not None:
            self.rescue()
            self.callbacks.fire_every("on_exception", self)
        self.close()
        return self.callbacks.fire_every("teardown", self)

    # ------------------------------------------------------------------ set-up

    def set_up(self) -> None:
        """Make the run folder, the data, the model and all that trains it."""
        s = self.settings
        self.loggers = add_default_callbacks(self.callbacks, s)
        self.device = select_device(s.device)
        self.precision = select_precision(s.amp, self.device)
        self.initial_settings = s.to_dict()
        if self.resume is None:
            self.save_dir = make_run_folder(s.project, s.name or "train", s.exist_ok)
        else:
            self.save_dir = self.resume.folder
        self.last, self.best = self.save_dir / "weights/last.pt", self.save_dir / "weights/best.pt"
        self.csv = self.save_dir / "results.csv"
        self.lock = RunLock(self.save_dir)
        self.fire("on_pretrain_routine_start")
        write_yaml(self.save_dir / "args.yaml", self.initial_settings | {"save_dir": str(self.save_dir)})
        self.started = perf_counter()
        if self.device.type == "cpu":
            keep_freed_memory(training=True)
        self.data = TrainingData(s)
        self.model, self.transfer = self.make_model()
        self.batch_size = choose_batch(s.batch, self.model, s.imgsz, self.device, self.precision)
        self.data.make_loaders(self.batch_size, self.device)
        self.num_batches = len(self.data.train_loader)
        self.validator = Validator(validation_suppression(s), self.callbacks, self.save_dir, s.single_cls)
        self.make_optimizer()
        if self.resume is not None:
            restore_state(self, self.resume)
        self.fire("on_pretrain_routine_end")
        if self.resume is None:
            self.save_state()

    def make_model(self) -> tuple[DetectionModel, Transfer | None]:
        """Build the model for the data's classes, under the seed, and give it the initial weights."""
        s = self.settings
        if self.device.type == "cuda" and s.deterministic:
            torch.backends.cudnn.benchmark = False
            torch.use_deterministic_algorithms(True, warn_only=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)
            model = DetectionModel(replace(self.config, names=tuple(self.data.names.values())))
        model.select_head(s.nms)
        transfer = None
        if self.initial_weights is not None:
            transfer = transfer_weights(model, self.initial_weights, self.weight_names or {})
        model.to(self.device).to(memory_format=self.precision.layout)
        return model, transfer

    def make_optimizer(self) -> None:
        """Make the loss, the optimizer with its schedule, the loss scaler and the EMA."""
        s, batches, batch = self.settings, self.num_batches, self.batch_size
        self.loss_fn = build_loss(self.model, s.box, s.cls, s.dfl, self.data.class_weights(s.cls_pw))
        self.loss_names = self.loss_fn.names
        accumulate = max(round((s.nbs or batch) / batch), 1)
        recipe = choose_recipe(
            s.optimizer, s.lr0, s.warmup_bias_lr, self.model.num_classes, batches * self.epochs // accumulate
        )
        decay = s.weight_decay * batch * accumulate / (s.nbs or batch)
        self.recipe = recipe
        self.optimizer = build_optimizer(self.model, recipe, s.momentum, decay)
        self.schedule = Schedule(
            epochs=self.epochs,
            batches=batches,
            lrf=s.lrf,
            cosine=s.cos_lr,
            warmup_epochs=s.warmup_epochs,
            warmup_bias_lr=recipe.warmup_bias_lr,
            warmup_momentum=s.warmup_momentum,
            momentum=s.momentum,
            accumulate=min(accumulate, batches * self.epochs),
        )
        self.frozen = FrozenLayers(self.model, s.freeze)
        self.last_step = -1
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision.dtype == torch.float16)
        self.ema = ModelEMA(self.model)
        self.saved_at = perf_counter()
        self.begin_sums()

    # ------------------------------------------------------------------ an epoch

    def epochs_left(self) -> Iterator[int]:
        """Yield the epochs to train, from the one a resumed run was in."""
        while not self.done:
            yield self.epochs_done

    def begin_epoch(self) -> None:
        """Set the modes, the loss schedule and the augmentation; a resumed run may be within the epoch."""
        self.model.train()
        self.frozen.hold()
        self.loss_fn.set_epoch(self.epoch, self.epochs)
        self.close_mosaic()
        if self.batches_done:
            self.epoch_started = perf_counter() - self.epoch_seconds
        else:
            self.begin_sums()

    def begin_sums(self) -> None:
        """Begin what is summed over an epoch."""
        self.loss_sum = torch.zeros(len(self.loss_names), device=self.device)
        self.images_seen, self.data_wait, self.epoch_started = 0, 0.0, perf_counter()

    def close_mosaic(self) -> None:
        """Turn off mosaic and mixup for the last `close_mosaic` epochs."""
        s = self.settings
        if self.epoch >= self.epochs - s.close_mosaic and (s.mosaic or s.mixup):
            s.mosaic = s.mixup = 0.0
            self.fire("on_params_update")

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """Yield the batches left of this epoch, counting the time spent waiting for them."""
        mixes = self.epoch < self.epochs - self.settings.close_mosaic
        first = self.num_batches if self.stop and self.batches_done else self.batches_done
        loader = self.data.train_loader.batches(self.epoch, first, mosaic=mixes)
        try:
            for index in range(first, self.num_batches):
                asked = perf_counter()
                batch = next(loader)
                self.data_wait += perf_counter() - asked
                yield index, batch
                del batch
                self.batch = self.preds = None
        finally:
            self.batch = self.preds = None

    def step(self, batch: Batch) -> None:
        """Forward, backward, and when enough batches are in, clip, optimizer and EMA."""
        self.in_step = True
        accumulate = self.schedule.apply(self.optimizer, self.epoch, self.global_step)
        images, boxes, labels = self.to_device(batch)
        with self.precision.autocast():
            self.preds = self.model(images)
        total, items = self.loss_fn(self.preds, boxes, labels)
        self.loss_items = items[self.model.selected_head].detach()
        self.loss = total.sum() * len(images)
        self.guard(batch)
        self.scaler.scale(self.loss).backward()  # type: ignore[no-untyped-call]
        self.loss = self.loss.detach()
        if self.global_step - self.last_step >= accumulate:
            self.optimizer_step()
            self.last_step = self.global_step
        self.loss_sum += self.loss_items * len(images)
        self.images_seen += len(images)
        self.global_step += 1
        self.batches_done = self.batch_index + 1
        self.in_step = False

    def to_device(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return images in 0..1, boxes in input px and labels, on the device."""
        images = batch.images.to(self.device, non_blocking=True)
        images = images.to(torch.float32, memory_format=self.precision.layout).mul_(1 / 255)
        boxes = batch.boxes.to(self.device, non_blocking=True)
        if self.settings.multi_scale:
            images, ratio = resize_batch(images, self.sampled_size())
            boxes = boxes * ratio
        return images, boxes, batch.labels.to(self.device, non_blocking=True)

    def sampled_size(self) -> int:
        """Return this step's longer input side, a function of the seed and the step alone."""
        s = self.settings
        least, most = max(32, int(s.imgsz * (1 - s.multi_scale))), int(s.imgsz * (1 + s.multi_scale) + 32)
        random = np.random.default_rng([s.seed, self.global_step])
        return int(random.integers(least, most)) // 32 * 32

    def guard(self, batch: Batch) -> None:
        """Stop on a non-finite loss.

        On CUDA the loss of the step before is looked at, so that the host never waits for the step it
        has just queued.

        Raises:
            TrainingError: naming the step, each loss term and the files of the batch.
        """
        now = (self.global_step, self.loss.detach(), self.loss_items, batch.paths)  # type: ignore[union-attr]
        looked_at = now if self.device.type != "cuda" else getattr(self, "_unchecked", None)
        self._unchecked = now
        if looked_at is None or bool(torch.isfinite(looked_at[1])):
            return
        step, _, items, paths = looked_at
        terms = ", ".join(f"{n}={v:g}" for n, v in zip(self.loss_names, items.tolist(), strict=True))  # type: ignore[union-attr]
        raise TrainingError(
            f"the loss is not finite at epoch {self.epoch + 1}, step {step}: {terms}; "
            f"the last good weights are in {self.last.parent}; try a smaller lr0 or amp=false. "
            f"Files of that batch: {', '.join(paths)}"
        )

    def optimizer_step(self) -> None:
        """Clip the gradients, step, clear the gradients, and average the weights."""
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.update()
        self.fire("optimizer_step")
        self.fire("on_before_zero_grad")
        self.optimizer.zero_grad()

    @property
    def lr(self) -> dict[str, float]:
        """The learning rate of every parameter group: `lr/pg0` and so on."""
        return {f"lr/pg{i}": float(group["lr"]) for i, group in enumerate(self.optimizer.param_groups)}

    def end_epoch(self) -> None:
        """Put this epoch's training figures into the metrics."""
        self.boundary = take_state(self)
        seconds = perf_counter() - self.epoch_started
        means = (self.loss_sum / max(self.images_seen, 1)).tolist()
        self.metrics = {f"train/{name}": value for name, value in zip(self.loss_names, means, strict=True)}
        self.metrics |= self.lr
        self.metrics["speed/images_per_second"] = self.images_seen / seconds
        self.metrics["speed/data_wait"] = self.data_wait / seconds

    def validate(self) -> None:
        """Validate the averaged weights; this epoch's metrics and fitness are there afterwards."""
        last_epoch = self.epoch + 1 >= self.epochs or self.stop
        self.fitness = None
        if self.data.val_loader is None or not (self.settings.val or last_epoch):
            return
        self.ema.sync_counters()
        runner = Runner(self.ema.model, self.device, self.precision)
        figures = self.validator.run(
            runner, self.data.val_loader, self.data.val_annotations, self.loss_fn, final=False
        )
        self.metrics |= self.validator.losses
        self.metrics |= figures.results_dict
        self.fitness = self.metrics.pop("fitness")
        if self.best_fitness is None or self.fitness > self.best_fitness:
            self.best_fitness, self.best_epoch = self.fitness, self.epoch

    # ------------------------------------------------------------------ saving and the end

    def save(self) -> None:
        """End the epoch: last.pt, best.pt when it is the best so far, epochN.pt when asked for, and the state."""
        self.done = self.should_stop()
        if self.settings.save:
            self.save_weights()
            self.fire("on_model_save")
            self.done = self.done or self.stop
        # only now: should one of these files or callbacks fail, a resumed run repeats the end of this epoch
        self.epochs_done, self.batches_done, self.boundary = self.epoch + 1, 0, None
        self.save_state()

    def save_weights(self) -> None:
        """Write the averaged weights to every file that is to have them after this epoch."""
        content, period = self.checkpoint(), self.settings.save_period
        paths = [self.last]
        if self.best_epoch == self.epoch or self.data.val_loader is None:
            paths.append(self.best)
        if period > 0 and (self.epoch + 1) % period == 0:
            paths.append(self.last.with_name(f"epoch{self.epoch + 1}.pt"))
        for path in paths:
            checkpoint.save_checkpoint(path, content)

    def save_state(self) -> None:
        """Write what the run needs to go on, see `engine/resume.py`."""
        if self.settings.save:
            save_state(self.save_dir, self.boundary or take_state(self))
            self.saved_step, self.saved_at = self.global_step, perf_counter()

    def save_in_time(self) -> None:
        """Write the state within an epoch when the last one is `save_minutes` old."""
        minutes = self.settings.save_minutes
        if minutes and perf_counter() - self.saved_at > 60 * minutes:
            self.save_state()

    def finish(self) -> None:
        """Mark the run as finished."""
        self.finished = True
        try:
            self.save_state()
        except DetectorError:
            self.finished = False
            raise

    def save_checkpoint(self, path: str | Path) -> Path:
        """Write the averaged weights as they are now to a checkpoint of one's own; whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save_checkpoint(path, self.checkpoint())
        return path

    def rescue(self) -> None:
        """Before an exception goes on: save the training since the last save, and say how to go on.

        After a non-finite loss the weights are of no use; after a failure within a step they go to last.pt, but
        the run goes on from the state before.
        """
        if self.exception is None or not self.settings.save or isinstance(self.exception, TrainingError):
            return
        if self.global_step > self.saved_step:
            try:
                self.save_checkpoint(self.last)
                if not self.in_step:
                    self.save_state()
            except DetectorError as problem:
                log.error("%s", problem)
        if self.saved_step and not self.finished:
            log.warning(
                "the run ends by %s; its weights are in %s, and resume=%s goes on with it",
                error_text(self.exception), self.last, self.save_dir,
            )  # fmt: skip

    def checkpoint(self) -> dict[str, Any]:
        """Return what goes into a checkpoint file, as plain data; see `engine/checkpoint.py`."""
        return {
            "model": self.model.config.to_dict(),
            "weights": {key: value.float() if value.is_floating_point() else value
                        for key, value in self.ema.state_dict().items()},
            "settings": self.initial_settings,
            "epoch": self.epoch,
            "metrics": dict(self.metrics),
        }  # fmt: skip

    def should_stop(self) -> bool:
        """Return whether to end after this epoch; fits the epochs to the time budget, if there is one."""
        if self.settings.time is not None:
            elapsed, budget = perf_counter() - self.started, self.settings.time * 3600
            done = self.epoch + 1
            epochs = max(done, int(budget / (elapsed / done)))
            if epochs != self.epochs:
                self.epochs = self.schedule.epochs = epochs
                self.fire("on_params_update")
        return self.stop or self.epoch + 1 >= self.epochs

    def final_eval(self) -> None:
        """Validate the best weights once more, in full."""
        if self.data.val_loader is not None:
            model = self.ema.model
            if self.settings.save:
                model = copy.deepcopy(model)
                best = self.best if self.best.exists() else self.last
                model.load_state_dict(checkpoint.load_checkpoint(best)["weights"])
            runner = Runner(model, self.device, self.precision)
            self.final_metrics = self.validator.run(
                runner, self.data.val_loader, self.data.val_annotations, final=True
            )
            self.metrics |= {k: v for k, v in self.final_metrics.results_dict.items() if k != "fitness"}
        self.fire("on_final_eval_end")

    def unfreeze(self, layers: list[int | str] | None = None) -> None:
        """Let layers held by `freeze` learn again: by index or part of their name, None = all."""
        self.frozen.release(layers)

    def name_costly_callbacks(self, seconds: float) -> None:
        """Name the callbacks that took over 1 % of a run of so many seconds."""
        rows = [
            f"{fn}{'' if fn.endswith(event) else f' on {event}'} {spent:.1f} s ({spent / seconds:.0%})"
            for event, fn, spent in self.callbacks.costly(seconds)
        ]
        if rows:
            log.info("callbacks that took over 1 %% of the run: %s", ", ".join(rows))

    def close(self) -> None:
        """End the loaders and drop what only a running training needs."""
        if hasattr(self, "data"):
            self.data.close()
        if self.lock is not None:
            self.lock.release()
        self.batch = self.preds = None

    def summary(self) -> str:
        """Return some lines for people: what is trained, how, and on what."""
        info = self.model.info(self.settings.imgsz)
        lines = [
            f"model: {self.model.config.name}, {info.parameters:,} parameters, "
            f"{info.gflops:.1f} GFLOPs at {self.settings.imgsz} px, {self.model.num_classes} classes",
            f"device: {self.device}, {self.precision.name}; optimizer: {self.recipe.optimizer}, "
            f"lr0 {self.recipe.lr0:g}, batch {self.batch_size}, {self.num_batches} batches an epoch",
        ]
        if self.transfer is not None:
            lines.insert(1, f"weights: {self.transfer}")
        return "\n".join(lines)


def resize_batch(images: Tensor, long_side: int) -> tuple[Tensor, Tensor]:
    """Resize a batch so that its longer side is about `long_side`, both sides multiples of 32.

    Args:
        images: (B, 3, H, W) float.
        long_side: input px.

    Returns:
        The images, and (4,) the factors for x1, y1, x2, y2.
    """
    height, width = images.shape[-2:]
    factor = long_side / max(height, width)
    new_h, new_w = (ceil(side * factor / 32) * 32 for side in (height, width))
    ratio = torch.tensor([new_w / width, new_h / height] * 2, device=images.device)
    if (new_h, new_w) == (height, width):
        return images, ratio
    return nn.functional.interpolate(images, (new_h, new_w), mode="bilinear", align_corners=False), ratio
