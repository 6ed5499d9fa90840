"""Which run a restarted group trains."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from detector.scale.restart import continue_marked, mark_run, marked_run
from detector.settings import TrainSettings
from detector.training.resume import RunState, random_states

FIRST = {"TORCHELASTIC_RUN_ID": "abc"}
AGAIN = FIRST | {"TORCHELASTIC_RESTART_COUNT": "1"}


def test_a_restart_finds_the_run_of_its_launch(tmp_path: Path) -> None:
    for number, launch in enumerate(["abc", "other"]):
        folder = tmp_path / f"train-{number}"
        folder.mkdir()
        mark_run(folder, {"TORCHELASTIC_RUN_ID": launch})
    assert marked_run(tmp_path, "train", AGAIN) == tmp_path / "train-0"
    assert marked_run(tmp_path, "train", AGAIN | {"TORCHELASTIC_RUN_ID": "new"}) is None
    assert marked_run(tmp_path, "train", {}) is None


def test_a_launch_without_an_id_is_known_after_a_restart_only(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    mark_run(folder, {"TORCHELASTIC_RUN_ID": "none"})
    assert marked_run(tmp_path, "train", {"TORCHELASTIC_RUN_ID": "none"}) is None


def test_a_damaged_mark_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for content in ("{", "[1]", '{"run_id": 3}'):
        (tmp_path / "train/launch.json").write_text(content)
        assert marked_run(tmp_path, "train", AGAIN) is None


def test_a_run_that_saved_nothing_begins_again_in_its_folder(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "night-2"
    folder.mkdir()
    mark_run(folder, FIRST)
    for key, value in AGAIN.items():
        monkeypatch.setenv(key, value)
    again = continue_marked(TrainSettings.parse({"project": str(tmp_path), "name": "night"}))
    assert (again.name, again.exist_ok, again.resume) == ("night-2", True, False)


def test_the_state_of_a_run_travels_to_other_processes_with_its_random_generators(tmp_path: Path) -> None:
    """They hold tensors of uint32, which pickle alone can't carry."""
    sent = RunState(tmp_path, {"random": random_states()}, force=True)
    found = pickle.loads(pickle.dumps(sent))
    assert (found.folder, found.force) == (tmp_path, True)
    assert torch.equal(found.content["random"]["numpy"][1], sent.content["random"]["numpy"][1])
