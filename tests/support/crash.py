"""Kill a small training again and again, resume it, and compare its end with that of one left alone.

    python -m tests.support.crash                 what `make crashtest` runs: 400 kills, at most ten minutes
    python -m tests.support.crash --kills 12 --seconds 40 --seed 7

A warm process is forked for every life of a training, in a session of its own. The ways it dies:

| way | what happens |
|---|---|
| instant | SIGKILL to the process and its workers, at any moment of its life |
| saving | the same, a random while after it announced the beginning of a save |
| operation | SIGKILL by its own hand within its n-th operation on files, half of a write being out |
| term | SIGTERM: it saves and ends with exit code 143 |
| term all | SIGTERM to the workers as well, as service managers send it |

A run has ended well when weights, EMA, optimizer, counters, random states, callbacks, last.pt, best.pt and
results.csv agree by SHA-256 with the run that was left alone. Of results.csv the columns `time` and `speed/...`
are left out, and of the states of callbacks the same rows: they are the clock's. SIGKILL ends a process, not the
machine: what the kernel has taken is still written. That files are flushed before they are renamed is tested in
tests/test_failing_disk.py.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from .disk import CrashError, watched

WAYS = ("instant", "saving", "saving", "operation", "operation", "term", "term all")
LIVES = 7  # a training is killed so often at most
HANGS = 90  # seconds
LAST_MOMENTS = {"run.lock", "weights/state-previous.pt"}  # they may stay when it dies after its last save
COMMON = {
    "imgsz": 64, "batch": 2, "epochs": 3, "workers": 0, "plots": False, "verbose": False, "device": "cpu",
    "close_mosaic": 1, "loggers": "none", "save_minutes": 1e-6, "patience": 0,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "one head, AdamW, fp32": {"model": "one", "optimizer": "AdamW", "amp": False},
    "one head, MuSGD, bf16, cache=ram, torchvision's transforms": {
        "model": "one", "optimizer": "MuSGD", "amp": "bf16", "cache": "ram", "transforms": "torchvision",
    },
    "two heads, MuSGD, fp32, 2 workers, albumentations": {
        "model": "two", "optimizer": "MuSGD", "amp": False, "workers": 2, "transforms": "albumentations",
    },
    "two heads, AdamW, bf16, 2 workers, cache=ram, accumulated": {
        "model": "two", "optimizer": "AdamW", "amp": "bf16", "workers": 2, "cache": "ram", "nbs": 5,
    },
}  # fmt: skip


class Drawing:
    """A callback with state, which draws from the global generators and puts a sum into the metrics."""

    def __init__(self) -> None:
        self.total = 0.0

    def on_train_batch_end(self, trainer: Any) -> None:
        import numpy as np
        import torch

        self.total += random.random() + float(np.random.rand()) + float(torch.rand(()))

    def on_fit_epoch_end(self, trainer: Any) -> None:
        trainer.metrics["drawn"] = self.total

    def state_dict(self) -> dict[str, float]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.total = state["total"]


def pipeline(library: str | None) -> Any:
    """Return a user's random transforms of a library; None for none."""
    if library == "torchvision":
        from torchvision.transforms import v2

        return v2.Compose([v2.ColorJitter(0.4, 0.4), v2.RandomHorizontalFlip(), v2.GaussianNoise()])
    if library == "albumentations":
        import albumentations as A  # noqa: N812

        return A.Compose([A.RandomBrightnessContrast(p=0.8), A.HorizontalFlip(), A.GaussNoise(p=0.5)])
    return None


# ---- one life -----------------------------------------------------------------------------------------


def make_scene(folder: Path) -> None:
    """Draw a data set and write the two architectures."""
    from detector.data.drawn import FORMS, make_drawn_dataset

    from .models import write_tiny

    names = list(FORMS[:3])
    make_drawn_dataset(folder / "data", {"train": 8, "val": 4}, names, seed=0, size=96)
    (folder / "data.yaml").write_text(f"path: data\ntrain: images/train\nval: images/val\nnames: {names}\n")
    write_tiny(folder / "one.yaml")
    write_tiny(folder / "two.yaml", dual=True)


def live(scene: Path, run: Path, variant: str, announce: int, die_at: int | None) -> None:
    """Train, or resume the training, in this process.

    Args:
        scene: folder of `make_scene`.
        run: the run folder.
        variant: a key of VARIANTS.
        announce: descriptor that is written "(" and ")" to around every save, and "." for every operation.
        die_at: die within this operation on files, counted from the first save on.
    """
    import numpy as np
    import torch

    from detector import YOLO
    from detector.callbacks.builtin import csv_logger
    from detector.training import saving
    from detector.training.saving import PREVIOUS_STATE, STATE

    settings = COMMON | VARIANTS[variant]
    transforms = pipeline(settings.pop("transforms", None))
    yolo = YOLO(scene / f"{settings.pop('model')}.yaml")
    yolo.add_callback(Drawing())
    operations = 0

    def around(function: Any) -> Any:
        def announced(*args: Any, **options: Any) -> Any:
            os.write(announce, b"(")
            try:
                return function(*args, **options)
            finally:
                os.write(announce, b")")

        return announced

    def hook(operation: str, path: str) -> OSError | None:
        nonlocal operations
        operations += 1
        os.write(announce, b".")
        return CrashError() if operations == die_at else None

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    with contextlib.ExitStack() as stack:
        for module, name in (
            (saving, "save_checkpoint"), (csv_logger, "_write"), (csv_logger, "_append"),
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(module, name, around(getattr(module, name))))
        stack.enter_context(watched(hook))
        if (run / STATE).exists() or (run / PREVIOUS_STATE).exists():
            yolo.train(resume=run, transforms=transforms)
        else:
            where = {"project": run.parent, "name": run.name, "exist_ok": True}
            yolo.train(data=scene / "data.yaml", transforms=transforms, **where, **settings)


def fork_life(scene: Path, run: Path, variant: str, die_at: int | None = None) -> tuple[int, int]:
    """Begin a life in a process and session of its own; return its id and where it announces its saves."""
    listening, announcing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(announcing)
        return pid, listening
    code = 70
    try:
        os.setsid()
        os.close(listening)
        log = os.open(run.parent / f"{run.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        live(scene, run, variant, announcing, die_at)
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


# ---- a death ------------------------------------------------------------------------------------------


class Life:
    """A life from outside: it is listened to, and ended."""

    def __init__(self, pid: int, heard: int) -> None:
        self.pid, self.heard, self.began = pid, heard, time.monotonic()
        self.saves = self.operations = 0
        self.saving = self.ended = False

    def listen(self, until: float) -> None:
        """Follow the announcements until a moment, or to the end, or up to the beginning of a save."""
        while not self.ended and (left := until - time.monotonic()) > 0:
            if not select.select([self.heard], [], [], left)[0]:
                return
            begun = self.read()
            if begun:
                return

    def read(self) -> bool:
        said = os.read(self.heard, 1 << 16)
        self.ended = not said
        self.saves += said.count(b"(")
        self.operations += said.count(b".")
        marks = [letter for letter in said if letter in b"()"]
        if marks:
            self.saving = marks[-1:] == list(b"(")
        return b"(" in said

    def kill(self, signal_: int, everyone: bool) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal_) if everyone else os.kill(self.pid, signal_)

    def end(self) -> int:
        """Wait for the end; return the exit code, or minus the signal."""
        deadline = time.monotonic() + HANGS
        while not self.ended and time.monotonic() < deadline:
            self.listen(deadline)
        if not self.ended:
            self.kill(signal.SIGKILL, True)
        os.close(self.heard)
        _, status = os.waitpid(self.pid, 0)
        self.kill(signal.SIGKILL, True)  # workers without a parent
        return os.waitstatus_to_exitcode(status) if time.monotonic() < deadline else 124


def die(way: str, chance: random.Random, whole: dict[str, Any], begin: Any) -> tuple[int, Life]:
    """Begin a life and end it in one of the WAYS; return its exit code and itself."""
    earliest, latest = whole["first save"] * 0.8, whole["seconds"]
    if way == "operation":
        life = Life(*begin(1 + chance.randrange(whole["operations"] // 2)))
        return life.end(), life
    life = Life(*begin(None))
    if way == "saving":
        wanted = 1 + chance.randrange(max(whole["saves"] // 2, 1))
        while not life.ended and life.saves < wanted:
            life.listen(life.began + HANGS)
        until = time.monotonic() + chance.random() * whole["save"]
    else:
        until = life.began + earliest + chance.random() ** 2 * (latest - earliest)
    while not life.ended and time.monotonic() < until:
        if until - time.monotonic() < 0.002:
            continue  # sleeping is not that exact
        life.listen(until - 0.001)
    signal_ = signal.SIGTERM if "term" in way else signal.SIGKILL
    life.kill(signal_, everyone=way != "term")
    return life.end(), life


def measure(begin: Any) -> dict[str, Any]:
    """Let a training live to its end; return how long it took and how often it saved."""
    life = Life(*begin(None))
    first, spent, since = None, 0.0, None
    while not life.ended:
        life.listen(time.monotonic() + HANGS)
        now = time.monotonic()
        if life.saves and first is None:
            first = now - life.began
        if life.saving:
            since = since or now
        elif since is not None:
            spent, since = spent + now - since, None
    seconds = time.monotonic() - life.began
    code = life.end()
    return {
        "code": code, "seconds": seconds, "first save": first or 0.0, "saves": life.saves,
        "operations": life.operations, "save": 1.5 * spent / max(life.saves, 1),
    }  # fmt: skip


# ---- what is compared ---------------------------------------------------------------------------------


def sha256(value: Any) -> str:
    """Return SHA-256 of plain data and tensors: their types, shapes and bytes."""
    total = hashlib.sha256()
    for part in pieces(value):
        total.update(part)
    return total.hexdigest()


def pieces(value: Any) -> Iterator[bytes]:
    import torch

    if isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)} ".encode()
        yield value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(value, dict):
        yield f"dict {len(value)} ".encode()
        for key, part in value.items():
            yield f"{key!r}: ".encode()
            yield from pieces(part)
    elif isinstance(value, (list, tuple)):
        yield f"list {len(value)} ".encode()
        for part in value:
            yield from pieces(part)
    else:
        yield f"{value!r} ".encode()


def digests(run: Path) -> dict[str, str]:
    """Return the SHA-256 of each thing a run ends with."""
    from detector.checkpoints.checkpoint import load_checkpoint

    state = load_checkpoint(run / "weights/state.pt")
    found = {key: sha256(state[key]) for key in ("weights", "ema", "optimizer", "grads", "random", "scaler")}
    counters = ("epoch", "batches", "counters", "ema_updates", "schedule", "finished", "loss_sum", "frozen")
    found["counters"] = sha256([state[key] for key in counters])
    found["callbacks"] = sha256([part for part in state["callbacks"] if "rows" not in str(part)])
    for name in ("last.pt", "best.pt"):
        content = load_checkpoint(run / "weights" / name)
        metrics = {k: v for k, v in content["metrics"].items() if not k.startswith("speed/")}
        found[name] = sha256([content["weights"], content["epoch"], metrics])
    with (run / "results.csv").open(newline="") as file:
        rows = [
            [value for name, value in row.items() if name != "time" and not name.startswith("speed/")]
            for row in csv.DictReader(file)
        ]
    found["results.csv"] = sha256(rows)
    names = {str(path.relative_to(run)) for path in run.rglob("*")}
    found["files"] = sha256(sorted(names - LAST_MOMENTS))
    return found


def finished(run: Path) -> bool:
    """Return whether a run has come to its end, by its state."""
    from detector.checkpoints.checkpoint import load_checkpoint

    state = run / "weights/state.pt"
    return state.exists() and bool(load_checkpoint(state)["finished"])


# ---- the test -----------------------------------------------------------------------------------------


def warm(scene: Path) -> None:
    """Import, in this process, what a training imports; it must not start threads before it is forked."""
    import torch

    torch.set_num_threads(1)
    make_scene(scene)
    pid, heard = fork_life(scene, scene / "warm", next(iter(VARIANTS)))
    Life(pid, heard).end()
    import albumentations  # noqa: F401
    import cv2
    import matplotlib  # noqa: F401
    import pycocotools.cocoeval  # noqa: F401
    import torchvision  # noqa: F401

    import detector.engine.train  # noqa: F401

    cv2.setNumThreads(1)


def crash_test(kills: int, seconds: float, seed: int, folder: Path) -> bool:
    """Kill trainings until `kills` is reached or the time is over; return whether all ended well."""
    began = time.monotonic()
    scene = folder / "scene"
    scene.mkdir(parents=True)
    warm(scene)
    wholes: dict[str, dict[str, Any]] = {}
    ways: Counter[str] = Counter()
    died, saving, runs, bad, number = 0, 0, 0, [], 0
    while died < kills and time.monotonic() - began < seconds and len(bad) < 10:
        variant = list(VARIANTS)[number % len(VARIANTS)]
        place = folder / f"{number}"
        place.mkdir()
        if variant not in wholes:
            whole = measure(lambda kill_at, v=variant, p=place: fork_life(scene, p / "whole", v, kill_at))
            if whole["code"]:
                print((place / "whole.log").read_text()[-3000:])
                return False
            wholes[variant] = whole | {"digests": digests(place / "whole")}
        chance = random.Random(f"{seed} {number}")
        run, deaths, code = place / "killed", 0, -1
        begin = lambda kill_at, v=variant, r=run: fork_life(scene, r, v, kill_at)  # noqa: E731
        while code != 0 and deaths < LIVES and died < kills:
            way = chance.choice(WAYS)
            code, life = die(way, chance, wholes[variant], begin)
            if code == 0:
                break
            deaths, died = deaths + 1, died + 1
            saving += code == -signal.SIGKILL and life.saving
            ways[way] += 1
            expected = 143 if "term" in way else -signal.SIGKILL
            early = code == -signal.SIGTERM and not life.operations  # before the run began
            if finished(run):  # it died in its last moments
                code = 0
            elif code != expected and not early:
                bad.append(f"{place}: {way} gave exit code {code}")
                break
        if code:
            code = Life(*begin(None)).end()
        runs, number = runs + 1, number + 1
        if code:
            bad.append(f"{place}: could not resume, exit code {code}")
            continue
        found, wanted = digests(run), wholes[variant]["digests"]
        different = [key for key in wanted if found[key] != wanted[key]]
        if different:
            bad.append(f"{place} ({variant}): differs in {', '.join(different)}")
        elif not any(str(place) in line for line in bad):
            shutil.rmtree(place)
    listed = ", ".join(f"{count} {way}" for way, count in sorted(ways.items()))
    print(f"seed {seed}: {died} kills ({listed}), {saving} of them while saving, in {runs} trainings of")
    print(f"{len(wholes)} kinds, {time.monotonic() - began:.0f} s")
    for variant, whole in wholes.items():
        print(f"  {variant}: {whole['saves']} saves, {whole['operations']} file operations")
    for line in bad:
        print(f"BAD: {line}")
    print(
        f"{runs - len({line.split(':')[0].split(' ')[0] for line in bad})} of {runs} trainings ended bit-identical"
    )
    return not bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=600, help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--device", default="cpu", help="0 trains on the first GPU; fewer kills fit into the time then"
    )
    parser.add_argument("--folder", type=Path, help="keep everything here; by default a temporary folder")
    options = parser.parse_args()
    os.environ |= {"DETECTOR_OFFLINE": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    COMMON["device"] = options.device
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        return 0 if crash_test(options.kills, options.seconds, options.seed, folder) else 1


if __name__ == "__main__":
    sys.exit(main())
