"""Kill a process that only writes the record of a run, again and again, and read what it left.

    python -m tests.support.killed_writes --kills 40 --seed 7

A process is forked for every life. It continues the record, writes an epoch after the other as `RunStatus` and `Report`
do, and is ended by SIGKILL at a random instant. Meanwhile, and after its end, the readers have to find a whole state:
no epoch lost that was there before, no line or file that is cut off.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from detector.callbacks.builtin.run_status import RunStatus
from detector.files.atomic import replace_file
from detector.pages.content import read_content
from detector.runs.listing import find_runs, read_runs, rows_of
from detector.runs.record import LOG, METRICS, STATUS, read_metrics, read_run
from tests.support.runs import row_of, status_of

EPOCHS = 100_000
LONGEST = 0.2  # seconds of a life


def write_for_ever(folder: Path) -> None:
    """Continue the record of the folder; never returns."""
    epoch = len(read_metrics(folder))
    trainer = SimpleNamespace(
        epochs=EPOCHS, epoch=epoch, start_epoch=epoch, num_batches=1, stop_reason=None, best_epoch=None,
        best_fitness=None, progress=SimpleNamespace(epochs_done=epoch, batches_done=0), save_dir=folder,
    )  # fmt: skip
    writer = RunStatus()
    writer._trainer, writer.folder = trainer, folder
    writer._has_warned, writer.status = False, status_of(EPOCHS, state="running", epoch=epoch)
    writer.on_train_start(trainer)
    while True:
        trainer.metrics = row_of(trainer.epoch + 1, EPOCHS)
        writer.on_fit_epoch_end(trainer)
        replace_file(folder / LOG, b"a line\n" * (trainer.epoch % 50))
        trainer.epoch += 1


def check(folder: Path, before: int) -> int:
    """Read the record as commands and pages do; return how many epochs it has, at least those of `before`."""
    (found,), problems = find_runs(folder)
    runs, unread = read_runs([found])
    assert not problems and not unread, (problems, unread)
    (row,) = rows_of(runs, folder)
    metrics = read_metrics(folder)
    assert [one["epoch"] for one in metrics] == list(range(1, len(metrics) + 1))
    assert all(len(one) == len(metrics[0]) for one in metrics)
    assert before <= len(metrics) and row["epoch"] <= len(metrics) + 1, (before, row["epoch"], len(metrics))
    content = read_content(folder, "run")
    assert not content["problems"], content["problems"]
    return len(metrics)


def live(folder: Path, seconds: float, epochs: int) -> int:
    """Let a process write for some time, read meanwhile, kill it, read again; return how many epochs there are."""
    pid = os.fork()
    if not pid:
        try:
            write_for_ever(folder)
        finally:
            os._exit(1)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        epochs = check(folder, epochs)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, "the writer failed"
    assert read_run(folder).state in ("running", "interrupted")
    return check(folder, epochs)


def main() -> int:
    """Run as many lives as asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance, epochs = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / METRICS).write_bytes(b"")
        replace_file(folder / STATUS, b'{"state": "running", "epoch": 0}')
        for _ in range(given.kills):
            epochs = live(folder, chance.uniform(0, LONGEST), epochs)
        cut = len(list(folder.glob("*.tmp")))
    print(
        f"{given.kills} kills, {cut} of them within the write of a file; {epochs} epochs, every state whole"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
