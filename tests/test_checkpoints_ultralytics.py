from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from support.ultralytics_files import (
    ultralytics_class,
    ultralytics_network,
    write_program,
    write_ultralytics,
)

from detector.checkpoints.network import build_network
from detector.checkpoints.ultralytics import describe, read_ultralytics_checkpoint
from detector.errors import CheckpointError
from detector.nn.model import DetectionModel, ModelConfig, load_model_config


@pytest.fixture
def model(tiny_model: Path) -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel(load_model_config(tiny_model, names=["cat", "dog"])).eval()


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_ultralytics_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


def in_half(model: DetectionModel) -> DetectionModel:
    return model.half().float()


def restored(path: Path) -> DetectionModel:
    content = read_ultralytics_checkpoint(path)
    return build_network(ModelConfig.from_dict(content["model"]), content["weights"], path).eval()


def same_outputs(a: DetectionModel, b: DetectionModel) -> bool:
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        mine, theirs = a(images)["one2many"], b(images)["one2many"]
    return torch.equal(mine.boxes, theirs.boxes) and torch.equal(mine.scores, theirs.scores)


def test_an_ultralytics_network_gives_the_outputs_it_had(model: DetectionModel, tmp_path: Path) -> None:
    path = write_ultralytics(tmp_path / "ultralytics.pt", ultralytics_network(model))
    assert same_outputs(restored(path), in_half(model))
    assert not any(name.startswith("absent_package") for name in sys.modules)


@pytest.mark.parametrize("channels", [1, 4])
def test_channels_of_an_image_come_from_the_file(
    model: DetectionModel, tmp_path: Path, channels: int
) -> None:
    model.model[0].conv = torch.nn.Conv2d(channels, 8, 3, 2, 1, bias=False)
    path = write_ultralytics(tmp_path / "ultralytics.pt", ultralytics_network(model))
    if channels == 4:
        assert refusal(path).endswith("its network takes images of 4 channels; only 1 and 3 are read")
        return
    grey, images = restored(path), torch.rand(1, 1, 64, 96)
    assert grey.channels == 1
    with torch.no_grad():
        assert torch.equal(grey(images)["one2many"].boxes, in_half(model)(images)["one2many"].boxes)


def test_architecture_names_and_size_come_from_the_file(model: DetectionModel, tmp_path: Path) -> None:
    content = read_ultralytics_checkpoint(
        write_ultralytics(tmp_path / "ultralytics.pt", ultralytics_network(model))
    )
    assert content["model"]["names"] == ["cat", "dog"]
    assert (content["model"]["name"], content["model"]["scale"]) == ("shapesn", "n")
    assert content["settings"] == {"imgsz": 320}
    assert (content["epoch"], content["metrics"]) == (-1, {})
    assert {value.dtype for value in content["weights"].values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n"])
def test_every_family_is_read(name: str, tmp_path: Path) -> None:
    model = DetectionModel(load_model_config(name, names=["a", "b"])).eval()
    path = write_ultralytics(tmp_path / f"{name}.pt", ultralytics_network(model))
    assert same_outputs(restored(path), in_half(model))
    assert ModelConfig.from_dict(read_ultralytics_checkpoint(path)["model"]).rows == model.config.rows


def test_the_averaged_network_is_preferred_to_the_one_in_training(
    model: DetectionModel, tmp_path: Path
) -> None:
    other = DetectionModel(model.config)
    network = ultralytics_network(other)
    path = write_ultralytics(
        tmp_path / "last.pt", network, model=None, ema=ultralytics_network(model), epoch=3
    )
    assert same_outputs(restored(path), in_half(model))
    assert read_ultralytics_checkpoint(path)["epoch"] == 3


def test_a_fused_network_is_read(model: DetectionModel, tmp_path: Path) -> None:
    path = write_ultralytics(tmp_path / "fused.pt", ultralytics_network(model.fuse()))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found, expected = restored(path)(images)["one2many"], model(images)["one2many"]
    torch.testing.assert_close(found.boxes, expected.boxes, atol=0.02, rtol=0.02)  # the file's half precision


def test_the_size_is_known_from_the_weights_where_the_table_lacks_it(
    model: DetectionModel, tmp_path: Path
) -> None:
    network = ultralytics_network(model)
    del network.yaml["scale"]
    assert read_ultralytics_checkpoint(write_ultralytics(tmp_path / "a.pt", network))["model"]["scale"] == "n"
    network.yaml |= {"depth_multiple": 1.0, "width_multiple": 1.0, "max_channels": 64}
    del network.yaml["scales"]
    assert read_ultralytics_checkpoint(write_ultralytics(tmp_path / "b.pt", network))["model"]["scale"] == ""


def test_class_names_may_be_a_list_or_missing(model: DetectionModel, tmp_path: Path) -> None:
    listed = write_ultralytics(tmp_path / "listed.pt", ultralytics_network(model, names=["x", "y"]))
    assert read_ultralytics_checkpoint(listed)["model"]["names"] == ["x", "y"]
    missing = write_ultralytics(tmp_path / "missing.pt", ultralytics_network(model, names=None))
    assert read_ultralytics_checkpoint(missing)["model"]["names"] == ["class_0", "class_1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n.yaml["head"][-1].__setitem__(2, "Segment"), "its network ends in 'Segment'"),
        (lambda n: n.yaml["head"][0].__setitem__(2, "Swin"), "unknown block 'Swin'"),
        (lambda n: n.yaml.pop("backbone"), "no rows of four values"),
        (lambda n: setattr(n, "yaml", None), "no table of its architecture"),
        (
            lambda n: setattr(n, "yaml", ultralytics_class("Table")()),
            "its architecture is more than plain data",
        ),
        (lambda n: setattr(n, "names", {0: "a"}), "class names do not fit its 2 classes"),
        (lambda n: setattr(n, "stride", torch.tensor([4.0, 8, 16])), r"its strides are \[4.0, 8.0, 16.0\]"),
        (
            lambda n: setattr(n._modules["model"][0]._modules["conv"], "stride", (1, 1)),
            "model.0.conv.stride is",
        ),
        (lambda n: setattr(n._modules["model"][1]._modules["bn"], "eps", 1e-5), "model.1.bn.eps is 1e-05"),
        (
            lambda n: n._modules["model"][2]._modules.__setitem__("act", torch.nn.ReLU()),
            "model.2.act is ReLU; this package builds it with SiLU",
        ),
        (lambda n: n._modules["model"][2]._modules.pop("bn"), "model.2.bn.weight is missing"),
        (
            lambda n: n._modules["model"][2]._modules.__setitem__("cv9", torch.nn.Conv2d(1, 1, 1)),
            "has no place",
        ),
        (
            lambda n: n.yaml["scales"].__setitem__("n", [1.0, 2.0, 64]),
            "model.0.conv.weight is 8x3x3x3, not 16x3x3x3",
        ),
    ],
)
def test_what_would_compute_something_else_is_refused(model, tmp_path, change, message) -> None:
    network = ultralytics_network(model)
    change(network)
    found = refusal(write_ultralytics(tmp_path / "ultralytics.pt", network))
    assert any(part in found for part in message.replace("\\", "").split("|")), found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"conv1.weight": torch.ones(2), "fc.bias": torch.ones(1)},
            "is a bare state dict (2 tensors, the first",
        ),
        ({"state_dict": {"a.weight": torch.ones(2)}, "epoch": 3}, "has a bare state dict under 'state_dict'"),
        ({"model": {"layers.0": torch.ones(2)}}, "has a bare state dict under 'model'"),
        ({"anything": 1}, "has the keys 'anything', none of which is a network"),
        ([1, 2], "holds a list"),
    ],
)
def test_weights_of_other_programs_are_named(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "other.pt")
    assert message in refusal(tmp_path / "other.pt")
    assert message in describe_loaded(tmp_path / "other.pt")


def describe_loaded(path: Path) -> str:
    return describe(torch.load(path, weights_only=True))


def test_one_pickled_object_is_named_by_its_class(model: DetectionModel, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    assert "one object of the class 'torch.nn.modules.linear.Linear'" in refusal(tmp_path / "whole.pt")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:.*torch.jit.*")
def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "scripted.pt")
    assert "TorchScript" in refusal(tmp_path / "scripted.pt")


def test_files_from_before_zip_are_refused(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "as torch wrote before 1.6" in refusal(tmp_path / "old.pt")


@pytest.mark.parametrize("keep", [0, 3, 100, 2000, -30, -1])
def test_a_file_cut_short_is_refused(model: DetectionModel, tmp_path: Path, keep: int) -> None:
    path = write_ultralytics(tmp_path / "ultralytics.pt", ultralytics_network(model))
    path.write_bytes(path.read_bytes()[:keep])
    refusal(path)


def test_flipped_numbers_are_noticed(model: DetectionModel, tmp_path: Path) -> None:
    path = write_ultralytics(tmp_path / "ultralytics.pt", ultralytics_network(model))
    content = bytearray(path.read_bytes())
    place = content.index(model.half().state_dict()["model.1.conv.weight"].numpy().tobytes())
    content[place + 7] ^= 1
    path.write_bytes(content)
    assert "is damaged" in refusal(path)


def test_a_big_endian_file_is_refused(tmp_path: Path) -> None:
    assert "big-endian" in refusal(write_program(tmp_path / "a.pt", b"\x80\x02}.", byteorder="big"))
