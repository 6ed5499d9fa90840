import csv

import pytest
from support.models import make_finder

from detector import YOLO, exporters
from detector.cli import main
from detector.engine.benchmark import chosen_formats, variants
from detector.errors import DataError, ExportError, MissingPackageError, SettingsError
from detector.exporters import FORMATS
from detector.inference.torch_backend import TorchBackend
from detector.settings import BenchmarkSettings


@pytest.fixture
def weights(tmp_path):
    """Path of a tiny model of the synthetic data set's classes."""
    return make_finder(tmp_path)


def test_one_row_per_format_with_size_speed_and_accuracy(weights, drawn_dataset, tmp_path):
    model = YOLO(weights)
    settings = {"formats": ["torchscript"], "imgsz": 96, "repeats": 2, "project": tmp_path, "verbose": False}
    rows = model.benchmark(data=drawn_dataset, **settings)
    kinds = {(row["format"], row["file"]) for row in rows}
    assert {("pt", "fp32"), ("torchscript", "fp32")} <= kinds <= {("pt", "fp32"), ("torchscript", "fp32"),
                                                                  ("torchscript", "bf16")}  # fmt: skip
    expected = model.val(data=drawn_dataset, imgsz=96, rect=False, amp=False, plots=False, project=tmp_path)
    assert rows[0]["mAP50-95"] == pytest.approx(expected.results_dict["metrics/mAP50-95"])
    assert rows[0]["MB"] == pytest.approx(weights.stat().st_size / 1e6)
    for row in rows:
        assert 0 < row["network ms"] < row["predict ms"] and row["MB"] > 0
        assert row["difference"] == pytest.approx(row["mAP50-95"] - rows[0]["mAP50-95"])
    with (tmp_path / "benchmark" / "benchmark.csv").open() as file:
        assert [row["format"] for row in csv.DictReader(file)] == [row["format"] for row in rows]
    assert (tmp_path / "benchmark" / "benchmark.png").stat().st_size > 5000


@pytest.mark.parametrize(("nms", "head"), [(True, "one2many"), (False, "one2one")])
def test_accuracy_and_speed_are_those_of_the_head_asked_for(nms, head, drawn_dataset, tmp_path, monkeypatch):
    heads = []
    forward = TorchBackend.forward
    monkeypatch.setattr(TorchBackend, "forward", lambda self, x: heads.append(self.head) or forward(self, x))
    settings = {"formats": [], "imgsz": 96, "repeats": 2, "project": tmp_path, "verbose": False}
    YOLO(make_finder(tmp_path, dual=True)).benchmark(data=drawn_dataset, nms=nms, **settings)
    assert heads and set(heads) == {head}


@pytest.mark.slow
def test_every_format_from_the_command_line(weights, drawn_dataset, tmp_path, capsys, any_int8):
    words = [f"model={weights}", f"data={drawn_dataset}", "imgsz=96", "repeats=2", f"project={tmp_path}"]
    assert main(["benchmark", *words]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["format", "file", "computes"]
    assert {line.split()[0] for line in lines} == {"pt", *FORMATS} - {"safetensors"}
    assert any(line.split()[:2] == ["openvino", "int8"] for line in lines)


def test_formats_asked_for_by_name_must_be_there(weights, drawn_dataset, tmp_path, monkeypatch):
    settings = {"data": drawn_dataset, "project": tmp_path, "imgsz": 96, "verbose": False}
    with pytest.raises(ExportError, match="format=onxn: expected one of onnx"):
        YOLO(weights).benchmark(formats="onxn", **settings)
    with pytest.raises(DataError, match="data= is missing"):
        YOLO(weights).benchmark(formats="onnx", imgsz=96)
    monkeypatch.setattr(exporters, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"formats=onnx needs .*pip install 'detector\[export\]'"):
        YOLO(weights).benchmark(formats="onnx", **settings)


def test_other_classes_than_the_datas_are_refused(tiny_model, drawn_dataset, tmp_path):
    with pytest.raises(
        SettingsError, match="has 6 classes, the model knows 80; benchmark on the data it was"
    ):
        YOLO(tiny_model).benchmark(data=drawn_dataset, formats=[], imgsz=96, project=tmp_path, verbose=False)


def test_a_variant_that_fails_is_left_out_and_said(weights, drawn_dataset, tmp_path, monkeypatch, caplog):
    def fail(self, job):
        raise ExportError("no kernel")

    monkeypatch.setattr(exporters.Format, "capture", fail)
    settings = {"formats": "torchscript", "imgsz": 96, "repeats": 2, "project": tmp_path}
    rows = YOLO(weights).benchmark(data=drawn_dataset, **settings)
    assert {row["format"] for row in rows} == {"pt"}
    assert "torchscript fp32 is left out: no kernel" in caplog.text


def test_formats_whose_packages_are_missing_are_left_out(monkeypatch, caplog):
    monkeypatch.setattr(exporters, "find_spec", lambda name: None if name.startswith("onnx") else object())
    with caplog.at_level("INFO", "detector"):
        chosen = chosen_formats(BenchmarkSettings())
    assert "onnx" not in chosen and "torchscript" in chosen
    assert "left out: format=onnx needs" in caplog.text


@pytest.mark.parametrize(("bf16", "pt"), [(False, 1), (True, 2)])
def test_variants_are_what_the_processor_can_compute(bf16, pt):
    found = list(variants({name: FORMATS[name] for name in ("openvino", "safetensors")}, bf16))
    assert [variant.format for variant in found].count("pt") == pt
    assert not any(variant.format == "safetensors" for variant in found)
    assert any(variant.compute == "bf16" for variant in found) == bf16
