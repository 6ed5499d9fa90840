"""How well a recipe learns: trainings from random weights over several seeds, with their curves.

    python -m benchmarks.accuracy --data bccd.yaml --imgsz 320 --epochs 40 --output docs/accuracy.png
    python -m benchmarks.accuracy --data bccd.yaml --models yolo11n --seeds 0 optimizer=AdamW lr0=0.002

Every training is a separate process, as `detector train` runs it, one after the other or `--jobs` at a time (on a
large GPU, say; the seconds are then those of a shared machine). The table gives mAP50-95 of the best weights on the
validation split, and the seconds from the command to its end. The plot shows mAP50-95 by epoch: one thin line per
seed, the mean in bold.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from detector.plots import LINE_COLORS, new_figure, rgb, write_figure
from detector.tables import align

METRIC = "metrics/mAP50-95"


def train(model: str, seed: int, project: Path, settings: Sequence[str]) -> tuple[float, float, list[float]]:
    """Train once; returns mAP50-95 of the best weights, the seconds it took, and mAP50-95 by epoch."""
    folder = project / f"{model}-{seed}"
    command = [sys.executable, "-m", "detector", "train", f"model={model}.yaml", f"seed={seed}"]
    command += [f"project={project}", f"name={folder.name}", *settings]
    start = time.perf_counter()
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    seconds = time.perf_counter() - start
    (best,) = (line.split()[-1] for line in printed.splitlines() if line.split()[:1] == [METRIC])
    with (folder / "results.csv").open() as file:
        curve = [float(row[METRIC]) for row in csv.DictReader(file)]
    return float(best), seconds, curve


def draw(curves: dict[str, list[list[float]]], path: Path) -> Path:
    """Draw the curves of every model, seeds thin and their mean bold."""
    figure, (panel,) = new_figure(1, 1, 6.4, 4.2)
    for (model, runs), number in zip(curves.items(), LINE_COLORS, strict=False):
        color = rgb(number)
        epochs = np.arange(1, len(runs[0]) + 1)
        for run in runs:
            panel.plot(epochs, run, color=color, linewidth=0.6, alpha=0.6)
        panel.plot(epochs, np.mean(runs, axis=0), color=color, linewidth=2.2, label=model)
    panel.set_xlabel("epoch")
    panel.set_ylabel("mAP50-95")
    panel.legend(loc="lower right", frameon=False)
    return write_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print the table, write the plot."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default="shapes.yaml")
    parser.add_argument("--models", default="yolov8n,yolo11n,yolo26n")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument(
        "--project", type=Path, default=Path("runs/accuracy"), help="folder for the trainings"
    )
    parser.add_argument("--output", type=Path, help="image file for the plot of the learning curves")
    parser.add_argument(
        "settings", nargs="*", help="further settings of `detector train`, as optimizer=AdamW"
    )
    args = parser.parse_args(arguments)
    settings = [f"{key}={getattr(args, key)}" for key in ("data", "epochs", "imgsz", "batch")] + args.settings
    models, seeds = args.models.split(","), [int(seed) for seed in args.seeds.split(",")]
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = {m: [pool.submit(train, m, seed, args.project, settings) for seed in seeds] for m in models}
        found = {model: [job.result() for job in runs] for model, runs in jobs.items()}
    rows = [["model", *(f"seed {seed}" for seed in seeds), "mean mAP50-95", "seconds"]]
    for model, runs in found.items():
        scores = [score for score, _, _ in runs]
        seconds = ", ".join(f"{wall:.0f}" for _, wall, _ in runs)
        rows.append([model, *(f"{score:.4f}" for score in scores), f"{np.mean(scores):.4f}", seconds])
    print(align(rows))
    if args.output:
        curves = {model: [curve for _, _, curve in runs] for model, runs in found.items()}
        print(draw(curves, args.output))


if __name__ == "__main__":
    main()
