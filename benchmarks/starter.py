"""What starting from a file of weights gains over random weights: the same trainings with it and without.

    python -m benchmarks.starter starter-yolo11n.safetensors --data bccd.yaml,raccoon.yaml --images 0,50 --epochs 40

For every data set, and every number of its first training images (0 = all), one training per seed starts from random
weights and one from the file, with equal settings. The table gives mAP50-95 of the best weights on the validation
split, mean and range over the seeds, and after how many epochs and minutes the training from the file has reached what
the one of the same seed from random weights ended with; a dash if it never did. Minutes are the share of the whole
command, its start included. Every training is a process, one after the other, as in `benchmarks.accuracy`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.accuracy import train
from detector.data.config import load_data_config
from detector.tables import align

Run = tuple[float, float, list[float]]  # as `train` returns it
HEADER = ["data", "images", "from random", "from the file", "gain", "epochs to its end", "minutes"]


def reached(run: Run, random: Run) -> tuple[int, float] | None:
    """Return when, in epochs and seconds, a run has reached the last mAP50-95 of the random one, if it did."""
    _, seconds, curve = run
    at = next((epoch for epoch, value in enumerate(curve, 1) if value >= random[2][-1]), None)
    return None if at is None else (at, seconds * at / len(curve))


def compare(runs: Sequence[Run], random: Sequence[Run]) -> list[str]:
    """Return the cells of a row: one run per seed from the file, and of the same seeds from random weights."""
    scores, before = ([score for score, _, _ in some] for some in (runs, random))
    ends = [reached(*pair) for pair in zip(runs, random, strict=True)]
    epochs = ", ".join("-" if end is None else str(end[0]) for end in ends)
    minutes = ", ".join("-" if end is None else f"{end[1] / 60:.1f}" for end in ends)
    gain = f"{np.mean(scores) - np.mean(before):+.4f}"
    return [spread(before), spread(scores), gain, f"{epochs} of {len(runs[0][2])}", minutes]


def spread(scores: Sequence[float]) -> str:
    """Return the mean, and the range if there are several."""
    whole = f" ({min(scores):.4f} to {max(scores):.4f})" if len(scores) > 1 else ""
    return f"{np.mean(scores):.4f}{whole}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.starter",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", type=Path, help="file of weights")
    parser.add_argument("--data", default="shapes.yaml", help="data sets, separated by commas")
    parser.add_argument(
        "--images", default="0", help="numbers of training images, separated by commas; 0 = all"
    )
    parser.add_argument("--model", default="yolo11n")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--project", type=Path, default=Path("runs/starter"), help="folder for the trainings")
    parser.add_argument("settings", nargs="*", help="further settings of `detector train`, as batch=8")
    args = parser.parse_intermixed_args(arguments)  # `settings` may come after options
    seeds = [int(seed) for seed in args.seeds.split(",")]
    starts = {"random": "pretrained=false", "file": f"pretrained={args.weights.absolute()}"}
    rows = [HEADER]
    for data in args.data.split(","):
        total = len(load_data_config(data).split_images("train"))
        for wanted in map(int, args.images.split(",")):
            count = min(wanted or total, total)
            settings = [f"data={data}", f"fraction={count / total}", *args.settings]
            settings += [f"{key}={getattr(args, key)}" for key in ("epochs", "imgsz")]
            place = args.project / f"{Path(data).stem}-{count}"
            found = {
                name: [train(args.model, seed, place / name, [*settings, start]) for seed in seeds]
                for name, start in starts.items()
            }
            rows.append([Path(data).stem, str(count), *compare(found["file"], found["random"])])
    print(align(rows))


if __name__ == "__main__":
    main()
