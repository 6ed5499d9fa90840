"""How long the labels of a data set take to read: the first start, and the second from the label cache.

    python -m benchmarks --only scan

Each start is a separate process. The images are JPEG files of 320 x 240 px, written just before, so the
system has them in memory: this measures the work, not the disk. The labels of these images are read from a
label file each (YOLO), and from one COCO file; pycocotools reads the COCO file too, and looks at no image.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.bench import Bench

KINDS = 16  # different images; every file is one of them with a unique comment
LABELS = "".join(f"{n} 0.{2 + n} 0.5 0.125 0.25\n" for n in range(7))  # as many boxes as COCO has per image


def write_images(folder: Path, count: int) -> None:
    """Write this many JPEG files of about 12 KB with a label file each, in YOLO layout."""
    images, labels = folder / "images", folder / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    rng = np.random.default_rng(0)
    kinds = []
    for _ in range(KINDS):
        rough = rng.integers(0, 255, (15, 20, 3), np.uint8)
        kinds.append(cv2.imencode(".jpg", cv2.resize(rough, (320, 240)))[1].tobytes())
    for number in range(count):
        content = kinds[number % KINDS]
        comment = b"\xff\xfe\x00\x0a" + f"{number:08}".encode()
        (images / f"{number:08}.jpg").write_bytes(content[:2] + comment + content[2:])
        (labels / f"{number:08}.txt").write_text(LABELS, encoding="utf-8")


def write_coco(folder: Path, count: int) -> None:
    """Write the labels of these images as one COCO file."""
    rows = [list(map(float, line.split())) for line in LABELS.splitlines()]
    boxes = [[(x - w / 2) * 320, (y - h / 2) * 240, w * 320, h * 240] for _, x, y, w, h in rows]
    images = [
        {"id": n, "file_name": f"{n:08}.jpg", "width": 320, "height": 240, "license": 1} for n in range(count)
    ]
    annotations = [
        {
            "image_id": n,
            "category_id": c + 1,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            "segmentation": [],
        }
        for n in range(count)
        for c, box in enumerate(boxes)
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    categories = [{"id": c + 1, "name": f"class_{c}"} for c in range(len(rows))]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "coco.json").write_text(json.dumps(content), encoding="utf-8")


def run(bench: Bench) -> list[list[str]]:
    """Seconds that reading the labels takes, those of the processor, and the memory it needs at most."""
    folder = bench.folder / "scan"
    write_images(folder, bench.scan_images)
    write_coco(folder, bench.scan_images)
    rows = [["scan, s", "images", "boxes", "wall", "processor", "peak MiB"]]
    for title, reader in (
        ("first start", "yolo"), ("second start", "yolo"),
        ("COCO, first start", "coco"), ("COCO, second start", "coco"), ("pycocotools", "pycocotools"),
    ):  # fmt: skip
        command = [sys.executable, "-m", "benchmarks.scan", str(folder), reader]
        root = Path(__file__).resolve().parents[1]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, cwd=root).stdout)
        rows.append([title, *found])
    return rows


def peak_memory() -> float | None:
    """Return the peak memory of this process, MiB; None where the system does not report it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024


def read(folder: Path, reader: str) -> tuple[int, int]:
    """Read the labels by one of the readers; return the numbers of images and boxes."""
    if reader == "pycocotools":
        from pycocotools.coco import COCO

        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(folder / "coco.json"))
        return len(coco.imgs), len(coco.anns)
    from detector.data.annotations import build_annotations
    from detector.data.formats.coco import read_coco
    from detector.data.formats.yolo import read_yolo
    from detector.data.sources import list_images

    if reader == "coco":
        labels = read_coco(folder / "coco.json", folder / "images")
    else:
        labels = read_yolo(list_images([folder / "images"]))
    found = build_annotations(labels, {n: f"class_{n}" for n in range(7)})
    return len(found), len(found.labels)


def measure(folder: Path, reader: str) -> list[str]:
    """Read the labels once in this process and return the cells of a row."""
    import pycocotools.coco  # noqa: F401

    before, start, worked = peak_memory(), time.perf_counter(), time.process_time()
    images, boxes = read(folder, reader)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    after = peak_memory()
    memory = "-" if before is None or after is None else f"{after - before:.0f}"
    return [str(images), str(boxes), f"{seconds:.2f}", f"{worked:.2f}", memory]


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2])))
