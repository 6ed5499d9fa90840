"""Images per second through the training input pipeline, with mosaic: the first pass, and the best of three later ones.

Our first pass includes the start of the workers; the peer has started its own before. Our later passes find
decoded images in memory (the default); "decoding" is without that cache, like the peer.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench import times
from detector.data.annotations import build_annotations
from detector.data.augment import Augmentation
from detector.data.config import load_data_config
from detector.data.dataset import DetectionDataset
from detector.data.formats.yolo import read_yolo
from detector.data.loader import TrainLoader

if TYPE_CHECKING:
    from benchmarks.bench import Bench

CLASSES = {i: f"class_{i}" for i in range(1000)}
PASSES = 4


def measure(images: list[Path], imgsz: int, workers: int, batch: int, cache: str | bool) -> list[float]:
    """Return images/s of each pass; the start of the workers is in the first one."""
    annotations = build_annotations(read_yolo(images), CLASSES)
    dataset = DetectionDataset(annotations, imgsz, Augmentation(), cache=cache, workers=workers)
    loader = TrainLoader(dataset, batch, workers=workers)
    rates = []
    for epoch in range(PASSES):
        start = time.perf_counter()
        seen = sum(len(found) for found in loader.batches(epoch))
        rates.append(seen / (time.perf_counter() - start))
    loader.close()
    return rates


def run(bench: Bench) -> list[list[str]]:
    """Return the table."""
    count = min(bench.loading_images, len(bench.data.split_images("train")))
    settings = bench.training_settings(count, 1, epochs=1)
    images = load_data_config(settings["data"]).split_images("train")  # type: ignore[arg-type]
    rows = [["loading, images/s", "workers", "first pass", "later", "decoding", "ours faster"]]
    for imgsz in bench.loading_imgsz:
        for workers in (0, 2):
            cold, *warm = measure(images, imgsz, workers, bench.batch, "auto")
            _, *decoding = measure(images, imgsz, workers, bench.batch, False)
            speeds = [f"{speed:.0f}" for speed in (cold, max(warm), max(decoding))]
            rows.append([f"{imgsz} px ours", str(workers), *speeds, "-"])
            if bench.peer is None:
                continue
            sizes = settings | {"imgsz": imgsz, "workers": workers}
            found = bench.peer.run("loading", model=bench.models[0], passes=PASSES, **sizes)
            if found is not None:
                first, *later = found["images_per_s"]
                speeds = [f"{first:.0f}", "-", f"{max(later):.0f}", times(max(warm), max(later))]
                rows.append([f"{imgsz} px peer {found['version']}", str(workers), *speeds])
    return rows
