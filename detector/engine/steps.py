"""The training step: what happens to one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from detector.data.letterbox import input_hw
from detector.engine.names_elsewhere import NamesElsewhere
from detector.scale.agreement import same_rates
from detector.scale.ranks import Ranks
from detector.training.ema import ModelEMA
from detector.training.finite import NonFiniteCheck, require_loss
from detector.training.multi_scale import resize_batch, sample_side
from detector.training.optim import clip_gradients, gradient_norm
from detector.training.progress import Progress
from detector.training.schedule import Schedule
from detector.training.step_graph import (
    WORTHWHILE,
    NetworkWatch,
    StepGraphs,
    constants_of,
    pad_objects,
)

if TYPE_CHECKING:
    from detector.data.batch import Batch
    from detector.device import Precision
    from detector.nn.losses import Loss
    from detector.nn.model import DetectionModel
    from detector.settings import TrainSettings

WITHIN_STEP = ("on_loss", "on_before_optimizer_step", "optimizer_step", "on_before_zero_grad")
"""Events between the beginning of a step and its end."""


class TrainingSteps(NamesElsewhere):
    """The part of the trainer that trains on a batch.

    Attributes:
        ranks: the processes that train together.
        network: what is called in place of the model, see `Ranks.wrap`.
        batch_images: images of the current batch, of all processes.
        graphs: the steps recorded as CUDA graphs; None where none are.
        watch: looks for what those can't follow.
    """

    settings: TrainSettings
    ranks: Ranks
    network: nn.Module
    batch_images: int
    batch_size: int
    device: torch.device
    precision: Precision
    num_batches: int
    epoch: int
    batch_index: int
    model: DetectionModel
    loss_fn: Loss
    optimizer: Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    ema: ModelEMA[DetectionModel]
    finite: NonFiniteCheck
    progress: Progress
    graphs: StepGraphs | None
    watch: NetworkWatch
    preds: Any
    loss: Tensor | None
    loss_items: Tensor | None
    grad_norm: Tensor | None

    def can_record_steps(self) -> bool:
        """Return whether steps can be repeated as CUDA graphs: on a GPU, at one size, and often enough in an epoch."""
        return (
            self.settings.cuda_graph
            and not self.ranks.is_group
            and self.device.type == "cuda"
            and self.precision.dtype != torch.float16  # the loss scaler decides on the host
            and not self.settings.multi_scale
            and self.num_batches > WORTHWHILE
        )

    def step(self, batch: Batch) -> None:
        """Forward, backward, and when enough batches are in, clip, optimizer and EMA."""
        progress = self.progress
        progress.in_step = True
        accumulate = self.schedule.apply(self.optimizer, self.epoch, progress.global_step)
        inputs = self.share(*self.to_device(batch))
        if self.graphs is not None and accumulate == 1 and self.is_step_alone():
            self.repeat_step(self.graphs, inputs, batch.paths)
        else:
            self.launch_step(inputs, batch.paths, progress.global_step - progress.last_step >= accumulate)
        assert self.loss_items is not None
        self.meters.add(self.loss_items, self.batch_images)
        self.count_batch()

    def launch_step(self, inputs: tuple[Tensor, Tensor, Tensor], paths: list[str], is_last: bool) -> None:
        """Do a step with its events; the optimizer only if this is the last batch of those that are accumulated."""
        ranks = self.ranks
        with ranks.synchronised(self.network, wanted=is_last):
            self.preds, self.loss, self.loss_items = self.loss_of(*inputs, self.batch_images)
            loss = self.loss
            self.fire("on_loss")
            if self.loss is not loss:
                require_loss(self.loss)
            whole, self.loss_items = ranks.whole_loss(self.loss.detach(), self.loss_items)
            self.finite.check(self.epoch, self.progress.global_step, whole, self.loss_items, paths)
            with ranks.waiting("the gradients of a batch"):
                self.scaler.scale(ranks.scaled(self.loss)).backward()  # type: ignore[no-untyped-call]
        self.loss = whole
        if is_last:
            self.optimizer_step()
            self.progress.last_step = self.progress.global_step

    def repeat_step(
        self, graphs: StepGraphs, inputs: tuple[Tensor, Tensor, Tensor], paths: list[str]
    ) -> None:
        """Do a step without events within it, as a CUDA graph where there is one."""
        constants = self.epoch, constants_of(self.optimizer, self.loss_fn)
        structure = self.watch.structure(self.optimizer)
        self.preds, loss, items, norm = graphs.run(self.learn, inputs, structure, constants)
        self.loss, self.loss_items, self.grad_norm = loss.clone(), items.clone(), norm.clone()
        self.finite.check(self.epoch, self.progress.global_step, self.loss, self.loss_items, paths)
        self.finite.check_gradients(self.epoch, self.grad_norm)
        self.ema.update()
        self.progress.last_step = self.progress.global_step

    def learn(self, images: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Any, Tensor, Tensor, Tensor]:
        """Change the weights by one batch, without a look at the result; arguments as for `loss_of`.

        Gradients from before are dropped.

        Returns:
            The predictions without their history, the loss, its terms and the norm of the gradients.
        """
        self.optimizer.zero_grad()
        preds, loss, items = self.loss_of(images, boxes, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_gradients(self.model.parameters(), self.settings.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        detached = {head: type(found)(*(part.detach() for part in found)) for head, found in preds.items()}
        return detached, loss.detach(), items, norm

    def share(self, images: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Say how many images the current batch has in all processes; one without any gets a placeholder.

        That one has no labels, and counts neither in the loss nor in batch norms.
        """
        if not self.ranks.is_group:
            self.batch_images = len(images)
            return images, boxes, labels
        self.batch_images = self.data.train_loader.images_of(self.batch_index)
        self.ranks.has_share = self.ranks.rank < self.batch_images
        return images, boxes, labels if self.ranks.has_share else torch.full_like(labels, -1)

    def loss_of(
        self, images: Tensor, boxes: Tensor, labels: Tensor, count: int | None = None
    ) -> tuple[Any, Tensor, Tensor]:
        """Return the predictions for images, the loss summed over them, and its terms without a history.

        Where processes share a batch, loss and terms are this one's part, and add up to those of the batch.

        Args:
            images: (B, 3, H, W) float in 0..1, or uint8.
            boxes: (B, M, 4) float, xyxy, input px.
            labels: (B, M) int64, -1 where padded.
            count: images of the batch, of all processes; None for B.
        """
        with self.precision.autocast():
            preds = self.network(self.images_to_device(images) if images.dtype == torch.uint8 else images)
        total, items = self.loss_fn(preds, boxes, labels)
        loss, terms = total.sum() * (count or len(images)), items[self.model.selected_head].detach()
        return (preds, loss, terms) if self.ranks.has_share else (preds, loss * 0, terms * 0)

    def is_step_alone(self) -> bool:
        """Return whether a step begins without gradients and calls no functions of the user within it."""
        called = any(self.callbacks[event] for event in WITHIN_STEP) or self.watch.has_hooks()
        return not called and not self.watch.has_gradients()

    def count_batch(self) -> None:
        """Count a batch that is done, or was left out."""
        progress = self.progress
        progress.global_step += 1
        progress.batches_done = self.batch_index + 1
        progress.in_step = False

    def to_device(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, boxes in input px and labels, on the device; images of another size as floats."""
        settings = self.settings
        images, boxes, labels = (
            part.to(self.device, non_blocking=True) for part in (batch.images, batch.boxes, batch.labels)
        )
        if self.device.type == "cuda":
            boxes, labels = pad_objects(boxes, labels)
        if settings.multi_scale:
            images = self.images_to_device(images)
            images, ratio = resize_batch(
                images,
                sample_side(
                    max(input_hw(settings.imgsz)),
                    settings.multi_scale,
                    settings.seed,
                    self.progress.global_step,
                ),
            )
            boxes = boxes * ratio
        return images, boxes, labels

    def images_to_device(self, images: Tensor) -> Tensor:
        """Return uint8 images in 0..1 on the device."""
        images = images.to(self.device, non_blocking=True)
        return images.to(torch.float32, memory_format=self.precision.layout).mul_(1 / 255)

    def optimizer_step(self) -> None:
        """Clip the gradients, step, clear the gradients, and average the weights."""
        self.scaler.unscale_(self.optimizer)
        if self.callbacks["on_before_optimizer_step"]:
            self.grad_norm = gradient_norm(self.model.parameters())
            self.fire("on_before_optimizer_step")
        same_rates(self.optimizer, self.ranks)
        self.grad_norm = clip_gradients(self.model.parameters(), self.settings.clip_grad)
        if not self.scaler.is_enabled():  # it skips steps whose gradients overflow
            self.finite.check_gradients(self.epoch, self.grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.update()
        self.fire("optimizer_step")
        self.fire("on_before_zero_grad")
        self.optimizer.zero_grad()

    def crowded_loss(self, images: Tensor) -> Tensor:
        """Return the loss of images that hold as many objects as the fullest one of the data; to measure its memory.

        Args:
            images: (B, 3, H, W) float.
        """
        objects = max(self.data.train_annotations.most_objects(), 1)
        boxes = images.new_tensor([0, 0, *images.shape[:1:-1]]).expand(len(images), objects, 4)
        labels = torch.zeros(len(images), objects, dtype=torch.int64, device=images.device)
        return self.loss_of(images, boxes, labels)[1]
