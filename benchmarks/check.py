"""How long `detector check` takes, first and again, and the look before every training.

    python -m benchmarks --only check

Each start is a separate process. The images are different JPEG files of 32 x 32 px with a label file each, four
of five to train on: little to decode, so this measures what the doctor itself takes for every image.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.bench import Bench
from benchmarks.scan import peak_memory

CLASSES = 7  # and boxes per image, as many as COCO has
SIDE = 32  # px


def write_images(folder: Path, count: int) -> None:
    """Write this many JPEG files that all look different, in YOLO layout."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
    for number in range(count):
        split = "val" if number % 5 == 4 else "train"
        rough = rng.integers(0, 255, (SIDE // 4, SIDE // 4, 3), np.uint8)
        image = cv2.imencode(".jpg", cv2.resize(rough, (SIDE, SIDE)))[1].tobytes()
        (folder / f"images/{split}/{number:08}.jpg").write_bytes(image)
        x = rng.uniform(0.2, 0.8, CLASSES)
        rows = "".join(f"{n} {x[n]:.6f} 0.{2 + n} 0.125 0.1\n" for n in range(CLASSES))
        (folder / f"labels/{split}/{number:08}.txt").write_text(rows, encoding="utf-8")
    names = ", ".join(f"class_{n}" for n in range(CLASSES))
    text = f"train: images/train\nval: images/val\nnames: [{names}]\n"
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def run(bench: Bench) -> list[list[str]]:
    """Seconds that a check takes, those of the processor, and the memory of the process at its peak."""
    folder = bench.folder / "check"
    write_images(folder, bench.scan_images)
    rows = [["check, s", "images", "boxes", "wall", "processor", "peak MiB"]]
    for what in ("first check", "second check", "before training"):
        command = [sys.executable, "-m", "benchmarks.check", str(folder), what]
        root = Path(__file__).resolve().parents[1]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, cwd=root).stdout)
        rows.append([what, *found])
    return rows


def measure(folder: Path, what: str) -> list[str]:
    """Check once in this process, or look at what has been read for a training, and return the cells of a row."""
    from detector.data.annotations import build_annotations
    from detector.data.config import load_data_config
    from detector.data.doctor import check
    from detector.data.first_look import first_look

    if what == "before training":
        config = load_data_config(folder)
        parts = [build_annotations(config.read_labels(split), config.names) for split in ("train", "val")]
        start, worked = time.perf_counter(), time.process_time()
        first_look(parts[0], parts[1], 640)
        counts = [sum(map(len, parts)), sum(len(part.labels) for part in parts)]
    else:
        start, worked = time.perf_counter(), time.process_time()
        splits = check(folder).splits.values()
        counts = [sum(split[key] for split in splits) for key in ("images", "boxes")]
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    memory = peak_memory()
    return [*map(str, counts), f"{seconds:.2f}", f"{worked:.2f}", "-" if memory is None else f"{memory:.0f}"]


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2])))
