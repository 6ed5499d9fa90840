from pathlib import Path

import pytest

from detector import YOLO, exporters
from detector.errors import MissingPackageError
from detector.exporters import FORMATS, Format, format_of


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
    path = trained.export(format="mine", imgsz=96, verbose=False)
    assert path == tmp_path / "best.mine"
    assert YOLO(path).names == trained.names
    assert format_of("a/b.mine")[0] == "mine"


def test_a_missing_package_is_named_with_its_extra(trained, exported, monkeypatch):
    path = exported(format="onnx")
    monkeypatch.setattr(exporters, "find_spec", lambda name: None)
    expected = r"format=onnx needs the onnx and onnxscript and .* packages: pip install 'detector\[export\]'"
    with pytest.raises(MissingPackageError, match=expected):
        trained.export(format="onnx", imgsz=96, verbose=False)
    with pytest.raises(MissingPackageError, match=r"best.onnx needs the .* pip install 'detector\[export\]'"):
        YOLO(path)


def test_the_page_names_every_format_with_its_file_and_options():
    page = (Path(__file__).resolve().parents[1] / "docs" / "export.md").read_text()
    for name, entry in FORMATS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert entry.suffix in row and all(f"`{option}`" in row for option in entry.options)
        assert all(precision in row for precision in entry.precisions)
        assert f"[{entry.extra}]" in row or not entry.extra
