"""Samples by key: (epoch, position) in training, index in validation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.data.annotations import Annotations
from detector.data.augment import Augmentation, sample_augment_params
from detector.data.batch import Batch, Sample, Target, assemble
from detector.data.cache import CacheMode, ImageCache, build_cache
from detector.data.donors import Donors
from detector.data.epochs import EpochOrder
from detector.data.images import COLOUR, PixelFormat, read_image
from detector.data.letterbox import (
    fit_size,
    input_hw,
    letterbox,
    letterbox_geometry,
    rect_shape,
    resize_into,
)
from detector.data.transforms import Transforms
from detector.data.warp import apply_augmentation, to_planes
from detector.errors import DataError

log = logging.getLogger(__name__)


class TrainKey(NamedTuple):
    """Names one training sample.

    Attributes:
        epoch: from 0.
        position: from 0, in the epoch's order.
        mosaic: whether mosaic, copy-paste, mixup and cutmix may happen.
    """

    epoch: int
    position: int
    mosaic: bool = True


Key: TypeAlias = "int | TrainKey"
_REDUCED = ((8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))


class DetectionDataset:
    """Images of one split with their boxes, augmented or letterboxed.

    With an ``augmentation`` the keys are `TrainKey`: position k of an epoch is an image of the
    epoch's own shuffle, and everything random about it follows from (seed, epoch, k). Without one the
    keys are indices, and each image is centred in an input whose shape depends on this image alone, so
    that results do not change with the batch size.

    Args:
        annotations: what to load.
        imgsz: side of the input (of the long side with `rect`), or height and width, px; multiples of 32.
        augmentation: how to vary training samples; None for validation.
        seed: of the run.
        cache: "auto" keeps decoded images in the free memory, as many as fit; "ram" all of them or
            an error; False none.
        rect: validation: pad to the image's own rectangle instead of a square. Training: batches of
            similar aspect ratio, sorted by it, without mosaic, copy-paste, mixup and cutmix.
        rect_batch: images of one batch (over all processes) in rectangular training.
        workers: worker processes that will load; the cache is shared if there are any.
        memory_fraction: share of the free memory that "auto" may use.
        transforms: the user's, of training samples.
        visits: the images of every epoch; by default all of them, once.
        form: what the network takes of an image.

    Attributes:
        channels: C, of an image.

    Raises:
        DataError: there is nothing to learn from, or "ram" does not fit.
    """

    def __init__(
        self,
        annotations: Annotations,
        imgsz: int | Sequence[int],
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cache: CacheMode = "auto",
        rect: bool = False,
        rect_batch: int = 1,
        workers: int = 0,
        memory_fraction: float = 0.25,
        transforms: Transforms | None = None,
        visits: EpochOrder | None = None,
        form: PixelFormat = COLOUR,
    ) -> None:
        self.annotations = annotations
        self.input_hw = input_hw(imgsz)
        self.augmentation = augmentation
        self.seed = seed
        self.rect = rect
        self.rect_batch = rect_batch
        self.transforms = transforms
        self.visits = EpochOrder(annotations) if visits is None else visits
        self.donors = Donors(annotations) if augmentation is not None and augmentation.copy_paste else None
        self.form, self.channels = form, form.channels
        if not len(annotations.labels):
            what = f"none of the {len(annotations)} images has a label"
            if augmentation is not None:
                raise DataError(
                    f"{what}; training needs boxes: are the label files where the format has them?"
                )
            log.warning("%s; the metrics of this validation mean nothing", what)
        self.loaded_hw = np.array([fit_size(size, imgsz) for size in annotations.sizes], np.int64)
        self.cache: ImageCache = build_cache(
            cache, self.loaded_hw, workers > 0, memory_fraction, self.channels
        )
        self._ratios = annotations.sizes[:, 0] / annotations.sizes[:, 1]
        self.by_ratio = np.argsort(self._ratios, kind="stable")
        self._epoch_order: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: Key) -> Sample:
        image = torch.empty((self.channels, *self.shape_of(key)), dtype=torch.uint8)
        return Sample(image, self._fill(key, image.numpy()))

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Load several samples of one shape as a batch."""
        images = torch.empty((len(keys), self.channels, *self.shape_of(keys[0])), dtype=torch.uint8)
        return assemble(images, self.fill(keys, images))

    def fill(self, keys: Sequence[Key], images: Tensor) -> list[Target]:
        """Write samples straight into a batch, (B, C, H, W) uint8, and return the rest of each."""
        return [self._fill(key, out) for key, out in zip(keys, images.numpy(), strict=True)]

    def shape_of(self, key: Key) -> tuple[int, int]:
        """Height and width of a sample, input px."""
        if not self.rect:
            return self.input_hw
        if isinstance(key, TrainKey):
            start = key.position // self.rect_batch * self.rect_batch
            ratios = self._ratios[self.order(key.epoch)[start : start + self.rect_batch]]
            return rect_shape(ratios[0], ratios[-1], self.input_hw, margin=0)
        return rect_shape(self._ratios[key], self._ratios[key], self.input_hw, margin=0.5)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """(len(visits),) int64, the image index at each position of an epoch."""
        if self.rect and self.visits.is_plain:
            return self.by_ratio
        if self._epoch_order is None or self._epoch_order[0] != epoch:
            order = self.visits.draw(self.seed, epoch)
            if self.rect:
                order = order[np.argsort(self._ratios[order], kind="stable")]
            self._epoch_order = epoch, order
        return self._epoch_order[1]

    def load(self, index: int) -> NDArray[Any]:
        """The image resized to fit the input: (H, W, 3) uint8, BGR, or (H, W), grey, not to be written to."""
        image = self.cache.get(index)
        if image is None:
            image = self._decode(index)
            self.cache.put(index, image)
        return image

    def _decode(self, index: int) -> NDArray[Any]:
        height, width = self.loaded_hw[index].tolist()
        full_h, full_w = self.annotations.sizes[index].tolist()
        factor, flag = 1, cv2.IMREAD_COLOR
        if self.augmentation is not None:
            # the JPEG decoder itself can shrink: faster, and smoother than bilinear sampling
            fitting = (pair for pair in _REDUCED if max(full_h, full_w) // pair[0] >= max(height, width))
            factor, flag = next(fitting, (factor, flag))
        path = self.annotations.paths[index]
        try:
            image = read_image(path, flag, quiet=True, form=self.form)
        except DataError as error:
            raise DataError(
                f"{path} can't be read any more; is it damaged, or was it changed or removed meanwhile?"
            ) from error
        rows, columns = (side * factor for side in image.shape[:2])
        if abs(rows - full_h) >= factor or abs(columns - full_w) >= factor:  # shrunken sides are rounded
            raise DataError(
                f"{path} has {columns}x{rows} px; it had {full_w}x{full_h} px when the data set was read. Was it "
                f"changed meanwhile? If not, its EXIF is damaged: save it again without."
            )
        if image.shape[:2] == (height, width):
            return image
        resized = np.empty((height, width, *image.shape[2:]), np.uint8)
        resize_into(image, resized)
        return resized

    def _fill(self, key: Key, out: NDArray[np.uint8]) -> Target:
        """Write the image of a sample into (C, H, W) uint8 and return the rest."""
        if isinstance(key, TrainKey):
            return self._fill_augmented(key, out)
        return self._fill_letterboxed(key, out)

    def _fill_augmented(self, key: TrainKey, out: NDArray[np.uint8]) -> Target:
        assert self.augmentation is not None
        draw = sample_augment_params(
            self.augmentation,
            self.seed,
            key.epoch,
            key.position,
            self.order(key.epoch),
            self.loaded_hw,
            (out.shape[1], out.shape[2]),
            mixes=key.mosaic and not self.rect,
            donors=self.donors,
        )
        boxes, labels = apply_augmentation(draw, self.load, self.annotations, self.loaded_hw, out)
        if self.transforms is not None:
            image = np.ascontiguousarray(out.transpose(1, 2, 0))
            image, boxes, labels = self.transforms(image, boxes, labels, (self.seed, key.epoch, key.position))
            out[...] = image.transpose(2, 0, 1)
        index = draw.geometry.tiles[0].index
        return self._target(index, boxes, labels, (1.0, 1.0), (0.0, 0.0))

    def _fill_letterboxed(self, index: int, out: NDArray[np.uint8]) -> Target:
        image = self.load(index)
        geometry = letterbox_geometry(image.shape[:2], (out.shape[1], out.shape[2]), scale_up=False)
        to_planes(letterbox(image, geometry), out)
        boxes, labels = self.annotations.rows(index)
        (height, width), (left, top) = image.shape[:2], geometry.pad
        centres = boxes[:, :2] * np.array([width, height], np.float32) + np.array([left, top], np.float32)
        halves = boxes[:, 2:] * np.array([width, height], np.float32) / 2
        full_h, full_w = self.annotations.sizes[index].tolist()
        boxes_xyxy = np.concatenate([centres - halves, centres + halves], 1)
        return self._target(index, boxes_xyxy, labels, (width / full_w, height / full_h), (left, top))

    def _target(
        self,
        index: int,
        boxes: NDArray[np.float32],
        labels: NDArray[np.int64],
        ratio: tuple[float, float],
        pad: tuple[float, float],
    ) -> Target:
        height, width = self.annotations.sizes[index].tolist()
        return Target(boxes, labels, self.annotations.paths[index], index, ratio, pad, (height, width))
