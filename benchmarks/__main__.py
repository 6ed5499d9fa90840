"""Speed tables: ours against the bare network's, and against a peer's if there is one.

    python -m benchmarks                                    everything, on synthetic images
    python -m benchmarks --peer path/to/venv                the peer as well, and how many times we are as fast
    python -m benchmarks --only loading --data coco.yaml    one table, on other images
    python -m benchmarks --only training --quick            a smoke test; its numbers mean nothing

"of bare" is our speed as a fraction of the bare network's in the same precision. "ours faster" is how many
times as fast ours is, in its default precision. A peer's row says how many threads it used: its default
number, then as many as ours.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import (
    callbacks,
    check,
    evaluation,
    exported,
    loading,
    mixes,
    orthogonalization,
    prediction,
    processes,
    runs,
    scan,
    training,
    validation,
)
from benchmarks.bench import Bench, describe_machine, read_image
from benchmarks.peer import Peer
from detector.data.config import load_data_config
from detector.device import select_device
from detector.tables import align

QUICK: dict[str, Any] = {
    "models": ("yolo11n",), "epochs": 2, "steps": 2, "batch": 2, "imgsz": 64, "predict_imgsz": 128,
    "loading_imgsz": (64,), "loading_images": 8, "scan_images": 8, "val_images": 4, "repeats": 2,
}  # fmt: skip


SECTIONS = {
    "training": training.run,
    "processes": processes.run,
    "orthogonalization": orthogonalization.run,
    "scan": scan.run,
    "check": check.run,
    "loading": loading.run,
    "mixes": mixes.run,
    "validation": validation.run,
    "prediction": prediction.run,
    "exported": exported.run,
    "evaluation": evaluation.run,
    "callbacks": callbacks.run,
    "runs": runs.run,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, metavar="VENV", help="virtual environment that holds the peer")
    parser.add_argument("--data", default="shapes.yaml", help="data YAML; default: synthetic images")
    parser.add_argument(
        "--image", type=Path, help="image to predict; default: a synthetic one of 810 x 1080 px"
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--models", help="models, separated by commas; default: yolov8n,yolo11n,yolo26n")
    parser.add_argument("--epochs", type=int, help="epochs of a training; the first is not counted")
    parser.add_argument("--steps", type=int, help="batches of an epoch; default: 12")
    parser.add_argument("--batch", type=int, help="images per training batch; default: 16")
    parser.add_argument("--imgsz", type=int, help="input px of training and validation; default: 320")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="check that it runs; the numbers mean nothing")
    args = parser.parse_args(arguments)
    sections = args.only.split(",")
    if unknown := [name for name in sections if name not in SECTIONS]:
        parser.error(f"--only {','.join(unknown)}: the sections are {', '.join(SECTIONS)}")
    sizes = QUICK if args.quick else {}
    sizes = sizes | ({"models": tuple(args.models.split(","))} if args.models else {})
    given = {name: getattr(args, name) for name in ("epochs", "steps", "batch", "imgsz")}
    sizes = sizes | {name: value for name, value in given.items() if value}
    data, image, device = load_data_config(args.data), read_image(args.image), select_device(args.device)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as name, mock.patch.dict(os.environ):
        os.environ["DETECTOR_CACHE"] = name  # label caches of the copied images are removed with them
        folder = Path(name)
        peer = Peer(args.peer.absolute(), folder / "peer") if args.peer else None
        bench = Bench(folder, data, image, device, peer, **sizes)
        print(*describe_machine(bench), sep="\n", flush=True)
        for section in sections:
            print(f"measuring {section} ...", file=sys.stderr, flush=True)
            print(f"\n{align(SECTIONS[section](bench))}", flush=True)


if __name__ == "__main__":
    main()
