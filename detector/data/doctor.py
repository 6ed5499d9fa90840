"""Find what is wrong with a data set before anything is trained on it: images, labels, splits, sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.boxes import CROWD
from detector.data.annotations import MIN_SIDE, CheckedLabels, check_labels, join_checked
from detector.data.box_faults import (
    SAME_BOX,
    SMALL_SIDE,
    input_sides,
    is_flat,
    is_outside,
    reach_over,
    same_boxes,
)
from detector.data.config import DataConfig, load_data_config
from detector.data.findings import EXAMPLES, Case, Report, Severity
from detector.data.formats.unread import find_unread
from detector.data.formats.yolo import label_path
from detector.data.image_facts import (
    ALPHA,
    CMYK,
    DEEP,
    GREY,
    TURNED,
    UNREAD,
    ImageFacts,
    find_alike,
    look_at,
)
from detector.data.images import MAX_PIXELS
from detector.data.labels import Labels
from detector.data.places import path_exists
from detector.data.scan import reading_once

FEW = 10  # objects of a class in the training split
UNBALANCED = 20  # times as many objects of the most frequent class as of the rarest
LONG = 3.0  # ratio of the sides of an image that is mostly padding in a square input
_Rows = NDArray[np.int64]


@reading_once()
def check(data: str | Path, imgsz: int | Sequence[int] = 640) -> Report:
    """Look at every image and every label of a data set.

    What was read of images is kept in the cache: the next check reads only those that are new or changed.

    Args:
        data: as `train` takes it.
        imgsz: longer side of the input, px, or height and width, that the sizes of objects are compared with.

    Returns:
        What was found.

    Raises:
        DataError: if the data set can't be found, or nothing of it can be read.
    """
    config = load_data_config(data)
    report = Report(config.describe())
    contents: dict[str, tuple[list[str], ImageFacts]] = {}
    counts: dict[str, _Rows] = {}
    for split in config.present_splits():
        labels = config.read_labels(split)
        parts = [check_labels(part, config.names, config.yaml_path.name) for part in labels]
        found = parts[0] if len(parts) == 1 else join_checked(parts)
        facts = look_at(found.paths, found.sizes)
        _look_at_images(report, split, found, facts)
        _look_at_labels(report, split, labels, found)
        _look_at_boxes(report, split, found, imgsz)
        used = found.ids[(found.kinds != CROWD) & (found.ids >= 0) & (found.ids < len(config.names))]
        counts[split] = np.bincount(used, minlength=len(config.names))
        names = {config.names[n]: int(count) for n, count in enumerate(counts[split])}
        report.splits[split] = {"images": len(found.paths), "boxes": len(found.ids), "classes": names}
        contents[split] = found.paths, facts
    _look_at_classes(report, config, counts)
    _look_at_copies(report, contents)
    report.sort()
    return report


# ---- images -------------------------------------------------------------------------------------------


def _look_at_images(report: Report, split: str, found: CheckedLabels, facts: ImageFacts) -> None:
    height, width = found.sizes.T
    paths = found.paths

    def add(severity: Severity, kind: str, mask: NDArray[np.bool_], what: str, sized: bool = False) -> None:
        rows = np.flatnonzero(mask).tolist()
        named = [f"{paths[i]}: {width[i]} x {height[i]} px" if sized else paths[i] for i in rows[:EXAMPLES]]
        cases = [Case(paths[i]) for i in rows[:EXAMPLES]]
        report.add(severity, kind, split, what, named, len(rows), cases)

    broken = height == 0
    missing = broken.copy()
    missing[broken] = [not path_exists(paths[i]) for i in np.flatnonzero(broken)]
    add("error", "image-missing", missing, "images do not exist")
    add("error", "image-unreadable", broken & ~missing, "images can't be decoded")
    add("warning", "image-cut", found.cut, "JPEG files end early; what could be decoded is used")
    small = ~broken & (np.minimum(height, width) < MIN_SIDE)
    add(
        "warning", "image-small", small, f"images have a side below {MIN_SIDE} px and are skipped", sized=True
    )
    large = height * width > MAX_PIXELS
    add(
        "warning", "image-large", large, f"images have over {MAX_PIXELS:,} pixels and are skipped", sized=True
    )
    long = ~broken & (np.maximum(height, width) > LONG * np.minimum(height, width))
    what = f"images are over {LONG:g} times as long as wide: mostly padding"
    add("note", "image-long", long, what, sized=True)
    for kind, (bit, what) in KINDS.items():
        add("note", f"image-{kind}", (facts.kinds & bit) > 0, what)


KINDS = {
    "turned": (TURNED, "images are turned by EXIF, and so they are when they are read"),
    "grey": (GREY, "images are grey: the network gets them as three equal channels"),
    "deep": (DEEP, "images have 16 bits or more per channel, and are read as 8"),
    "alpha": (ALPHA, "images have an alpha channel, which is left out"),
    "cmyk": (CMYK, "images are CMYK, and are converted to RGB"),
}


# ---- labels -------------------------------------------------------------------------------------------


def _look_at_labels(report: Report, split: str, parts: Sequence[Labels], found: CheckedLabels) -> None:
    wrong = list(found.problems.items())
    cases = [Case(found.paths[i]) for i, _ in wrong[:EXAMPLES]]
    report.add(
        "error",
        "label-wrong",
        split,
        "label files have a wrong row",
        [text for _, text in wrong],
        cases=cases,
    )
    missing = [part.paths[i] for part in parts for i in part.missing if path_exists(part.paths[i])]
    report.add(
        "note", "label-missing", split, "images have no label file, so they show no object", missing,
        cases=[Case(path) for path in missing[:EXAMPLES]],
    )  # fmt: skip
    empty = [part.paths[i] for part in parts for i in _without_rows(part)]
    report.add(
        "note", "label-empty", split, "images have labels without an object", empty,
        cases=[Case(path) for path in empty[:EXAMPLES]],
    )  # fmt: skip
    unread = [f"{path} ({why})" for part in parts for path, why in _unread(part)]
    report.add("warning", "label-unread", split, "label files are not read", unread)
    repeated = [(part, i) for part in parts for i in np.flatnonzero(part.repeated).tolist()]
    report.add(
        "warning", "box-repeated", split, "rows repeat another one of their image and are left out",
        [
            f"{part.files[i]}: {part.repeated[i]} rows" if part.names is None else part.paths[i]
            for part, i in repeated[:EXAMPLES]
        ],
        sum(int(part.repeated[i]) for part, i in repeated),
        [Case(part.paths[i]) for part, i in repeated[:EXAMPLES]],
    )  # fmt: skip
    place = {path: i for i, path in enumerate(found.paths)} if any(p.stated_hw.any() for p in parts) else {}
    for part in parts if place else ():
        stated, sizes = part.stated_hw, found.sizes[[place[path] for path in part.paths]]
        differs = (stated[:, 0] > 0) & (sizes[:, 0] > 0) & (stated != sizes).any(1)
        rows = np.flatnonzero(differs).tolist()
        named = [
            f"{part.paths[i]}: {sizes[i, 1]} x {sizes[i, 0]} px, its labels say {stated[i, 1]} x {stated[i, 0]}"
            for i in rows[:EXAMPLES]
        ]
        what = "images have another size than their labels say"
        cases = [Case(part.paths[i]) for i in rows[:EXAMPLES]]
        report.add("warning", "size-differs", split, what, named, len(rows), cases)


def _without_rows(part: Labels) -> list[int]:
    """Return the images whose labels are there, and right, and name no object."""
    is_empty = np.bincount(part.image, minlength=len(part.paths)) == 0
    is_empty[[*part.missing, *part.problems]] = False
    rows: list[int] = np.flatnonzero(is_empty).tolist()
    return rows


def _unread(part: Labels) -> list[tuple[str, str]]:
    is_yolo = (
        part.names is None
        and part.unit == "line"
        and list(map(label_path, part.paths[:1])) == list(part.files[:1])
    )
    return find_unread(part.paths, part.files, part.missing) if is_yolo else []


# ---- boxes --------------------------------------------------------------------------------------------


def _look_at_boxes(report: Report, split: str, found: CheckedLabels, imgsz: int | Sequence[int]) -> None:
    boxes = found.boxes
    flat = is_flat(boxes)
    is_wrong = np.isin(found.image, list(found.problems))  # is said of the file already
    over = reach_over(boxes)
    sides = input_sides(boxes, found.image, found.sizes, imgsz)
    is_object = ~flat & (found.kinds != CROWD)

    def add(
        kind: str, rows: _Rows, what: str, text: Callable[[int], str], others: _Rows | None = None
    ) -> None:
        shown = rows if others is None else np.concatenate([rows, others])
        cases = [
            Case(found.paths[i], tuple(map(tuple, boxes[shown[found.image[shown] == i]].tolist())))
            for i in list(dict.fromkeys(found.image[rows].tolist()))[:EXAMPLES]
        ]
        named = [text(row) for row in range(min(len(rows), EXAMPLES))]
        report.add("warning", kind, split, what, named, len(rows), cases)

    rows = np.flatnonzero(flat & ~is_wrong)
    add("box-flat", rows, "boxes have no area and are left out", lambda n: found.where(int(rows[n])))
    outside = _worst(np.flatnonzero(is_outside(over, found.image, found.sizes) & ~is_wrong), -over)
    add(
        "box-outside", outside, "boxes reach over the edge of their image",
        lambda n: f"{found.where(int(outside[n]))}: by {100 * over[outside[n]]:.3g} % of the image",
    )  # fmt: skip
    tiny = _worst(np.flatnonzero((sides < SMALL_SIDE) & is_object), sides)
    add(
        "box-tiny", tiny, f"boxes are smaller than {SMALL_SIDE} px at imgsz={imgsz}: hardly to be learned",
        lambda n: f"{found.where(int(tiny[n]))}: {sides[tiny[n]]:.2g} px",
    )  # fmt: skip
    usable = np.flatnonzero(is_object)
    pairs = usable[same_boxes(boxes[usable], found.image[usable])]
    is_same_class = found.ids[pairs[:, 0]] == found.ids[pairs[:, 1]]
    for kind, chosen, whose in (
        ("box-twice", is_same_class, "their class"),
        ("box-two-classes", ~is_same_class, "another class"),
    ):
        named = [f"{found.where(b)} and {found.where(a)}" for a, b in pairs[chosen][:EXAMPLES].tolist()]
        what = f"boxes have an IoU over {SAME_BOX} with one of {whose}"
        add(kind, pairs[chosen, 1], what, named.__getitem__, pairs[chosen, 0])


def _worst(rows: _Rows, by: NDArray[np.float64]) -> _Rows:
    """Return rows, those of the lowest values first."""
    return rows[np.argsort(by[rows], kind="stable")]


# ---- splits -------------------------------------------------------------------------------------------


def _look_at_classes(report: Report, config: DataConfig, counts: dict[str, _Rows]) -> None:
    names = [*config.names.values()]
    total = np.sum([*counts.values()], axis=0)
    train = counts["train"].tolist()
    unused = [name for name, count in zip(names, total, strict=True) if not count]
    report.add("note", "class-unused", "", "classes have no object in any split", unused)
    elsewhere = [name for name, here, all_of in zip(names, train, total, strict=True) if all_of and not here]
    report.add("error", "class-untrained", "", "classes have objects, but none to train on", elsewhere)
    few = [f"{name}: {count}" for name, count in zip(names, train, strict=True) if 0 < count < FEW]
    report.add("warning", "class-few", "train", f"classes have fewer than {FEW} objects", few)
    used = sorted((count, name) for name, count in zip(names, train, strict=True) if count)
    if used and used[-1][0] > UNBALANCED * used[0][0]:
        text = f"{used[-1][1]}: {used[-1][0]}, {used[0][1]}: {used[0][0]}"
        what = f"a class has over {UNBALANCED} times the objects of another"
        report.add("note", "class-unbalanced", "train", what, [text])


def _look_at_copies(report: Report, contents: dict[str, tuple[list[str], ImageFacts]]) -> None:
    splits = list(contents)
    paths = [path for found, _ in contents.values() for path in found]
    owner = np.repeat(np.arange(len(splits)), [len(found) for found, _ in contents.values()])
    exact = np.concatenate([facts.contents for _, facts in contents.values()])
    looks = np.concatenate([facts.looks for _, facts in contents.values()])

    def add(severity: Severity, kind: str, split: str, what: str, rows: _Rows, of: _Rows, verb: str) -> None:
        where = "" if split else " ({})"
        named = [
            f"{paths[i]}{where.format(splits[owner[i]])} {verb} {paths[j]}"
            for i, j in zip(rows[:EXAMPLES], of[:EXAMPLES], strict=True)
        ]
        pairs = zip(rows[:EXAMPLES], of[:EXAMPLES], strict=True)
        cases = [Case(paths[k]) for pair in pairs for k in pair]
        report.add(severity, kind, split, what, named, len(rows), cases)

    for number, split in enumerate(splits):
        here = np.flatnonzero((owner == number) & (exact < UNREAD))
        original = here[_first_equal(exact[here])]
        again = original != here
        add(
            "warning", "image-twice", split, "images are copies of another one",
            here[again], original[again], "is",
        )  # fmt: skip
    here = np.flatnonzero(exact < UNREAD)
    original = here[_first_equal(exact[here])]
    leaked = owner[original] != owner[here]
    add(
        "error", "image-in-two-splits", "", "images of one split are copies of another split's",
        here[leaked], original[leaked], "is",
    )  # fmt: skip
    rest = here[~leaked]
    found = [np.zeros((0, 2), np.int64)]
    for number in range(1, len(splits)):
        rows, before = rest[owner[rest] == number], here[owner[here] < number]
        which = find_alike(looks[rows], looks[before])
        found.append(np.stack([rows[which >= 0], before[which[which >= 0]]], 1))
    rows, of = np.concatenate(found).T
    what = "images look nearly like one of another split"
    add("warning", "image-alike-in-two-splits", "", what, rows, of, "looks like")


def _first_equal(values: NDArray[np.uint64]) -> _Rows:
    """Return (n,) the first index at which there is each value."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], np.int64)
