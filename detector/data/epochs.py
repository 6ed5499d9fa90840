"""The images of every epoch, in order."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from detector.data.annotations import Annotations
from detector.data.augment import epoch_order, generator

log = logging.getLogger(__name__)


class EpochOrder:
    """The images of any epoch, in order: a function of the seed and the epoch.

    Plain, an epoch visits every image once. All epochs have the same number of images.

    With ``balance`` images of rare classes are visited more often, and the others less often, so that an epoch
    keeps its length. On average image i is visited k r_i / sum(r) times, with k the images that have objects and r
    from `repeat_factors`; in one epoch it is that number rounded up or down, by systematic sampling: the images,
    shuffled, lie end to end on a line, each as long as its number, and a comb of points one apart, with a random
    offset, says how often each is visited.

    With ``background`` an epoch has as many images without objects as make up that share of it at most, drawn
    for every epoch.

    Args:
        annotations: of the training split.
        balance: the threshold t of `repeat_factors`; 0 = off.
        background: maximum share of images without objects in an epoch, 0..1; None = all of them.

    Attributes:
        factors: (k,) float64, the repeat factor of each image with objects; None if all are equal, as without
            ``balance``.
    """

    def __init__(
        self, annotations: Annotations, balance: float = 0.0, background: float | None = None
    ) -> None:
        has_objects = np.diff(annotations.offsets) > 0
        self._total = len(annotations)
        self._with, self._without = np.flatnonzero(has_objects), np.flatnonzero(~has_objects)
        self._backgrounds = wanted = len(self._without)
        if background is not None and background < 1:
            wanted = int(len(self._with) * background / (1 - background) + 1e-9)
            self._backgrounds = min(wanted, len(self._without))
        if background is not None:
            self._describe_background(background, wanted)
        self.factors = None
        if balance:
            factors = repeat_factors(annotations, balance)[self._with]
            self.factors = factors if np.unique(factors).size > 1 else None
            self._describe_balance(balance)

    def __len__(self) -> int:
        return len(self._with) + self._backgrounds

    @property
    def is_plain(self) -> bool:
        """Whether every epoch visits each image once."""
        return self.factors is None and len(self) == self._total

    def draw(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """(len(self),) int64, the image index at each position of an epoch."""
        if self.is_plain:
            return epoch_order(seed, epoch, self._total)
        rng = generator(seed, epoch, 0, purpose=4)
        objects = self._with
        if self.factors is not None:
            shuffled = rng.permutation(len(objects))
            ends = np.cumsum(self.factors[shuffled])
            ends *= len(objects) / ends[-1]
            ends[-1] = len(objects)  # exactly
            visits: NDArray[np.int64] = np.diff(np.floor(ends + rng.random()), prepend=0).astype(np.int64)
            objects = np.repeat(objects[shuffled], visits)
        backgrounds = rng.permutation(self._without)[: self._backgrounds]
        return rng.permutation(np.concatenate([objects, backgrounds]))

    def _describe_background(self, background: float, wanted: int) -> None:
        share = self._backgrounds / max(len(self), 1)
        text = (
            f"background={background:g}: {self._backgrounds} of the {len(self)} images per epoch ({share:.1%}) "
            "have no objects"
        )
        if len(self._without) < wanted or not len(self._without):
            log.warning("%s, as the training split has only these", text)
        else:
            log.info("%s, drawn from %d", text, len(self._without))

    def _describe_balance(self, balance: float) -> None:
        if self.factors is None:
            log.warning(
                "balance=%g changes nothing: no class is rarer than that, or all images have one", balance
            )
            return
        low, high = ((self.factors.min(), self.factors.max()) / self.factors.mean()).tolist()
        log.info(
            "balance=%g: an image is visited %.2f to %.2f times per epoch on average", balance, low, high
        )


def repeat_factors(annotations: Annotations, threshold: float) -> NDArray[np.float64]:
    """How often to show each image, relative to the others, so that rare classes are seen.

    r(c) = max(1, sqrt(t / f(c))) for a class in the part f of the images, and the largest r(c) of its classes for
    an image; Gupta et al., LVIS (arXiv:1908.03195, "repeat factor sampling", after Mahajan et al.,
    arXiv:1805.00932). Images without objects don't count for f, and have the factor 1.

    Args:
        annotations: images and their labels.
        threshold: t, 0..1; classes in a smaller part of the images are repeated.

    Returns:
        (n,) float64, >= 1.
    """
    labels, count = annotations.labels, len(annotations)
    classes = int(labels.max(initial=0)) + 1
    image = np.repeat(np.arange(count), np.diff(annotations.offsets))
    pairs = np.unique(image * classes + labels)  # each class of an image once
    image, label = pairs // classes, pairs % classes
    share = np.bincount(label, minlength=classes) / max(len(np.unique(image)), 1)
    factors = np.ones(count)
    np.maximum.at(factors, image, np.sqrt(threshold / share[label]))
    return factors
