import pytest
import torch
from conftest import make_finder

from detector import YOLO
from detector.nn.model import DetectionModel

QUICK = {"imgsz": 96, "verbose": False}


@pytest.mark.parametrize("selected", [None, False])
def test_a_model_on_another_device_is_copied_to_be_exported(selected, tmp_path, monkeypatch):
    yolo = YOLO(make_finder(tmp_path, dual=True))
    yolo.model.select_head(nms=selected)
    moved, cpu = [], DetectionModel.cpu
    monkeypatch.setattr(DetectionModel, "device", torch.device("cuda"))  # as if it were there
    monkeypatch.setattr(DetectionModel, "cpu", lambda self: moved.append(self) or cpu(self))
    yolo.export(format="torchscript", nms=False, **QUICK)
    assert len(moved) == 1 and moved[0] is not yolo.model
    assert yolo.exporter.metadata["head"] == "one2one"


def state_of(network):
    """Everything of a network that inference has no business with."""
    return (
        network.selected_head,
        [module.training for module in network.modules()],
        [(name, p.requires_grad, p.device, p.dtype, p.data_ptr()) for name, p in network.named_parameters()],
        {name: value.clone() for name, value in network.state_dict().items()},
    )


@pytest.mark.parametrize("selected", [None, False])
@pytest.mark.parametrize("call", ["export", "export_weights", "predict", "val", "benchmark"])
def test_the_callers_model_is_left_as_it_was(call, selected, drawn_dataset, tmp_path, monkeypatch):
    yolo = YOLO(make_finder(tmp_path, dual=True))
    network = yolo.model.train()
    network.model[0].requires_grad_(False)
    network.model[2].eval()
    network.select_head(nms=selected)
    other = selected is not None  # ask for the head that is not selected: None is the one-to-many head
    images = drawn_dataset.parent / "data" / "images" / "val"
    calls = {
        "export": lambda: yolo.export(format="torchscript", nms=None if other else False, **QUICK),
        "export_weights": lambda: yolo.export(format="safetensors", **QUICK),
        "predict": lambda: yolo.predict(images, nms=other, **QUICK),
        "val": lambda: yolo.val(data=drawn_dataset, nms=other, plots=False, workers=0, project=tmp_path, **QUICK),
        "benchmark": lambda: yolo.benchmark(
            data=drawn_dataset, formats="torchscript", nms=other, repeats=1, plots=False, project=tmp_path, **QUICK
        ),
    }  # fmt: skip
    apply = DetectionModel._apply  # called by .to(), .cpu(), .cuda(), .half()

    def only_copies(self, *args, **kwargs):
        assert self is not network, "the caller's network is moved or cast"
        return apply(self, *args, **kwargs)

    monkeypatch.setattr(DetectionModel, "_apply", only_copies)
    before = state_of(network)
    calls[call]()
    after = state_of(network)
    assert after[:3] == before[:3]
    assert all(torch.equal(value, after[3][name]) for name, value in before[3].items())
