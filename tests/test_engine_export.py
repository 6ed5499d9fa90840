import pytest
import torch

from detector import YOLO
from detector.callbacks.registry import EVENTS
from detector.errors import ExportError
from detector.exporters import EXPORTERS, Format, torch_export


@pytest.fixture
def trained(tiny_model, tmp_path):
    """A model that was saved and opened again."""
    torch.manual_seed(0)
    yolo = YOLO(tiny_model)
    for level in yolo.model.head.cv3:
        torch.nn.init.normal_(level[-1].weight)
    return YOLO(yolo.save(tmp_path / "best.pt"))


def test_an_exported_file_predicts_what_the_model_does(trained, tmp_path):
    path = trained.export(format="pt2", imgsz=96, batch=2, verbose=False)
    assert path == tmp_path / "best.pt2"
    run, metadata = EXPORTERS["pt2"].load(path)
    assert metadata["imgsz"] == 96 and metadata["head"] == "one2many" and metadata["names"]["0"] == "class_0"
    images = torch.rand(2, 3, 96, 96)
    network = trained.model.fuse()
    with torch.inference_mode():
        expected = network.decode(network(images)["one2many"])
    assert torch.allclose(run(images), expected, atol=1e-3)
    assert trained.exporter.parity["box"] < 1e-3


def test_the_events_of_an_export(trained):
    seen = []
    for name in EVENTS:
        trained.add_callback(name, lambda exporter, name=name: seen.append((name, exporter.path)))
    path = trained.export(imgsz=96, verbose=False)
    assert seen == [("on_export_start", None), ("on_export_end", path)]


def test_a_file_that_predicts_otherwise_is_rejected_and_kept(trained, tmp_path, monkeypatch):
    def load(path):
        run, metadata = torch_export.load(path)
        return lambda images: run(images) + 1, metadata

    monkeypatch.setattr(Format, "load", lambda self, path: load(path))
    with pytest.raises(ExportError, match=r"is not the model: boxes differ by 1 px.*best.pt2.rejected"):
        trained.export(imgsz=96, verbose=False)
    assert {path.name for path in tmp_path.glob("best*")} == {"best.pt", "best.pt2.rejected"}


def test_an_unknown_format_is_refused_with_those_there_are(trained):
    with pytest.raises(ExportError, match=r"format=pt3: expected one of pt2 .*did you mean 'pt2'"):
        trained.export(format="pt3", imgsz=96)
