"""Write a data set in another format: boxes keep all their bits, and the same data give the same bytes.

Numbers are written as short as they can be without becoming another box: ``63``, not ``63.000002``.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from xml.sax.saxutils import escape

import numpy as np
import yaml
from numpy.typing import NDArray

from detector.boxes import CROWD, DIFFICULT
from detector.data.annotations import Annotations, build_annotations
from detector.data.config import DataConfig, load_data_config
from detector.data.mend import mend, write_upright
from detector.data.scan import reading_once
from detector.errors import DataError
from detector.files.atomic import move_into_place, staging_folder

log = logging.getLogger(__name__)

Target = Literal["yolo", "coco", "voc"]
DECIMALS = (0, 1, 2, 3, 4, 6, 8)  # of px, tried from the left


@reading_once()
def convert(
    data: str | Path,
    to: Target,
    out: str | Path,
    images: Literal["link", "copy"] = "link",
    fix: bool = False,
) -> Path:
    """Write all splits of a data set in another format.

    Args:
        data: as `train` takes it.
        to: "yolo", "coco" or "voc".
        out: the new folder; must not exist, or be empty.
        images: "link" makes hard links, where the file system can; "copy" copies.
        fix: mend in the new folder what can be mended, and say what; see `detector.data.mend`.

    Returns:
        The new folder; `data=` takes it.

    Raises:
        DataError: the data set can't be used, or there is something at `out`.
    """
    folder = Path(out).absolute()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"out={out}: {folder} is there already; nothing is overwritten, name another folder.")
    config = load_data_config(data)
    splits = {
        split: build_annotations(
            config.read_labels(split), config.names, config.yaml_path.name, skip=fix, clip=fix
        )
        for split in config.present_splits()
    }
    turned: set[str] = set()
    if fix:
        splits, turned = mend(splits)
    with staging_folder(folder) as staging:
        names = _image_names(splits, flat=to == "voc")
        WRITERS[to](staging, config, splits, names)
        place_of: Callable[[str], PurePosixPath] = IMAGE_FOLDERS[to]
        _place_images(staging, splits, names, place_of, images == "link", turned)
        move_into_place(staging, folder)
    return folder


IMAGE_FOLDERS: Mapping[Target, Callable[[str], PurePosixPath]] = {
    "yolo": lambda split: PurePosixPath("images", split),
    "coco": lambda split: PurePosixPath(split),
    "voc": lambda _: PurePosixPath("JPEGImages"),
}


def _image_names(splits: Mapping[str, Annotations], flat: bool) -> dict[str, PurePosixPath]:
    """Return the new name of every image: below the folder that those of its split share, or, if `flat`, in one folder.

    Names that would be equal, or would share a label file, are numbered.
    """
    names: dict[str, PurePosixPath] = {}
    taken: set[tuple[str, str]] = set()
    for split, found in splits.items():
        top = os.path.commonpath([Path(path).parent for path in found.paths])
        for path in found.paths:
            *folders, last = Path(os.path.relpath(path, top)).parts
            # a second `images` in a path would be where YOLO's readers put `labels`
            name = PurePosixPath(*(folder for folder in folders if folder != "images"), last)
            if flat:
                name = PurePosixPath("-".join(name.parts))
            where, number, wanted = "" if flat else split, 2, name
            while (where, str(name.with_suffix("")).lower()) in taken:
                if path in names:  # in several splits
                    break
                name = wanted.with_stem(f"{wanted.stem}-{number}")
                number += 1
            taken.add((where, str(name.with_suffix("")).lower()))
            names.setdefault(path, name)
    return names


def _place_images(
    root: Path,
    splits: Mapping[str, Annotations],
    names: Mapping[str, PurePosixPath],
    folder: Callable[[str], PurePosixPath],
    link: bool,
    turned: Collection[str],
) -> None:
    from tqdm import tqdm

    pairs = [(path, root / folder(split) / names[path]) for split, a in splits.items() for path in a.paths]
    for path, place in tqdm(pairs, desc="images", unit="", disable=None if len(pairs) > 1000 else True):
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            continue
        if path in turned:
            write_upright(path, place)
            continue
        try:
            if link:
                os.link(path, place)
                continue
        except OSError:
            log.info("%s can't be linked to %s; images are copied", path, place.parent)
            link = False
        shutil.copyfile(path, place)


# ---- boxes --------------------------------------------------------------------------------------------


def corners_px(boxes: NDArray[np.float32], height: int, width: int) -> list[list[float]]:
    """Return the corners of boxes, px, as the shortest numbers that are the same boxes again when they are read.

    Args:
        boxes: (N, 4) cxcywh, normalised.
        height: of the image, px; likewise width.
    """
    scale = np.array([width, height] * 2, np.float64)
    wide = boxes.astype(np.float64)
    corners = np.concatenate([wide[:, :2] - wide[:, 2:] / 2, wide[:, :2] + wide[:, 2:] / 2], 1) * scale
    result = corners.copy()
    left = np.ones(len(boxes), bool)
    for decimals in DECIMALS:
        rounded = corners.round(decimals)
        same = left & (_normalised(rounded, scale) == boxes).all(1)
        result[same] = rounded[same]
        left &= ~same
    return [[int(v) if v.is_integer() else v for v in row] for row in result.tolist()]


def _normalised(corners: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return cxcywh as a reader of corners in px does."""
    parts = corners / scale
    return np.concatenate([(parts[:, :2] + parts[:, 2:]) / 2, parts[:, 2:] - parts[:, :2]], 1).astype(
        np.float32
    )


# ---- writers ------------------------------------------------------------------------------------------


def _write_yolo(
    root: Path, config: DataConfig, splits: Mapping[str, Annotations], names: Mapping[str, PurePosixPath]
) -> None:
    for split, found in splits.items():
        for index, path in enumerate(found.paths):
            place = root / "labels" / split / names[path].with_suffix(".txt")
            place.parent.mkdir(parents=True, exist_ok=True)
            boxes, labels = found.rows(index)
            rows = [f"{label} {' '.join(map(str, box))}\n" for label, box in zip(labels, boxes, strict=True)]
            place.write_text("".join(rows), encoding="utf-8", newline="\n")
        if found.ignored is not None:
            _say_left_out(split, "YOLO", found)
    keys: dict[str, Any] = {split: f"images/{split}" for split in splits} | {"names": dict(config.names)}
    if config.channels is not None:
        keys["channels"] = config.channels
    if config.value_range is not None:
        keys["value_range"] = list(config.value_range)
    text = yaml.safe_dump(keys, sort_keys=False, allow_unicode=True)
    (root / "data.yaml").write_text(text, encoding="utf-8", newline="\n")


def _write_coco(
    root: Path, config: DataConfig, splits: Mapping[str, Annotations], names: Mapping[str, PurePosixPath]
) -> None:
    (root / "annotations").mkdir()
    for split, found in splits.items():
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        for index, path in enumerate(found.paths):
            height, width = found.sizes[index].tolist()
            images.append({"id": index + 1, "file_name": str(names[path]), "height": height, "width": width})
            boxes, labels, kinds = found.truth(index)
            for box, label, kind in zip(
                corners_px(boxes, height, width), labels.tolist(), kinds.tolist(), strict=True
            ):
                x1, y1, x2, y2 = box
                sides = [_difference(x2, x1), _difference(y2, y1)]
                objects.append(
                    {
                        "id": len(objects) + 1,
                        "image_id": index + 1,
                        "category_id": label + 1,
                        "bbox": [x1, y1, *sides],
                        "area": sides[0] * sides[1],
                        "iscrowd": int(kind == CROWD),
                    }
                    | ({"difficult": 1} if kind == DIFFICULT else {})
                )
        categories = [{"id": number + 1, "name": name} for number, name in config.names.items()]
        content = {"images": images, "annotations": objects, "categories": categories}
        text = json.dumps(content, ensure_ascii=False)
        (root / "annotations" / f"instances_{split}.json").write_text(text, encoding="utf-8", newline="\n")


def _difference(end: float, start: float) -> float:
    """Return a side that gives the end again when it is added to the start."""
    side = end - start
    for decimals in DECIMALS:
        short = round(side, decimals)
        if start + short == end:
            return int(short) if float(short).is_integer() else short
    return side


def _write_voc(
    root: Path, config: DataConfig, splits: Mapping[str, Annotations], names: Mapping[str, PurePosixPath]
) -> None:
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, found in splits.items():
        stems = []
        for index, path in enumerate(found.paths):
            name = names[path]
            stems.append(f"{name.with_suffix('')}\n")
            height, width = found.sizes[index].tolist()
            boxes, labels, kinds = found.truth(index)
            objects = [
                "\t<object>\n"
                f"\t\t<name>{escape(config.names[label])}</name>\n"
                f"\t\t<difficult>{int(kind == DIFFICULT)}</difficult>\n"
                "\t\t<bndbox>\n"
                + "".join(
                    f"\t\t\t<{key}>{value}</{key}>\n"
                    for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
                )
                + "\t\t</bndbox>\n\t</object>\n"
                for box, label, kind in zip(
                    corners_px(boxes, height, width), labels.tolist(), kinds.tolist(), strict=True
                )
                if kind != CROWD
            ]
            text = (
                f"<annotation>\n\t<filename>{escape(str(name))}</filename>\n\t<size>\n\t\t<width>{width}</width>\n"
                f"\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>\n{''.join(objects)}</annotation>\n"
            )
            place = root / "Annotations" / name.with_suffix(".xml")
            place.write_text(text, encoding="utf-8", newline="\n")
        if found.ignored is not None and len(found.ignored.labels):
            _say_left_out(split, "Pascal VOC", found)
        lists = root / "ImageSets" / "Main" / f"{split}.txt"
        lists.write_text("".join(stems), encoding="utf-8", newline="\n")
    classes = "".join(f"{name}\n" for name in config.names.values())  # VOC itself has no list of them
    (root / "classes.txt").write_text(classes, encoding="utf-8", newline="\n")


def _say_left_out(split: str, title: str, annotations: Annotations) -> None:
    assert annotations.ignored is not None
    groups = len(annotations.ignored.labels)
    difficult = 0 if title == "Pascal VOC" else int(annotations.ignored.difficult.sum())
    log.warning(
        "%s: %s can't mark what evaluation ignores: %d groups of objects are left out, %d difficult ones are ordinary",
        *(split, title, groups, difficult),
    )


WRITERS = {"yolo": _write_yolo, "coco": _write_coco, "voc": _write_voc}
