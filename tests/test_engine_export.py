import shutil

import cv2
import numpy as np
import pytest
import torch
from support.models import assert_same_boxes, drawn_inputs

from detector import YOLO
from detector.callbacks.events import EVENTS
from detector.cli import main
from detector.engine.export import choose_precision, put
from detector.errors import DataError, ExportError
from detector.exporters import FORMATS, Format, find_format
from detector.exporters.job import ExportSpec
from detector.exporters.parity import TOLERANCES
from detector.inference.exported_backend import ExportedModel, pad_to, run_file
from detector.settings import ExportSettings, PredictSettings


def slow(name):
    """Leave a case to the slow tests."""
    return pytest.param(name, marks=pytest.mark.slow)


GRAPHS = ("onnx", "openvino", "torchscript", "pt2")
# where two of them suffice: the others are slow
SOME_GRAPHS = ("onnx", slow("openvino"), "torchscript", slow("pt2"))
FIXED = ("ncnn", slow("executorch"))  # of one size, without options
QUICK = {"imgsz": 96, "verbose": False}


# ---- what a file predicts --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*GRAPHS, *FIXED])
def test_an_exported_file_is_opened_and_predicts_what_the_model_does(name, trained, exported, sample_image):
    path = exported(format=name)
    assert path.name == f"best{FORMATS[name].suffix}"
    opened = YOLO(path)
    parity = opened.exported.metadata["parity"]
    assert parity["box"] < 1e-3 and parity["score"] < 1e-4 and parity["agreement"] > 0.97
    assert parity["detections"] > 10 and parity["of"] == "drawn"
    assert opened.names == trained.names
    (mine,) = trained.predict(sample_image, imgsz=96, rect=False, amp=False, verbose=False, conf=0.1)
    (theirs,) = opened.predict(sample_image, amp=False, verbose=False, conf=0.1)
    assert_same_boxes(mine, theirs)


@pytest.mark.parametrize("name", [*SOME_GRAPHS, *FIXED])
def test_validation_of_a_file_equals_that_of_the_model(name, trained, exported, drawn_dataset, tmp_path):
    path = exported(format=name, batch=3)
    settings = {"data": drawn_dataset, "amp": False, "plots": False, "project": tmp_path, "conf": 0.05}
    expected = trained.val(imgsz=96, rect=False, **settings).results_dict
    seen = []
    opened = YOLO(path)
    opened.add_callback("on_val_batch_end", lambda validator: seen.append(len(validator.preds)))
    found = opened.val(**settings).results_dict
    assert found == pytest.approx(expected, abs=1e-3)
    assert sum(seen) == 4


@pytest.mark.parametrize("name", SOME_GRAPHS)
def test_a_dynamic_file_runs_at_three_sizes_and_batches_1_and_4(name, trained, exported):
    path = exported(format=name, dynamic=True)
    opened = ExportedModel(path)
    runtime = opened.runtime("fp32" if opened.format.computes else None)
    network = trained.model.fuse()
    for height, width in ((96, 96), (64, 160), (192, 128)):
        for batch in (1, 4):
            images = drawn_inputs(height, width)[:batch]
            with torch.inference_mode():
                expected = network.decode(network(images.float() / 255)["one2many"])
            found = run_file(runtime, opened.contract, images, path)
            assert np.abs(found - expected.numpy()).max() < 1e-2, (height, width, batch)


def test_a_dynamic_file_takes_as_many_images_as_it_was_exported_for_and_more(trained, tmp_path):
    path = trained.export(format="pt2", dynamic=True, imgsz=64, batch=300, verbose=False)
    opened = ExportedModel(path)
    images = torch.zeros(301, 3, 64, 64)
    assert run_file(opened.runtime(None), opened.contract, images, path).shape[0] == 301
    with pytest.raises(
        ExportError, match=r"failed on an input of \(1, 3, 32, 32\); give sides of 64 to 4096 px \("
    ):
        run_file(opened.runtime(None), opened.contract, images[:1, :, :32, :32], path)


@pytest.mark.parametrize("name", SOME_GRAPHS)
def test_suppression_and_normalisation_inside_the_file(name, trained, exported, sample_image):
    settings = {"conf": 0.1, "iou": 0.5, "max_det": 20}
    path = exported(format=name, nms=True, preprocess=True, batch=2, **settings)
    opened = YOLO(path)
    contract = opened.exported.contract
    assert (contract.kind, contract.preprocess, contract.suppression.max_det) == ("detections", True, 20)
    pixels = np.zeros((2, 96, 96, 3), np.uint8)
    pixels[0] = cv2.resize(sample_image, (96, 96))
    rows = opened.exported.runtime("fp32" if opened.exported.format.computes else None).run(pixels)
    assert rows.shape == (2, 20, 6)
    assert (rows[rows[..., 4] == 0] == 0).all(), "padding is zero throughout"
    (mine,) = trained.predict(sample_image, imgsz=96, rect=False, amp=False, verbose=False, **settings)
    (theirs,) = opened.predict(sample_image, amp=False, verbose=False, conf=0.1)
    assert_same_boxes(mine, theirs)


@pytest.mark.parametrize("name", SOME_GRAPHS)
def test_the_nms_free_head_gives_detections(name, dual, sample_image):
    path = dual.export(format=name, nms=False, max_det=30, **QUICK)
    opened = YOLO(path)
    assert opened.exported.contract.head == "one2one"
    assert opened.exported.contract.suppression.iou is None
    settings = {"amp": False, "verbose": False, "conf": 0.1}
    (mine,) = dual.predict(sample_image, imgsz=96, rect=False, nms=False, max_det=30, **settings)
    (theirs,) = opened.predict(sample_image, **settings)
    assert_same_boxes(mine, theirs)


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("onnx", True),
        ("openvino", True),
        ("torchscript", "bf16"),
        ("pt2", "bf16"),
        ("ncnn", True),
        ("safetensors", "fp16"),
    ],
)
def test_half_precision(name, half, trained, exported):
    full = exported(format=name)
    size = sum(file.stat().st_size for file in ([full] if full.is_file() else full.iterdir()))
    path = trained.export(format=name, half=half, **QUICK)
    assert trained.exporter.metadata["precision"] == ("bf16" if half == "bf16" else "fp16")
    assert 0 < trained.exporter.parity["score"] < TOLERANCES["bf16"].score
    assert sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir())) < size


# ---- the file itself -------------------------------------------------------------------------------------


def test_the_events_of_an_export(trained):
    seen = []
    for name in EVENTS:
        trained.add_callback(name, lambda exporter, name=name: seen.append((name, exporter.path)))
    path = trained.export(format="torchscript", **QUICK)
    assert seen == [("on_export_start", None), ("on_export_end", path)]


def test_a_file_that_predicts_otherwise_is_rejected_and_kept(trained, tmp_path, monkeypatch):
    good = trained.export(format="torchscript", **QUICK)
    before = good.read_bytes()
    opened = Format.open

    def shifted(self, path, compute=None):
        runtime = opened(self, path, compute)
        run = runtime.run
        runtime.run = lambda images: run(images) + 1
        return runtime

    monkeypatch.setattr(Format, "open", shifted)
    with pytest.raises(
        ExportError, match=r"not the model, they differ in boxes by 1 px.*torchscript.rejected"
    ):
        trained.export(format="torchscript", **QUICK)
    assert good.read_bytes() == before, "the good file of an earlier export is still there"
    assert {path.name for path in tmp_path.glob("best*")} == {
        "best.pt", "best.torchscript", "best.torchscript.rejected",
    }  # fmt: skip


def test_a_folder_takes_the_place_of_an_earlier_one(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text("")
    assert put(tmp_path / "new", tmp_path / "old") == tmp_path / "old"
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["old", "old/new.txt"]


def test_the_file_is_verified_on_images_of_the_data_set(trained, drawn_dataset):
    trained.export(format="torchscript", data=drawn_dataset, **QUICK)
    assert trained.exporter.parity["of"] == "validation"
    trained.ckpt["settings"] = {"data": str(drawn_dataset)}  # as after a training
    trained.export(format="torchscript", **QUICK)
    assert trained.exporter.parity["of"] == "validation"
    trained.ckpt["settings"] = {"data": "elsewhere.yaml"}
    trained.export(format="torchscript", **QUICK)
    assert trained.exporter.parity["of"] == "drawn"


@pytest.mark.parametrize("moment", ["capture", "write"])
def test_what_an_exporter_raises_is_one_sentence_and_leaves_nothing(moment, trained, tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("no kernel\nfor this.")

    monkeypatch.setattr(Format, "capture", fail if moment == "capture" else lambda self, job: fail)
    with pytest.raises(
        ExportError,
        match=r"^format=torchscript: the model can't be exported with these settings; try others, or another "
        r"format= \(RuntimeError: no kernel\)$",
    ):
        trained.export(format="torchscript", **QUICK)
    assert [path.name for path in tmp_path.glob("best*")] == ["best.pt"]


def test_a_file_that_gives_back_other_metadata_is_not_kept(trained, tmp_path, monkeypatch):
    opened = Format.open

    def forgetful(self, path, compute=None):
        runtime = opened(self, path, compute)
        runtime.metadata = {**runtime.metadata, "task": "pose"}
        return runtime

    monkeypatch.setattr(Format, "open", forgetful)
    with pytest.raises(ExportError, match="gives back other metadata than was written"):
        trained.export(format="torchscript", **QUICK)
    assert [path.name for path in tmp_path.glob("best*")] == ["best.pt"]


def test_a_training_set_that_has_moved_is_warned_of(trained, tmp_path, caplog):
    moved = tmp_path / "moved.yaml"
    moved.write_text("path: nowhere\ntrain: images\nval: images\nnames: [a]\n")
    trained.ckpt["settings"] = {"data": str(moved)}
    trained.export(format="torchscript", **(QUICK | {"verbose": True}))
    assert trained.exporter.parity["of"] == "drawn"
    assert "the file is compared on synthetic images instead" in caplog.text


def test_int8_needs_images_to_calibrate_on(trained):
    with pytest.raises(
        DataError, match=r"int8=true: data= is missing: name the data set whose training images"
    ):
        trained.export(format="openvino", int8=True, **QUICK)


# ---- bad input: one sentence each ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*GRAPHS, *FIXED])
def test_a_corrupted_file_is_one_sentence(name, exported, tmp_path, capsys):
    good = exported(format=name)
    path = tmp_path / good.name
    shutil.copytree(good, path) if good.is_dir() else shutil.copy(good, path)
    file = next(path.glob("*.[xp]*m*")) if path.is_dir() else path  # .xml, .param
    file.write_bytes(file.read_bytes()[:2000])
    assert main(["predict", f"model={path}", "source=x.jpg"]) == 5
    err = capsys.readouterr().err
    (message,) = [
        line for line in err.splitlines() if not line.startswith("[")
    ]  # ExecuTorch has its own to say
    assert message.startswith(f"error: {path}: ") and ("can't open it" in message or "is damaged" in message)
    file.write_bytes(b"")
    assert main(["predict", f"model={path}", "source=x.jpg"]) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["format=onxn"], "format=onxn: expected one of onnx ("),
        (
            ["format=torchscript", "half=true"],
            "half=true: format=torchscript is written and run in fp32, bf16, not",
        ),
        (
            ["format=onnx", "int8=true"],
            "int8=true: format=onnx is written and run in fp32, fp16, not in int8",
        ),
        (["format=pt2", "opset=18"], "opset=18: format=pt2 knows dynamic, nms, preprocess; leave it out"),
        (["format=safetensors", "dynamic=true"], "dynamic=true: format=safetensors knows none of these"),
        (["format=openvino", "half=true", "int8=true"], "half and int8 are both set"),
        (
            ["format=pt2", "dynamic=true", "imgsz=32"],
            "imgsz=32: dynamic=true expects sides from 64 px on",
        ),
    ],
)
def test_options_that_a_format_does_not_know(words, message, trained, tmp_path, capsys):
    assert main(["export", f"model={tmp_path / 'best.pt'}", "imgsz=96", *words]) == 5
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert "did you mean 'onnx'" in err or "onxn" not in err


def test_a_size_that_is_not_a_multiple_of_32(trained, tmp_path, capsys):
    assert main(["export", f"model={tmp_path / 'best.pt'}", "imgsz=100"]) == 2
    assert capsys.readouterr().err == "error: imgsz=100: expected a multiple of 32; try imgsz=96\n"


def test_precisions_of_the_table():
    assert choose_precision(ExportSettings(half=True), find_format("onnx")) == "fp16"
    assert choose_precision(ExportSettings(), find_format("pt2")) == "fp32"


# ---- sizes and places ------------------------------------------------------------------------------------


def test_a_dynamic_file_is_as_free_as_its_example(trained, tmp_path, capsys):
    words = ["export", f"model={tmp_path / 'best.pt'}", "format=pt2", "dynamic=true"]
    assert main([*words, "imgsz=32"]) == 5
    assert capsys.readouterr().err == (
        "error: imgsz=32: dynamic=true expects sides from 64 px on; try imgsz=64 or leave dynamic out\n"
    )
    job = ExportSpec(
        trained.model,
        "one2many",
        (64, 8192),
        300,
        True,
        "fp32",
        False,
        None,
        None,
        True,
        lambda: iter(()),
        {},
    )
    (sizes,) = job.dynamic_shapes()
    assert sizes[0].max == 300 and sizes[3].root.max * 32 == 8192 and sizes[2].root.min * 32 == 64


def test_a_dynamic_file_takes_narrow_images_and_any_number_of_them(exported):
    path = exported(format="torchscript", dynamic=True)
    opened = ExportedModel(path)
    seen = []

    class Watched:
        in_torch, takes_pixels = True, False

        def run(self, images):
            seen.append(images.shape)
            return np.zeros((len(images), 10, 84), np.float32)

    backend = opened.backend(PredictSettings())
    backend.runtime = Watched()
    preds, _ = backend.forward(torch.zeros(300, 3, 32, 96, dtype=torch.uint8))
    assert preds.shape[0] == 300 and seen == [(256, 3, 64, 96), (44, 3, 64, 96)]
    strip = pad_to(torch.zeros(1, 3, 32, 96), 64)
    assert torch.equal(strip[0, 0, 32:], torch.full((32, 96), 114 / 255)) and not strip[0, 0, :32].any()


def test_a_folder_that_cannot_be_written_to_is_one_sentence_before_any_work(trained, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"^can't write to .*file/out \(.*\); choose another folder=$"):
        trained.export(format="torchscript", folder=tmp_path / "file" / "out", **QUICK)

    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("detector.engine.export.TemporaryFile", refuse)
    with pytest.raises(
        ExportError, match=r"^can't write to .* \(Permission denied\); choose another folder=$"
    ):
        trained.export(format="torchscript", **QUICK)
    assert [path.name for path in tmp_path.glob("best*")] == ["best.pt"]
