"""How batch-norm statistics are best kept for the averaged weights: one training, validated in six ways per epoch.

    python -m benchmarks.batch_norm --data shapes.yaml --imgsz 160 --epochs 40 --output docs/batch_norm.png

The training is that of `detector train`. At the end of every epoch the averaged weights are validated with

* `running`: the running statistics of the training, averaged as the weights are; the usual way,
* `averaged`: the statistics of each batch alone, averaged as the weights are,
* `as validated`: what a training does here, `32 images` with two differences in the first steps: a part of the running
  statistics stays, and there are more images where they are small,
* `32 images`: the statistics of the averaged weights on the last 32 images of the epoch, in one pass,
* `32 apart`, `all images`: the mean over the batches of the same images, and of all images of the epoch.

The table gives the validation's class loss and mAP50-95, and three distances: of the running statistics from those
of all images (the mean shift of a channel in its standard deviations), of the averaged weights from the model's, and
of the model's weights from those an epoch before (both as a part of the weights' norm).
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detector import YOLO
from detector.cli import parse_words
from detector.engine.train import Trainer
from detector.engine.val import Validator
from detector.inference.torch_backend import TorchBackend
from detector.plots import LINE_COLORS, new_figure, rgb, write_figure
from detector.tables import align
from detector.training.batch_norm import STATISTICS_IMAGES, join_batches, recompute_statistics

OWN = "as validated"
FEW = f"{STATISTICS_IMAGES} images"
APART = f"{STATISTICS_IMAGES} apart"
WAYS = ("running", "averaged", OWN, FEW, APART, "all images")
Row = dict[str, Any]


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """Return the batch-norm layers."""
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def statistics(network: nn.Module) -> list[Tensor]:
    """Return mean and variance of every layer; the tensors are the layers' own."""
    found = []
    for layer in norms(network):
        assert layer.running_mean is not None and layer.running_var is not None
        found += [layer.running_mean, layer.running_var]
    return found


class Watch:
    """A callback that keeps the statistics of a training in all ways and compares them.

    Attributes:
        rows: one per epoch.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def on_train_start(self, trainer: Trainer) -> None:
        """Begin what is kept of the statistics."""
        self.momentum = norms(trainer.model)[0].momentum or 0.0
        start = statistics(trainer.model)
        self.running = [value.clone() for value in start]
        self.kept = {way: [value.clone() for value in start] for way in ("running", "averaged")}
        self.before = [p.detach().clone() for p in trainer.model.parameters()]

    def on_before_zero_grad(self, trainer: Trainer) -> None:
        """Average the statistics, right after the weights were."""
        weight = 1 - trainer.ema.decay_at(trainer.ema.updates)
        running = [value.clone() for value in statistics(trainer.model)]
        batch = torch._foreach_lerp(self.running, running, 1 / self.momentum)  # what moved them there
        torch._foreach_lerp_(self.kept["running"], running, weight)
        torch._foreach_lerp_(self.kept["averaged"], batch, weight)
        self.running = running

    def on_fit_epoch_end(self, trainer: Trainer) -> None:
        """Validate in all ways."""
        networks = {way: copy.deepcopy(trainer.ema.model) for way in WAYS}
        for way, kept in self.kept.items():
            torch._foreach_copy_(statistics(networks[way]), kept)
        for way, count, at_once in (
            (FEW, STATISTICS_IMAGES, STATISTICS_IMAGES),
            (APART, STATISTICS_IMAGES, 1),
            ("all images", len(trainer.data.train_annotations), 1),
        ):
            batches = map(trainer.images_to_device, join_batches(trainer.last_images(count), at_once))
            recompute_statistics(networks[way], trainer.model, batches)
        weights = [p.detach().clone() for p in trainer.model.parameters()]
        row: Row = {
            "epoch": trainer.epoch + 1,
            "training": trainer.metrics["train/cls_loss"],
            "statistics": shift(networks["running"], networks["all images"]),
            "average": distance(list(trainer.ema.model.parameters()), weights),
            "epoch's way": distance(self.before, weights),
        }
        self.before = weights
        for way, network in networks.items():
            validator = Validator(trainer.validator.suppression, trainer.callbacks, trainer.save_dir)
            data = trainer.data
            metrics = validator.run(
                TorchBackend(network, trainer.device, trainer.precision),
                data.val_loader, data.val_annotations, trainer.loss_fn, final=False,
            )  # fmt: skip
            row[way] = validator.losses["val/cls_loss"], metrics.results_dict["metrics/mAP50-95"]
        self.rows.append(row)


def shift(network: nn.Module, exact: nn.Module) -> float:
    """Return the mean distance of running means from the exact ones, in exact standard deviations."""
    pairs = zip(statistics(network)[::2], statistics(exact)[::2], statistics(exact)[1::2], strict=True)
    return float(
        torch.stack([((mean - true) / (var + 1e-3).sqrt()).abs().mean() for mean, true, var in pairs]).mean()
    )


def distance(weights: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """Return the norm of the difference as a part of the reference's norm."""
    gap = torch.stack(
        [(a.detach() - b).square().sum() for a, b in zip(weights, reference, strict=True)]
    ).sum()
    return float((gap / torch.stack([b.square().sum() for b in reference]).sum()).sqrt())


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Draw the class loss, mAP50-95 and the distances by epoch."""
    figure, (losses, scores, distances) = new_figure(1, 3, 4.8, 3.6)
    epochs = [row["epoch"] for row in rows]
    for way, number in zip(WAYS, LINE_COLORS, strict=False):
        color = rgb(number)
        losses.plot(epochs, [row[way][0] for row in rows], color=color, label=way)
        scores.plot(epochs, [row[way][1] for row in rows], color=color, label=way)
    losses.plot(epochs, [row["training"] for row in rows], color="0.6", linestyle="--", label="training")
    for name, number in zip(("statistics", "average", "epoch's way"), LINE_COLORS, strict=False):
        distances.plot(epochs, [row[name] for row in rows], color=rgb(number), label=name)
    losses.set_yscale("log")
    distances.set_yscale("log")
    for panel, title in ((losses, "class loss"), (scores, "mAP50-95"), (distances, "distance")):
        panel.set_xlabel("epoch")
        panel.set_ylabel(title)
        panel.legend(frameon=False, fontsize=8)
    return write_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print the table, write the plot."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batch_norm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default="shapes.yaml")
    parser.add_argument("--model", default="yolo11n")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--project", type=Path, default=Path("runs/batch_norm"))
    parser.add_argument("--output", type=Path, help="image file for the plot")
    parser.add_argument(
        "settings", nargs="*", help="further settings of the training, such as optimizer=AdamW"
    )
    args = parser.parse_args(arguments)
    watch = Watch()
    model = YOLO(args.model if args.model.endswith(".yaml") else f"{args.model}.yaml")
    model.add_callback(watch)
    given = {key: getattr(args, key) for key in ("data", "epochs", "imgsz", "batch", "project")}
    words, in_file = parse_words(args.settings, "train")
    given |= {"plots": False, "verbose": False, "loggers": "none", "pretrained": False}
    model.train(**(given | in_file | words))
    table = [
        ["epoch", "training", *(f"{way}: loss, mAP" for way in WAYS), "statistics", "average", "epoch's way"]
    ]
    for row in watch.rows:
        ways = [f"{row[way][0]:.3g}, {row[way][1]:.3f}" for way in WAYS]
        ends = [f"{row[name]:.3g}" for name in ("statistics", "average", "epoch's way")]
        table.append([str(row["epoch"]), f"{row['training']:.3g}", *ways, *ends])
    print(align(table))
    if args.output:
        print(draw(watch.rows, args.output))


if __name__ == "__main__":
    main()
