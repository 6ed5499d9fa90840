"""Find what is wrong with a data set before anything is trained on it: images, labels, splits, sizes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from detector.data.annotations import (
    MIN_SIDE,
    CheckedLabels,
    check_labels,
    join_checked,
    measure_images,
)
from detector.data.config import DataConfig, load_data_config
from detector.data.formats.unread import find_unread
from detector.data.formats.yolo import label_path
from detector.data.holdout import image_hashes, near_groups
from detector.data.images import MAX_PIXELS
from detector.data.labels import Labels
from detector.data.places import path_exists
from detector.tables import align

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
EXAMPLES = 5  # of each finding
MAX_THREADS = 16
SMALL_SIDE = 4  # px of the input: half the finest stride; smaller objects are hardly learned
SAME_BOX = 0.95  # IoU from which two boxes of an image count as one
FEW = 10  # objects of a class in the training split
UNBALANCED = 20  # times as many objects of the most frequent class as of the rarest
LONG = 3.0  # ratio of the sides of an image that is mostly padding in a square input


@dataclass(frozen=True)
class Finding:
    """One kind of fault, or of what is worth knowing.

    Attributes:
        severity: "error": training ends or its metrics mean nothing; "warning": probably a mistake; "note".
        kind: a word of its own, the same in every version: "image-unreadable".
        split: where it was found, or "" for all.
        what: a sentence.
        count: of files or boxes.
        examples: the first ones, with file and line.
    """

    severity: Severity
    kind: str
    split: str
    what: str
    count: int
    examples: list[str]


@dataclass
class Report:
    """What was found in a data set.

    Attributes:
        data: its description.
        splits: split -> images, boxes, boxes per class name.
        findings: errors first.
    """

    data: str
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def has_errors(self) -> bool:
        """Whether there is anything that a training would end with, or that makes its metrics mean nothing."""
        return any(finding.severity == "error" for finding in self.findings)

    def add(
        self,
        severity: Severity,
        kind: str,
        split: str,
        what: str,
        examples: Sequence[str],
        count: int | None = None,
    ) -> None:
        """Add a finding, unless there are no cases of it."""
        number = len(examples) if count is None else count
        if number:
            self.findings.append(Finding(severity, kind, split, what, number, list(examples[:EXAMPLES])))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as `--json` prints it."""
        return asdict(self)

    def table(self) -> str:
        """Return the splits and the findings as text."""
        rows = [["split", "images", "boxes"]]
        rows += [[split, str(found["images"]), str(found["boxes"])] for split, found in self.splits.items()]
        lines = [self.data, "", align(rows), ""]
        for finding in self.findings:
            where = f"{finding.split}: " if finding.split else ""
            lines.append(f"{finding.severity:<8} {finding.count:>7}  {where}{finding.what}")
            lines += [f"{'':<18}{example}" for example in finding.examples]
        if not self.findings:
            lines.append("nothing was found that is wrong")
        return "\n".join(lines)


def check(data: str | Path, imgsz: int = 640) -> Report:
    """Look at every image and every label of a data set.

    Args:
        data: as `train` takes it.
        imgsz: input side, px, that the sizes of objects are compared with.

    Returns:
        What was found.

    Raises:
        DataError: if the data set can't be found, or nothing of it can be read.
    """
    config = load_data_config(data)
    report = Report(config.describe())
    contents: dict[str, tuple[list[str], NDArray[np.uint64], NDArray[np.uint64]]] = {}
    counts: dict[str, NDArray[np.int64]] = {}
    for split in config.present_splits():
        labels = config.read_labels(split)
        parts = [check_labels(part, config.names, config.yaml_path.name) for part in labels]
        found = parts[0] if len(parts) == 1 else join_checked(parts)
        _look_at_images(report, split, found)
        _look_at_labels(report, split, labels, found)
        _look_at_boxes(report, split, found, imgsz)
        counts[split] = np.bincount(found.ids[found.ids >= 0], minlength=len(config.names))[
            : len(config.names)
        ]
        names = {config.names[n]: int(count) for n, count in enumerate(counts[split])}
        report.splits[split] = {"images": len(found.paths), "boxes": len(found.ids), "classes": names}
        contents[split] = found.paths, *image_hashes(found.paths)
    _look_at_classes(report, config, counts)
    _look_at_copies(report, contents)
    report.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return report


# ---- images -------------------------------------------------------------------------------------------


def _look_at_images(report: Report, split: str, found: CheckedLabels) -> None:
    height, width = found.sizes.T
    paths = found.paths
    broken = [paths[i] for i in np.flatnonzero(height == 0)]
    missing = [path for path in broken if not path_exists(path)]
    report.add("error", "image-missing", split, "images do not exist", missing)
    report.add(
        "error",
        "image-unreadable",
        split,
        "images can't be decoded",
        [p for p in broken if p not in set(missing)],
    )
    is_there = height > 0
    small = is_there & (np.minimum(height, width) < MIN_SIDE)
    named = [f"{paths[i]}: {width[i]} x {height[i]} px" for i in np.flatnonzero(small)]
    report.add(
        "warning", "image-small", split, f"images have a side below {MIN_SIDE} px and are skipped", named
    )
    large = height * width > MAX_PIXELS
    named = [f"{paths[i]}: {width[i]} x {height[i]} px" for i in np.flatnonzero(large)]
    report.add(
        "warning", "image-large", split, f"images have over {MAX_PIXELS:,} pixels and are skipped", named
    )
    ratio = np.maximum(height, width) / np.maximum(np.minimum(height, width), 1)
    named = [f"{paths[i]}: {width[i]} x {height[i]} px" for i in np.flatnonzero(is_there & (ratio > LONG))]
    report.add(
        "note", "image-long", split, f"images are over {LONG:g} times as long as wide: mostly padding", named
    )
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        kinds = list(pool.map(_kinds_of, paths))
    for kind, what in KINDS.items():
        report.add(
            "note", f"image-{kind}", split, what, [p for p, k in zip(paths, kinds, strict=True) if kind in k]
        )


KINDS = {
    "turned": "images are turned by EXIF, and so they are when they are read",
    "grey": "images are grey: the network gets them as three equal channels",
    "deep": "images have 16 bits or more per channel, and are read as 8",
    "alpha": "images have an alpha channel, which is left out",
    "cmyk": "images are CMYK, and are converted to RGB",
}


def _kinds_of(path: str) -> set[str]:
    try:
        with Image.open(path) as image:
            mode, turned = image.mode, image.getexif().get(ExifTags.Base.Orientation, 1)
    except (
        Exception
    ):  # Pillow raises what it likes of damaged files; whether they decode is looked at elsewhere
        return set()
    found = {"turned"} if turned in range(2, 9) else set()
    if mode.startswith("I") or mode == "F":
        found |= {"deep", "grey"}
    if mode in ("1", "L", "LA"):
        found.add("grey")
    if mode in ("LA", "RGBA", "PA"):
        found.add("alpha")
    if mode == "CMYK":
        found.add("cmyk")
    return found


# ---- labels -------------------------------------------------------------------------------------------


def _look_at_labels(report: Report, split: str, parts: Sequence[Labels], found: CheckedLabels) -> None:
    report.add("error", "label-wrong", split, "label files have a wrong row", list(found.problems.values()))
    missing = [part.paths[i] for part in parts for i in part.missing if path_exists(part.paths[i])]
    report.add("note", "label-missing", split, "images have no label file, so they show no object", missing)
    unread = [f"{path} ({why})" for part in parts for path, why in _unread(part)]
    report.add("warning", "label-unread", split, "label files are not read", unread)
    repeated = [
        (
            f"{part.files[i]}: {part.repeated[i]} rows" if part.names is None else part.paths[i],
            int(part.repeated[i]),
        )
        for part in parts
        for i in np.flatnonzero(part.repeated).tolist()
    ]
    report.add(
        "warning", "box-repeated", split, "rows repeat another one of their image and are left out",
        [where for where, _ in repeated], sum(count for _, count in repeated),
    )  # fmt: skip
    for part in parts:
        stated = part.stated_hw
        sizes = measure_images(part.paths)
        differs = (stated[:, 0] > 0) & (sizes[:, 0] > 0) & (stated != sizes).any(1)
        named = [
            f"{part.paths[i]}: {sizes[i, 1]} x {sizes[i, 0]} px, its labels say {stated[i, 1]} x {stated[i, 0]}"
            for i in np.flatnonzero(differs)
        ]
        report.add("warning", "size-differs", split, "images have another size than their labels say", named)


def _unread(part: Labels) -> list[tuple[str, str]]:
    is_yolo = (
        part.names is None
        and part.unit == "line"
        and list(map(label_path, part.paths[:1])) == list(part.files[:1])
    )
    return find_unread(part.paths, part.files, part.missing) if is_yolo else []


# ---- boxes --------------------------------------------------------------------------------------------


def _look_at_boxes(report: Report, split: str, found: CheckedLabels, imgsz: int) -> None:
    boxes, image = found.boxes, found.image

    def where(rows: NDArray[np.bool_]) -> list[str]:
        return [found.where(row) for row in np.flatnonzero(rows)[:EXAMPLES].tolist()]

    flat = np.asarray(boxes[:, 2:].min(1, initial=1) <= 0)
    report.add(
        "warning", "box-flat", split, "boxes have no area and are left out", where(flat), int(flat.sum())
    )
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    outside = np.asarray((np.maximum(-low, high - 1) > 1e-3).any(1))
    report.add(
        "warning",
        "box-outside",
        split,
        "boxes reach over the edge of their image",
        where(outside),
        int(outside.sum()),
    )
    sizes = found.sizes[image]
    is_used = sizes.min(1, initial=MIN_SIDE) >= MIN_SIDE
    sides = boxes[:, 2:] * sizes[:, ::-1]
    scale = imgsz / np.maximum(sizes.max(1, initial=1), 1)
    tiny = np.asarray(sides.max(1, initial=0) * scale < SMALL_SIDE) & ~flat & is_used
    report.add(
        "warning", "box-tiny", split, f"boxes are smaller than {SMALL_SIDE} px at imgsz={imgsz}: hardly to be learned",
        where(tiny), int(tiny.sum()),
    )  # fmt: skip
    same = [(a, b) for a, b in _overlapping(found, ~flat)]
    twice = [f"{found.where(b)} and {found.where(a)}" for a, b in same if found.ids[a] == found.ids[b]]
    report.add(
        "warning", "box-twice", split, f"boxes have an IoU over {SAME_BOX} with one of their class", twice
    )
    other = [f"{found.where(b)} and {found.where(a)}" for a, b in same if found.ids[a] != found.ids[b]]
    report.add(
        "warning",
        "box-two-classes",
        split,
        f"boxes have an IoU over {SAME_BOX} with one of another class",
        other,
    )


def _overlapping(found: CheckedLabels, usable: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield pairs of boxes of one image that are nearly equal, found by sorting: equal boxes have equal centres."""
    rows = np.flatnonzero(usable)
    boxes, image = found.boxes[rows], found.image[rows]
    order = np.lexsort((boxes[:, 0], image))
    boxes, image, rows = boxes[order], image[order], rows[order]
    for step in range(1, 64):
        if step >= len(rows):
            return
        near = (image[step:] == image[:-step]) & (
            boxes[step:, 0] - boxes[:-step, 0] < 0.05 * boxes[:-step, 2]
        )
        if not near.any():
            return
        index = np.flatnonzero(near)
        for a, b, iou in zip(
            rows[index], rows[index + step], _iou(boxes[index], boxes[index + step]), strict=True
        ):
            if iou > SAME_BOX:
                yield int(min(a, b)), int(max(a, b))


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    high = np.minimum(a[:, :2] + a[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2)
    low = np.maximum(a[:, :2] - a[:, 2:] / 2, b[:, :2] - b[:, 2:] / 2)
    shared = (high - low).clip(0).prod(1)
    result: NDArray[np.float64] = shared / (a[:, 2:].prod(1) + b[:, 2:].prod(1) - shared)
    return result


# ---- splits -------------------------------------------------------------------------------------------


def _look_at_classes(report: Report, config: DataConfig, counts: dict[str, NDArray[np.int64]]) -> None:
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


def _look_at_copies(
    report: Report, contents: dict[str, tuple[list[str], NDArray[np.uint64], NDArray[np.uint64]]]
) -> None:
    for split, (paths, exact, _) in contents.items():
        _, first, inverse = np.unique(exact, return_index=True, return_inverse=True)
        again = (first[inverse] != np.arange(len(paths))) & (exact < UNREAD)
        named = [f"{paths[i]} is {paths[first[inverse[i]]]}" for i in np.flatnonzero(again)]
        report.add("warning", "image-twice", split, "images are copies of another one", named)
    paths = [path for found, _, _ in contents.values() for path in found]
    owner = np.repeat(np.arange(len(contents)), [len(found) for found, _, _ in contents.values()])
    exact = np.concatenate([found for _, found, _ in contents.values()])
    looks = np.concatenate([found for _, _, found in contents.values()])
    splits = list(contents)
    _, first, inverse = np.unique(exact, return_index=True, return_inverse=True)
    leaked = (owner[first[inverse]] != owner) & (exact < UNREAD)
    named = [f"{paths[i]} ({splits[owner[i]]}) is {paths[first[inverse[i]]]}" for i in np.flatnonzero(leaked)]
    report.add("error", "image-in-two-splits", "", "images of one split are copies of another split's", named)
    group = near_groups(looks)
    near = (owner[group] != owner) & ~leaked & (exact < UNREAD) & (exact[group] < UNREAD)
    named = [f"{paths[i]} ({splits[owner[i]]}) looks like {paths[group[i]]}" for i in np.flatnonzero(near)]
    report.add(
        "warning", "image-alike-in-two-splits", "", "images look nearly like one of another split", named
    )


UNREAD = np.uint64(2**64 - 1)  # in place of the hash of a file that can't be read
