"""What `detector convert fix=true` mends, in the new folder only.

Mended is what has one right answer: boxes are cut at the edges of their image; rows that repeat another one and boxes
without area are left out; images that can't be read or whose labels are wrong are left out; of images of the same
bytes one stays, that of the test split before that of the validation split before that of the training split, so that
nothing is measured on what was trained on; pixels are turned as EXIF says. Images that only look alike, small objects
and rare classes are for people to decide.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from detector.data.annotations import Annotations
from detector.data.image_facts import TURNED, UNREAD, look_at
from detector.data.images import read_image
from detector.errors import DataError, listed

log = logging.getLogger(__name__)

KEPT_FIRST = ("test", "val")  # the splits whose copy of an image stays; then the others
QUALITY = 98  # of images that are encoded again
SAME_PIXELS = 8.0  # grey levels, mean difference that encoding again may make


def mend(splits: Mapping[str, Annotations]) -> tuple[dict[str, Annotations], set[str]]:
    """Leave out copies of images, and say what was mended in all.

    Args:
        splits: split -> its annotations, read with `skip` and `clip`.

    Returns:
        The splits without copies, and the images that EXIF turns, to be written with `write_upright`.

    Raises:
        DataError: a split has no image left.
    """
    facts = {split: look_at(found.paths, found.sizes) for split, found in splits.items()}
    seen: dict[int, tuple[str, int]] = {}
    keep = {split: np.ones(len(found), bool) for split, found in splits.items()}
    copies: dict[tuple[str, str], list[str]] = {}
    other_labels = 0
    for split in sorted(splits, key=lambda name: (*KEPT_FIRST, name).index(name)):
        for index, content in enumerate(facts[split].contents.tolist()):
            if content == UNREAD:
                continue
            where, first = seen.setdefault(content, (split, index))
            if (where, first) != (split, index):
                keep[split][index] = False
                copies.setdefault((split, where), []).append(splits[split].paths[index])
                other_labels += not _have_same_rows(splits[split], index, splits[where], first)
    turned = {
        path
        for split, found in splits.items()
        for path, kind, kept in zip(found.paths, facts[split].kinds.tolist(), keep[split], strict=True)
        if kept and kind & TURNED
    }
    _say(splits, copies, other_labels, turned)
    for split, kept in keep.items():
        if not kept.any():
            raise DataError(
                f"fix=true: no image is left in {split}, as all are copies of others; split the data again."
            )
    return {split: found.subset(keep[split]) for split, found in splits.items()}, turned


def _have_same_rows(a: Annotations, i: int, b: Annotations, j: int) -> bool:
    (boxes, labels, _), (others, ids, _) = a.truth(i), b.truth(j)
    rows = sorted(zip(labels.tolist(), boxes.tolist(), strict=True))
    return rows == sorted(zip(ids.tolist(), others.tolist(), strict=True))


def _say(
    splits: Mapping[str, Annotations],
    copies: Mapping[tuple[str, str], list[str]],
    other_labels: int,
    turned: set[str],
) -> None:
    total = {
        name: sum(getattr(found, name) for found in splits.values())
        for name in ("skipped", "wrong", "repeated", "flat", "clipped")
    }
    done = [
        (total["clipped"], "boxes were cut at the edge of their image"),
        (total["repeated"], "rows that repeat another one of their image were left out"),
        (total["flat"], "boxes without area were left out"),
        (total["skipped"] - total["wrong"], "images that can't be used were left out"),
        (total["wrong"], "images with wrong labels were left out"),
        (len(turned), f"images were turned as EXIF says, and encoded again (JPEG quality {QUALITY})"),
    ]
    for (split, where), paths in copies.items():
        other = "others" if split == where else f"images of {where}, which stay there"
        done.append((len(paths), f"images of {split} were left out, copies of {other}: {listed(paths)}"))
    done.append((other_labels, "copies had other labels than the image that stays"))
    lines = [f"{count:>7}  {what}" for count, what in done if count]
    log.info("%s", "\n".join(["mended:", *lines] if lines else ["nothing had to be mended"]))


def write_upright(path: str, place: Path) -> None:
    """Write an image as it is displayed, without the EXIF orientation that says so.

    Everything else of the file stays: its format, mode, colour profile and other EXIF.

    Raises:
        DataError: the new file shows something else.
    """
    with Image.open(path) as image:
        kind = image.format or "PNG"
        upright = ImageOps.exif_transpose(image)
        options = {"JPEG": {"quality": QUALITY, "subsampling": 0}, "WEBP": {"quality": QUALITY}}
        profile = image.info.get("icc_profile")
        upright.save(place, kind, exif=upright.getexif(), icc_profile=profile, **options.get(kind, {}))
    before, after = read_image(path, quiet=True), read_image(place, quiet=True)
    if before.shape != after.shape or np.abs(before.astype(np.int16) - after).mean() > SAME_PIXELS:
        place.unlink()
        raise DataError(
            f"{path}: turned as its EXIF says it shows something else than before; save it upright yourself."
        )
