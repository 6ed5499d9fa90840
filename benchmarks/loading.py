"""Images per second through the training loader, with mosaic.

    python benchmarks/loading.py --images data/images/train --imgsz 320 640 --workers 0 2

The labels lie where the YOLO layout has them. "cold" is the first epoch, which decodes every image;
"warm" is the best later one, from the cache.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from detector.data.augment import Augmentation
from detector.data.dataset import DetectionDataset
from detector.data.formats.yolo import scan_yolo
from detector.data.loader import TrainLoader

CLASSES = {i: f"class_{i}" for i in range(1000)}


def measure(
    images: list[Path], imgsz: int, workers: int, batch: int, repeats: int, cache: str | bool
) -> list[float]:
    """Images per second of each epoch; the start of the workers is in the first one."""
    annotations = scan_yolo(images, CLASSES)
    dataset = DetectionDataset(annotations, imgsz, Augmentation(), cache=cache, workers=workers)
    loader = TrainLoader(dataset, batch, workers=workers)
    rates = []
    for epoch in range(repeats):
        start = time.perf_counter()
        seen = sum(len(found) for found in loader.batches(epoch))
        rates.append(seen / (time.perf_counter() - start))
    loader.close()
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of images in YOLO layout")
    parser.add_argument("--imgsz", type=int, nargs="+", default=[320, 640])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--repeat", type=int, default=1, help="times the images are listed, for longer epochs"
    )
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--no-cache", action="store_true")
    args = parser.parse_args()
    images = sorted(p for p in args.images.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    images *= args.repeat
    with tempfile.TemporaryDirectory():
        print(f"{len(images)} images, batch {args.batch}")
        print(f"{'imgsz':>6} {'workers':>8} {'cold img/s':>11} {'warm img/s':>11}")
        for imgsz in args.imgsz:
            for workers in args.workers:
                cache = False if args.no_cache else "auto"
                cold, *warm = measure(images, imgsz, workers, args.batch, args.epochs, cache)
                print(f"{imgsz:>6} {workers:>8} {cold:>11.0f} {max(warm):>11.0f}", flush=True)


if __name__ == "__main__":
    main()
