from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.engine.tensor_file import read_tensor_file, write_tensor_file
from detector.errors import CheckpointError

WEIGHTS = {
    "a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a.count": torch.tensor(7),
    "b": torch.tensor([1.5, -2], dtype=torch.float16),
    "c": torch.empty(0, 4),
    "d": torch.arange(4.0).reshape(2, 2).t(),
}
CHECKPOINT: dict[str, Any] = {"format": "detector/1", "model": {"name": "m"}, "epoch": 3, "weights": WEIGHTS}


def written(path: Path, checkpoint: dict[str, Any] = CHECKPOINT) -> Path:
    with path.open("wb") as file:
        write_tensor_file(file, checkpoint)
    return path


def by_hand(path: Path, header: Any, numbers: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + numbers)
    return path


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    content = read_tensor_file(written(tmp_path / "a.safetensors"))
    weights = content.pop("weights")
    assert content == {"format": "detector/1", "model": {"name": "m"}, "epoch": 3}
    assert set(weights) == set(WEIGHTS)
    for name, value in WEIGHTS.items():
        assert torch.equal(weights[name], value), name
        assert weights[name].dtype == value.dtype


def test_the_formats_own_package_agrees(tmp_path: Path) -> None:
    own = pytest.importorskip("safetensors.torch")
    loaded = own.load_file(written(tmp_path / "a.safetensors"))
    assert all(torch.equal(loaded[name], value) for name, value in WEIGHTS.items())
    metadata = {"detector": json.dumps({"epoch": 1})}
    plain = {name: value.contiguous() for name, value in WEIGHTS.items()}
    own.save_file(plain, tmp_path / "b.safetensors", metadata)
    content = read_tensor_file(tmp_path / "b.safetensors")
    assert content["epoch"] == 1
    assert all(torch.equal(content["weights"][name], value) for name, value in WEIGHTS.items())


def test_what_is_no_plain_data_can_not_be_written() -> None:
    with pytest.raises(CheckpointError, match="weights and plain data only"):
        write_tensor_file(io.BytesIO(), CHECKPOINT | {"settings": {"path": Path("x")}})
    with pytest.raises(CheckpointError, match=r"can't hold w, whose type is torch.complex64"):
        write_tensor_file(io.BytesIO(), {"weights": {"w": torch.ones(1, dtype=torch.complex64)}})


def test_weights_without_an_architecture_are_told_apart(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    with pytest.raises(CheckpointError, match="holds 1 tensors, without the architecture they belong to"):
        read_tensor_file(by_hand(tmp_path / "a.safetensors", {"x": entry}, b"1234"))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.safetensors").read_bytes()
    for keep in range(0, len(whole), 7):
        (tmp_path / "a.safetensors").write_bytes(whole[:keep])
        with pytest.raises(CheckpointError):
            read_tensor_file(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[" * 100_000, "can't be read"),
        (b'{"a":1,"a":2}', "a key is there twice"),
        (b"[1]", "no map of tensors"),
        ({"x": 3}, "not that of a tensor"),
        ({"x": {"dtype": "F7", "shape": [1], "data_offsets": [0, 4]}}, "not that of a tensor"),
        ({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "not that of a tensor"),
        ({"x": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 4]}}, "not that of a tensor"),
        ({"x": {"dtype": "F32", "shape": [1 << 30], "data_offsets": [0, 4]}}, "not where its entry says"),
        (
            {"x": {"dtype": "F32", "shape": [1 << 30], "data_offsets": [0, 1 << 32]}},
            "not where its entry says",
        ),
        ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "not where its entry says"),
        ({}, "8 bytes that belong to no tensor"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, header: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_tensor_file(by_hand(tmp_path / "a.safetensors", header, b"12345678"))


@pytest.mark.parametrize("length", [0, 1, 9, 1 << 40, (1 << 64) - 1])
def test_a_header_longer_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(CheckpointError, match=r"is no .safetensors file, or is cut short"):
        read_tensor_file(by_hand(tmp_path / "a.safetensors", {}, b"12345", length))
