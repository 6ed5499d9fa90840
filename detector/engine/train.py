"""Training.

`Trainer.run` is the whole of it; every named step is a method: below, or of a batch in `steps.py`, of the validation
in `validation.py`, of the state and its files in `state.py`. What a reader would call policy
(early stopping, the CSV file, progress, images of batches) is a callback from `detector/callbacks`.
"""

from __future__ import annotations

import logging
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
from detector.data.config import is_at_hand
from detector.data.images import PixelFormat
from detector.data.letterbox import input_hw
from detector.data.loader import worker_death
from detector.device import select_precision, use_repeatable_algorithms
from detector.engine.loaders import TrainingData, located_data
from detector.engine.run_folder import RunLock, discard_if_unused, open_run_folder, write_yaml
from detector.engine.val import Validator, validation_suppression
from detector.engine.validation import TrainingValidation
from detector.errors import DetectorError, TrainingError, ending
from detector.inference.malloc import keep_freed_memory
from detector.nn.losses import build_loss
from detector.nn.model import DetectionModel, ModelConfig
from detector.scale.agreement import AGREED, agree, agree_on_batch, keep_every_rank, same_weights
from detector.scale.batch_norm import synchronise_batch_norm
from detector.scale.ranks import Ranks
from detector.scale.restart import mark_run
from detector.settings import TrainSettings
from detector.training.auto import epochs_for
from detector.training.autobatch import choose_batch
from detector.training.build import build_model, build_optimization
from detector.training.checked import CheckedAttributes, check_groups
from detector.training.default_callbacks import add_default_callbacks
from detector.training.ema import ModelEMA
from detector.training.finite import NonFiniteCheck
from detector.training.fitness import Fitness
from detector.training.freeze import FrozenLayers
from detector.training.learning import LearningCheck
from detector.training.multi_scale import (
    largest_side,
    require_batch_norm_fits,
    smallest_side,
)
from detector.training.progress import EpochMeters, Progress
from detector.training.resume import RunState
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


class Trainer(CheckedAttributes, TrainingValidation):
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

    place = "trainer"
    checked: ClassVar[Mapping[str, str]] = MappingProxyType(
        dict.fromkeys(("epoch", "start_epoch", "batch_index", "num_batches", "batch_size"), "int")
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
        self.learning = LearningCheck(self.recipe.lr0, self.last.parent)
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
        if any((self.settings.box, self.settings.cls, self.settings.dfl)):  # else losses of 0 were asked for
            self.learning.check(self.epoch, means, self.grad_norm)
        self.metrics = {f"train/{name}": value for name, value in zip(self.loss_names, means, strict=True)}
        self.metrics |= self.lr
        self.metrics["speed/images_per_second"] = self.meters.images_seen / seconds
        self.metrics["speed/data_wait"] = self.meters.data_wait / seconds

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
