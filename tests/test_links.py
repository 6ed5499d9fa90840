"""Links in a folder that results are written to: they are replaced, and what they lead to stays as it was."""

import os

import numpy as np
import pytest
from support.training import quick_settings

from detector import YOLO
from detector.drawing import write_image
from detector.engine.run_folder import RunLock, make_run_folder
from detector.errors import SettingsError
from detector.files.atomic import atomic_write, replace_file
from detector.plots import new_figure, write_figure

NAMES = ("args.yaml", "results.csv", "results.png", "labels.jpg", "train_batch0.jpg", "val_batch0_pred.jpg",
         "BoxPR_curve.png", "confusion_matrix.png", "run.lock", "weights/last.pt", "weights/best.pt",
         "weights/state.pt")  # fmt: skip


@pytest.fixture
def letter(tmp_path):
    """A file of the user's."""
    path = tmp_path / "letter.txt"
    path.write_text("dear")
    return path


def test_a_training_follows_no_link_in_its_folder(letter, tiny_model, drawn_dataset, tmp_path):
    folder = tmp_path / "train"
    (folder / "weights").mkdir(parents=True)
    for name in NAMES:
        (folder / name).symlink_to(letter)
    settings = quick_settings(epochs=1, plots=True, exist_ok=True, data=drawn_dataset, project=tmp_path)
    YOLO(tiny_model).train(**settings)
    assert letter.read_text() == "dear"
    assert not [path for path in folder.rglob("*") if path.is_symlink()]
    assert not (folder / "run.lock").exists()


def test_validation_and_prediction_follow_no_link(letter, tiny_model, drawn_dataset, tmp_path):
    folder, yolo = tmp_path / "run", YOLO(tiny_model)
    images = sorted((drawn_dataset.parent / "data/images/val").iterdir())
    (folder / "labels").mkdir(parents=True)
    names = ("predictions.json", "ground_truth.json", images[0].name, f"labels/{images[0].stem}.txt")
    for name in names:
        (folder / name).symlink_to(letter)
    place = {
        "project": tmp_path,
        "name": "run",
        "exist_ok": True,
        "imgsz": 64,
        "device": "cpu",
        "verbose": False,
    }
    yolo.val(data=drawn_dataset, plots=False, save_json=True, workers=0, batch=4, single_cls=True, **place)
    yolo.predict(images, save=True, save_txt=True, conf=0.0, **place)
    assert letter.read_text() == "dear"
    assert not any((folder / name).is_symlink() for name in names)


@pytest.mark.parametrize("name", ["weights", "predictions", "labels", "crops", "crops/cat"])
def test_a_folder_that_leads_elsewhere_is_refused(name, tmp_path):
    (tmp_path / "run/crops").mkdir(parents=True)
    if name == "crops":
        (tmp_path / "run/crops").rmdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "home")
    for begin in (lambda: make_run_folder(tmp_path, "run", exist_ok=True), lambda: RunLock(tmp_path / "run")):
        with pytest.raises(SettingsError, match=rf"run/{name} is a link to .*home; .* choose another name="):
            begin()


@pytest.mark.parametrize("write", [
    lambda path: write_image(path, np.zeros((4, 4, 3), np.uint8)),
    lambda path: write_figure(new_figure(1, 1, 1, 1)[0], path),
    lambda path: replace_file(path, b"new"),
])  # fmt: skip
def test_a_file_keeps_its_name_and_a_link_its_target(write, letter, tmp_path):
    path = tmp_path / f"{'n' * 240}.png"  # as long as names may be, nearly
    path.symlink_to(letter)
    write(path)
    assert not path.is_symlink() and path.stat().st_size
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([letter.name, path.name])
    assert letter.read_text() == "dear"


def test_a_link_under_the_temporary_name_is_replaced_too(letter, tmp_path, monkeypatch):
    path, temporary = tmp_path / "args.yaml", tmp_path / "known.tmp"
    monkeypatch.setattr("detector.files.atomic._temporary_name", lambda _: temporary)
    temporary.symlink_to(letter)
    with atomic_write(path) as file:
        file.write(b"new")
    assert (path.read_text(), letter.read_text(), os.path.lexists(temporary)) == ("new", "dear", False)
