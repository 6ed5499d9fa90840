"""Images per second of one core through the training input pipeline, by what samples are mixed of.

The best of some passes, in processor time, as far as possible independent of what else runs. "cached" finds every
decoded image in memory, as small data sets do by default; "decoding" none.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from detector.data.annotations import Annotations, build_annotations
from detector.data.augment import Augmentation
from detector.data.dataset import DetectionDataset
from detector.data.epochs import EpochOrder
from detector.data.loader import TrainLoader

if TYPE_CHECKING:
    from benchmarks.bench import Bench

MIXES = {
    "mosaic": {},
    "mosaic, mixup=1": {"mixup": 1.0},
    "mosaic, cutmix=1": {"cutmix": 1.0},
    "mosaic, copy_paste=1": {"copy_paste": 1.0},
    "mosaic, balance=1": {"balance": 1.0},
}
PASSES = 4


def measure(annotations: Annotations, imgsz: int, batch: int, cache: str | bool, **mix: float) -> float:
    """Return images/s of one core, of the best pass after the first one."""
    visits = EpochOrder(annotations, mix.pop("balance", 0.0))
    dataset = DetectionDataset(annotations, imgsz, Augmentation(**mix), cache=cache, visits=visits)
    loader = TrainLoader(dataset, batch)
    rates = []
    for epoch in range(PASSES):
        start = time.process_time()
        seen = sum(len(found) for found in loader.batches(epoch))
        rates.append(seen / (time.process_time() - start))
    return max(rates[1:])


def run(bench: Bench) -> list[list[str]]:
    """Return the table."""
    annotations = build_annotations(bench.data.read_labels("train"), bench.data.names)
    rows = [["mixes, images/s of a core", "px", "cached", "decoding"]]
    for imgsz in bench.loading_imgsz:
        for name, mix in MIXES.items():
            rates = [measure(annotations, imgsz, bench.batch, cache, **mix) for cache in ("ram", False)]
            rows.append([name, str(imgsz), *(f"{rate:.0f}" for rate in rates)])
    return rows
