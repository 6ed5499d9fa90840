"""Which objects `copy_paste` copies into other images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.data.annotations import Annotations


class Donors:
    """The objects of a split that may be copied into other images, rare classes first.

    A class is drawn with probability proportional to 1 / sqrt(n), n its objects in the split: of two classes the
    rarer one is pasted more often. Ghiasi et al., Simple Copy-Paste (arXiv:2012.07177, section 3), draw images
    without looking at classes. Difficult objects and groups of objects are not copied.

    Args:
        annotations: of the training split.

    Attributes:
        probabilities: (C,) float64, of the classes; 0 for those without an object to copy.
    """

    def __init__(self, annotations: Annotations) -> None:
        labels, ignored = annotations.labels, annotations.ignored
        self._image = np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets))
        self._offsets = annotations.offsets
        self._labels = labels if ignored is None else np.where(ignored.difficult, -1, labels)
        counts = np.bincount(self._labels + 1, minlength=len(annotations.names) + 1)[1:]
        by_class = np.argsort(self._labels, kind="stable")
        self._by_class = by_class[len(by_class) - counts.sum() :]
        self._ends = np.cumsum(counts)
        weights = np.where(counts > 0, np.maximum(counts, 1) ** -0.5, 0.0)
        self.probabilities: NDArray[np.float64] = weights / max(weights.sum(), 1e-9)
        self._totals = np.cumsum(self.probabilities)

    def near(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return all rows of some images' boxes, (M,) int64."""
        starts, counts = self._offsets[images], self._offsets[images + 1] - self._offsets[images]
        ends = np.cumsum(counts)
        rows: NDArray[np.int64] = np.repeat(starts - (ends - counts), counts) + np.arange(counts.sum())
        return rows

    def choose(self, by: tuple[float, float], near: NDArray[np.int64], own: int) -> int | None:
        """Choose an object of another image.

        Args:
            by: two numbers, uniform in 0..1: they decide the class and the object.
            near: rows that are tried first, as from `near` of images that were loaded a moment ago. Only for a
                class that they don't have, all objects of the split count: rare classes are reached, and
                common ones cost no reading of a file.
            own: the image that is pasted into.

        Returns:
            A row of the split's boxes; None if no other image has an object of the class.
        """
        if not len(self._by_class):
            return None
        label = int(np.searchsorted(self._totals, by[0] * self._totals[-1], side="right"))
        everywhere = self._by_class[self._ends[label - 1] if label else 0 : self._ends[label]]
        for rows in (near[self._labels[near] == label], everywhere):
            others = rows[self._image[rows] != own]
            if len(others):
                return int(others[int(by[1] * len(others))])
        return None

    def place(self, row: int) -> tuple[int, int]:
        """Return the image of a row of the split's boxes, and its row in that image."""
        index = int(self._image[row])
        return index, row - int(self._offsets[index])
