"""Training.

`Trainer.run` is the whole of it; every named step is a method below. What a reader would call policy
(early stopping, the CSV file, progress, images of batches) is a callback from `detector/callbacks`.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from detector.callbacks.registry import CallbackRegistry
from detector.callbacks.state import gather_states, restore_states
from detector.checkpoints.checkpoint import load_checkpoint
from detector.checkpoints.network import build_network, read_config
from detector.data.config import is_at_hand
from detector.data.images import PixelFormat
from detector.data.letterbox import input_hw
from detector.data.loader import worker_death
from detector.device import select_precision, use_repeatable_algorithms
from detector.engine.loaders import TrainingData, located_data
from detector.engine.run_folder import RunLock, discard_if_unused, open_run_folder, write_yaml
from detector.engine.steps import TrainingSteps
from detector.engine.val import Validator, validation_suppression
from detector.errors import CallbackError, DetectorError, TrainingError, ending, excerpt
from detector.inference.malloc import keep_freed_memory
from detector.inference.torch_backend import TorchBackend
from detector.nn.losses import build_loss
from detector.nn.model import DetectionModel, ModelConfig
from detector.scale.agreement import AGREED, agree, agree_on_batch, keep_every_rank, same_weights
from detector.scale.batch_norm import synchronise_batch_norm
from detector.scale.gradients import mean_of
from detector.scale.ranks import Ranks
from detector.scale.restart import mark_run
from detector.settings import TrainSettings
from detector.training.auto import epochs_for, is_mosaic_closed
from detector.training.autobatch import choose_batch
from detector.training.averaging import mean_weights
from detector.training.batch_norm import (
    FORWARD_BATCHES,
    STATISTICS_IMAGES,
    join_batches,
    recompute_statistics,
)
from detector.training.build import build_model, build_optimization
from detector.training.checked import CheckedAttributes, MetricsDict, check_groups
from detector.training.default_callbacks import add_default_callbacks
from detector.training.ema import ModelEMA
from detector.training.finite import NonFiniteCheck
from detector.training.fitness import Fitness, as_fitness
from detector.training.freeze import FrozenLayers
from detector.training.multi_scale import (
    largest_side,
    require_batch_norm_fits,
    smallest_side,
)
from detector.training.progress import EpochMeters, FromProgress, Progress, StopFlag
from detector.training.resume import RunState, machine, random_states, restoring, set_random_states
from detector.training.saving import RunSaver
from detector.training.signals import Interrupts
from detector.training.step_graph import (
    NetworkWatch,
    StepGraphs,
)

if TYPE_CHECKING:
    from detector.callbacks.loggers.base import Logger
    from detector.data.batch import Batch
    from detector.metrics.metrics import Metrics

log = logging.getLogger(__name__)


class Trainer(CheckedAttributes, TrainingSteps):
    """Trains a detection model.

    Callbacks are handed the trainer. What they may read: `epoch` (from 0), `epochs`, `batch`,
    `batch_index`, `preds`, `loss` (the sum over the batch, undivided; `on_loss` may add to it), `loss_items` (means per
    image, see `loss_names`), `lr`, `metrics`, `fitness`,
    `best_fitness`, `model`, `ema`, `optimizer`, `settings` (also `args`), `save_dir`, `last`, `best`,
    `csv`, `validator`, `device`, `loggers`, `exception`, `grad_norm`, `stop_reason`; what they may do: set
    `stop = True`, which ends the run cleanly after the current batch; set `fitness` in `on_fit_epoch_end`;
    `save_checkpoint(path)`; `unfreeze(layers)`; `schedule.scale` and `schedule.paused`, see `Schedule`.

    Attributes:
        settings: the checked settings; they stay as they were given.
        progress: where the training stands, see `Progress`.
        meters: what is summed over the current epoch.
        grad_norm: () float, norm of the gradients in the last optimizer step before they were clipped, on the device.
        recovery: called when the loss is not finite; returns whether to continue with the next batch. None = end.
        final_metrics: the metrics of the best weights, once they are validated in full.
        final_model: the network with the best weights, on the CPU, once the training has ended.
        final_weights: the file they are from, None if nothing is saved.
        final_checkpoint: its content without the weights; empty if nothing is saved.
        origin: the file the training started from, and those before it: None for random weights.

    Args:
        settings: checked training settings.
        config: the architecture; its class count, and the channels of an image, are replaced by the data set's.
        weights: state dict to start from, or None to start from random weights.
        weight_names: class id -> name of those weights.
        callbacks: this run's callbacks; the default ones and the loggers are added after them.
        resume: the run to resume, see `training/resume.py`, or None.
        origin: where those weights come from, see `checkpoints/origin.py`; a resumed run has its own.
        transforms: the user's, of training samples; see `data/transforms.py`.
        ranks: the processes that train together; by default this one alone.
    """

    epochs, global_step, stop_reason = FromProgress(), FromProgress(), FromProgress()
    best_fitness, best_epoch = FromProgress(), FromProgress()
    stop = StopFlag()

    place = "trainer"
    checked: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            **dict.fromkeys(("epoch", "start_epoch", "batch_index", "num_batches", "batch_size"), "int"),
        }
    )
    settable = ("stop", "stop_reason", "epochs", "metrics", "fitness", "best_fitness", "loss", "loss_items")
    hints: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "": "to end the run set trainer.stop = True, and settings are given to train()",
            "lr": "set trainer.schedule.scale, or trainer.schedule.paused = True and the optimizer's own rates",
        }
    )

    def __init__(
        self,
        settings: TrainSettings,
        config: ModelConfig,
        weights: Mapping[str, Tensor] | None = None,
        weight_names: Mapping[int, str] | None = None,
        callbacks: CallbackRegistry | None = None,
        resume: RunState | None = None,
        origin: Mapping[str, Any] | None = None,
        transforms: Sequence[Any] = (),
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(callbacks)
        self.ranks = ranks or Ranks()
        self.transforms = transforms
        self.settings = self.args = settings
        self.initial_settings = settings.to_dict() | {"data": located_data(settings.data)}
        self.config, self.initial_weights, self.weight_names = config, weights, weight_names
        self.resume = resume
        self.origin = origin if resume is None else resume.content.get("origin")
        self.progress = Progress(0 if settings.epochs == "auto" else settings.epochs)
        self.loggers: list[Logger] = []
        self.start_epoch = self.epoch = self.batch_index = 0
        self.batch: Batch | None = None
        self.preds: Any = None
        self.loss: Tensor | None = None
        self.loss_items: Tensor | None = None
        self.grad_norm: Tensor | None = None
        self._refused_metrics: set[str] = set()
        self.metrics = {}
        self._fitness: float | None = None
        self._best_before: tuple[float | None, float | None, int | None] = None, None, None
        self.final_metrics: Metrics | None = None
        self.final_model: DetectionModel | None = None
        self.final_weights: Path | None = None
        self.final_checkpoint: dict[str, Any] = {}
        self.exception: BaseException | None = None
        self.recovery: Callable[[TrainingError], bool] | None = None
        self.graphs: StepGraphs | None = None
        self.signals = Interrupts()
        self.signals.shared = self.ranks.is_group
        self.lock: RunLock | None = None
        self.is_new_folder = False  # it was made by this run
        self._end_of_epoch: dict[str, Any] | None = None  # the state from before the end of an epoch
        self._mosaic_was_closed = False
        self._shared: list[bool] | None = None  # which parameters the processes exchange gradients of

    @property
    def metrics(self) -> dict[str, Any]:
        """Name -> number, of this epoch; numbers of any library become Python's, and what is not one is left out."""
        return self._metrics

    @metrics.setter
    def metrics(self, values: Mapping[str, Any]) -> None:
        if not isinstance(values, Mapping):
            raise CallbackError(
                f"trainer.metrics = {excerpt(values, 60)}: expected a dict of names and numbers"
            )
        if values is not self.__dict__.get("_metrics"):  # as after |=
            self._metrics = MetricsDict(values, self._warn_of_metric)

    def _warn_of_metric(self, name: Any, problem: str) -> None:
        """Name a metric that is left out, once in a run."""
        if (text := excerpt(name, 60)) not in self._refused_metrics:
            self._refused_metrics.add(text)
            caller = self.callbacks.running_text()
            log.warning(
                "the metric %s %s; it is left out of files and loggers%s",
                text, problem, f": {caller}" if caller else "",
            )  # fmt: skip

    # ------------------------------------------------------------------ the run

    def run(self) -> Metrics | None:
        """Train, from set-up to teardown.

        Returns:
            The metrics of the best weights, or None if there was nothing to validate.
        """
        self._began = perf_counter()
        with self.signals:
            try:
                self.set_up()
                self.fit()
            except BaseException as error:
                self.exception = self.signals.take() or worker_death(error) or error
                self.ranks.fail()
            finally:
                self.tear_down()
        return self.final_metrics

    def fit(self) -> None:
        """The training loop."""
        self.fire("on_train_start")
        for self.epoch in self.epochs_left():
            self.start_of_epoch()
            if not self.progress.batches_done:
                self.fire("on_train_epoch_start")
            with self.signals.deferred() if self.signals.shared else nullcontext():
                for self.batch_index, self.batch in self.batches():
                    self.train_batch(self.batch)
                    if self.stop:
                        break
            self.end_of_epoch()
            self.fire("on_train_epoch_end")
            self.recompute_statistics()
            self.validate()
            self.fire("on_fit_epoch_end")
            self.save()
        self.final_eval()
        self.fire("on_train_end")
        self.finish()

    def fire(self, event: str) -> None:
        """Call the callbacks of an event; after it, processes that train together agree on what these set."""
        super().fire(event)
        if event in AGREED:
            agree(self)

    def tear_down(self) -> None:
        """After the run, however it went: save what was not, call the callbacks, end the workers.

        Raises:
            BaseException: what ended the run, or else the first exception of a callback in here.
        """
        failure = None
        try:
            with self.signals.deferred():
                if self.exception is not None:
                    self.save_on_exception(self.exception)
                    self.stop_reason = ending(self.exception)
                    self.callbacks.fire_every("on_exception", self)
                self.close()
                failure = self.callbacks.fire_every("teardown", self)
        except (KeyboardInterrupt, SystemExit) as error:
            self.exception = self.exception or error
        discard_if_unused(self.save_dir if self.is_new_folder and self.ranks.is_main else None)
        if slow := self.callbacks.slow_callbacks_text(perf_counter() - self._began):
            log.info("%s", slow)
        if (raised := self.exception or failure) is not None:
            raise raised

    # ------------------------------------------------------------------ set-up

    def set_up(self) -> None:
        """Make the run folder, the data, the model and all that trains it."""
        settings = self.settings
        ranks, is_main = self.ranks, self.ranks.is_main
        ranks.describe_by(self.callbacks.running_text)
        self.loggers = add_default_callbacks(self.callbacks, settings)
        if not is_main:
            keep_every_rank(self.callbacks)
            self.loggers = []
        self.device = ranks.device_of(settings.device)
        self.precision = select_precision(settings.amp, self.device)
        self.save_dir, self.is_new_folder = ranks.from_main(self.open_folder, "the run folder")
        self.csv = self.save_dir / "results.csv"
        self.saver = RunSaver(
            self.save_dir, settings.save and is_main, settings.save_period, settings.save_minutes
        )
        self.last, self.best = self.saver.last, self.saver.best
        ranks.from_main(self.lock_folder, "the lock of the run folder")
        self.is_data_found = is_at_hand(settings.data or "")
        self.fire("on_pretrain_routine_start")
        self.started = perf_counter()
        if self.device.type == "cpu":
            keep_freed_memory(training=True)
        elif self.device.type == "cuda" and settings.deterministic:
            use_repeatable_algorithms()
        with ranks.first("the data set, which rank 0 reads first"):
            self.data = TrainingData(settings, self.transforms)
        if is_main:
            self.data.report_faults()
        self.make_model()
        images, sides = len(self.data.visits), input_hw(settings.imgsz)
        height, width = (largest_side(side, settings.multi_scale) for side in sides)
        self.epochs = self.epochs or epochs_for(images)
        self.batch_size = ranks.whole_batch(
            choose_batch(
                settings.batch,
                images,
                self.model,
                (self.model.channels, height, width),
                self.device,
                self.precision,
                self.crowded_loss,
            ),
            settings.batch,
        )
        share = self.batch_size if settings.sync_bn else ranks.share_of(self.batch_size)
        require_batch_norm_fits(
            images,
            share,
            smallest_side(max(sides), settings.multi_scale),
            max(self.model.strides),
        )
        self.data.make_loaders(
            self.batch_size, self.device, PixelFormat(self.model.channels, self.model.value_range), ranks
        )
        self.num_batches = len(self.data.train_loader)
        self.validator = Validator(
            validation_suppression(settings),
            self.callbacks,
            self.save_dir,
            settings.single_cls,
            settings,
            ranks,
        )
        self.make_optimizer()
        if self.resume is not None:
            self.resume_run(self.resume)
        if is_main:
            write_yaml(self.save_dir / "args.yaml", self.initial_settings | {"save_dir": str(self.save_dir)})
        self.fire("on_pretrain_routine_end")
        if self.resume is None:
            self.save_state()

    def open_folder(self) -> tuple[Path, bool]:
        """Return the run folder, and whether this run has made it."""
        if self.resume:
            return self.resume.folder, False
        settings = self.settings
        return open_run_folder(settings.project, settings.name or "train", settings.exist_ok)

    def lock_folder(self) -> None:
        """Let no other training write there."""
        self.lock = RunLock(self.save_dir)
        if self.ranks.is_group:
            mark_run(self.save_dir)

    def make_model(self) -> None:
        """Build the model and its loss, and put the model on the device.

        What the data set does not say of its images is as the architecture has it.
        """
        data, config = self.data.config, self.config
        config = replace(
            config,
            channels=data.channels or config.channels,
            value_range=data.value_range or config.value_range,
        )
        model, self.transfer = build_model(
            self.settings, config, self.data.names, self.initial_weights, self.weight_names
        )
        self.model = self.network = model.to(self.device).to(memory_format=self.precision.layout)
        settings = self.settings
        self.loss_fn = build_loss(
            self.model, settings.box, settings.cls, settings.dfl, self.data.class_weights(settings.cls_pw)
        )
        self.loss_names = self.loss_fn.names

    def make_optimizer(self) -> None:
        """Make the optimizer with its schedule, the loss scaler and the EMA."""
        settings = self.settings
        self.fitness_by = Fitness(settings.fitness, self.loss_names)
        self.finite = NonFiniteCheck(self.loss_names, self.last.parent, late=self.device.type == "cuda")
        self.recipe, self.optimizer, self.schedule = build_optimization(
            settings, self.model, self.epochs, self.num_batches, self.batch_size
        )
        check_groups(self.optimizer)
        self.optimizer.register_load_state_dict_post_hook(check_groups)
        self.watch = NetworkWatch(self.model)
        if self.can_record_steps():
            self.graphs = graphs = StepGraphs()
            self.optimizer.register_load_state_dict_post_hook(lambda _: graphs.clear())
        self.frozen = FrozenLayers(self.model, settings.freeze)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision.dtype == torch.float16)
        self.ema = ModelEMA(self.model)
        self.reset_meters()
        if self.ranks.size > 1 and settings.sync_bn:
            synchronise_batch_norm(self.model, self.ranks)

    def share_network(self) -> None:
        """Let the gradients of what is trained now be those of all processes."""
        ranks = self.ranks
        if ranks.is_group:
            self.loss_fn.shared_sum = lambda scores: ranks.sum(scores, "the target scores of a batch")
            trained = [p.requires_grad for p in self.model.parameters()]
            if self._shared != trained:
                self.network, self._shared = ranks.wrap(self.model), trained

    def reset_meters(self) -> None:
        """Start the sums of an epoch."""
        self.meters = EpochMeters(len(self.loss_names), self.device)

    # ------------------------------------------------------------------ an epoch

    def epochs_left(self) -> Iterator[int]:
        """Yield the epochs to train, from the one a resumed run was in."""
        while not self.progress.done:
            yield self.progress.epochs_done

    @property
    def mosaic_is_closed(self) -> bool:
        """Whether this is one of the last `close_mosaic` epochs, which have no mosaic, copy-paste, mixup or cutmix."""
        return is_mosaic_closed(self.epoch, self.epochs, self.settings.close_mosaic)

    def start_of_epoch(self) -> None:
        """Set the modes and the loss schedule; a resumed run may be within the epoch."""
        settings = self.settings
        self.model.train()
        self.frozen.keep_in_eval()
        self.loss_fn.set_epoch(self.epoch, self.epochs)
        closed, before = self.mosaic_is_closed, self._mosaic_was_closed
        self._mosaic_was_closed = closed
        mixes = settings.mosaic or settings.copy_paste or settings.mixup or settings.cutmix
        if closed != before and mixes:
            self.fire("on_params_update")
        if not self.progress.batches_done:
            self.reset_meters()

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """Yield the batches left of this epoch, counting the time spent waiting for them."""
        done = self.progress.batches_done
        first = self.num_batches if self.stop and done else done
        loader = self.data.train_loader.batches(self.epoch, first, mosaic=not self.mosaic_is_closed)
        try:
            for index in range(first, self.num_batches):
                asked = perf_counter()
                batch = next(loader)
                self.meters.data_wait += perf_counter() - asked
                yield index, batch
                del batch
                self.batch = self.preds = None
        finally:
            self.batch = self.preds = None

    def train_batch(self, batch: Batch) -> None:
        """Train on a batch, with its events; a signal waits for the end, so that no state lies within it."""
        with self.signals.deferred():
            self.frozen.restore()
            self.fire("on_train_batch_start")
            if not self.model.training:
                self.frozen.restore()
            try:
                self.share_network()
                self.step(batch)
            except TrainingError as error:
                if self.recovery is None or not self.recovery(error):
                    raise
                self.count_batch()
            self.fire("on_train_batch_end")
            if agree_on_batch(self):
                self.save_state()

    @property
    def lr(self) -> dict[str, float]:
        """The learning rate of every parameter group: `lr/pg0` and so on."""
        return {f"lr/pg{i}": float(group["lr"]) for i, group in enumerate(self.optimizer.param_groups)}

    def end_of_epoch(self) -> None:
        """Put this epoch's training metrics together."""
        self.finite.finish(self.epoch)
        if self.graphs is not None:
            self.graphs.release()  # validation may use their memory; the next epoch has other rates anyway
        same_weights(self.model, self.ranks, self.epoch)
        self.keep_state()
        seconds, means = self.meters.seconds, self.meters.mean_losses()
        self.metrics = {f"train/{name}": value for name, value in zip(self.loss_names, means, strict=True)}
        self.metrics |= self.lr
        self.metrics["speed/images_per_second"] = self.meters.images_seen / seconds
        self.metrics["speed/data_wait"] = self.meters.data_wait / seconds

    def keep_state(self) -> None:
        """Let the state of now be the one that is saved, until the end of the epoch."""
        self._end_of_epoch = self.state_dict()

    def recompute_statistics(self) -> None:
        """Let the batch-norm statistics of the averaged weights be theirs on the last images of this epoch."""
        limit = min(STATISTICS_IMAGES, FORWARD_BATCHES * self.batch_size)
        joined = join_batches(self.last_images(STATISTICS_IMAGES), limit)
        with self.precision.autocast():
            recompute_statistics(self.ema.model, self.model, map(self.images_to_device, joined))

    def last_images(self, count: int) -> Iterator[Tensor]:
        """Yield the uint8 images of this epoch's last batches, `count` or up to a batch more.

        A data set of fewer images is drawn several times, each time augmented in another way.
        """
        first = max(self.num_batches - math.ceil(count / self.batch_size), 0)
        for draw in range(math.ceil(count / len(self.data.visits))):
            for number, batch in enumerate(
                self.data.train_loader.batches(self.epoch + draw, first, mosaic=not self.mosaic_is_closed),
                first,
            ):
                yield self.ranks.joined(batch.images, self.data.train_loader.images_of(number))

    def validate(self) -> None:
        """Validate the averaged weights; this epoch's metrics and fitness are there afterwards."""
        last_epoch = self.epoch + 1 >= self.epochs or self.stop
        self._best_before = self.best_fitness, self.progress.best_loss, self.best_epoch
        if self.data.val_loader is None or not (self.settings.val or last_epoch):
            self.fitness = None
            return
        metrics = self.measure()
        self.metrics |= self.validator.losses
        self.metrics |= metrics.results_dict
        del self.metrics["fitness"]
        self.fitness = self.fitness_by.of(self.metrics)

    def measure(self) -> Metrics:
        """Validate the averaged weights as they are now."""
        self.ema.sync_counters()
        backend = TorchBackend(self.ema.model, self.device, self.precision)
        return self.validator.run(
            backend, self.data.val_loader, self.data.val_annotations, self.loss_fn, final=False
        )

    @property
    def fitness(self) -> float | None:
        """How good the last validated epoch is; None before, and after an epoch without validation.

        Setting it at the end of an epoch, as a callback may, decides again whether this epoch is the best so far.
        """
        return self._fitness

    @fitness.setter
    def fitness(self, value: float | None) -> None:
        self._fitness = number = as_fitness(value)
        if self._end_of_epoch is None:
            return
        self.best_fitness, self.progress.best_loss, self.best_epoch = self._best_before
        if number is not None:
            self.progress.take_if_better(number, self.metrics.get("val/loss"), self.epoch)

    # ------------------------------------------------------------------ saving and the end

    def save(self) -> None:
        """End the epoch: last.pt, best.pt when it is the best so far, epochN.pt when asked for, and the state."""
        progress = self.progress
        with self.signals.deferred():
            progress.done = self.is_over()
            agree(self)
            if self.settings.save:
                is_best = self.best_epoch == self.epoch or self.data.val_loader is None
                if self.ranks.is_main:
                    self.saver.save_weights(self.checkpoint(), self.epoch, is_best)
                self.fire("on_model_save")
                progress.done = progress.done or progress.stop
            # only now: should one of these files or callbacks fail, a resumed run repeats the end of this epoch
            progress.epochs_done, progress.batches_done, self._end_of_epoch = self.epoch + 1, 0, None
            self.save_state()

    def save_state(self) -> None:
        """Write what the run needs to resume: between two batches, or from before the end of an epoch."""
        if self.settings.save:
            self.saver.save_state(self._end_of_epoch or self.state_dict())

    def save_checkpoint(self, path: str | Path) -> Path:
        """Write the averaged weights as they are now to a checkpoint at `path`; whole or not at all."""
        path = Path(path)
        if not self.ranks.is_main:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.saver.save_checkpoint(path, self.checkpoint())
        return path

    def save_average(self, parts: Sequence[Path], path: Path) -> Metrics:
        """Write the mean of some checkpoints of this run to `path`, with statistics of its own; returns its metrics."""
        now = {key: value.clone() for key, value in self.ema.model.state_dict().items()}
        try:
            self.ema.model.load_state_dict(
                self.ranks.from_main(lambda: mean_weights(parts), "averaged weights")
            )
            self.recompute_statistics()
            metrics = self.measure()
            if self.ranks.is_main:
                self.saver.save_checkpoint(
                    path, self.checkpoint() | {"metrics": self.validator.losses | metrics.results_dict}
                )
        finally:
            self.ema.model.load_state_dict(now)
        return metrics

    def save_on_exception(self, error: BaseException) -> None:
        """Before an exception is raised again: save the training since the last save, and say how to resume it."""
        if hasattr(self, "saver"):
            self.saver.save_on_exception(
                error, self.progress, self.checkpoint, lambda: self._end_of_epoch or self.state_dict()
            )

    def checkpoint(self) -> dict[str, Any]:
        """Return what goes into a checkpoint file, as plain data; see `checkpoints/checkpoint.py`."""
        return {
            "model": self.model.config.to_dict(),
            "weights": {key: value.float() if value.is_floating_point() else value
                        for key, value in self.ema.state_dict().items()},
            "settings": self.initial_settings,
            "epoch": self.epoch,
            "metrics": dict(self.metrics),
            "origin": self.origin,
        }  # fmt: skip

    def is_over(self) -> bool:
        """Return whether to end after this epoch; fits the epochs to the time budget, if there is one."""
        if self.settings.time is not None:
            elapsed, budget = perf_counter() - self.started, self.settings.time * 3600
            done = self.epoch + 1
            epochs = max(done, int(budget / (elapsed / done)))
            if epochs != self.epochs:
                self.epochs = self.schedule.epochs = epochs
                self.fire("on_params_update")
        if not self.stop and self.epoch + 1 >= self.epochs:
            used_up = f" in the {self.settings.time:g} hours of time=" if self.settings.time else ""
            self.stop_reason = f"all {self.epochs} epochs are done{used_up}"
        return bool(self.stop or self.epoch + 1 >= self.epochs)

    def final_eval(self) -> None:
        """Take the best weights, and validate them once more, in full."""
        self.final_model = self.ema.model
        if self.settings.save:
            ours = self.best_epoch is not None or self.data.val_loader is None  # else it is an older run's
            path, content = self.ranks.from_main(lambda: self.open_final(ours), "the best weights")
            self.final_model = build_network(
                read_config(content["model"], path), content.pop("weights"), path
            ).eval()
            self.final_weights, self.final_checkpoint = path, content
        if self.data.val_loader is not None:
            head = self.final_model.head_for(self.settings.nms)
            backend = TorchBackend(self.final_model, self.device, self.precision, head=head)
            self.final_metrics = self.validator.run(
                backend, self.data.val_loader, self.data.val_annotations, final=True
            )
            self.metrics |= {k: v for k, v in self.final_metrics.results_dict.items() if k != "fitness"}
        self.fire("on_final_eval_end")

    def open_final(self, ours: bool) -> tuple[Path, dict[str, Any]]:
        """Return the file of the best weights, or of the last, and its content; `ours` if best.pt is of this run."""
        path = self.best if ours and self.best.exists() else self.last
        return path, load_checkpoint(path)

    def finish(self) -> None:
        """Mark the run as finished."""
        with self.signals.deferred():
            self.progress.finished = True
            try:
                self.save_state()
            except DetectorError:
                self.progress.finished = False
                raise

    def unfreeze(self, layers: list[int | str] | None = None) -> None:
        """Unfreeze layers frozen by `freeze`: by index or part of their name, None = all."""
        self.frozen.unfreeze(layers)

    def close(self) -> None:
        """End the loaders and drop what only a running training needs."""
        if hasattr(self, "data"):
            self.data.close()
        if self.lock is not None:
            self.lock.release()
        self.batch = self.preds = None

    # ------------------------------------------------------------------ the state

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the training between two batches, see `training/resume.py`.

        The tensors are the training's own; everything else is a copy.
        """
        plain = {
            **self.progress.state_dict(),
            "seconds": perf_counter() - self.started,
            "schedule": self.schedule.state_dict(),
            "metrics": dict(self.metrics),
            "callbacks": gather_states(self.callbacks.objects),
            "random": random_states(),
        }
        grads = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        shares = self.ranks.accumulated(grads)
        return copy.deepcopy(plain) | {
            **self.meters.state_dict(),
            "model": self.model.config.to_dict(),
            "weights": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "grads": grads if len(shares) == 1 else mean_of(shares),
            "shares": shares if len(shares) > 1 else [],
            "scaler": self.scaler.state_dict(),
            "frozen": list(self.frozen.parameters),
            "settings": self.initial_settings,
            "origin": self.origin,
            "data": self.data.fingerprint,
            "machine": machine(self.device, self.precision, self.ranks.size),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, in a trainer that is set up on the same data."""
        planned = self.epochs
        self.progress.load_state_dict(state)
        if self.settings.epochs != state["settings"]["epochs"]:
            self.progress.replan(planned)
        self.start_epoch = self.progress.epochs_done
        self.epoch = max(self.start_epoch - 1, 0)
        self.metrics = dict(state["metrics"])
        self.fitness = self.fitness_by.of(self.metrics)
        self.meters.load_state_dict(state)
        self.started = perf_counter() - state["seconds"]
        self.model.load_state_dict(state["weights"])
        self.ema.model.load_state_dict(state["ema"])
        self.ema.updates = state["ema_updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        shares = state.get("shares", [])
        grads = shares[self.ranks.rank] if len(shares) == self.ranks.size else state["grads"]
        for name, parameter in self.model.named_parameters():
            if name in grads:
                parameter.grad = grads[name].to(parameter.device)
        self.scaler.load_state_dict(state["scaler"])
        self.schedule.load_state_dict(state["schedule"])
        self.schedule.epochs = self.epochs
        self.frozen.restrict(state["frozen"])
        restore_states(self.callbacks.objects, state["callbacks"])
        set_random_states(state["random"])

    def resume_run(self, run: RunState) -> None:
        """Continue where a run was, if this is the same architecture and data.

        Raises:
            CheckpointError: if the data has other classes.
            DataError: if the data set has changed in another way, unless forced.
        """
        with restoring(run.folder):
            here = machine(self.device, self.precision, self.ranks.size)
            run.require_same(self.model.config, self.data.fingerprint, here)
            # whatever fails now, the state on disk is newer
            self.saver.saved_step = int(run.content["counters"]["global_step"])
            self.load_state_dict(run.content)
        log.info("resumed: %s continues after %s", run.folder, run.place)
        run.content.clear()  # as large as the training itself, and kept by whoever opened it
