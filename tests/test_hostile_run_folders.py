"""Run folders of other people: what their files name is neither deleted nor where a resumed run writes."""

import shutil

import pytest
from support.models import write_tiny
from support.training import quick_settings

from detector import YOLO
from detector.callbacks.builtin.csv_logger import CSVLogger
from detector.callbacks.builtin.early_stopping import EarlyStopping
from detector.callbacks.builtin.model_checkpoint import ModelCheckpoint
from detector.callbacks.builtin.reduce_lr import ReduceLROnPlateau
from detector.callbacks.loggers.base import Logger
from detector.callbacks.state import load_state
from detector.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from detector.errors import CallbackError, CheckpointError
from detector.training.progress import COUNTERS, Progress
from detector.training.resume import RunState
from detector.training.saving import STATE


@pytest.fixture(scope="module")
def finished(drawn_dataset, tmp_path_factory):
    """The folder of a run of one epoch with a ModelCheckpoint."""
    folder = tmp_path_factory.mktemp("theirs")
    settings = quick_settings(epochs=1, data=drawn_dataset, project=folder, callbacks="ModelCheckpoint()")
    YOLO(write_tiny(folder / "tiny.yaml")).train(**settings)
    return folder / "train"


@pytest.fixture
def theirs(finished, tmp_path):
    """A copy of that folder, and a function that changes its state."""
    folder = tmp_path / "unpacked" / "train"
    shutil.copytree(finished, folder)

    def change(function):
        state = load_checkpoint(folder / STATE)
        content = {key: value for key, value in state.items() if key not in ("format", "version")}
        function(content)
        save_checkpoint(folder / STATE, content)

    return folder, change


def test_a_state_that_lists_other_files_as_kept_deletes_none_of_them(theirs, tiny_model, tmp_path, caplog):
    folder, change = theirs
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("three years")
    inside = ["last.pt", "epoch1-val_loss_0.1000.pt", "epoch1-fitness_0.1000.pt.txt"]
    for name in inside[1:]:
        (folder / "weights" / name).write_text("mine")
    (folder / "weights/epoch1-fitness_0.0000").mkdir()
    names = [str(thesis), "../../../thesis.txt", "epoch1-fitness_0.0000/../../../../thesis.txt", *inside]
    listed = [[-1.0, name] for name in names]
    change(lambda state: state["callbacks"]["ModelCheckpoint"]["kept"].extend(listed))
    YOLO(tiny_model).train(resume=folder, epochs=2)
    assert thesis.read_text() == "three years"
    assert all((folder / "weights" / name).exists() for name in inside)
    assert "the saved run lists" in caplog.text and "it is left alone" in caplog.text
    assert len(list(folder.glob("weights/epoch*-fitness_*.pt"))) == 1  # its own are still pushed out


@pytest.mark.parametrize(
    ("callback", "state"),
    [
        (ModelCheckpoint(), {"kept": [["best", "epoch1-fitness_0.1000.pt"]]}),
        (ModelCheckpoint(), {"kept": 3}),
        (ModelCheckpoint(), {}),
        (EarlyStopping(), {"best": "high", "best_epoch": 0, "waited": 0}),
        (EarlyStopping(), {"best": 0.1, "best_epoch": 0, "waited": None}),
        (ReduceLROnPlateau(), {"best": 0.1, "waited": [], "cooling": 0}),
        (CSVLogger(), {"columns": ["epoch"], "rows": [{"epoch": 1, "time": "1", "x": 3}]}),
        (CSVLogger(), {"columns": ["epoch", "time"], "rows": [{"epoch": 1, "time": "soon"}]}),
        (CSVLogger(), []),
        (Logger(), {"run_id": "../../elsewhere"}),
        (Logger(), {"run_id": 3}),
        (Logger(), [1]),
    ],
)
def test_a_state_of_another_shape_is_one_sentence(callback, state):
    name = type(callback).__name__
    with pytest.raises(
        CallbackError, match=rf"^the saved state of the callback {name} can't be restored \(.*; "
    ):
        load_state(name, callback, state)


def test_a_state_sets_the_counters_and_nothing_else():
    progress, state = Progress(3), Progress(3).state_dict()
    state["counters"] |= {"in_step": True, "load_state_dict": 3, "__class__": 3}
    progress.load_state_dict(state)
    assert progress == Progress(3) and not progress.in_step


@pytest.mark.parametrize("name", COUNTERS)
def test_counters_are_numbers(name, theirs, tiny_model):
    folder, change = theirs
    change(lambda state: state["counters"].update({name: {"a": [1]}}))
    if name in ("stop", "done"):
        change(lambda state: state["counters"].pop(name))
    with pytest.raises(CheckpointError, match="can't be restored: its state does not fit"):
        YOLO(tiny_model).train(resume=folder, epochs=2)


@pytest.mark.parametrize("key", ["batches", "counters", "callbacks", "schedule", "data", "machine", "random"])
def test_parts_of_another_type_are_one_sentence(key, theirs, tiny_model):
    folder, change = theirs
    change(lambda state: state.update({key: "x"}))
    with pytest.raises(CheckpointError, match=rf"state.pt: its {key} is a str, expected"):
        YOLO(tiny_model).train(resume=folder, epochs=2)


def test_a_run_belongs_to_the_folder_it_lies_in_and_not_to_the_one_its_state_names(
    theirs, tiny_model, tmp_path
):
    folder, change = theirs
    elsewhere = tmp_path / "elsewhere"
    change(lambda state: state["settings"].update(project=str(elsewhere), name="x"))
    yolo = YOLO(tiny_model)
    yolo.train(resume=folder, epochs=2)
    settings = yolo.trainer.settings
    assert (settings.project, settings.name) == (str(folder.parent), "train")
    assert not elsewhere.exists()


def test_a_name_of_several_folders_keeps_its_project(tmp_path):
    def place(*saved):
        return RunState(tmp_path / "runs/night/first-2", {}).place_settings(*saved)

    assert place("night/first") == {"project": str(tmp_path / "runs"), "name": "night/first-2"}
    for other in ("../../first", "day/first", "first", None, 3):
        assert place(other) == {"project": str(tmp_path / "runs/night"), "name": "first-2"}
