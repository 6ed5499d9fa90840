"""How long the labels of a data set take to read: the first start, and the second from the label cache.

    python -m benchmarks --only scan

Each start is a separate process. The images are JPEG files of 320 x 240 px, written just before, so the
system has them in memory: this measures the work, not the disk.
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


def run(bench: Bench) -> list[list[str]]:
    """Seconds that reading the labels takes, those of the processor, and the memory it needs at most."""
    folder = bench.folder / "scan"
    write_images(folder, bench.scan_images)
    rows = [["scan, s", "images", "boxes", "wall", "processor", "peak MiB"]]
    for start in ("first start", "second start"):
        command = [sys.executable, "-m", "benchmarks.scan", str(folder)]
        root = Path(__file__).resolve().parents[1]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, cwd=root).stdout)
        rows.append([start, *found])
    return rows


def _peak_memory() -> float | None:
    """Return the peak memory of this process, MiB; None where the system does not report it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024


def measure(folder: Path) -> list[str]:
    """Read the labels once in this process and return the cells of a row."""
    from detector.data.annotations import build_annotations
    from detector.data.formats.yolo import read_yolo
    from detector.data.sources import list_images

    before, start, worked = _peak_memory(), time.perf_counter(), time.process_time()
    found = build_annotations(
        read_yolo(list_images([folder / "images"])), {n: f"class_{n}" for n in range(7)}
    )
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    after = _peak_memory()
    memory = "-" if before is None or after is None else f"{after - before:.0f}"
    return [str(len(found)), str(len(found.labels)), f"{seconds:.2f}", f"{worked:.2f}", memory]


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
