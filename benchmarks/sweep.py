"""Many short trainings side by side on one large GPU: data sets x models x seeds x variants of the recipe.

    python -m benchmarks.sweep --data raccoon.yaml,cards.yaml --seeds 0,1,2 --jobs 20 device=0 amp=bf16 cache=ram
    python -m benchmarks.sweep --variant now: --variant "slower:lr0=0.01" --variant "less:sgd=0.1,lr0=0.03" ...
    python -m benchmarks.sweep --peer path/to/venv --variant peer: --variant "peer-16:nbs=16" device=0

A small network keeps a large GPU busy for a fraction of the time: twenty trainings at a time take little longer than
one, more so with NVIDIA's MPS running (`nvidia-cuda-mps-control -d`). The trainings are forked from one process that
has everything imported. A variant is `name:setting=value,...`; `sgd` and `muon`, which are not settings, are the
weights of MuSGD's two steps. With `--peer` the trainings are the peer's, in its environment, as `benchmarks.peer`.

Results go to one line of JSON each in `--results`: mAP50-95 and class loss on the validation split, and seconds, each
by epoch. A training that has its line there is not run again: a sweep that was cut off continues. The table is that of
`benchmarks.sweep_report`, which compares variants and draws the curves, too. Seconds are those of a shared machine:
with `--jobs 1` they are the training's own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import yaml

from benchmarks.peer import Peer

OPTIMIZER_KEYS = ("sgd", "muon")
STARTS = 0.5  # seconds between two starts: twenty at once would only wait for each other


@dataclass(frozen=True)
class Job:
    """One training: its data YAML, model, seed, the name of its variant, and that variant's settings as given."""

    data: str
    model: str
    seed: int
    variant: str
    given: dict[str, str]

    @property
    def name(self) -> str:
        """What a training is recognised by."""
        return f"{Path(self.data).stem}-{self.model}-{self.seed}-{self.variant}"


def parse_variant(text: str) -> tuple[str, dict[str, str]]:
    """Split `name:setting=value,...` into the name and the settings."""
    name, _, words = text.partition(":")
    return name, dict(word.split("=", 1) for word in words.split(",") if word)


class Watch:
    """Notes a metric, the class loss of the validation and the time of every epoch."""

    def __init__(self, metric: str) -> None:
        self.metric, self.start = metric, time.perf_counter()
        self.found: dict[str, list[float]] = {"curve": [], "class_loss": [], "seconds": []}

    def note(self, trainer: Any) -> None:
        """The callback."""
        self.found["curve"].append(float(trainer.metrics[self.metric]))
        if "val/cls_loss" in trainer.metrics:  # the peer validates once more at its end, without losses
            self.found["class_loss"].append(float(trainer.metrics["val/cls_loss"]))
        self.found["seconds"].append(time.perf_counter() - self.start)


def train(job: Job, words: Sequence[str], folder: Path) -> dict[str, Any]:
    """Train here; returns mAP50-95, class loss of the validation and seconds, each by epoch."""
    from detector import YOLO
    from detector.cli import parse_words

    weights = {key: float(job.given[key]) for key in OPTIMIZER_KEYS if key in job.given}
    own = [f"{key}={value}" for key, value in job.given.items() if key not in OPTIMIZER_KEYS]
    given, _ = parse_words([*words, *own], "train")

    def weigh(trainer: Any) -> None:
        for group in trainer.optimizer.param_groups:
            group.update(weights)

    model, watch = YOLO(f"{job.model}.yaml"), Watch("metrics/mAP50-95")
    if weights:
        model.add_callback("on_train_start", weigh)
    model.add_callback("on_fit_epoch_end", watch.note)
    given |= {"data": job.data, "seed": job.seed, "project": folder, "name": job.name, "exist_ok": True}
    model.train(plots=False, save=False, verbose=False, loggers="none", **given)
    return watch.found


def measure(YOLO: Any, model: str, **settings: Any) -> dict[str, Any]:  # noqa: N803
    """The peer's side of `train`."""
    yolo, watch = YOLO(f"{model}.yaml"), Watch("metrics/mAP50-95(B)")
    yolo.add_callback("on_fit_epoch_end", watch.note)
    yolo.train(plots=False, verbose=False, **settings)
    return watch.found


def train_peer(job: Job, words: Sequence[str], folder: Path, venv: Path) -> dict[str, Any] | None:
    """Have the peer train; returns what `measure` found, or None if it failed (it has said why)."""
    pairs = [word.split("=", 1) for word in words] + list(job.given.items())
    settings = {key: yaml.safe_load(value) for key, value in pairs}
    settings |= {"data": str(Path(job.data).absolute()), "seed": job.seed, "name": job.name}
    peer = Peer(venv, folder.absolute() / f"{job.name}.peer")
    return peer.run("sweep", model=job.model, project=folder.absolute(), **settings)


def run(job: Job, words: Sequence[str], folder: Path, venv: Path | None, results: Path) -> None:
    """Train in this process, which was forked for it, and add a line to the results."""
    result = train_peer(job, words, folder, venv) if venv else train(job, words, folder)
    if result is not None:
        with results.open("a") as file:
            file.write(json.dumps(asdict(job) | result) + "\n")


def run_all(jobs: Sequence[Job], width: int, *given: Any) -> None:
    """Fork a process per training, at most `width` at a time."""
    running: list[Any] = []
    for job in jobs:
        while len(running) >= width:
            wait([process.sentinel for process in running])
            running = [process for process in running if process.is_alive()]
        process = multiprocessing.get_context("fork").Process(target=run, args=(job, *given))
        process.start()
        running.append(process)
        time.sleep(STARTS)
    for process in running:
        process.join()


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Read what was found by the name of the training."""
    from benchmarks.sweep_report import read_found

    fields = [field.name for field in dataclasses.fields(Job)]
    return {Job(**{name: run[name] for name in fields}).name: run for run in read_found(path)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what has no result yet, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default="shapes.yaml", help="data YAMLs, separated by commas")
    parser.add_argument("--models", default="yolov8n,yolo11n,yolo26n")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--variant", action="append", metavar="NAME:KEY=VALUE,...", help="several times")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--peer", type=Path, metavar="VENV", help="have the peer train instead")
    parser.add_argument("--project", type=Path, default=Path("runs/sweep"), help="folder for the trainings")
    parser.add_argument("--results", type=Path, default=Path("runs/sweep.jsonl"))
    parser.add_argument("settings", nargs="*", help="settings of all trainings; default: epochs=40 imgsz=320")
    args = parser.parse_args(arguments)
    for folder in (args.project, args.results.parent):
        folder.mkdir(parents=True, exist_ok=True)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    variants = [parse_variant(text) for text in args.variant or ["now:"]]
    parts = product(args.data.split(","), args.models.split(","), seeds, variants)
    jobs = [Job(data, model, seed, *variant) for data, model, seed, variant in parts]
    known = read_results(args.results)
    words = ["epochs=40", "imgsz=320", *args.settings]
    venv = args.peer.absolute() if args.peer else None
    if not venv:
        import detector.engine.train  # noqa: F401  the forked processes have it then
    run_all(
        [job for job in jobs if job.name not in known], args.jobs, words, args.project, venv, args.results
    )

    from benchmarks.sweep_report import table  # not on the peer's side, whose environment lacks our packages
    from detector.tables import align

    found = read_results(args.results)
    print(align(table(list(found.values()))))
    if missing := [job.name for job in jobs if job.name not in found]:
        raise SystemExit(f"failed: {', '.join(missing)}")


if __name__ == "__main__":
    main()
