from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.foreign_files import peer_network, write_peer

from detector.engine.checkpoint import save_checkpoint
from detector.engine.tensor_file import write_tensor_file
from detector.engine.weight_files import read_weights
from detector.engine.weights import transfer_weights
from detector.errors import CheckpointError
from detector.nn.model import DetectionModel, load_model_config


@pytest.fixture
def model(tiny_model: Path) -> DetectionModel:
    return DetectionModel(load_model_config(tiny_model, names=["cat", "dog"]))


def content(model: DetectionModel) -> dict[str, Any]:
    plain: dict[str, Any] = {"settings": {"imgsz": 64}, "epoch": 2, "metrics": {"fitness": 0.5}}
    return plain | {"model": model.config.to_dict(), "weights": model.state_dict()}


def files(model: DetectionModel, folder: Path) -> dict[str, Path]:
    save_checkpoint(folder / "own.pt", content(model))
    with (folder / "own.safetensors").open("wb") as file:
        write_tensor_file(file, {"format": "detector/1", **content(model)})
    write_peer(folder / "foreign.pt", peer_network(model))
    return {path.name: path for path in folder.iterdir() if path.suffix != ".yaml"}


def test_files_of_every_origin_hold_the_same(model: DetectionModel, tmp_path: Path) -> None:
    for name, path in files(model, tmp_path).items():
        found = read_weights(path)
        assert found["model"]["names"] == ["cat", "dog"], name
        for key, value in model.state_dict().items():
            torch.testing.assert_close(found["weights"][key], value, atol=2e-3, rtol=1e-3)
    assert read_weights(tmp_path / "own.safetensors")["metrics"] == {"fitness": 0.5}


def test_foreign_weights_are_taken_by_name_shape_and_class(model: DetectionModel, tmp_path: Path) -> None:
    found = read_weights(files(model, tmp_path)["foreign.pt"])
    target = DetectionModel(load_model_config(tmp_path / "tiny.yaml", names=["cow", "Dog "]))
    transfer = transfer_weights(target, found["weights"], dict(enumerate(found["model"]["names"])))
    assert len(transfer.by_class) == 6
    assert not transfer.left
    rows, theirs = (weights["model.5.cv3.0.2.weight"] for weights in (target.state_dict(), found["weights"]))
    assert torch.equal(rows[1], theirs[1])
    assert not torch.equal(rows[0], theirs[0])


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (
            {"layer1.0.conv1.weight": torch.ones(1)},
            "is a bare state dict (1 tensors, the first is 'layer1.0.conv1",
        ),
        ({"format": "detector/1"}, "is no complete checkpoint (model is missing"),
        ({"format": "elsewhere/1", "model": 3}, "has the keys 'format', 'model', none of which is a network"),
        (torch.ones(2), "holds a single tensor"),
    ],
)
def test_other_content_is_said_in_one_sentence(tmp_path: Path, saved: object, message: str) -> None:
    torch.save(saved, tmp_path / "a.pt")
    with pytest.raises(CheckpointError) as caught:
        read_weights(tmp_path / "a.pt")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_torchvision_weights_are_told_apart(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "squeezenet.pth")
    with pytest.raises(CheckpointError, match=r"is a bare state dict .* without the architecture"):
        read_weights(tmp_path / "squeezenet.pth")
