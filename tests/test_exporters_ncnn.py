import json
import subprocess

import pytest

from detector import YOLO
from detector.errors import ExportError


def test_the_folder_holds_network_weights_and_metadata(exported):
    path = exported(format="ncnn")
    assert sorted(file.name for file in path.iterdir()) == [
        "detector.json", "model.ncnn.bin", "model.ncnn.param",
    ]  # fmt: skip
    assert (path / "model.ncnn.param").read_text().startswith("7767517\n")  # what ncnn calls its format by
    assert json.loads((path / "detector.json").read_text()) == dict(YOLO(path).exported.metadata)


def test_a_conversion_that_fails_is_one_sentence(trained, tmp_path, monkeypatch):
    def fail(words, **options):
        return subprocess.CompletedProcess(words, 3, "", "no such operator")

    monkeypatch.setattr("detector.exporters.ncnn.subprocess.run", fail)
    with pytest.raises(ExportError, match=r"^format=ncnn: pnnx failed with code 3: no such operator$"):
        trained.export(format="ncnn", imgsz=96, verbose=False)
    assert {path.name for path in tmp_path.glob("best*")} == {"best.pt"}
