"""A look at a data set before every training: what its numbers show, without reading a file again.

`detector.data.doctor` looks at everything; this takes what has just been read for the training, and a second for
a million boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.data.annotations import Annotations
from detector.data.box_faults import SMALL_SIDE, input_sides, is_outside, reach_over, same_boxes
from detector.data.doctor import FEW, UNBALANCED
from detector.data.image_facts import UNREAD, known_contents
from detector.errors import listed

MAX_LINES = 5
NAMED = 5  # classes in a line


def first_look(train: Annotations, val: Annotations, imgsz: int | Sequence[int]) -> list[str]:
    """Return what seems wrong with a data set, the worst first; nothing if all is well.

    Whether images are copies is only known if `detector check` has read them before.

    Args:
        train: what is trained on.
        val: what is validated on.
        imgsz: longer side of the input, px, or height and width.

    Returns:
        Up to 5 lines, each with a count.
    """
    lines: list[tuple[int, str]] = []

    def named(numbers: Sequence[int]) -> str:
        return listed([train.names[number] for number in numbers], NAMED)

    here, there = train.class_counts(), val.class_counts()
    elsewhere = np.flatnonzero((here == 0) & (there > 0)).tolist()
    lines.append(
        (len(elsewhere), f"classes with objects to validate on, but none to train on: {named(elsewhere)}")
    )
    paths = set(train.paths)
    lines.append((sum(path in paths for path in val.paths), "images to validate on that are trained on, too"))
    lines.append((_copies(train, val), "copies of training images among those to validate on"))
    image = np.repeat(np.arange(len(train)), np.diff(train.offsets))
    tiny = int((input_sides(train.boxes, image, train.sizes, imgsz) < SMALL_SIDE).sum())
    lines.append((tiny, f"boxes to train on that are smaller than {SMALL_SIDE} px at imgsz={imgsz}"))
    lines.append(
        (len(same_boxes(train.boxes, image)), "boxes to train on that are nearly equal to another one")
    )
    lines.append(
        (
            int(is_outside(reach_over(train.boxes), image, train.sizes).sum()),
            "boxes to train on that reach over the edge of their image",
        )
    )
    lines.append((train.repeated, "rows of labels to train on that repeat another one, and are left out"))
    few = np.flatnonzero((here > 0) & (here < FEW)).tolist()
    lines.append((len(few), f"classes with fewer than {FEW} objects to train on: {named(few)}"))
    used = here[here > 0]
    if len(used) and used.max() > UNBALANCED * used.min():
        rare = np.flatnonzero((here > 0) & (here * UNBALANCED < used.max())).tolist()
        lines.append(
            (
                len(rare),
                f"classes with less than a {UNBALANCED}th of the objects of the most frequent: {named(rare)}",
            )
        )
    return [f"{count:,} {what}" for count, what in lines if count][:MAX_LINES]


def _copies(train: Annotations, val: Annotations) -> int:
    """Count the images to validate on that are copies of training images in another place, as far as is known."""
    contents = known_contents(train.paths)
    others = None if contents is None else known_contents(val.paths)
    if contents is None or others is None:
        return 0
    paths = set(train.paths)
    is_other = np.array([path not in paths for path in val.paths], bool) & (others < UNREAD)
    return int((is_other & np.isin(others, contents)).sum())
