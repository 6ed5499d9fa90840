"""The exchange of gradients, and runs that are resumed within accumulated ones, by as many processes or by others."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.crash import digests
from support.models import write_tiny
from support.training import train
from torch import Tensor

from detector import YOLO, every_rank
from detector.scale.gradients import flat, unflat

ACCUMULATED = {
    "nbs": 12, "warmup_epochs": 0, "epochs": 3, "close_mosaic": 0, "amp": False, "save_minutes": 1e-6,
    "loggers": "none", "plugins": False,
}  # fmt: skip
"""Batches of 4, of which 3 make a step: the fifth is the second of its step, in the last batch but one of epoch 3."""


@every_rank
def fail_in_step_five(trainer: Any) -> None:
    if trainer.global_step == 5:
        raise KeyError("on purpose")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, drawn_dataset: Path) -> Callable[..., Path]:
    """Return the folder of a run by this number of processes, left alone or interrupted; each is trained once."""
    done: dict[tuple[int, bool], Path] = {}

    def run(processes: int, interrupted: bool) -> Path:
        if (processes, interrupted) not in done:
            folder = tmp_path_factory.mktemp("runs")
            model = write_tiny(folder / "tiny.yaml")
            settings = ACCUMULATED | {"data": drawn_dataset, "project": folder, "processes": processes}
            if interrupted:
                with pytest.raises(KeyError, match="on purpose"):
                    train(model, ("on_train_batch_start", fail_in_step_five), **settings)
            else:
                train(model, **settings)
            done[processes, interrupted] = folder / "train"
        return done[processes, interrupted]

    return run


def resumed(folder: Path, to: Path, processes: int) -> Path:
    """Resume a copy of a run; return its folder."""
    copy = Path(shutil.copytree(folder, to / "train"))
    YOLO(folder.parent / "tiny.yaml").train(resume=copy, device="cpu", processes=processes)
    return copy


def test_gradients_are_sent_as_one_tensor_and_keep_their_layout() -> None:
    first = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    gradients: dict[str, Tensor] = {"a": first, "b": torch.tensor([7.0])}
    found = unflat(flat(gradients) * 2, gradients)
    assert torch.equal(found["a"], first * 2) and torch.equal(found["b"], torch.tensor([14.0]))
    assert found["a"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_a_run_of_two_processes_resumes_within_accumulated_gradients_bit_by_bit(
    runs: Callable[..., Path], tmp_path: Path
) -> None:
    whole, again = digests(runs(2, False)), digests(resumed(runs(2, True), tmp_path, 2))
    assert [key for key in whole if again[key] != whole[key]] in ([], ["random"])


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 4)])
def test_another_number_of_processes_resumes_a_run_and_says_what_may_differ(
    before: int, after: int, runs: Callable[..., Path], tmp_path: Path, capfd: Any, caplog: Any
) -> None:
    whole = torch.load(runs(before, False) / "weights/last.pt", weights_only=True)["weights"]
    with caplog.at_level(logging.WARNING):
        folder = resumed(runs(before, True), tmp_path, after)
    said = capfd.readouterr().err + caplog.text
    assert f"the run continues with processes {after} instead of {before}" in said
    assert "metrics may differ in the last bits" in said
    again = torch.load(folder / "weights/last.pt", weights_only=True)["weights"]
    for name, value in whole.items():
        assert torch.allclose(value.float(), again[name].float(), rtol=1e-3, atol=1e-4), name
