"""What the number of processes changes of a training that learns: mAP50 of the best weights, by seed.

    python -m benchmarks.process_noise --processes 1 2 4 --seeds 3

A network of five convolutions and a head learns two forms of synthetic images; the processes share the processor's
cores. What differs between numbers of processes is the order of sums.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from detector import YOLO
from detector.data.drawn import FORMS, make_drawn_dataset
from detector.tables import align

MODEL = """
scales:
  n: [1.0, 1.0, 64]
reg_max: 16
dual_head: false
class_branch: depthwise
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [48, 3, 2]]
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [64, 3, 2]]
head:
  - [[2, 3, 4], 1, Detect, []]
"""
SETTINGS = {
    "imgsz": 96, "batch": 8, "workers": 0, "plots": False, "verbose": False, "device": "cpu", "amp": False,
    "loggers": "none", "plugins": False, "mosaic": 0.0,
}  # fmt: skip


def make_scene(folder: Path) -> None:
    names = list(FORMS[:2])
    make_drawn_dataset(folder / "data", {"train": 48, "val": 24}, names, seed=0, size=96)
    (folder / "data.yaml").write_text(f"path: data\ntrain: images/train\nval: images/val\nnames: {names}\n")
    (folder / "small.yaml").write_text(MODEL)


def trained(folder: Path, processes: int, seed: int, epochs: int) -> float:
    """Return the mAP50 of the best weights of a training."""
    torch.set_num_threads(1)
    several = {"processes": processes} if processes > 1 else {}
    model = YOLO(folder / "small.yaml")
    metrics = model.train(
        data=folder / "data.yaml", epochs=epochs, seed=seed, project=folder / "runs", **several, **SETTINGS
    )
    assert metrics is not None
    return float(metrics.box.map50)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()
    rows = [["processes", *(f"seed {seed}" for seed in range(args.seeds)), "mean"]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_scene(folder)
        for processes in args.processes:
            found = [trained(folder, processes, seed, args.epochs) for seed in range(args.seeds)]
            rows.append(
                [f"{processes}", *(f"{value:.3f}" for value in found), f"{statistics.mean(found):.3f}"]
            )
            print(rows[-1], file=sys.stderr, flush=True)
    print(align(rows))


if __name__ == "__main__":
    main()
