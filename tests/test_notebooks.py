"""A training in a notebook: what its cells show, the interrupt of the kernel, several processes, the examples."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest
from support.notebooks import data_of, errors_of, run_cells, text_of

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "examples" / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    """Keep the kernel from the user's folders."""
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "jupyter"))
    (tmp_path / "jupyter").mkdir()


def setup_of(model, data, **settings):
    """Return the source of a cell that defines `model` and `settings` of a quick training."""
    quick = {"data": str(data), "imgsz": 64, "batch": 4, "workers": 0, "device": "cpu"} | settings
    return f"from detector import YOLO\nmodel = YOLO({str(model)!r})\nsettings = {quick!r}"


def image_of(data):
    """Return the PNG of an output as an array."""
    return cv2.imdecode(np.frombuffer(base64.b64decode(data["image/png"]), np.uint8), cv2.IMREAD_COLOR)


def test_a_training_shows_curves_a_table_and_images_and_can_be_interrupted(
    tiny_model, drawn_dataset, tmp_path
):
    images = drawn_dataset.parent / "data/images/val"
    cells = [
        setup_of(tiny_model, drawn_dataset, project=str(tmp_path)),
        "from detector.callbacks import LiveCurves\n"
        "metrics = model.train(**settings, plots=False, epochs=2, name='first', callbacks=[LiveCurves()])",
        "metrics",
        f"model.predict({str(images)!r}, imgsz=64, conf=0.001, verbose=False)[0]",
        "model.train(**settings, epochs=500, plots=False, name='second')",
        "def stop(trainer):\n    print('at', trainer.epoch)\n    trainer.stop = True\n"
        "model.train(resume='second', callbacks={'on_train_batch_end': stop})",
    ]
    _, trained, table, found, interrupted, resumed = run_cells(
        cells, tmp_path, stop_at=tmp_path / "second" / "metrics.jsonl"
    )

    (curves,) = data_of(trained)  # one display, of the last state
    height, width, _ = image_of(curves).shape
    assert 300 < height <= 1280 and 600 < width <= 1280
    assert "epoch 2/2" in text_of(trained) and "\r" in text_of(trained), "a bar of text"
    assert not errors_of(trained)

    assert (
        "<td>all</td>" in data_of(table)[0]["text/html"] and "<td>ring</td>" in data_of(table)[0]["text/html"]
    )
    (shown,) = data_of(found)
    assert image_of(shown).shape == (160, 160, 3) and "<img " in shown["text/html"]

    assert errors_of(interrupted) == ["KeyboardInterrupt"]
    assert (tmp_path / "second/weights/state.pt").is_file()
    assert not errors_of(resumed)
    epochs = [int(number) for number in re.findall(r"at (\d+)\n", text_of(resumed))]
    assert epochs and epochs[0] >= 1
    rows = (tmp_path / "second/metrics.jsonl").read_text().splitlines()
    assert len(rows) >= 2


@pytest.mark.slow
def test_callbacks_of_a_notebook_go_to_several_processes(tiny_model, drawn_dataset, tmp_path):
    cells = [
        setup_of(tiny_model, drawn_dataset, project=str(tmp_path), plots=False),
        "def note(trainer):\n    print('epoch', trainer.epoch + 1, 'of', trainer.ranks.size, 'processes')",
        "model.train(**settings, epochs=2, processes=2, callbacks={'on_fit_epoch_end': note})",
    ]
    *_, trained = run_cells(cells, tmp_path)
    assert not errors_of(trained), text_of(trained)
    said = [line for line in text_of(trained).splitlines() if line.endswith("of 2 processes")]
    assert said == ["epoch 1 of 2 processes", "epoch 2 of 2 processes"]
    assert data_of(trained)[0]["text/html"].startswith("<table>")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(path, tiny_model, drawn_dataset, tmp_path):
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    small = (
        f"settings |= {{'data': {str(drawn_dataset)!r}, 'imgsz': 64, 'batch': 4, 'epochs': 3, 'workers': 0}}"
    )
    small += f"\narchitecture = {str(tiny_model)!r}"
    cells = []
    for cell in code:
        cells += [cell.source, *([small] if "parameters" in cell.metadata.get("tags", []) else [])]
    assert len(cells) == len(code) + 1
    outputs = run_cells(cells, tmp_path)
    failed = [
        (text, errors_of(found)) for text, found in zip(cells, outputs, strict=True) if errors_of(found)
    ]
    assert not failed
    shown = [data for found in outputs for data in data_of(found)]
    assert any("image/png" in data for data in shown) and any("text/html" in data for data in shown)
