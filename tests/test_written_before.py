"""Checkpoints and runs written by 0.1.0, before the package's rooms were moved: they open and resume."""

import csv
import shutil
from pathlib import Path

import pytest
import torch

from detector import YOLO
from detector.checkpoints.checkpoint import load_checkpoint
from detector.data.drawn import FORMS, make_drawn_dataset

WRITTEN = Path(__file__).parent / "support/written_before/train"


@pytest.mark.parametrize("name", ["best.pt", "best.safetensors"])
def test_a_checkpoint_opens(name):
    weights = torch.load(WRITTEN / "weights/best.pt", weights_only=True)["weights"]
    yolo = YOLO(WRITTEN / "weights" / name)
    assert yolo.names == {0: "disc", 1: "square"}
    assert yolo.model.dual_head
    assert yolo.ckpt["settings"]["imgsz"] == 64
    assert all(torch.equal(value, weights[key]) for key, value in yolo.model.state_dict().items())


def test_a_run_that_was_killed_resumes(tmp_path, monkeypatch):
    """Within its second epoch of three; forced, as another OpenCV may write the images in other bytes."""
    make_drawn_dataset(tmp_path / "data", {"train": 4, "val": 2}, list(FORMS[:2]), seed=0, size=96)
    text = "path: data\ntrain: images/train\nval: images/val\nnames: [disc, square]\n"
    (tmp_path / "drawn.yaml").write_text(text)
    shutil.copytree(WRITTEN, tmp_path / "runs/train")
    monkeypatch.chdir(tmp_path)
    state = load_checkpoint("runs/train/weights/state.pt")
    assert (state["epoch"], state["batches"], state["finished"]) == (0, 2, False)
    yolo = YOLO(WRITTEN / "weights/best.pt")
    yolo.train(resume="force:runs/train")
    with Path("runs/train/results.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    state = load_checkpoint("runs/train/weights/state.pt")
    assert (state["epoch"], state["batches"], state["finished"]) == (2, 0, True)
    assert state["counters"]["global_step"] == 6
    assert yolo.trainer.start_epoch == 1
    assert {group["sgd"] for group in yolo.trainer.optimizer.param_groups} == {1.0}  # as when it was begun
