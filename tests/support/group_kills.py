"""Kill processes of trainings that torchrun restarts, and compare their ends with that of one left alone.

    python -m tests.support.group_kills                               20 kills in two processes
    python -m tests.support.group_kills --kills 8 --processes 3 --set nbs=12

Each training loses one process, of a random rank, to SIGKILL at a random moment from its first start to the end of
the whole. It has ended well when torchrun says so, what the run has written agrees by SHA-256 (see `digests` in
tests/support/crash.py), and no process of it and no new file in /dev/shm are left. The generators of Python and numpy
are left out: nothing seeds them here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .crash import digests, make_scene

MARK = "DETECTOR_TEST_GROUP"
SETTINGS = (
    "model=one.yaml", "data=data.yaml", "imgsz=64", "epochs=6", "workers=2", "plots=false", "device=cpu",
    "loggers=none", "save_minutes=1e-6", "amp=false", "cache=ram",
)  # fmt: skip


def marked(mark: str) -> dict[int, bytes]:
    """Return the environments of all running processes that were started with this mark, zombies not among them."""
    found = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and f"{MARK}={mark}".encode() in (
                environment := (folder / "environ").read_bytes()
            ):
                found[int(folder.name)] = environment
    return found


def members(mark: str) -> dict[int, int]:
    """Return the process ids of a group's trainings, by rank; not those of their loaders."""
    found: dict[int, int] = {}
    for pid, environment in sorted(marked(mark).items()):
        for part in environment.split(b"\0"):
            if part.startswith(b"RANK="):
                found.setdefault(int(part[5:]), pid)
    return found


def seconds_until_gone(mark: str, limit: float = 30) -> tuple[float, list[str]]:
    """Wait until no process with the mark runs; return how long that took, and what still runs after the limit."""
    began = time.monotonic()
    while (left := marked(mark)) and time.monotonic() - began < limit:
        time.sleep(0.02)
    names = []
    for pid in left:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[-120:]
            names.append(f"{pid} {state} {command}")
    return time.monotonic() - began, names


@dataclass
class Launch:
    """A training under torchrun.

    Attributes:
        scene: folder of the data set and the architecture; the run folder is made there.
        name: of the run.
        processes: how many train.
        settings: of `detector train`, in addition.
    """

    scene: Path
    name: str
    processes: int
    settings: Sequence[str] = field(default_factory=list)

    def start(self) -> subprocess.Popen[bytes]:
        torchrun = [
            *("-m", "torch.distributed.run", "--standalone", "--max-restarts=3"),
            *(f"--nproc-per-node={self.processes}", "-m", "detector", "train"),
        ]
        run = [*SETTINGS, "batch=6", "project=runs", f"name={self.name}", *self.settings]
        with (self.scene / f"{self.name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, *torchrun, *run],
                cwd=self.scene,
                env=os.environ | {MARK: self.name, "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def folder(self) -> Path:
        return self.scene / "runs" / self.name

    @property
    def log(self) -> str:
        return (self.scene / f"{self.name}.log").read_text(errors="replace")

    def first_moment(self, running: subprocess.Popen[bytes], with_state: bool) -> float:
        """Wait for the first process that trains, or for the first state of the run; return the moment."""
        state = self.folder / "weights/state.pt"
        while running.poll() is None and not (state.exists() if with_state else members(self.name)):
            time.sleep(0.02)
        return time.monotonic()


def kill_one(launch: Launch, with_state: bool, after: float, chance: random.Random) -> tuple[str, int]:
    """Start a training and kill one of its processes; return what was killed when, and torchrun's exit code."""
    running = launch.start()
    until = launch.first_moment(running, with_state) + after
    while time.monotonic() < until and running.poll() is None:
        time.sleep(0.005)
    saved = (launch.folder / "weights/state.pt").exists()
    known = members(launch.name)
    what = "nothing, as it had ended"
    if known:
        rank = chance.choice(sorted(known))
        with contextlib.suppress(ProcessLookupError):
            os.kill(known[rank], signal.SIGKILL)
            what = f"rank {rank} after {after:.1f} s, {'with' if saved else 'without'} a state"
    return what, running.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], help="settings of the training, such as nbs=12")
    parser.add_argument("--with-state", action="store_true", help="kill after the first state only")
    parser.add_argument("--folder", type=Path, help="keep everything here; by default a temporary folder")
    options = parser.parse_args()
    os.environ |= {"DETECTOR_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as temporary:
        scene = (options.folder or Path(temporary)).absolute()
        scene.mkdir(parents=True, exist_ok=True)
        make_scene(scene)
        shared = set(Path("/dev/shm").iterdir())
        whole = Launch(scene, "whole", options.processes, options.set)
        running = whole.start()
        began = whole.first_moment(running, options.with_state)
        if running.wait():
            print(whole.log[-3000:])
            return 1
        seconds, wanted = time.monotonic() - began, digests(whole.folder)
        del wanted["random"]
        chance = random.Random(options.seed)
        equal = killed = left = 0
        for number in range(10 * options.kills):
            if killed == options.kills:
                break
            launch = Launch(scene, f"kill-{number}", options.processes, options.set)
            what, code = kill_one(launch, options.with_state, chance.random() * seconds, chance)
            gone, still = seconds_until_gone(launch.name)
            left += len(still)
            if what.startswith("nothing"):
                seconds *= 0.8  # the machine is less busy now
            else:
                killed += 1
            verdict = f"torchrun's exit code is {code}" if code else ""
            if not verdict:
                found = digests(launch.folder)
                verdict = ", ".join(key for key in wanted if found[key] != wanted[key])
                verdict = f"differs in {verdict}" if verdict else "equal"
            equal += verdict == "equal" and not what.startswith("nothing")
            print(
                f"{launch.name}: killed {what}; {verdict}; all gone after {gone:.1f} s {still or ''}",
                flush=True,
            )
        new = sorted(set(Path("/dev/shm").iterdir()) - shared)
        files = f"{len(new)} files in /dev/shm left {[*map(str, new)] or ''}"
        print(f"{equal} of {killed} equal; {left} processes left; {files}")
    return 0 if equal == killed and not left and not new else 1


if __name__ == "__main__":
    sys.exit(main())
