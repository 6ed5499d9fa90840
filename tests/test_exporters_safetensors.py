import torch

from detector import YOLO


def test_weights_alone_can_be_trained_on(trained, tmp_path):
    path = trained.export(format="safetensors", folder=tmp_path / "out", imgsz=96, verbose=False)
    again = YOLO(path)
    weights = trained.model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in again.model.state_dict().items())
    assert again.names == trained.names
