"""Whether trainings on very few images stay sane: many seeds, and the extremes of their validation losses.

    python -m benchmarks.stability --data shapes.yaml --images 8,20,50 --seeds 20 --imgsz 128 --epochs 20

Every training takes the first images of the training split. One row per number of images: the largest class loss of
any validation of any seed, and of the last one; the smallest one of an epoch with mAP50-95 below 0.001, how many
trainings were not sane (a loss that is not finite, a class loss above 20, or one below 0.001 while nothing is found),
and the smallest, mean and largest mAP50-95 of the best epochs.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector import YOLO
from detector.cli import parse_words
from detector.engine.loaders import TrainingData
from detector.engine.train import Trainer
from detector.errors import TrainingError
from detector.settings import TrainSettings
from detector.tables import align

HIGHEST, LOWEST = 20.0, 1e-3  # class loss of a sane validation


class Watch:
    """A callback that notes class loss and mAP50-95 of every validation."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.scores: list[float] = []

    def on_fit_epoch_end(self, trainer: Trainer) -> None:
        """Note an epoch."""
        self.losses.append(trainer.metrics["val/cls_loss"])
        self.scores.append(trainer.metrics["metrics/mAP50-95"])

    @property
    def losses_of_nothing(self) -> list[float]:
        """Class losses of epochs that find next to nothing."""
        return [loss for loss, score in zip(self.losses, self.scores, strict=True) if score < 1e-3]

    @property
    def sane(self) -> bool:
        """Whether no validation was out of bounds."""
        bounded = all(math.isfinite(loss) and loss <= HIGHEST for loss in self.losses)
        return bounded and all(loss >= LOWEST for loss in self.losses_of_nothing)


def train(model: str, settings: dict[str, Any]) -> Watch | None:
    """Train once; returns None if the training ended itself because a loss was not finite."""
    watch, yolo = Watch(), YOLO(model if model.endswith(".yaml") else f"{model}.yaml")
    yolo.add_callback(watch)
    try:
        yolo.train(**settings)
    except TrainingError as error:
        print(error)
        return None
    return watch


def main(arguments: Sequence[str] | None = None) -> None:
    """Train all, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stability",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default="shapes.yaml")
    parser.add_argument("--model", default="yolo11n")
    parser.add_argument("--images", default="8,20,50")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--imgsz", type=int, default=128)
    parser.add_argument("--project", type=Path, default=Path("runs/stability"))
    parser.add_argument("settings", nargs="*", help="further settings of the training, such as batch=8")
    args = parser.parse_args(arguments)
    given = {key: getattr(args, key) for key in ("data", "epochs", "imgsz", "project")}
    given |= {
        "plots": False,
        "save": False,
        "verbose": False,
        "loggers": "none",
        "name": "run",
        "exist_ok": True,
    }
    words, in_file = parse_words(args.settings, "train")
    given |= in_file | words
    available = len(TrainingData(TrainSettings.parse(given)).train_annotations)
    rows = [["images", "seeds", "class loss", "in the end", "of nothing", "not sane", "mAP50-95"]]
    for count in map(int, args.images.split(",")):
        runs = [
            train(args.model, given | {"fraction": count / available, "seed": seed})
            for seed in range(args.seeds)
        ]
        ended = [run for run in runs if run is not None and run.losses]
        scores = [max(run.scores) for run in ended]
        of_nothing = [loss for run in ended for loss in run.losses_of_nothing]
        rows.append([
            str(count), str(len(runs)),
            f"<= {max(loss for run in ended for loss in run.losses):.3g}" if ended else "",
            f"<= {max(run.losses[-1] for run in ended):.3g}" if ended else "",
            f">= {min(of_nothing):.3g}" if of_nothing else "",
            str(len(runs) - sum(run.sane for run in ended)),
            f"{min(scores):.3f}, {np.mean(scores):.3f}, {max(scores):.3f}" if ended else "",
        ])  # fmt: skip
        print(align(rows[:1] + rows[-1:]), flush=True)
    print(align(rows))


if __name__ == "__main__":
    main()
