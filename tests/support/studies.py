"""Kill processes that share a study, at random instants, start them again, and look whether a trial is lost or doubled.

    python -m tests.support.studies FOLDER --storage sqlite --kills 6

The trials are trained by `play`, not by a network, so that a study of 8 takes seconds; everything else is what
`detector tune` runs. Processes are forked from a warm one, each in a session of its own. At the end the table of trials
is printed, and what is wrong with it; the exit code is the number of faults.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gc
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import optuna

from detector.callbacks.registry import CallbackRegistry
from detector.engine import tune
from detector.settings import TrainSettings, TuneSettings
from detector.tuning import storage as storages
from detector.tuning import trials as rules

from .training import plain_trainer

SPACE = {
    "lr0": {"log": [0.0001, 0.1]},
    "mosaic": {"uniform": [0.0, 1.0]},
    "optimizer": {"choice": ["SGD", "AdamW"]},
}
HANGS = 120  # seconds


def train(settings: TrainSettings, callbacks: CallbackRegistry) -> Any:
    """Play a training of three epochs, of 50 ms each."""
    folder = Path(settings.project) / str(settings.name)
    folder.mkdir()
    (folder.parent / f"{os.getpid()}.begun").touch()
    trainer = plain_trainer(save_dir=folder, best_fitness=None, stop_reason=None)
    callbacks.fire("on_pretrain_routine_start", trainer)
    for trainer.epoch in range(3):
        time.sleep(0.05)
        trainer.fitness = trainer.best_fitness = settings.mosaic * (trainer.epoch + 1) / 3
        callbacks.fire("on_fit_epoch_end", trainer)
        if trainer.stop:
            break
    return trainer


def work(folder: Path, storage: str | None, trials: int) -> None:
    """Be one of the processes of the study."""
    tune.open_data = lambda settings: None
    tune.POLL = 0.1
    tune.draw_plots = lambda study, folder: []
    rules.MAX_DEATHS = 1000
    storages.JOURNAL_SECONDS = 3
    settings = {
        "data": "none.yaml",
        "epochs": 3,
        "trials": trials,
        "storage": storage,
        "space": SPACE,
        "pruner": None,
    }
    place = {"project": folder.parent, "name": folder.name}
    tune.Tuner(TuneSettings.parse(settings | place), CallbackRegistry(), train, "tiny.yaml").run()


def warm_up() -> None:
    """Load what the processes need before they are forked, and let their garbage collectors leave it alone."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage="sqlite://")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    gc.collect()
    gc.freeze()


def fork(*arguments: Any) -> int:
    """Start a process; returns its id."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setsid()
        random.seed()
        work(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait_for(path: Path, pid: int) -> None:
    """Wait for a file that a process makes, unless the process ends before."""
    while not path.exists() and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.005)


def run(folder: Path, storage: str | None, trials: int, processes: int, kills: int, seed: int) -> list[str]:
    """Run a study with some kills; returns what is wrong in the end."""
    chance = random.Random(seed)
    started = [fork(folder, storage, trials) for _ in range(processes)]
    killed = 0
    for number in range(kills):
        victim = chance.randrange(processes)
        if number % 2 == 0:  # within a trial, or soon after; else at any moment from the start on
            wait_for(folder / f"{started[victim]}.begun", started[victim])
        time.sleep(chance.uniform(0, 0.3))
        with contextlib.suppress(ProcessLookupError):
            os.kill(started[victim], signal.SIGKILL)
        _, status = os.waitpid(started[victim], 0)
        killed += os.WIFSIGNALED(status)
        started[victim] = fork(folder, storage, trials)
    faults = []
    deadline = time.monotonic() + HANGS
    for pid in started:
        while (found := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        if found[0] == 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            faults.append(f"process {pid} hangs")
        elif found[1]:
            faults.append(f"process {pid} ended with status {found[1]}")
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    faults += wrong(rows, trials)
    for row in rows:
        repeats = f"repeats {row['repeats']}" if row["repeats"] else ""
        print(
            f"{row['trial']:>5} {row['state']:<12} {row['fitness'] or '-':<22} {repeats:<12} lr0 {row['lr0']}"
        )
    states = Counter(row["state"] for row in rows)
    print(f"{killed} of {kills} kills hit a running process; {dict(states)}")
    return faults


def wrong(rows: list[dict[str, str]], trials: int) -> list[str]:
    """Return what is wrong with the table of a study that is complete."""
    faults = []
    slots: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row["state"] != "surplus":
            slots.setdefault(row["repeats"] or row["trial"], []).append(row)
    if len(slots) != trials:
        faults.append(f"{len(slots)} trials, not {trials}")
    for number, attempts in slots.items():
        states = [row["state"] for row in attempts]
        if states != ["interrupted"] * (len(states) - 1) + ["complete"]:
            faults.append(f"trial {number} has the attempts {states}")
        drawn = {row["lr0"] for row in attempts if row["optimizer"]}  # killed before everything was drawn
        if len(drawn) > 1:
            faults.append(f"trial {number} was repeated with other settings: {drawn}")
    if len({attempts[-1]["lr0"] for attempts in slots.values()}) < len(slots):
        faults.append("two trials have the same settings")
    return faults


def main() -> int:
    """Run what the command line asks for; returns the number of faults."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--storage", default="sqlite", help="sqlite, journal, or a URL")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warm_up()
    journal = str(given.folder.absolute().parent / "study.log")
    storage = {"sqlite": None, "journal": journal}.get(given.storage, given.storage)
    faults = run(given.folder.absolute(), storage, given.trials, given.processes, given.kills, given.seed)
    for fault in faults:
        print(f"FAULT {fault}")
    return len(faults)


if __name__ == "__main__":
    sys.exit(main())
