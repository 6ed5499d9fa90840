"""Trainings in two processes, started as users do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from detector import YOLO, every_rank
from detector.errors import DataError, TrainingError
from detector.scale.launch import _failure
from detector.scale.worker import write_failure
from detector.training.signals import Terminated

SCRIPT = """
import json
from functools import partial
from pathlib import Path

from detector import YOLO, every_rank
from neighbour import on_train_start

Path("executed").open("a").write("x")


class Counter:
    def __init__(self):
        self.batches = 0

    def on_train_batch_end(self, trainer):
        self.batches += 1

    def state_dict(self):
        return {"batches": self.batches}

    def load_state_dict(self, state):
        self.batches = state["batches"]


class Plain:
    def __init__(self, name):
        self.name = name

    def write(self, trainer):
        Path(self.name).write_text("bound method")


def closure(name):
    def write(trainer):
        Path(name).write_text("closure")
    return write


@every_rank
def ranks(trainer):
    Path(f"rank-{trainer.ranks.rank}").write_text(str(len(trainer.batch)))


def stop_in_one(trainer):
    trainer.stop = trainer.stop or (trainer.ranks.rank == 1 and trainer.global_step == 3)


counter = Counter()
model = YOLO("tiny.yaml")
model.add_callback(counter)
model.add_callback("on_train_epoch_end", lambda trainer: Path("lambda").write_text("lambda"))
model.add_callback("on_train_epoch_end", closure("closure"))
model.add_callback("on_train_epoch_end", Plain("method").write)
model.add_callback("on_train_start", on_train_start)
model.add_callback("on_train_batch_end", ranks)
model.add_callback("on_train_batch_end", every_rank(stop_in_one))
metrics = model.train(
    data=DATA, imgsz=64, batch=4, epochs=5, workers=0, plots=False, device="cpu", processes=2, loggers="none",
    project="runs",
)
print(json.dumps({
    "batches": counter.batches, "map": metrics.box.map, "epoch": model.trainer.epoch, "best": str(model.trainer.best),
    "source": str(model.source), "names": len(model.names), "step": model.trainer.global_step,
    "reason": model.trainer.stop_reason,
}))
"""

PLUGIN = """
from pathlib import Path

from detector import every_rank


@every_rank
def on_train_start(trainer):
    Path(f"plugin-{trainer.ranks.rank}").write_text("plug-in")
"""
"""A module of an installed package whose entry point adds it to every training."""


def install_plugin(folder: Path) -> None:
    (folder / "their_plugin.py").write_text(PLUGIN)
    installed = folder / "theirs-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[detector.callbacks]\nmark = their_plugin:on_train_start\n")


def test_a_script_trains_in_two_processes_with_callbacks_of_every_kind_until_one_of_them_stops(
    tmp_path: Path, tiny_model: Path, drawn_dataset: Path
) -> None:
    (tmp_path / "neighbour.py").write_text(
        "from pathlib import Path\ndef on_train_start(trainer): Path('neighbour').write_text('function of a file')\n"
    )
    install_plugin(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT.replace("DATA", repr(str(drawn_dataset))))
    done = subprocess.run(
        [sys.executable, "train.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (tmp_path / "executed").read_text() == "x"
    written = {name: (tmp_path / name).read_text() for name in ("lambda", "closure", "method", "neighbour")}
    assert written == {
        "lambda": "lambda", "closure": "closure", "method": "bound method", "neighbour": "function of a file",
    }  # fmt: skip
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in range(2)] == ["2", "2"]
    assert [(tmp_path / f"plugin-{rank}").read_text() for rank in range(2)] == ["plug-in", "plug-in"]
    assert (found["batches"], found["step"], found["epoch"], found["names"]) == (3, 3, 1, 6)
    assert found["reason"].startswith("stopped by ")
    assert found["reason"].endswith("(stop_in_one on on_train_batch_end), on rank 1")
    assert found["source"] == found["best"] and Path(found["best"]).is_file()
    assert done.stderr.count("epoch 1/5") == 1
    assert "closure.<locals>.write" not in done.stderr  # what it has captured can't be changed
    assert "Plain has no state_dict" in done.stderr


class Losses:
    """What a training computes, step by step."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []
        self.validated: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Any) -> None:
        self.rows.append([float(trainer.loss), *trainer.loss_items.tolist()])

    def on_fit_epoch_end(self, trainer: Any) -> None:
        self.validated.append({k: v for k, v in trainer.metrics.items() if k.startswith(("metrics", "val"))})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "validated": self.validated}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.validated = state["rows"], state["validated"]


SAME = {
    "optimizer": "SGD",
    "amp": False,
    "lr0": 0.001,
    "warmup_bias_lr": 0.001,
    "imgsz": 128,
    "nbs": 14,
    "loggers": "none",
}


def test_two_processes_train_as_one(train_tiny: Callable[..., YOLO]) -> None:
    """With accumulated gradients, and a last batch of one image, which is rank 0's."""
    one, two = Losses(), Losses()
    settings = SAME | {"batch": 2, "epochs": 2, "fraction": 0.9, "multi_scale": 0.25}
    first = train_tiny(one, **settings)
    second = train_tiny(two, model=first_again(first), processes=2, name="two", **settings)
    assert len(one.rows) == len(two.rows) == 8
    for ours, theirs in zip(one.rows, two.rows, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5)
    for ours_, theirs_ in zip(one.validated, two.validated, strict=True):
        assert theirs_ == pytest.approx(ours_, rel=1e-5)
    for name, value in first.model.state_dict().items():
        assert torch.allclose(value.float(), second.model.state_dict()[name].float(), atol=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_twenty_steps_of_several_processes_are_those_of_one(
    train_tiny: Callable[..., YOLO], processes: int
) -> None:
    one, several = Losses(), Losses()
    settings = SAME | {"batch": 4, "nbs": 4, "epochs": 10}
    first = train_tiny(one, **settings)
    train_tiny(several, model=first_again(first), processes=processes, name="several", **settings)
    assert len(one.rows) == len(several.rows) == 20
    worst = max(
        abs(a - b) / abs(b)
        for row, by in zip(several.rows, one.rows, strict=True)
        for a, b in zip(row, by, strict=True)
    )
    print(f"{processes} processes: the losses of 20 steps differ by {worst:.1e} at most")
    assert worst < 1e-5
    for theirs, ours in zip(several.validated, one.validated, strict=True):
        metrics = {name: value for name, value in ours.items() if name.startswith("metrics")}
        assert {name: theirs[name] for name in metrics} == metrics


def first_again(model: YOLO) -> Path:
    """The architecture a model was made from."""
    return Path(model.trainer.settings.model)


@every_rank
def fail_on_one(trainer: Any) -> None:
    if trainer.ranks.rank == 1:
        raise DataError("broken on purpose")


def test_an_exception_in_one_process_is_raised_with_its_traceback(train_tiny: Callable[..., YOLO]) -> None:
    with pytest.raises(DataError, match="broken on purpose") as raised:
        train_tiny(("on_train_batch_end", fail_on_one), epochs=5, processes=2, loggers="none")
    cause = str(raised.value.__cause__)
    assert cause.startswith("\nrank 1: Traceback") and "in fail_on_one" in cause


def test_a_process_that_was_killed_is_named_and_not_the_signal_that_ended_the_others(tmp_path: Path) -> None:
    write_failure(tmp_path, 0, Terminated(signal.SIGTERM), None)
    killed = ProcessFailure(local_rank=1, pid=1, exitcode=-9, error_file="none")
    found = _failure(tmp_path, 2, SimpleNamespace(failures={1: killed}))
    assert isinstance(found, TrainingError)
    assert str(found).startswith("rank 1 of 2 ended without a word (SIGKILL)")


def test_a_signal_that_all_processes_got_is_raised(tmp_path: Path) -> None:
    for rank in range(2):
        write_failure(tmp_path, rank, Terminated(signal.SIGTERM), None)
    ended = ProcessFailure(local_rank=1, pid=1, exitcode=1, error_file="none")
    found = _failure(tmp_path, 2, SimpleNamespace(failures={1: ended}))
    assert isinstance(found, Terminated) and found.code == 143


def test_a_batch_that_can_not_be_shared_is_refused_with_the_nearest(train_tiny: Callable[..., YOLO]) -> None:
    with pytest.raises(ValueError, match=r"batch=3: it is shared by 2 processes.*; try batch=2 or batch=4"):
        train_tiny(batch=3, processes=2)
