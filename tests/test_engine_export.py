import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.models import make_finder

from detector import YOLO, exporters
from detector.callbacks.registry import EVENTS
from detector.cli import main
from detector.data.drawn import FORMS
from detector.engine.device import select_precision
from detector.engine.export import choose_precision, put
from detector.engine.exported import ExportedModel, run_file
from detector.engine.inference import Runner
from detector.engine.parity import TOLERANCES, compare, drawn_pictures, match, to_inputs
from detector.errors import DataError, ExportError, MissingPackageError, ModelError, SettingsError
from detector.exporters import FORMATS, Format, find_format, format_of
from detector.runtimes import Port
from detector.runtimes.contract import contract_from, contract_of
from detector.settings import ExportSettings


def slow(name):
    """Leave a case to the slow tests."""
    return pytest.param(name, marks=pytest.mark.slow)


GRAPHS = ("onnx", "openvino", "torchscript", "pt2")
MOST = ("onnx", slow("openvino"), "torchscript", slow("pt2"))  # where two of them show it
FIXED = ("ncnn", slow("executorch"))  # of one size, without options
QUICK = {"imgsz": 96, "verbose": False}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Path of a model with one head."""
    return make_finder(tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def dual_weights(tmp_path_factory):
    """Path of a model with two heads."""
    return make_finder(tmp_path_factory.mktemp("dual"), dual=True)


@pytest.fixture
def trained(weights, tmp_path):
    """A model in a folder of its own."""
    return YOLO(shutil.copy(weights, tmp_path / "best.pt"))


@pytest.fixture
def dual(dual_weights, tmp_path):
    """Likewise with two heads."""
    return YOLO(shutil.copy(dual_weights, tmp_path / "dual.pt"))


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory):
    """Export the model with some options; the same ones once only. The files are not to be changed."""
    done = {}

    def export(**options):
        key = tuple(sorted(options.items()))
        if key not in done:
            folder = tmp_path_factory.mktemp("exported")
            done[key] = YOLO(weights).export(folder=folder, **(QUICK | options))
        return done[key]

    return export


@pytest.fixture
def photo():
    """A picture that is no square."""
    return drawn_pictures((192, 192))[0][:150]


def rows_of(result):
    return torch.cat((result.boxes.xyxy, result.boxes.conf[:, None], result.boxes.cls[:, None]), 1)


def same(a, b, pixels=0.05):
    """Tell whether two results hold the same boxes."""
    assert len(a.boxes) == len(b.boxes) > 3
    return torch.allclose(rows_of(a), rows_of(b), atol=pixels)


# ---- what a file predicts --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*GRAPHS, *FIXED])
def test_an_exported_file_is_opened_and_predicts_what_the_model_does(name, trained, exported, photo):
    path = exported(format=name)
    assert path.name == f"best{FORMATS[name].suffix}"
    opened = YOLO(path)
    parity = opened.exported.metadata["parity"]
    assert parity["box"] < 1e-3 and parity["score"] < 1e-4 and parity["agreement"] > 0.97
    assert parity["detections"] > 10 and parity["of"] == "drawn"
    assert opened.names == trained.names
    (mine,) = trained.predict(photo, imgsz=96, rect=False, amp=False, verbose=False, conf=0.1)
    (theirs,) = opened.predict(photo, amp=False, verbose=False, conf=0.1)
    assert same(mine, theirs)


@pytest.mark.parametrize("name", [*MOST, *FIXED])
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


@pytest.mark.parametrize("name", GRAPHS)
def test_a_dynamic_file_runs_at_three_sizes_and_batches_1_and_4(name, trained, exported):
    path = exported(format=name, dynamic=True)
    opened = ExportedModel(path)
    runtime = opened.runtime("fp32" if opened.format.computes else None)
    network = trained.model.fuse()
    for height, width in ((96, 96), (64, 160), (192, 128)):
        for batch in (1, 4):
            images = to_inputs(drawn_pictures((height, width)), (height, width))[:batch]
            with torch.inference_mode():
                expected = network.decode(network(images.float() / 255)["one2many"])
            found = run_file(runtime, opened.contract, images, path)
            assert np.abs(found - expected.numpy()).max() < 1e-2, (height, width, batch)


@pytest.mark.parametrize("name", MOST)
def test_suppression_and_normalisation_inside_the_file(name, trained, exported, photo):
    settings = {"conf": 0.1, "iou": 0.5, "max_det": 20}
    path = exported(format=name, nms=True, preprocess=True, batch=2, **settings)
    opened = YOLO(path)
    contract = opened.exported.contract
    assert (contract.kind, contract.preprocess, contract.suppressed.max_det) == ("detections", True, 20)
    pixels = np.zeros((2, 96, 96, 3), np.uint8)
    pixels[0] = cv2.resize(photo, (96, 96))
    rows = opened.exported.runtime("fp32" if opened.exported.format.computes else None).run(pixels)
    assert rows.shape == (2, 20, 6)
    assert (rows[rows[..., 4] == 0] == 0).all(), "padding is zero throughout"
    (mine,) = trained.predict(photo, imgsz=96, rect=False, amp=False, verbose=False, **settings)
    (theirs,) = opened.predict(photo, amp=False, verbose=False, conf=0.1)
    assert same(mine, theirs)


@pytest.mark.parametrize("name", MOST)
def test_the_nms_free_head_gives_detections(name, dual, photo):
    path = dual.export(format=name, nms=False, max_det=30, **QUICK)
    opened = YOLO(path)
    assert opened.exported.contract.head == "one2one"
    assert opened.exported.contract.suppressed.iou is None
    settings = {"amp": False, "verbose": False, "conf": 0.1}
    (mine,) = dual.predict(photo, imgsz=96, rect=False, nms=False, max_det=30, **settings)
    (theirs,) = opened.predict(photo, **settings)
    assert same(mine, theirs)


def test_rows_are_padded_where_there_are_fewer_anchors(dual):
    path = dual.export(format="torchscript", nms=False, max_det=300, imgsz=64, verbose=False)
    (rows,) = YOLO(path).exported.runtime(None).run(np.zeros((1, 3, 64, 64), np.float32))
    assert rows.shape == (300, 6) and (rows[84:] == 0).all() and (rows[:84, 4] > 0).all()


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


def test_weights_alone_can_be_trained_on(trained, tmp_path):
    path = trained.export(format="safetensors", folder=tmp_path / "out", **QUICK)
    again = YOLO(path)
    weights = trained.model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in again.model.state_dict().items())
    assert again.names == trained.names


@pytest.mark.slow
def test_int8_is_calibrated_on_the_training_pictures(trained, drawn_dataset, photo, caplog, any_int8):
    with caplog.at_level("INFO", "detector"):
        path = trained.export(format="openvino", int8=True, data=drawn_dataset, imgsz=96)
    assert "calibrating on 8 training pictures" in caplog.text
    assert trained.exporter.parity["of"] == "validation"
    assert len(YOLO(path).predict(photo, verbose=False, conf=0.1)[0].boxes) > 0


# ---- the file itself -------------------------------------------------------------------------------------


def test_what_a_file_says_of_itself(trained):
    path = trained.export(format="onnx", batch=2, licence="CC-BY-4.0", **QUICK)
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["detector"])
    assert metadata == trained.exporter.metadata
    assert metadata["names"] == {str(n): name for n, name in enumerate(FORMS[:6])}
    assert (metadata["stride"], metadata["imgsz"], metadata["batch"]) == (32, [96, 96], 2)
    assert (metadata["task"], metadata["head"], metadata["licence"]) == ("detect", "one2many", "CC-BY-4.0")
    assert metadata["input"]["shape"] == [2, 3, 96, 96]
    assert metadata["output"]["kind"] == "raw"
    assert metadata["parity"]["pictures"] == 4
    assert [node.name for node in (*session.get_inputs(), *session.get_outputs())] == ["images", "preds"]


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


def test_an_openvino_network_is_opened_by_its_folder_and_by_its_file(exported, trained):
    path = exported(format="openvino")
    assert sorted(file.name for file in path.iterdir()) == ["model.bin", "model.xml"]
    assert YOLO(path / "model.xml").names == trained.names


@pytest.mark.parametrize("dynamic", [False, True])
def test_openvino_takes_pixels_as_it_takes_floats(exported, dynamic):
    path = exported(format="openvino", dynamic=dynamic)
    inputs = to_inputs(drawn_pictures((96, 96)), (96, 96))[:1]
    opened = YOLO(path).exported
    runtime = opened.runtime("fp32")
    assert runtime.takes_pixels
    whole, parts = (run_file(runtime, opened.contract, given, path) for given in (inputs, inputs / 255))
    assert np.abs(whole - parts).max() < 1e-3
    assert len(runtime._requests) == 2


def test_openvino_makes_programs_for_the_first_shapes_and_one_for_all_others(exported, trained):
    path = exported(format="openvino", dynamic=True)
    opened = YOLO(path).exported
    runtime = opened.runtime("fp32")
    assert not runtime._requests, "compiled when an input comes"
    expected = Runner(trained.model, torch.device("cpu"), select_precision("fp32", torch.device("cpu")))
    for _ in range(2):
        for width in (32, 64, 96, 128, 160, 192):
            inputs = to_inputs(drawn_pictures((64, width)), (64, width))[:1]
            preds = run_file(runtime, opened.contract, inputs, path)
            assert np.abs(preds - expected.forward(inputs)[0].numpy()).max() < 0.01
    shapes = [shape for _, shape in runtime._requests]
    assert shapes == [(1, 64, width, 3) for width in (32, 64, 96, 128)] + [None]


def test_pictures_of_the_data_set_prove_the_file(trained, drawn_dataset):
    trained.export(format="torchscript", data=drawn_dataset, **QUICK)
    assert trained.exporter.parity["of"] == "validation"
    trained.ckpt["settings"] = {"data": str(drawn_dataset)}  # as after a training
    trained.export(format="torchscript", **QUICK)
    assert trained.exporter.parity["of"] == "validation"
    trained.ckpt["settings"] = {"data": "elsewhere.yaml"}
    trained.export(format="torchscript", **QUICK)
    assert trained.exporter.parity["of"] == "drawn"


def test_detections_are_paired_by_class_and_overlap():
    a = torch.tensor([[0, 0, 10, 10, 0.9, 1], [20, 20, 30, 30, 0.8, 0.0]])
    b = torch.tensor([[20, 20, 30, 30, 0.8, 1], [0, 0, 10, 10.2, 0.9, 1.0]])
    left, right = match(a, b)
    assert left.tolist() == a[:1].tolist() and right.tolist() == b[1:].tolist()


def test_a_file_that_is_not_a_number_is_beyond_every_tolerance(trained):
    trained.export(format="torchscript", **QUICK)
    contract = contract_of(trained.exporter.metadata, Path("x"))
    preds = torch.rand(1, 10, 50)
    assert compare(preds, preds * float("nan"), contract)["box"] == float("inf")


def test_a_package_adds_a_format(trained, monkeypatch, tmp_path):
    class Entry:
        name = "mine"

        def load(self):
            return Format(
                ".mine", "test", "detector.exporters.torchscript:export", "detector.runtimes.torchscript:load"
            )

    class Broken(Entry):
        name = "broken"

        def load(self):
            raise ImportError("no such thing")

    monkeypatch.setattr(
        exporters, "entry_points", lambda group: [Entry(), Broken()] if "exporters" in group else []
    )
    path = trained.export(format="mine", **QUICK)
    assert path == tmp_path / "best.mine"
    assert YOLO(path).names == trained.names
    assert format_of("a/b.mine")[0] == "mine"


# ---- files of others -------------------------------------------------------------------------------------


def strip(path, tmp_path):
    """Copy an ONNX file without its metadata."""
    import onnx

    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    return tmp_path / "bare.onnx"


def test_a_file_without_metadata_works_when_told_names_and_size(trained, exported, photo, tmp_path):
    bare = strip(exported(format="onnx"), tmp_path)
    with pytest.raises(ExportError, match=r"bare.onnx: was not exported by detector.*give names= and imgsz="):
        YOLO(bare)
    settings = {"verbose": False, "conf": 0.1}
    (mine,) = trained.predict(photo, imgsz=96, rect=False, amp=False, **settings)
    (theirs,) = YOLO(bare, names=FORMS[:6], imgsz=96).predict(photo, **settings)
    assert same(mine, theirs)
    cv2.imwrite(str(tmp_path / "p.png"), photo)
    names = "names=" + ",".join(FORMS[:6])
    words = [f"model={bare}", names, "imgsz=96", f"source={tmp_path / 'p.png'}", f"project={tmp_path}"]
    assert main(["predict", *words]) == 0
    with pytest.raises(ExportError, match=r"expected \(B, 6, A\).*do names= name all classes"):
        YOLO(bare, names=["cat", "dog"], imgsz=96)
    with pytest.raises(ExportError, match=r"takes images of 96 x 96 px; give imgsz=\[96,96\]"):
        YOLO(bare, names=FORMS[:6], imgsz=64)


def test_a_file_that_is_no_detector(tmp_path):
    with pytest.raises(ExportError, match=r"gives \(1, 1000\) float32; expected"):
        contract_from(
            Port((1, 3, 64, 64), "float32"), Port((1, 1000), "float32"), {0: "cat"}, (64, 64), Path("a")
        )
    with pytest.raises(ExportError, match=r"takes \(1, 10\) int64; expected images"):
        contract_from(Port((1, 10), "int64"), Port(), {0: "cat"}, (64, 64), Path("a"))


@pytest.mark.parametrize("damage", [{"schema": 9}, {"names": {"0": "a", "2": "b"}}, {"imgsz": [7, 7]}, {"stride": "x"},
                                    {"output": {"kind": "detections"}}, {"batch": 0}])  # fmt: skip
def test_damaged_metadata_is_refused(damage):
    good = {
        "schema": 1, "names": {"0": "a"}, "stride": 32, "imgsz": [64, 64], "batch": 1, "dynamic": False,
        "head": "one2many", "preprocess": False, "output": {"kind": "raw"}, "suppression": None, "precision": "fp32",
    }  # fmt: skip
    assert contract_of(good, Path("a")).input_hw == (64, 64)
    with pytest.raises(ExportError, match="export the model again"):
        contract_of(good | damage, Path("a"))


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
    (told,) = [line for line in err.splitlines() if not line.startswith("[")]  # ExecuTorch has its own to say
    assert told.startswith(f"error: {path}: ") and "can't open it" in told
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
    ],
)
def test_options_that_a_format_does_not_know(words, message, trained, tmp_path, capsys):
    assert main(["export", f"model={tmp_path / 'best.pt'}", "imgsz=96", *words]) == 5
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert "did you mean 'onnx'" in err or "onxn" not in err


def test_a_size_that_is_no_multiple_of_32(trained, tmp_path, capsys):
    assert main(["export", f"model={tmp_path / 'best.pt'}", "imgsz=100"]) == 2
    assert capsys.readouterr().err == "error: imgsz=100: expected a multiple of 32; try imgsz=96\n"


def test_a_missing_package_is_named_with_its_extra(trained, exported, monkeypatch):
    path = exported(format="onnx")
    monkeypatch.setattr(exporters, "find_spec", lambda name: None)
    expected = r"format=onnx needs the onnx and onnxscript and .* packages: pip install 'detector\[export\]'"
    with pytest.raises(MissingPackageError, match=expected):
        trained.export(format="onnx", **QUICK)
    with pytest.raises(MissingPackageError, match=r"best.onnx needs the .* pip install 'detector\[export\]'"):
        YOLO(path)


def test_int8_needs_pictures(trained):
    with pytest.raises(
        DataError, match="int8=true: data= is missing: name the data set whose training pictures"
    ):
        trained.export(format="openvino", int8=True, **QUICK)


def test_an_exported_file_is_not_trained_changed_or_exported(trained, drawn_dataset, tmp_path):
    opened = YOLO(trained.export(format="torchscript", **QUICK))
    for call in (
        lambda: opened.train(data=drawn_dataset),
        lambda: opened.load(tmp_path / "best.pt"),
        lambda: opened.save(tmp_path / "other.pt"),
        lambda: opened.export(format="onnx"),
        lambda: opened.info(),
    ):
        with pytest.raises(
            ExportError, match="an exported file predicts and validates only; to train, change or export"
        ):
            call()
    with pytest.raises(SettingsError, match="names= and imgsz= are for exported files"):
        YOLO(tmp_path / "best.pt", imgsz=96)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"imgsz": 64}, "imgsz=64: best.onnx takes 96 x 96 px only; leave imgsz out"),
        ({"rect": True}, "rect=true: best.onnx takes 96 x 96 px only"),
        ({"conf": 0.1}, r"conf=0.1: expected conf >= 0.25, which best.onnx was exported with"),
        ({"iou": 0.5}, r"iou=0.5: expected iou=0.7"),
        ({"max_det": 500}, "max_det=500: expected max_det <= 300"),
        ({"agnostic_nms": True}, "agnostic_nms=true: expected false"),
        ({"nms": False}, "nms=false: best.onnx holds the one2many head"),
        ({"device": 0}, "device=0: "),
        ({"amp": "bf16"}, "amp=bf16: best.onnx computes in fp32, as it was exported"),
        ({"names": ["a"]}, r"names=\[a\]: best.onnx has \[disc,"),
    ],
)
def test_settings_that_contradict_a_file_are_refused(settings, message, exported_with_nms, photo):
    with pytest.raises(SettingsError, match=message):
        exported_with_nms.predict(photo, verbose=False, **settings)


@pytest.fixture
def exported_with_nms(exported):
    """An ONNX file with suppression inside, opened."""
    return YOLO(exported(format="onnx", nms=True))


def test_validation_warns_of_a_threshold_inside_the_file(exported_with_nms, drawn_dataset, tmp_path, caplog):
    with caplog.at_level("WARNING", "detector"):
        exported_with_nms.val(data=drawn_dataset, plots=False, project=tmp_path)
    assert "best.onnx gives detections from conf=0.25 up" in caplog.text


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ExportError, match=r"exported file 'nowhere.onnx' does not exist: looked at /"):
        YOLO("nowhere.onnx")
    (tmp_path / "empty_openvino").mkdir()
    with pytest.raises(ExportError, match=r"expected a folder with one .xml file"):
        YOLO(tmp_path / "empty_openvino")


def test_a_single_head_has_no_nms_free_form(trained, photo):
    path = trained.export(format="torchscript", nms=False, **QUICK)
    assert YOLO(path).exported.contract.kind == "raw", "raw output, as the head has it"
    with pytest.raises(ModelError):
        trained.predict(photo, nms=False)


def test_an_oblong_file_predicts_and_does_not_validate(trained, photo, drawn_dataset):
    opened = YOLO(trained.export(format="torchscript", imgsz=[64, 96], verbose=False))
    (mine,) = trained.predict(photo, imgsz=[64, 96], rect=False, amp=False, verbose=False, conf=0.1)
    (theirs,) = opened.predict(photo, verbose=False, conf=0.1)
    assert same(mine, theirs)
    with pytest.raises(SettingsError, match="takes 64 x 96 px only, validation needs a square"):
        opened.val(data=drawn_dataset)


def test_a_child_process_ends_well_beside_openvino(exported):
    """It killed the process: a signal that Python handles, after two of OpenVINO's cores had come and gone."""
    code = (
        "import gc, signal, subprocess, sys, numpy;"
        "from detector import YOLO;"
        "signal.signal(signal.SIGCHLD, lambda *_: print('heard'));"
        "image = numpy.zeros((96, 96, 3), numpy.uint8);"
        "[YOLO(sys.argv[1]).predict(image, amp=amp, verbose=False) for amp in (False, 'auto', False)];"
        "gc.collect();"
        "subprocess.run(['true'])"
    )
    path = str(exported(format="openvino"))
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "heard" in done.stdout, done.stderr


def test_torch_keeps_its_threads(exported, photo):
    opened = YOLO(exported(format="onnx"))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    inside = []
    opened.add_callback("on_predict_batch_end", lambda predictor: inside.append(torch.get_num_threads()))
    opened.predict(photo, verbose=False)
    assert inside == [2] and torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_precisions_of_the_table():
    assert choose_precision(ExportSettings(half=True), find_format("onnx")) == "fp16"
    assert choose_precision(ExportSettings(), find_format("pt2")) == "fp32"


def test_the_page_names_every_format_with_its_file_and_options():
    page = (Path(__file__).resolve().parents[1] / "docs" / "export.md").read_text()
    for name, entry in FORMATS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert entry.suffix in row and all(f"`{option}`" in row for option in entry.options)
        assert all(precision in row for precision in entry.precisions)
        assert f"[{entry.extra}]" in row or not entry.extra
