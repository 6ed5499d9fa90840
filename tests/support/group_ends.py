"""End trainings in two processes in every way, and measure until all their processes are gone.

    python -m tests.support.group_ends                       all ways
    python -m tests.support.group_ends --only "SIGTERM"      those with this in their name

`processes=2` has a parent that started the two; torchrun is one of its own. Each has two loader workers per process.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .crash import make_scene
from .group_kills import MARK, SETTINGS, members, seconds_until_gone

HOOKS = """
from detector import every_rank


@every_rank
def on_train_batch_end(trainer):
    if trainer.ranks.rank == 1 and trainer.global_step == 4:
        WHAT
"""
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
WAYS = {
    "SIGTERM to the parent": ((), "parent", signal.SIGTERM),
    "SIGINT to the parent": ((), "parent", signal.SIGINT),
    "Ctrl-C, SIGINT to all": ((), "all", signal.SIGINT),
    "SIGKILL to the parent": ((), "parent", signal.SIGKILL),
    "SIGTERM to rank 1": ((), "rank", signal.SIGTERM),
    "SIGKILL to rank 1": ((), "rank", signal.SIGKILL),
    "exception on rank 1": ((), 'raise ValueError("on purpose")', None),
    "stop on rank 1": ((), "trainer.stop = True", None),
    "SIGTERM to torchrun": (TORCHRUN, "parent", signal.SIGTERM),
    "SIGINT to torchrun": (TORCHRUN, "parent", signal.SIGINT),
    "SIGKILL to torchrun": (TORCHRUN, "parent", signal.SIGKILL),
    "exception under torchrun": (TORCHRUN, 'raise ValueError("on purpose")', None),
}


def end(scene: Path, number: int, way: str) -> bool:
    """Start a training, end it, and print how long that took; return whether all processes went."""
    launcher, what, sent = WAYS[way]
    mark = f"end-{os.getpid()}-{number}"
    command = [sys.executable, "-m", *launcher, "detector", "train", *SETTINGS]
    command += ["batch=6", "epochs=1000", "project=runs", f"name={mark}"] + (
        [] if launcher else ["processes=2"]
    )
    if sent is None:
        (scene / f"{mark}.py").write_text(HOOKS.replace("WHAT", what))
        command.append(f"callbacks={mark}.py")
    with (scene / f"{mark}.log").open("wb") as log:
        parent = subprocess.Popen(
            command, cwd=scene, env=os.environ | {MARK: mark}, stdout=log, stderr=log, start_new_session=True
        )
    results = scene / "runs" / mark / "results.csv"
    while parent.poll() is None and not (results.exists() and results.read_text().count("\n") > 2):
        time.sleep(0.05)
    began = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        if what == "all" and sent is not None:
            os.killpg(parent.pid, sent)
        elif sent is not None:
            os.kill(parent.pid if what == "parent" else members(mark)[1], sent)
    code = parent.wait()
    ended = time.monotonic() - began
    after, left = seconds_until_gone(mark, 60)
    print(
        f"{way:26} exit {code:4}, after {ended:5.1f} s; the others {after:4.1f} s later {left or ''}",
        flush=True,
    )
    return not left


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="ways with this in their name")
    options = parser.parse_args()
    os.environ |= {"DETECTOR_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as temporary:
        scene = Path(temporary)
        make_scene(scene)
        went = [end(scene, number, way) for number, way in enumerate(WAYS) if options.only in way]
    print(f"{went.count(True)} of {len(went)} left no process")
    return 0 if all(went) else 1


if __name__ == "__main__":
    sys.exit(main())
