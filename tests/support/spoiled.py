"""Faults to plant in a healthy data set: each at a place that chance chooses, with what the doctor has to find.

A fault is a function of the root of a YOLO data set (`healthy`) and a random generator. It changes files and returns
what is to be found. Those whose names begin with voc or coco convert the data set first.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image

from detector.data.convert import convert
from detector.data.drawn import FORMS, make_drawn_dataset

NAMES = FORMS[:3]
SIZE = 192  # px
COUNTS = {"train": 16, "val": 8}


class Planted(NamedTuple):
    """What a fault is found as.

    Attributes:
        kind: of the finding.
        where: what its examples name; empty for faults of the whole data set.
        data: the data set, if it is not the one that was given.
    """

    kind: str
    where: str = ""
    data: Path | None = None


def make_healthy(root: Path) -> Path:
    """Make a data set of synthetic images in which the doctor finds nothing, and return its folder."""
    make_drawn_dataset(root, COUNTS, NAMES, seed=0, size=SIZE)
    for label in root.glob("labels/*/*.txt"):
        if not label.stat().st_size:  # a scene without objects
            label.unlink()
            Path(str(label).replace("/labels/", "/images/")).with_suffix(".jpg").unlink()
    _name_classes(root, NAMES)
    return root


def _name_classes(root: Path, names: tuple[str, ...]) -> None:
    text = f"train: images/train\nval: images/val\nnames: [{', '.join(names)}]\n"
    (root / "data.yaml").write_text(text)


def image_of(root: Path, rng: Generator, split: str = "train") -> Path:
    """Return an image of a split."""
    paths = sorted((root / "images" / split).iterdir())
    return paths[rng.integers(len(paths))]


def label_of(image: Path) -> Path:
    return Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")


def rows_of(image: Path) -> list[list[str]]:
    return [line.split() for line in label_of(image).read_text().splitlines()]


def write_rows(image: Path, rows: list[list[str]]) -> None:
    label_of(image).write_text("".join(f"{' '.join(row)}\n" for row in rows))


def pixels_of(image: Path) -> np.ndarray:
    return cv2.imread(str(image))


# ---- image files --------------------------------------------------------------------------------------


def random_bytes(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    image.write_bytes(rng.bytes(1000))
    return Planted("image-unreadable", image.name)


def zero_bytes(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    image.write_bytes(b"")
    return Planted("image-unreadable", image.name)


def text_called_jpg(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    image.write_text("<html><body>404 Not Found</body></html>")
    return Planted("image-unreadable", image.name)


def jpeg_cut(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    content = image.read_bytes()
    image.write_bytes(content[: int(len(content) * rng.uniform(0.4, 0.9))])
    return Planted("image-cut", image.name)


def jpeg_header_alone(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    image.write_bytes(image.read_bytes()[: int(rng.integers(3, 150))])
    return Planted("image-unreadable", image.name)


def png_cut(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    content = cv2.imencode(".png", pixels_of(image))[1].tobytes()
    image.unlink()
    image.with_suffix(".png").write_bytes(content[: int(len(content) * rng.uniform(0.3, 0.9))])
    return Planted("image-unreadable", image.with_suffix(".png").name)


def image_gone(root: Path, rng: Generator) -> Planted:
    """A list of images names one that is not there."""
    image = image_of(root, rng)
    listed = "".join(f"{path}\n" for path in sorted((root / "images/train").iterdir()))
    (root / "train.txt").write_text(listed)
    yaml = (root / "data.yaml").read_text().replace("train: images/train", "train: train.txt")
    (root / "data.yaml").write_text(yaml)
    image.unlink()
    return Planted("image-missing", image.name)


def image_too_small(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    cv2.imwrite(str(image), cv2.resize(pixels_of(image), (8, int(rng.integers(6, 24)))))
    return Planted("image-small", image.name)


def image_very_long(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    sides = (600, int(rng.integers(100, 190)))
    cv2.imwrite(str(image), cv2.resize(pixels_of(image), sides[:: rng.choice([1, -1])]))
    return Planted("image-long", image.name)


def image_turned(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    exif = Image.Exif()
    exif[274] = int(rng.integers(2, 9))
    with Image.open(image) as opened:
        opened.save(image, exif=exif, quality=95)
    return Planted("image-turned", image.name)


def image_grey(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    cv2.imwrite(str(image), cv2.cvtColor(pixels_of(image), cv2.COLOR_BGR2GRAY))
    return Planted("image-grey", image.name)


def image_deep(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    grey = cv2.cvtColor(pixels_of(image), cv2.COLOR_BGR2GRAY).astype(np.uint16) * 256
    image.unlink()
    cv2.imwrite(str(image.with_suffix(".png")), grey)
    return Planted("image-deep", image.with_suffix(".png").name)


def image_with_alpha(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    with Image.open(image) as opened:
        opened.convert("RGBA").save(image.with_suffix(".png"))
    image.unlink()
    return Planted("image-alpha", image.with_suffix(".png").name)


def image_cmyk(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    with Image.open(image) as opened:
        opened.convert("CMYK").save(image)
    return Planted("image-cmyk", image.name)


# ---- copies -------------------------------------------------------------------------------------------


def image_twice_in_train(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    copy = image.with_name(f"{image.stem}-{rng.integers(9)}.jpg")
    shutil.copy(image, copy)
    shutil.copy(label_of(image), label_of(copy))
    return Planted("image-twice", copy.name)


def image_in_both_splits(root: Path, rng: Generator) -> Planted:
    image, other = image_of(root, rng), image_of(root, rng, "val")
    shutil.copy(image, other)
    shutil.copy(label_of(image), label_of(other))
    return Planted("image-in-two-splits", other.name)


def _alike(
    root: Path, rng: Generator, change: Callable[[np.ndarray], np.ndarray], quality: int = 95
) -> Planted:
    image, other = image_of(root, rng), image_of(root, rng, "val")
    cv2.imwrite(str(other), change(pixels_of(image)), [cv2.IMWRITE_JPEG_QUALITY, quality])
    shutil.copy(label_of(image), label_of(other))
    return Planted("image-alike-in-two-splits", other.name)


def image_encoded_again(root: Path, rng: Generator) -> Planted:
    return _alike(root, rng, lambda pixels: pixels, quality=int(rng.integers(40, 90)))


def image_brightened(root: Path, rng: Generator) -> Planted:
    gain, offset = rng.uniform(0.9, 1.1), rng.uniform(-8, 8)
    return _alike(root, rng, lambda pixels: cv2.convertScaleAbs(pixels, alpha=gain, beta=offset))


def image_shifted(root: Path, rng: Generator) -> Planted:
    return _alike(root, rng, lambda pixels: np.roll(pixels, rng.choice([-1, 1]), int(rng.integers(2))))


def image_scaled(root: Path, rng: Generator) -> Planted:
    factor = rng.uniform(0.5, 0.9)
    return _alike(
        root, rng, lambda p: cv2.resize(p, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    )


# ---- labels -------------------------------------------------------------------------------------------


def label_without_image(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    image.unlink()
    return Planted("label-unread", label_of(image).name)


def image_without_label(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    label_of(image).unlink()
    return Planted("label-missing", image.name)


def label_empty(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    label_of(image).write_text(str(rng.choice(["", "\n", " \n\n"])))
    return Planted("label-empty", image.name)


def label_in_capitals(root: Path, rng: Generator) -> Planted:
    label = label_of(image_of(root, rng))
    label.rename(label.with_suffix(".TXT"))
    return Planted("label-unread", label.with_suffix(".TXT").name)


def label_next_to_image(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    label_of(image).rename(image.with_suffix(".txt"))
    return Planted("label-unread", image.with_suffix(".txt").name)


def _wrong(root: Path, rng: Generator, change: Callable[[list[str]], list[str]]) -> Planted:
    image = image_of(root, rng)
    rows = rows_of(image)
    number = int(rng.integers(len(rows)))
    rows[number] = change(rows[number])
    write_rows(image, rows)
    return Planted("label-wrong", f"{label_of(image).name} line {number + 1}")


def class_unknown(root: Path, rng: Generator) -> Planted:
    return _wrong(root, rng, lambda row: [str(len(NAMES) + rng.integers(5)), *row[1:]])


def class_negative(root: Path, rng: Generator) -> Planted:
    return _wrong(root, rng, lambda row: ["-1", *row[1:]])


def class_fractional(root: Path, rng: Generator) -> Planted:
    return _wrong(root, rng, lambda row: ["0.5", *row[1:]])


def class_by_name(root: Path, rng: Generator) -> Planted:
    return _wrong(root, rng, lambda row: [NAMES[int(row[0])], *row[1:]])


def row_of_words(root: Path, rng: Generator) -> Planted:
    return _wrong(root, rng, lambda row: [*row[:2], "?", *row[3:]])


def decimal_commas(root: Path, rng: Generator) -> Planted:
    return _wrong(root, rng, lambda row: [row[0], *(value.replace(".", ",") for value in row[1:])])


def columns_missing(root: Path, rng: Generator) -> Planted:
    return _wrong(root, rng, lambda row: row[: int(rng.integers(1, 5))])


def column_too_many(root: Path, rng: Generator) -> Planted:
    return _wrong(root, rng, lambda row: [*row, "0.9"])


def coordinate_nan(root: Path, rng: Generator) -> Planted:
    place = int(rng.integers(1, 5))
    return _wrong(root, rng, lambda row: [*row[:place], "nan", *row[place + 1 :]])


def coordinate_infinite(root: Path, rng: Generator) -> Planted:
    place = int(rng.integers(1, 5))
    return _wrong(root, rng, lambda row: [*row[:place], "inf", *row[place + 1 :]])


def coordinates_in_percent(root: Path, rng: Generator) -> Planted:
    return _wrong(root, rng, lambda row: [row[0], *(str(100 * float(value)) for value in row[1:])])


def coordinates_in_px(root: Path, rng: Generator) -> Planted:
    return _wrong(root, rng, lambda row: [row[0], *(str(round(SIZE * float(value))) for value in row[1:])])


def box_outside(root: Path, rng: Generator) -> Planted:
    return _wrong(root, rng, lambda row: [row[0], str(rng.choice([1.4, -0.4])), *row[2:]])


def box_of_negative_width(root: Path, rng: Generator) -> Planted:
    return _wrong(root, rng, lambda row: [*row[:3], f"-{row[3]}", row[4]])


def polygon_among_boxes(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    label_of(image).write_text("0 .5 .5 .2 .2\n1 .1 .1 .2 .1 .2 .3\n")
    return Planted("label-wrong", f"{label_of(image).name} line 2")


def label_of_other_encoding(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    label_of(image).write_bytes("0 .5 .5 .2 .2 # größe\n".encode(str(rng.choice(["latin-1", "cp1250"]))))
    return Planted("label-wrong", label_of(image).name)


def label_of_utf16_unmarked(root: Path, rng: Generator) -> Planted:
    image = image_of(root, rng)
    label_of(image).write_bytes(label_of(image).read_text().encode("utf-16-le"))
    return Planted("label-wrong", label_of(image).name)


# ---- boxes --------------------------------------------------------------------------------------------


def _boxes(root: Path, rng: Generator, kind: str, change: Callable[[list[str]], list[list[str]]]) -> Planted:
    """Put other rows in place of those of an image; what is to be found is in the last one."""
    image = image_of(root, rng)
    rows = change(rows_of(image)[0])
    write_rows(image, rows)
    where = label_of(image).name if kind == "box-repeated" else f"{label_of(image).name} line {len(rows)}"
    return Planted(kind, where)


def box_over_the_edge(root: Path, rng: Generator) -> Planted:
    width = rng.uniform(0.2, 0.4)
    x = rng.choice([0, 1]) + rng.uniform(-0.4, 0.0) * width * rng.choice([-1, 1])
    return _boxes(
        root,
        rng,
        "box-outside",
        lambda row: [[row[0], f"{np.clip(x, 0, 1):.6f}", ".5", f"{width:.6f}", ".3"]],
    )


def box_without_width(root: Path, rng: Generator) -> Planted:
    return _boxes(root, rng, "box-flat", lambda row: [row, [*row[:3], "0", row[4]]])


def box_without_area(root: Path, rng: Generator) -> Planted:
    return _boxes(root, rng, "box-flat", lambda row: [row, [*row[:3], "0", "0"]])


def row_twice(root: Path, rng: Generator) -> Planted:
    return _boxes(root, rng, "box-repeated", lambda row: [row, row])


def box_nearly_twice(root: Path, rng: Generator) -> Planted:
    factor = rng.uniform(0.96, 0.995)
    return _boxes(
        root, rng, "box-twice", lambda row: [row, [*row[:3], f"{factor * float(row[3]):.6f}", row[4]]]
    )


def box_of_two_classes(root: Path, rng: Generator) -> Planted:
    def change(row: list[str]) -> list[list[str]]:
        other = (int(row[0]) + 1) % len(NAMES)
        return [row, [str(other), *row[1:]]]

    return _boxes(root, rng, "box-two-classes", change)


def box_too_small(root: Path, rng: Generator) -> Planted:
    side = f"{rng.uniform(0.5, 3.5) / 640:.6f}"
    return _boxes(root, rng, "box-tiny", lambda row: [row, [*row[:3], side, side]])


# ---- classes ------------------------------------------------------------------------------------------


def class_never_used(root: Path, rng: Generator) -> Planted:
    _name_classes(root, (*NAMES, "extra"))
    return Planted("class-unused", "extra")


def class_only_in_val(root: Path, rng: Generator) -> Planted:
    _name_classes(root, (*NAMES, "extra"))
    image = image_of(root, rng, "val")
    rows = rows_of(image)
    write_rows(image, [["3", *rows[0][1:]], *rows[1:]])
    return Planted("class-untrained", "extra")


def class_with_few_objects(root: Path, rng: Generator) -> Planted:
    _name_classes(root, (*NAMES, "extra"))
    for image in rng.choice(
        sorted((root / "images/train").iterdir()), int(rng.integers(1, 10)), replace=False
    ):
        write_rows(Path(image), [*rows_of(Path(image)), ["3", ".5", ".5", ".9", ".9"]])
    return Planted("class-few", "extra")


def classes_unbalanced(root: Path, rng: Generator) -> Planted:
    for number, image in enumerate(sorted((root / "images/train").iterdir())):
        many = [["0", f"{0.05 + 0.04 * n:.2f}", ".3", ".03", ".2"] for n in range(int(rng.integers(18, 22)))]
        write_rows(
            image, many + [["1", ".7", ".8", ".2", ".2"]] * (number < 12) + [["2", ".2", ".8", ".2", ".2"]]
        )
    return Planted("class-unbalanced", NAMES[0])


# ---- other formats ------------------------------------------------------------------------------------


def _voc(root: Path, rng: Generator, pattern: str, new: Callable[[re.Match[str]], str]) -> tuple[Path, Path]:
    """Convert to VOC and replace something in one file; return the data set and the file."""
    image = image_of(root, rng)
    data = convert(root, "voc", root.with_name("voc"))
    path = data / "Annotations" / f"{image.stem}.xml"
    if not path.exists() or image.stem in {p.stem for p in (root / "images/val").iterdir()}:
        path = sorted((data / "Annotations").iterdir())[0]
    text, count = re.subn(pattern, new, path.read_text(), count=1)
    assert count
    path.write_text(text)
    return data, path


def voc_of_wrong_size(root: Path, rng: Generator) -> Planted:
    data, path = _voc(root, rng, r"<width>(\d+)", lambda found: f"<width>{int(found[1]) + 64}")
    return Planted("size-differs", path.stem, data)


def voc_box_outside(root: Path, rng: Generator) -> Planted:
    data, path = _voc(root, rng, r"<xmax>[^<]+", lambda _: f"<xmax>{SIZE + rng.integers(20, 90)}")
    return Planted("label-wrong", path.name, data)


def voc_corners_swapped(root: Path, rng: Generator) -> Planted:
    data, path = _voc(
        root, rng, r"<xmin>([^<]+)</xmin>(\s*<ymin>[^<]+</ymin>\s*)<xmax>([^<]+)</xmax>",
        lambda found: f"<xmin>{found[3]}</xmin>{found[2]}<xmax>{found[1]}</xmax>",
    )  # fmt: skip
    return Planted("label-wrong", path.name, data)


def voc_class_unknown(root: Path, rng: Generator) -> Planted:
    data, path = _voc(root, rng, r"<name>[^<]+", lambda _: "<name>unheard-of")
    return Planted("label-wrong", path.name, data)


def voc_xml_broken(root: Path, rng: Generator) -> Planted:
    data, path = _voc(root, rng, r"</annotation>", lambda _: "")
    return Planted("label-wrong", path.name, data)


def _coco(root: Path, rng: Generator, change: Callable[[dict], None]) -> Path:
    data = convert(root, "coco", root.with_name("coco"))
    path = data / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    change(content["annotations"][rng.integers(len(content["annotations"]))])
    path.write_text(json.dumps(content))
    return data


def coco_box_without_width(root: Path, rng: Generator) -> Planted:
    def change(found: dict) -> None:
        found["bbox"][2] = 0

    return Planted("box-flat", "instances_train.json", _coco(root, rng, change))


FAULTS: Mapping[str, Callable[[Path, Generator], Planted]] = {
    fault.__name__: fault
    for fault in (
        random_bytes, zero_bytes, text_called_jpg, jpeg_cut, jpeg_header_alone, png_cut, image_gone, image_too_small,
        image_very_long, image_turned, image_grey, image_deep, image_with_alpha, image_cmyk, image_twice_in_train,
        image_in_both_splits, image_encoded_again, image_brightened, image_shifted, image_scaled, label_without_image,
        image_without_label, label_empty, label_in_capitals, label_next_to_image, class_unknown, class_negative,
        class_fractional, class_by_name, row_of_words, decimal_commas, columns_missing, column_too_many, coordinate_nan,
        coordinate_infinite, coordinates_in_percent, coordinates_in_px, box_outside, box_of_negative_width,
        polygon_among_boxes, label_of_other_encoding, label_of_utf16_unmarked, box_over_the_edge, box_without_width,
        box_without_area, row_twice, box_nearly_twice, box_of_two_classes, box_too_small, class_never_used,
        class_only_in_val, class_with_few_objects, classes_unbalanced, voc_of_wrong_size, voc_box_outside,
        voc_corners_swapped, voc_class_unknown, voc_xml_broken, coco_box_without_width,
    )
}  # fmt: skip
"""Name -> what plants the fault."""


# ---- what is right ------------------------------------------------------------------------------------


def _written_as(root: Path, rng: Generator, encode: Callable[[str], bytes]) -> None:
    label = label_of(image_of(root, rng))
    label.write_bytes(encode(label.read_text()))


HARMLESS: Mapping[str, Callable[[Path, Generator], None]] = {
    "byte order mark": lambda root, rng: _written_as(root, rng, lambda text: text.encode("utf-8-sig")),
    "UTF-16, marked": lambda root, rng: _written_as(root, rng, lambda text: text.encode("utf-16")),
    "lines of Windows": lambda root, rng: _written_as(
        root, rng, lambda text: text.replace("\n", "\r\n").encode()
    ),
    "blank lines and tabs": lambda root, rng: _written_as(
        root, rng, lambda text: text.replace("\n", "\n\n").replace(" ", "\t").encode()
    ),
    "classes.txt": lambda root, _: (root / "labels/train/classes.txt").write_text("\n".join(NAMES)) and None,
}
"""What editors and tools do to labels and the doctor has to take as it is."""
