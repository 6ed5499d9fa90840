"""The index of a data set: images, their sizes and their boxes, whatever format they came in.

Reading the files once is slow, so what was found is kept in small ``.npz`` files in the user's cache
(`detector.files.folders.cache_dir`). A file's size and times decide whether what is kept still holds; the
folder of the data set is never written to.
"""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from detector.boxes import CROWD, DIFFICULT, OBJECT
from detector.data.images import MAX_PIXELS, measure_image
from detector.data.label_cache import file_stats, label_cache_path, read_label_cache, write_label_cache
from detector.data.labels import NAMED, Labels, report
from detector.data.places import path_exists
from detector.errors import DataError, listed

log = logging.getLogger(__name__)

MIN_SIDE = 10  # image px; smaller images are skipped: enlarged, they show nothing but blur
MAX_THREADS = 16  # that read images; more wait for each other
SLACK = 0.01  # how far a rounded coordinate may lie outside an image, as a part of its side
SLACK_PX = 1.5  # likewise, px: some tools count from 1, or include the last pixel
OVER = 1e-6  # how far a box of numbers with six decimals may reach over the edge it lies on
_T = TypeVar("_T")


@dataclass(frozen=True)
class Ignored:
    """Boxes that evaluation ignores; the arrays are those of `Annotations`.

    Attributes:
        difficult: (N,) bool, which of the split's boxes are difficult.
        offsets: (n + 1,) int64, rows of the groups in image i.
        boxes: (G, 4) float32, cxcywh, normalised, of groups.
        labels: (G,) int64.
    """

    difficult: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Annotations:
    """Images and boxes of one split in flat arrays, cheap to hand to worker processes.

    Attributes:
        paths: n image files.
        sizes: (n, 2) int64, height and width as displayed (EXIF orientation applied), image px.
        offsets: (n + 1,) int64; rows ``offsets[i]:offsets[i + 1]`` belong to image i.
        boxes: (N, 4) float32, cxcywh, normalised.
        labels: (N,) int64.
        names: class names by id.
        skipped: images left out because they can't be read or are too small, or, with `skip`, have wrong labels.
        ignored: what evaluation neither demands nor counts as wrong, if there is anything: groups of objects
            (COCO's crowds), which nothing is trained on, and difficult objects.
        wrong: of the skipped images those whose labels are wrong.
        repeated: rows left out because they repeat another one of their image.
        flat: boxes left out because they have no area.
        clipped: boxes cut at the edge of their image, with `clip`.
    """

    paths: list[str]
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: dict[int, str]
    skipped: int = 0
    ignored: Ignored | None = None
    wrong: int = 0
    repeated: int = 0
    flat: int = 0
    clipped: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    def rows(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Boxes (N, 4) cxcywh normalised and labels (N,) of one image, as views."""
        start, stop = self.offsets[index], self.offsets[index + 1]
        return self.boxes[start:stop], self.labels[start:stop]

    def truth(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.uint8]]:
        """Boxes (M, 4), labels (M,) and kinds (M,) of one image for evaluation: `rows` and the groups of objects."""
        boxes, labels = self.rows(index)
        if self.ignored is None:
            return boxes, labels, np.full(len(labels), OBJECT, np.uint8)
        difficult = self.ignored.difficult[self.offsets[index] : self.offsets[index + 1]]
        start, stop = self.ignored.offsets[index], self.ignored.offsets[index + 1]
        kinds = np.where(difficult, DIFFICULT, OBJECT), np.full(stop - start, CROWD)
        return (
            np.concatenate([boxes, self.ignored.boxes[start:stop]]),
            np.concatenate([labels, self.ignored.labels[start:stop]]),
            np.concatenate(kinds).astype(np.uint8),
        )

    def subset(self, chosen: NDArray[np.bool_]) -> Annotations:
        """Return the annotations of some of the images, (n,) bool."""

        def rows_of(part: Annotations | Ignored) -> tuple[NDArray[np.bool_], dict[str, Any]]:
            counts = np.diff(part.offsets)
            rows = np.repeat(chosen, counts)
            offsets = np.concatenate([[0], np.cumsum(counts[chosen])])
            return rows, {"offsets": offsets, "boxes": part.boxes[rows], "labels": part.labels[rows]}

        rows, own = rows_of(self)
        ignored = None
        if self.ignored is not None:
            ignored = Ignored(self.ignored.difficult[rows], **rows_of(self.ignored)[1])
        paths = [path for path, kept in zip(self.paths, chosen, strict=True) if kept]
        return replace(self, paths=paths, sizes=self.sizes[chosen], ignored=ignored, **own)

    def most_objects(self) -> int:
        """Boxes of the image that has the most."""
        return int(np.diff(self.offsets).max(initial=0))

    def class_counts(self) -> NDArray[np.int64]:
        """(C,) boxes of each class."""
        return np.bincount(self.labels, minlength=len(self.names))

    def fingerprint(self) -> dict[str, int | str]:
        """Return the numbers of images and boxes, and SHA-256 of all names, sizes and labels.

        File names are taken relative to their common folder, so that a data set may move; images count by
        their sizes in px and bytes.
        """
        folder = os.path.commonpath([Path(path).parent for path in self.paths]) if self.paths else ""
        total = hashlib.sha256("\0".join(os.path.relpath(path, folder) for path in self.paths).encode())
        for part in (self.sizes, self.offsets, self.boxes, self.labels, file_stats(self.paths)[:, 0]):
            total.update(np.ascontiguousarray(part).tobytes())
        return {"images": len(self), "boxes": len(self.labels), "sha256": total.hexdigest()}


def build_annotations(
    labels: Labels | Sequence[Labels],
    names: Mapping[int, str],
    source: str = "the data file",
    single_cls: bool = False,
    classes: Collection[int] | None = None,
    skip: bool = False,
    clip: bool = False,
) -> Annotations:
    """Check what was read of label files, and put it together with the sizes of the images.

    Images that can't be decoded or have a side below 10 px are skipped with a warning. Labels are
    not forgiven: every file with a wrong row is reported, because training on the rest would be
    training on another data set. Rows that repeat another row of their image, and boxes without
    area, are left out, the latter with a warning.

    Args:
        labels: from a reader, or from several: then images are sorted, and one in several of them counts once.
        names: class names by id, 0 to C - 1.
        source: what named the classes, for messages (``coco8.yaml``).
        single_cls: every class becomes class 0, called "item"; ids are not compared with ``names``.
        classes: keep only boxes of these ids.
        skip: leave out images whose labels are wrong, with a warning, in place of raising.
        clip: cut boxes at the edges of their image, however far they reach over them.

    Raises:
        DataError: a label file has a wrong row, or no image can be used.
    """
    parts = [labels] if isinstance(labels, Labels) else list(labels)
    checked = [check_labels(part, names, source, single_cls, lenient=skip, clip=clip) for part in parts]
    problems = [problem for part in checked for problem in part.problems.values()]
    if problems and not skip:
        raise DataError(report(problems))
    found = checked[0] if len(checked) == 1 else join_checked(checked)
    _name_cut(found.paths, found.cut)
    keep_image = usable_images(found.paths, found.sizes)
    is_wrong = np.isin(np.arange(len(found.paths)), list(found.problems))
    wrong = int((keep_image & is_wrong).sum())
    if problems:
        keep_image &= ~is_wrong
        if not keep_image.any():
            raise DataError(f"no image is left without wrong labels; {report(problems)}")
        log.warning("%d images are left out, as their labels are wrong: %s", len(problems), listed(problems))

    keep = keep_image[found.image]
    flat = keep & (found.boxes[:, 2:].min(1, initial=1) <= 0)
    if flat.any():
        where = [found.where(row) for row in np.flatnonzero(flat).tolist()]
        log.warning("%d boxes without area are left out: %s", len(where), listed(where))
        keep &= ~flat
    if classes is not None:
        keep &= np.isin(found.ids, list(classes))
    group = keep & (found.kinds == CROWD)
    keep &= ~group
    difficult = found.kinds[keep] == DIFFICULT
    ids = np.zeros_like(found.ids) if single_cls else found.ids

    def flat_rows(chosen: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        counts = np.bincount(found.image[chosen], minlength=len(found.paths))[keep_image]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return {"offsets": offsets, "boxes": found.boxes[chosen].astype(np.float32), "labels": ids[chosen]}

    return Annotations(
        paths=[path for path, kept in zip(found.paths, keep_image, strict=True) if kept],
        sizes=found.sizes[keep_image],
        **flat_rows(keep),
        names={0: "item"} if single_cls else dict(names),
        skipped=int((~keep_image).sum()),
        ignored=Ignored(difficult, **flat_rows(group)) if group.any() or difficult.any() else None,
        wrong=wrong,
        repeated=int(sum(part.repeated.sum() for part in parts)),
        flat=int(flat.sum()),
        clipped=int((found.clipped & keep_image[found.image] & ~flat).sum()),
    )


@dataclass(frozen=True)
class CheckedLabels:
    """`Labels` with class ids of the data set, boxes as cxcywh, normalised, and the sizes of the images.

    Attributes:
        cut: (n,) bool, whether an image is a JPEG that ends early.
        clipped: (N,) bool, whether a box was cut at the edge of its image.
        The others are those of `Labels` and `Annotations`.
    """

    paths: list[str]
    sizes: NDArray[np.int64]
    cut: NDArray[np.bool_]
    image: NDArray[np.int64]
    ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    kinds: NDArray[np.uint8]
    where: Callable[[int], str]
    problems: dict[int, str]
    clipped: NDArray[np.bool_]


def check_labels(
    labels: Labels,
    names: Mapping[int, str],
    source: str,
    single_cls: bool = False,
    lenient: bool = True,
    clip: bool = False,
) -> CheckedLabels:
    """Compare what was read of label files with the names of the classes and the sizes of the images.

    Args:
        labels: from a reader.
        names: class names by id.
        source: what named the classes, for messages.
        single_cls: ids are not compared with `names`.
        lenient: measure the images even if the labels are wrong.
        clip: cut boxes at the edges of their image in place of calling those wrong that reach far over them.
    """
    if labels.own_names is None:
        ids, problems = _class_ids(labels, names, source, single_cls)
    else:
        own = dict(enumerate(labels.own_names))
        ids, problems = _class_ids(labels, own, labels.own_source, single_cls)
        ids = _ids_by_name(ids, own, names)
    sizes, boxes = np.zeros((len(labels.paths), 2), np.int64), labels.boxes
    cut, clipped = np.zeros(len(labels.paths), bool), np.zeros(len(ids), bool)
    if (
        labels.in_pixels or not problems or lenient
    ):  # else nothing more can be wrong, and images are slow to read
        sizes, cut = measure_files(labels.paths)
    if labels.in_pixels:
        boxes = _as_parts(labels, sizes, problems, clip)
    if clip:
        boxes, clipped = clip_boxes(boxes)
    messages = {index: f"{labels.files[index]} {problems[index]}" for index in sorted(problems)}
    return CheckedLabels(
        labels.paths, sizes, cut, labels.image, ids, boxes, labels.kinds, labels.where, messages, clipped
    )


def join_checked(parts: Sequence[CheckedLabels]) -> CheckedLabels:
    """Join several, images sorted; of an image that is in several the first counts."""
    place: dict[str, tuple[int, int]] = {}
    for number, part in enumerate(parts):
        for index, path in enumerate(part.paths):
            place.setdefault(path, (number, index))
    if repeated := sum(len(part.paths) for part in parts) - len(place):
        log.warning("%d images are in several sources of labels; the first counts", repeated)
    paths = sorted(place)
    new = [np.full(len(part.paths), -1, np.int64) for part in parts]
    for position, path in enumerate(paths):
        number, index = place[path]
        new[number][index] = position
    kept = [np.flatnonzero(new[number][part.image] >= 0) for number, part in enumerate(parts)]
    image = np.concatenate(
        [new[n][part.image[rows]] for n, (part, rows) in enumerate(zip(parts, kept, strict=True))]
    )
    order = np.argsort(image, kind="stable")
    owner = np.repeat(np.arange(len(parts)), [len(rows) for rows in kept])[order]
    row = np.concatenate(kept)[order]

    def gather(name: str) -> Any:
        values = [getattr(part, name)[rows] for part, rows in zip(parts, kept, strict=True)]
        return np.concatenate(values)[order]

    return CheckedLabels(
        paths,
        np.stack([parts[place[path][0]].sizes[place[path][1]] for path in paths]),
        np.array([parts[place[path][0]].cut[place[path][1]] for path in paths], bool),
        image[order],
        gather("ids"),
        gather("boxes"),
        gather("kinds"),
        lambda index: parts[owner[index]].where(int(row[index])),
        {
            int(new[n][i]): text
            for n, part in enumerate(parts)
            for i, text in part.problems.items()
            if new[n][i] >= 0
        },
        gather("clipped"),
    )


def _class_ids(
    labels: Labels, names: Mapping[int, str], source: str, single_cls: bool
) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Return the (N,) class ids of the rows, by name where the files name classes, and what is wrong, by file."""
    problems = dict(labels.problems)
    if labels.names is None:
        ids = labels.classes
        wrong = ids >= len(names)
        known = f"{source} names {len(names)} classes (0-{len(names) - 1})."
    else:
        by_name = {name: number for number, name in names.items()}
        ids = np.array([by_name.get(name, -1) for name in labels.names], np.int64)[labels.classes]
        wrong = ids < 0
        known = f"{source} names {', '.join(list(names.values())[:NAMED])}."
    if not single_cls:
        for row in np.flatnonzero(wrong).tolist():
            number = labels.classes[row]
            what = number if labels.names is None else repr(labels.names[number])
            text = f"{labels.unit} {labels.place[row]}: class {what}, but {known}"
            problems.setdefault(int(labels.image[row]), text)
    return ids, problems


def _ids_by_name(
    ids: NDArray[np.int64], own: Mapping[int, str], names: Mapping[int, str]
) -> NDArray[np.int64]:
    """Turn class ids of one data set into those of joined ones; -1 for ids that it has no name of."""
    by_name = {name: number for number, name in names.items()}
    new = np.array([*(by_name[name] for name in own.values()), -1], np.int64)
    found: NDArray[np.int64] = new[np.where((ids >= 0) & (ids < len(own)), ids, -1)]
    return found


def clip_boxes(boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Cut (N, 4) cxcywh, normalised, at the edges of their images.

    Returns:
        The boxes, those that are inside with all their bits, and (N,) whether a box was cut. Six decimals, as label
        files have them, may reach over an edge by a millionth.
    """
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    over = np.asarray((np.maximum(-low, high - 1) > OVER).any(1))
    low, high = low.clip(0, 1), high.clip(0, 1)
    return np.where(over[:, None], np.concatenate([(low + high) / 2, high - low], 1), boxes), over


def _as_parts(
    labels: Labels, sizes: NDArray[np.int64], problems: dict[int, str], clip: bool
) -> NDArray[np.float64]:
    """Convert boxes in px to cxcywh as parts of an image; `problems` gets what is far outside.

    With `clip` it gets only boxes that end before they begin.
    """
    hw = np.where(labels.stated_hw > 0, labels.stated_hw, sizes)[labels.image]
    scale = np.maximum(hw[:, [1, 0, 1, 0]], 1)
    corners, slack = labels.boxes / scale, np.maximum(SLACK, SLACK_PX / scale)
    outside = np.asarray(((corners < -slack) | (corners > 1 + slack)).any(1))
    reversed_ = (corners[:, 2:] < corners[:, :2]).any(1)
    wrong = reversed_ if clip else outside | reversed_
    for row in np.flatnonzero(wrong & (hw[:, 0] > 0)).tolist():
        box, (height, width) = ", ".join(f"{value:g}" for value in labels.boxes[row]), hw[row].tolist()
        text = f"{labels.unit} {labels.place[row]}: corners {box} are not those of a box in {width} x {height} px."
        problems.setdefault(int(labels.image[row]), text)
    low, high = corners[:, :2], corners[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], 1)


def _name_cut(paths: Sequence[str], cut: NDArray[np.bool_]) -> None:
    if cut.any():
        names = [paths[i] for i in np.flatnonzero(cut).tolist()]
        log.warning("%d JPEG files end early; what could be decoded is used: %s", len(names), listed(names))


def measure_files(paths: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Read the size of every image once; later calls read only files that are new or changed.

    Usually the header is enough. Files that may be damaged, such as a PNG with a wrong checksum or a JPEG
    without an end, are decoded, so that broken files are known before training.

    Args:
        paths: image files.

    Returns:
        (n, 2) int64, height and width with EXIF orientation applied, image px; (0, 0) where the file
        can't be decoded; images of more than `MAX_PIXELS` are not decoded, theirs are as stored. And (n,) bool,
        whether the file is a JPEG that ends early.
    """
    stats = file_stats(paths)
    place = label_cache_path("images", paths)
    known = read_label_cache(
        place, {"stats": (len(paths), 3), "sizes": (len(paths), 2), "cut": (len(paths),)}
    )
    sizes, cut = np.zeros((len(paths), 2), np.int64), np.zeros(len(paths), bool)
    todo = np.ones(len(paths), bool)
    if known is not None:
        todo = (known["stats"] != stats).any(1)
        sizes[~todo], cut[~todo] = known["sizes"][~todo], known["cut"][~todo]
    if todo.any():
        indices = np.flatnonzero(todo).tolist()
        with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
            warnings.filterwarnings("error", module=r"PIL\.")  # on damaged EXIF: then the image is decoded
            found = _progress(pool.map(measure_image, [paths[i] for i in indices]), len(indices))
            for index, (height, width, is_cut) in zip(indices, found, strict=True):
                sizes[index], cut[index] = (height, width), is_cut
        write_label_cache(place, stats=stats, sizes=sizes, cut=cut)
    return sizes, cut


def usable_images(paths: Sequence[str], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the images to use, with one warning that names those that can't be.

    Args:
        paths: n image files.
        sizes: (n, 2) int64 from `measure_files`.

    Returns:
        (n,) bool.

    Raises:
        DataError: no image is left.
    """
    keep: NDArray[np.bool_] = (sizes.min(1, initial=2**31) >= MIN_SIDE) & (sizes.prod(1) <= MAX_PIXELS)
    if not keep.all():
        skipped = np.flatnonzero(~keep).tolist()
        named = listed([f"{paths[i]} ({_why_unusable(paths[i], *sizes[i].tolist())})" for i in skipped])
        if not keep.any():
            raise DataError(f"no image can be used, of {len(paths)} not one: {named}.")
        log.warning("%d of %d images are skipped: %s", len(skipped), len(paths), named)
    elif not len(paths):
        raise DataError("no images were given; the data set needs at least one.")
    return keep


def _why_unusable(path: str, height: int, width: int) -> str:
    if height == 0:
        return "can not be decoded" if path_exists(path) else "does not exist"
    return f"{width}x{height} px, " + (
        f"over {MAX_PIXELS:,} pixels" if height * width > MAX_PIXELS else f"a side below {MIN_SIDE} px"
    )


def _progress(items: Iterable[_T], total: int) -> Iterable[_T]:
    if total < 2000:  # done before a bar would help
        return items
    from tqdm import tqdm

    return tqdm(items, total=total, desc="checking images", unit="", disable=None)
