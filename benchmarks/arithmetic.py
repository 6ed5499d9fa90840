"""What training in several processes sends, computes and keeps, by network: arithmetic, nothing is run.

    python -m benchmarks.arithmetic --processes 8 64
    python -m benchmarks.arithmetic --images 1000000 --kilobytes 150 --speed 1000 --loaded 120

The second also says what a data set needs, by `--speed`, images per second that one process trains, and `--loaded`,
those that one core decodes and augments (`python -m benchmarks --only training,loading` measures both on your machine).
Gradients are exchanged in a ring, of which every process sends 2 (n - 1) / n of the bytes. MB are 10^6 bytes.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from detector.nn.model import DetectionModel, count_gflops, load_model_config
from detector.tables import align
from detector.training.optim import group_parameters

NETWORKS = tuple(f"{family}{size}" for family in ("yolov8", "yolo11", "yolo26") for size in "nsmlx")
LINKS = {"NVLink": 300e9, "400 Gb/s": 50e9, "100 Gb/s": 12.5e9, "10 Gb/s": 1.25e9}
"""Bytes per second and direction that a link is sold with."""
ITERATIONS = 5  # of MuSGD's orthogonalization
DETECTIONS, DETECTION_BYTES = 300, 4 * 6  # of a validated image at most: box, score, class


def build(name: str) -> DetectionModel:
    with torch.device("meta"):
        return DetectionModel(load_model_config(f"{name}.yaml"))


def orthogonalization_gflops(shapes: list[torch.Size]) -> float:
    """Return the operations of MuSGD's iterations for kernels of these shapes, seen as (out, rest)."""
    total = 0
    for shape in shapes:
        rows, columns = sorted((shape[0], shape[1:].numel()))
        total += ITERATIONS * (4 * rows * rows * columns + 2 * rows**3)
    return total / 1e9


def traffic(name: str, processes: list[int], imgsz: int) -> list[str]:
    """Return a row of what a network's steps exchange."""
    model = build(name)
    parameters = sum(p.numel() for p in model.parameters())
    gradient = 4 * parameters / 1e6
    norms = [m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    rings = [2 * (n - 1) / n * gradient for n in processes]
    muon = group_parameters(model, True)[0].muon
    forward = count_gflops(model, imgsz, training=True)
    return [
        name,
        f"{parameters / 1e6:.1f}",
        f"{gradient:.1f}",
        *(f"{sent:.1f}" for sent in rings),
        *(f"{1e3 * 1e6 * rings[-1] / speed:.2f}" for speed in LINKS.values()),
        f"{2 * len(norms)}",
        f"{4 * (2 * sum(norms) + len(norms) + 2 * sum(norms)) / 1e3:.0f}",
        f"{orthogonalization_gflops([p.shape for p in muon]):.1f}",
        f"{3 * forward:.1f}",
        f"{4 * sum(p.numel() for p in muon) / 1e6:.1f}",
        f"{4 * (3 * parameters + sum(p.numel() for p in muon)) / 1e6:.0f}",
    ]


def traffic_table(processes: list[int], imgsz: int) -> list[list[str]]:
    """Return what every network exchanges per step, and the size of its state."""
    head = [
        "network", "M parameters", "gradients MB", *(f"sent of {n} MB" for n in processes),
        *(f"{link} ms" for link in LINKS), "norm messages", "norm kB", "MuSGD GFLOP", "GFLOP/image", "MuSGD MB",
        "state MB",
    ]  # fmt: skip
    return [head, *(traffic(name, processes, imgsz) for name in NETWORKS)]


def data_table(
    images: int, kilobytes: float, speed: float, loaded: float, processes: list[int]
) -> list[list[str]]:
    """Return what a data set needs of machines that train so fast."""
    rows = [
        ["processes", "epoch min", "loader cores", "read MB/s", "images GB", "gathered of 5,000 validated MB"]
    ]
    for n in [1, *processes]:
        rate = n * speed
        rows.append(
            [
                f"{n}",
                f"{images / rate / 60:.1f}",
                f"{rate / loaded:.0f}",
                f"{rate * kilobytes / 1e3:.0f}",
                f"{images * kilobytes / 1e6:.0f}",
                f"{5000 * DETECTIONS * DETECTION_BYTES / 1e6:.0f}",
            ]
        )
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--images", type=int, help="of the data set")
    parser.add_argument("--kilobytes", type=float, default=150, help="of an image file")
    parser.add_argument("--speed", type=float, help="images per second that one process trains")
    parser.add_argument("--loaded", type=float, help="images per second that one core loads")
    args = parser.parse_args()
    print(align(traffic_table(args.processes, args.imgsz)))
    if args.images:
        if not (args.speed and args.loaded):
            parser.error("--images needs --speed and --loaded, which are measured")
        print(f"\n{align(data_table(args.images, args.kilobytes, args.speed, args.loaded, args.processes))}")


if __name__ == "__main__":
    main()
