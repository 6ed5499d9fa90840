"""Transforms of the user: any callable, torchvision's v2 transforms and albumentations as they are.

They see what the network would see after the settings' augmentation, and are repeatable: before every sample the random
states of Python, NumPy and torch, and albumentations' own, are set from the run's seed, the epoch and the sample's
position in it, and afterwards put back. So a sample does not depend on the process that makes it, on the number of
processes, or on what was made before: a resumed run sees the same samples.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detector.errors import DataError, SettingsError, excerpt, first_line
from detector.files.code import load_attribute

Image = NDArray[np.uint8]
Boxes = NDArray[np.float32]
Ids = NDArray[np.int64]
Transform = Callable[[Image, Boxes, Ids], tuple[Image, Boxes, Ids]]

MIN_SIDE = 1.0  # px of a box that is kept
_STATES = RLock()  # the random states are those of the whole process


class Transforms:
    """Several transforms, one after the other, repeatable.

    Args:
        transforms: each of

            * a callable `(image, boxes, labels) -> (image, boxes, labels)` with an (H, W, 3) uint8 RGB image
              (grey: (H, W, 1)), (N, 4) float32 boxes xyxy in px, and (N,) int64 class ids;
            * a transform of `torchvision.transforms.v2`;
            * a transform of albumentations, alone or a `Compose`, with any `bbox_params`.

    Raises:
        DataError: one of them is none of these.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.names = [name_of(transform) for transform in transforms]
        self._steps = [adapt(transform) for transform in transforms]
        self._seeded = [step.transform for step in self._steps if isinstance(step, _Albumentations)]

    def __call__(
        self, image: Image, boxes: Boxes, labels: Ids, seed: Sequence[int]
    ) -> tuple[Image, Boxes, Ids]:
        """Transform a sample.

        Args:
            image: (H, W, 3) uint8, RGB, or (H, W, 1), grey.
            boxes: (N, 4) float32, xyxy, px.
            labels: (N,) int64.
            seed: whole numbers that tell the sample from all others.

        Returns:
            The same; boxes cut at the edges, without those that have less than a px left.

        Raises:
            DataError: a transform fails, or returns something else.
        """
        with _repeatable(seed, self._seeded):
            for name, step in zip(self.names, self._steps, strict=True):
                try:
                    result = step(image, boxes, labels)
                except Exception as error:
                    raise DataError(
                        f"transforms: {name} failed: {type(error).__name__}: {first_line(error)}"
                    ) from error
                image, boxes, labels = _checked(name, result, image.shape)
        return image, boxes, labels


def as_list(given: Any) -> list[Any]:
    """Return what `transforms=` is given: one, several or none."""
    return [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]


def load_transform(given: Any) -> Any:
    """Return a transform: what a text such as `file.py:name` or `package.module:name` names, or the object itself.

    Raises:
        SettingsError: if it can't be imported.
    """
    if not isinstance(given, str):
        return given
    if ":" not in given:
        raise SettingsError(f"transforms={given}: expected file.py:name or package.module:name")
    return load_attribute(given, f"transforms={given}", SettingsError)


def name_of(transform: Any) -> str:
    """Return what a transform is called: its function's or its class's name."""
    return str(getattr(transform, "__qualname__", type(transform).__qualname__))


def adapt(transform: Any) -> Transform:
    """Return a transform of any kind as a function of image, boxes and labels.

    Raises:
        DataError: it is not callable.
    """
    if not callable(transform):
        raise DataError(
            f"transforms={excerpt(transform, 60)}: expected a callable (image, boxes, labels) -> the same, or a "
            f"transform of torchvision.transforms.v2 or albumentations."
        )
    library = type(transform).__module__.partition(".")[0]
    if library == "torchvision":
        return _Torchvision(transform)
    if library == "albumentations":
        return _Albumentations(transform)
    return transform  # type: ignore[no-any-return]


class _Torchvision:
    """A transform of torchvision's v2: the sample is a dict of tv_tensors."""

    def __init__(self, transform: Any) -> None:
        if ".v2" not in type(transform).__module__:
            raise DataError(
                f"transforms={type(transform).__name__}: torchvision's first transforms don't move boxes; take that of "
                f"torchvision.transforms.v2."
            )
        self.transform = transform

    def __call__(self, image: Image, boxes: Boxes, labels: Ids) -> tuple[Image, Boxes, Ids]:
        from torchvision import tv_tensors

        canvas = (image.shape[0], image.shape[1])
        sample = {
            "image": tv_tensors.Image(torch.from_numpy(image.transpose(2, 0, 1).copy())),
            "boxes": tv_tensors.BoundingBoxes(
                torch.from_numpy(boxes.copy()), format="XYXY", canvas_size=canvas
            ),
            "labels": torch.from_numpy(labels.copy()),
        }
        found = self.transform(sample)
        pixels = found["image"]
        if pixels.is_floating_point():
            raise ValueError(
                f"it returns a {pixels.dtype} image; leave out what converts to floats or normalises"
            )
        return pixels.permute(1, 2, 0).numpy(), found["boxes"].numpy(), found["labels"].numpy()


class _Albumentations:
    """A transform of albumentations; boxes are given as the `bbox_params` of its `Compose` have them."""

    def __init__(self, transform: Any) -> None:
        import albumentations

        def with_boxes(inner: Any) -> Any:
            with warnings.catch_warnings():  # if nothing in it moves boxes
                warnings.simplefilter("ignore", UserWarning)
                params = albumentations.BboxParams("pascal_voc")
                return albumentations.Compose([inner], bbox_params=params)

        transform = copy.deepcopy(transform)  # being wrapped changes it
        processor = getattr(transform, "processors", {}).get("bboxes")
        if processor is None:  # one transform alone, or a `Compose` that was written without boxes
            transform = with_boxes(transform)
            processor = transform.processors["bboxes"]
        self.transform = transform
        self.format = str(processor.params.format)
        self.fields = list(processor.params.label_fields or ())

    def __call__(self, image: Image, boxes: Boxes, labels: Ids) -> tuple[Image, Boxes, Ids]:
        size = np.array([image.shape[1], image.shape[0]] * 2, np.float64)
        given = _to_format(boxes.astype(np.float64).clip(0, size), self.format, size)
        rows = np.arange(len(labels), dtype=np.float64)
        fields = {
            name: rows.tolist() for name in self.fields
        }  # which they don't always leave out with their boxes
        found = self.transform(image=image, bboxes=np.concatenate([given, rows[:, None]], 1), **fields)
        table = np.asarray(found["bboxes"], np.float64)
        table = table.reshape(-1, table.shape[-1] if table.size else 5)
        kept, boxes_out = table[:, 4], table[:, :4]
        after = np.array([found["image"].shape[1], found["image"].shape[0]] * 2, np.float64)
        corners = _from_format(boxes_out, self.format, after)
        return (
            found["image"],
            corners.astype(np.float32),
            labels[kept.astype(np.int64)],
        )


def _to_format(corners: NDArray[np.float64], form: str, size: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = corners[:, :2], corners[:, 2:]
    if form == "coco":
        return np.concatenate([low, high - low], 1)
    if form == "yolo":
        return np.concatenate([(low + high) / 2, high - low], 1) / size
    return corners / size if form == "albumentations" else corners


def _from_format(boxes: NDArray[np.float64], form: str, size: NDArray[np.float64]) -> NDArray[np.float64]:
    first, second = boxes[:, :2], boxes[:, 2:]
    if form == "coco":
        return np.concatenate([first, first + second], 1)
    if form == "yolo":
        return np.concatenate([first - second / 2, first + second / 2], 1) * size
    return boxes * size if form == "albumentations" else boxes


def _checked(name: str, result: Any, shape: tuple[int, ...]) -> tuple[Image, Boxes, Ids]:
    if not isinstance(result, tuple) or len(result) != 3:
        raise DataError(f"transforms: {name} returned {excerpt(result, 60)}; expected (image, boxes, labels)")
    image, boxes, labels = (np.asarray(part) for part in result)
    if image.ndim == 2:  # some libraries drop the axis of a single channel
        image = image[..., None]
    if image.shape != shape or image.dtype != np.uint8:
        raise DataError(
            f"transforms: {name} returned an image of shape {image.shape}, {image.dtype}; expected {shape}, uint8: "
            f"resizing and normalising are done before and after it."
        )
    boxes, labels = boxes.astype(np.float32).reshape(-1, 4), labels.astype(np.int64).reshape(-1)
    if len(boxes) != len(labels) or not np.isfinite(boxes).all():
        raise DataError(
            f"transforms: {name} returned {len(boxes)} boxes and {len(labels)} labels; expected as many, all finite"
        )
    boxes = boxes.clip(0, np.array([shape[1], shape[0]] * 2, np.float32))
    kept = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=MIN_SIDE) >= MIN_SIDE
    return np.ascontiguousarray(image), boxes[kept], labels[kept]


# ---- random states ------------------------------------------------------------------------------------


@contextmanager
def _repeatable(seed: Sequence[int], parts: Sequence[Any]) -> Iterator[None]:
    """Set all random states from a seed, and put back those of the process."""
    words = np.random.SeedSequence(list(seed)).generate_state(4)
    with _STATES:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))
        torch.default_generator.manual_seed(int(words[2]))
        for part in parts:
            part.set_random_seed(int(words[3]))
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])
