"""Runs on several data sets, on dicts, on folds and on held-out parts: what comes after names the same images."""

import logging

import pytest
import yaml
from support.exports import EXPORTS, NAMES
from support.training import quick_settings
from test_training_resume import assert_equal_runs, killed_after

from detector import YOLO
from detector.callbacks.registry import CallbackRegistry
from detector.checkpoints.checkpoint import load_checkpoint
from detector.cli import main
from detector.data.drawn import FORMS
from detector.engine.export import Exporter
from detector.errors import DataError
from detector.settings import ExportSettings

MEASURE = {"plots": False, "workers": 0, "device": "cpu", "verbose": False}


@pytest.fixture
def place(drawn_dataset, tmp_path, monkeypatch):
    """A working directory with a second data set next to the drawn one; its classes are cat and dog."""
    EXPORTS["pascal_voc"](tmp_path / "here/pets")
    (tmp_path / "here/shapes").symlink_to(drawn_dataset.parent / "data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


SHAPES = {"path": "shapes", "train": "images/train", "val": "images/val", "names": list(FORMS[:6])}
FORMS_OF_DATA = {
    "list": (["pets", SHAPES], {}),
    "dict": (SHAPES, {}),
    "fold": (["pets", SHAPES], {"split": "2/3"}),
    "part": (SHAPES, {"val": 0.4}),
}


def validated(model):
    """The image files that the latest validation of a model was of."""
    return sorted(model.validator.paths)


@pytest.mark.parametrize("form", FORMS_OF_DATA)
def test_a_run_is_resumed_and_validated_in_another_folder(form, place, tiny_model, monkeypatch):
    data, given = FORMS_OF_DATA[form]
    settings = quick_settings(epochs=2, batch=2, data=data, exist_ok=True, **given)
    whole = YOLO(tiny_model)
    whole.train(project=place / "whole", **settings)
    killed_after(YOLO(tiny_model), 0, project=place / "killed", **settings)
    monkeypatch.chdir(place / "elsewhere")
    YOLO(tiny_model).train(resume=place / "killed/train")
    assert_equal_runs(place / "whole/train", place / "killed/train")
    best = YOLO(place / "whole/train/weights/best.pt")
    metrics = best.val(project=place, **MEASURE)
    assert validated(best) == sorted(whole.trainer.data.val_annotations.paths)
    assert metrics.results_dict["metrics/mAP50-95"] == whole.metrics.results_dict["metrics/mAP50-95"]


def test_args_and_checkpoints_name_the_data_so_that_a_run_can_be_repeated(place, tiny_model, monkeypatch):
    settings = quick_settings(epochs=1, data=["pets", SHAPES, "shapes.yaml"][:2], split="1/3")
    YOLO(tiny_model).train(project=place / "first", **settings)
    args = yaml.safe_load((place / "first/train/args.yaml").read_text())
    assert args["data"] == [str(place / "here/pets"), SHAPES | {"path": str(place / "here/shapes")}]
    assert args["split"] == "1/3"
    assert load_checkpoint(place / "first/train/weights/best.pt")["settings"]["data"] == args["data"]
    monkeypatch.chdir(place / "elsewhere")
    YOLO(tiny_model).train(cfg=place / "first/train/args.yaml", project=place / "second", name="train")
    assert_equal_runs(place / "first/train", place / "second/train")


def test_the_joined_classes_are_those_of_the_model(place, tiny_model):
    model = YOLO(tiny_model)
    model.train(project=place, **quick_settings(epochs=1, data=["pets", SHAPES]))
    assert list(model.names.values()) == [*NAMES, *FORMS[:6]]
    assert len(model.trainer.data.train_annotations) == 2 + 8


def test_what_is_validated_on_is_that_of_the_training_only_on_its_data(place, tiny_model):
    data, given = FORMS_OF_DATA["fold"]
    model = YOLO(tiny_model)
    model.train(project=place, **quick_settings(epochs=1, data=data, **given))
    fold = sorted(model.trainer.data.val_annotations.paths)
    for same in ({}, {"data": data}, {"split": "2/3"}):
        model.val(project=place, **MEASURE, **same)
        assert validated(model) == fold
    whole = [*fold, *model.trainer.data.train_annotations.paths]
    for other, count in (({"split": "val"}, 6), ({"split": "train"}, 10), ({"data": data[::-1]}, 6)):
        model.val(project=place, **MEASURE, **other, single_cls=True)
        assert len(validated(model)) == count and set(validated(model)) <= set(whole)
    model.val(project=place, **MEASURE, val=0.5)
    assert 0 < len(validated(model)) < 10


@pytest.mark.parametrize("form", ["fold", "part"])
def test_what_is_held_out_calibrates_no_export(form, place, tiny_model):
    data, given = FORMS_OF_DATA[form]
    model = YOLO(tiny_model)
    model.train(project=place, **quick_settings(epochs=1, data=data, **given))
    annotations = model.trainer.data.train_annotations
    for export in ({}, {"data": data}, {"data": data, "fraction": 0.5}):
        settings = ExportSettings.parse({"format": "openvino", "int8": True} | export)
        trained_on = model.ckpt["settings"]["data"]
        exporter = Exporter(settings, model.model, place / "x", CallbackRegistry(), model.ckpt, trained_on)
        found = sorted(map(str, exporter._calibration_images()))
        assert found == sorted(annotations.paths) or (
            export.get("fraction") and set(found) < set(annotations.paths)
        )
        images, origin = exporter._parity_images()
        assert origin == "validation" and len(images) == min(
            len(model.trainer.data.val_annotations), len(images)
        )


def test_exports_and_benchmarks_take_a_list(place, tiny_model, monkeypatch):
    model = YOLO(tiny_model)
    model.train(project=place, **quick_settings(epochs=1, data=["pets", SHAPES], split="2/3"))
    assert model.export(format="torchscript", imgsz=64, device="cpu", verbose=False).is_file()
    assert model.exporter.parity["of"] == "validation"
    rows = model.benchmark(
        formats="torchscript",
        imgsz=64,
        device="cpu",
        repeats=1,
        project=place,
        verbose=False,
        plots=False,
        workers=0,
    )
    assert {row["format"].split()[0] for row in rows} >= {"torchscript"}
    monkeypatch.chdir(place / "elsewhere")
    (place / "here/pets").rename(place / "gone")
    model.export(format="torchscript", imgsz=64, device="cpu", verbose=False)
    assert model.exporter.parity["of"] == "drawn"


def test_the_command_line_takes_a_list(place, tiny_model, drawn_dataset, capsys, caplog, monkeypatch):
    words = [f"project={place}", "workers=0", "plots=false", "device=cpu"]
    train = [f"model={tiny_model}", f"data=[pets, {drawn_dataset}]", "split=1/3", "imgsz=64", "epochs=1"]
    assert main(["train", *train, *words]) == 0
    monkeypatch.chdir(place / "elsewhere")
    caplog.set_level(logging.INFO, "detector")
    assert main(["val", f"model={place / 'train/weights/best.pt'}", *words]) == 0
    assert caplog.text.count("fold 1 of 3 of all images, those of train and val, is validated on") == 1
    assert main(["check", f"data=[{place / 'here/pets'},{drawn_dataset}]"]) in (0, DataError.exit_code)
    assert "[pets,drawn]: 8 classes" in capsys.readouterr().out
    assert main(["check", "data=[[a]]"]) == 2
    assert "a list in a list" in capsys.readouterr().err


def test_a_data_set_that_a_stranger_wrote_into_weights_is_not_fetched(place, tiny_model, monkeypatch):
    monkeypatch.setattr("detector.data.config.fetch_dataset", lambda *_: pytest.fail("it was downloaded"))
    model = YOLO(tiny_model)
    theirs = {
        "path": str(place / "new"),
        "train": "a",
        "val": "a",
        "nc": 1,
        "download": "https://192.0.2.1/a.zip",
    }
    model.ckpt = {"settings": {"data": theirs}}
    with pytest.raises(DataError, match=r"val: .*/new/a does not exist"):
        model.val(project=place, **MEASURE)
    drawn = theirs | {"names": ["disc"], "nc": None, "drawn": {"train": 1, "val": 1}, "download": []}
    model.ckpt = {"settings": {"data": drawn}}
    with pytest.raises(DataError, match=r"val: .*/new/a does not exist"):
        model.val(project=place, **MEASURE)
    assert not list(place.glob("new*"))
