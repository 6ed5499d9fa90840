"""A small data set as labelling tools export it, written after their documentation; the boxes are known."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np

SIZE = (48, 64)  # height, width
NAMES = ("cat", "dog")
SCENES: Mapping[str, list[tuple[str, tuple[int, int, int, int]]]] = {
    "a": [("dog", (8, 6, 40, 30)), ("cat", (32, 24, 64, 48))],
    "b": [("cat", (0, 0, 16, 12))],
    "c": [],
    "d": [("dog", (16, 12, 48, 36))],
}
"""Image -> class and corners, px, of its objects; a and b are of the training split, c and d of the other."""
SPLITS = {"train": ("a", "b"), "val": ("c", "d")}


def write_image(path: Path) -> None:
    """Write the image of a scene: noise of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(ord(path.stem[0])).integers(0, 256, (*SIZE, 3), np.uint8)
    cv2.imwrite(str(path), noise)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _yolo(stem: str) -> str:
    height, width = SIZE
    rows = [
        (
            NAMES.index(name),
            (x1 + x2) / 2 / width,
            (y1 + y2) / 2 / height,
            (x2 - x1) / width,
            (y2 - y1) / height,
        )
        for name, (x1, y1, x2, y2) in SCENES[stem]
    ]
    return "".join(f"{' '.join(map(str, row))}\n" for row in rows)


def _voc(stem: str) -> str:
    objects = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
        f"<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in SCENES[stem]
    )
    size = f"<size><width>{SIZE[1]}</width><height>{SIZE[0]}</height><depth>3</depth></size>"
    return f"<annotation><folder></folder><filename>{stem}.jpg</filename>{size}{objects}</annotation>"


def _coco(stems: tuple[str, ...], prefix: str = "", first: int = 1, above: str | None = None) -> str:
    ids = {name: first + number for number, name in enumerate(NAMES)}
    categories = [{"id": number, "name": name, "supercategory": above or ""} for name, number in ids.items()]
    if above:
        categories.insert(0, {"id": 0, "name": above, "supercategory": "none"})
    images = [
        {"id": n, "file_name": f"{prefix}{stem}.jpg", "height": SIZE[0], "width": SIZE[1]}
        for n, stem in enumerate(stems)
    ]
    boxes = [(n, name, box) for n, stem in enumerate(stems) for name, box in SCENES[stem]]
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": ids[name],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "segmentation": [],
            "iscrowd": 0,
        }
        for number, (image, name, (x1, y1, x2, y2)) in enumerate(boxes, 1)
    ]
    return json.dumps(
        {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
    )


def _stems() -> list[tuple[str, str, str]]:
    """Split as Roboflow calls it, split, image."""
    return [
        ("valid" if split == "val" else split, split, stem)
        for split, stems in SPLITS.items()
        for stem in stems
    ]


def roboflow_yolo(root: Path) -> None:
    for folder, _, stem in _stems():
        write_image(root / folder / "images" / f"{stem}.jpg")
        _write(root / folder / "labels" / f"{stem}.txt", _yolo(stem))
    _write(
        root / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'dog']\n\n"
        "roboflow:\n  workspace: w\n  project: p\n  version: 1\n  license: CC BY 4.0\n  url: https://example.com\n",
    )


def roboflow_coco(root: Path) -> None:
    for folder, split in (("train", "train"), ("valid", "val")):
        for stem in SPLITS[split]:
            write_image(root / folder / f"{stem}.jpg")
        _write(root / folder / "_annotations.coco.json", _coco(SPLITS[split], above="animals"))
    _write(root / "README.dataset.txt", "exported\n")


def roboflow_voc(root: Path) -> None:
    for folder, _, stem in _stems():
        write_image(root / folder / f"{stem}.jpg")
        _write(root / folder / f"{stem}.xml", _voc(stem))


def cvat_yolo(root: Path) -> None:
    """YOLO 1.1: one list, so no validation split."""
    for stem in SCENES:
        write_image(root / "obj_train_data" / f"{stem}.jpg")
        _write(root / "obj_train_data" / f"{stem}.txt", _yolo(stem))
    _write(root / "obj.names", "cat\ndog\n")
    _write(root / "train.txt", "".join(f"data/obj_train_data/{stem}.jpg\n" for stem in SCENES))
    _write(
        root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    )


def cvat_ultralytics(root: Path) -> None:
    for _, split, stem in _stems():
        write_image(root / "images" / split / f"{stem}.jpg")
        _write(root / "labels" / split / f"{stem}.txt", _yolo(stem))
    for split, stems in SPLITS.items():
        _write(root / f"{split}.txt", "".join(f"data/images/{split}/{stem}.jpg\n" for stem in stems))
    _write(root / "data.yaml", "names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\nval: val.txt\n")


def cvat_coco(root: Path) -> None:
    for stem in SCENES:
        write_image(root / "images" / "default" / f"{stem}.jpg")
    _write(root / "annotations" / "instances_default.json", _coco(tuple(SCENES)))


def cvat_voc(root: Path) -> None:
    for stem in SCENES:
        write_image(root / "JPEGImages" / f"{stem}.jpg")
        _write(root / "Annotations" / f"{stem}.xml", _voc(stem))
    _write(root / "ImageSets" / "Main" / "default.txt", "".join(f"{stem}\n" for stem in SCENES))
    _write(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:::\ncat:::\ndog:::\n")


def label_studio_yolo(root: Path) -> None:
    for stem in SCENES:
        write_image(root / "images" / f"{stem}.jpg")
        _write(root / "labels" / f"{stem}.txt", _yolo(stem))
    _write(root / "classes.txt", "cat\ndog\n")
    _write(
        root / "notes.json",
        json.dumps({"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}], "info": {}}),
    )


def label_studio_coco(root: Path) -> None:
    for stem in SCENES:
        write_image(root / "images" / f"{stem}.jpg")
    _write(root / "result.json", _coco(tuple(SCENES), prefix="images\\", first=0))


def label_studio_voc(root: Path) -> None:
    for stem in SCENES:
        write_image(root / "images" / f"{stem}.jpg")
        _write(root / "Annotations" / f"{stem}.xml", _voc(stem))


def labelimg_yolo(root: Path) -> None:
    for stem in SCENES:
        write_image(root / f"{stem}.jpg")
        _write(root / f"{stem}.txt", _yolo(stem))
    _write(root / "classes.txt", "cat\ndog\n")


def labelimg_voc(root: Path) -> None:
    for stem in SCENES:
        write_image(root / f"{stem}.jpg")
        _write(root / f"{stem}.xml", _voc(stem))


def datumaro(root: Path) -> None:
    for _, split, stem in _stems():
        write_image(root / "images" / split / f"{stem}.jpg")
    for split, stems in SPLITS.items():
        items = [
            {
                "id": stem,
                "annotations": [
                    {
                        "id": 0,
                        "type": "bbox",
                        "label_id": NAMES.index(name),
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                    }
                    for name, (x1, y1, x2, y2) in SCENES[stem]
                ],
                "image": {"path": f"{stem}.jpg", "size": list(SIZE)},
            }
            for stem in stems
        ]
        labels = [{"name": name, "parent": "", "attributes": []} for name in NAMES]
        content = {
            "dm_format_version": "1.0",
            "infos": {},
            "categories": {"label": {"labels": labels}},
            "items": items,
        }
        _write(root / "annotations" / f"{split}.json", json.dumps(content))


def table(root: Path) -> None:
    """As on Kaggle: two tables next to their folders; a table knows no image without objects."""
    for _, split, stem in _stems():
        write_image(root / split / f"{stem}.jpg")
    for split, stems in SPLITS.items():
        with (root / f"{split}_labels.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"])
            for stem in stems:
                for name, box in SCENES[stem] or [("", ("", "", "", ""))]:
                    rows.writerow([f"{stem}.jpg", SIZE[1], SIZE[0], name, *box])


def pascal_voc(root: Path) -> None:
    inside = root / "VOCdevkit" / "VOC2007"
    for _, _, stem in _stems():
        write_image(inside / "JPEGImages" / f"{stem}.jpg")
        _write(inside / "Annotations" / f"{stem}.xml", _voc(stem))
    for split, stems in SPLITS.items():
        _write(inside / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{stem}\n" for stem in stems))
        _write(inside / "ImageSets" / "Main" / f"cat_{split}.txt", "".join(f"{stem} -1\n" for stem in stems))


def coco(root: Path) -> None:
    for _, split, stem in _stems():
        write_image(root / f"{split}2017" / f"{stem}.jpg")
    for split, stems in SPLITS.items():
        _write(root / "annotations" / f"instances_{split}2017.json", _coco(stems, first=17))


EXPORTS: Mapping[str, Callable[[Path], None]] = {
    export.__name__: export
    for export in (
        roboflow_yolo, roboflow_coco, roboflow_voc, cvat_yolo, cvat_ultralytics, cvat_coco, cvat_voc, label_studio_yolo,
        label_studio_coco, label_studio_voc, labelimg_yolo, labelimg_voc, datumaro, table, pascal_voc, coco,
    )
}  # fmt: skip
