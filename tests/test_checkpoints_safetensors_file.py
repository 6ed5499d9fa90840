from __future__ import annotations

import hashlib
import io
import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

from detector.checkpoints.checkpoint import load_checkpoint
from detector.checkpoints.safetensors_file import export, load, read_tensor_file, write_tensor_file
from detector.errors import CheckpointError
from detector.nn.model import DetectionModel, load_model_config

WEIGHTS = {
    "a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a.count": torch.tensor(7),
    "b": torch.tensor([1.5, -2], dtype=torch.float16),
    "c": torch.empty(0, 4),
    "d": torch.arange(4.0).reshape(2, 2).t(),
}
ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
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
    loaded = safetensors.torch.load_file(written(tmp_path / "a.safetensors"))
    assert all(torch.equal(loaded[name], value) for name, value in WEIGHTS.items())
    metadata = {"detector": json.dumps({"epoch": 1})}
    plain = {name: value.contiguous() for name, value in WEIGHTS.items()}
    safetensors.torch.save_file(plain, tmp_path / "b.safetensors", metadata)
    content = read_tensor_file(tmp_path / "b.safetensors")
    assert content["epoch"] == 1
    assert all(torch.equal(content["weights"][name], value) for name, value in WEIGHTS.items())


def test_what_is_not_plain_data_can_not_be_written() -> None:
    with pytest.raises(CheckpointError, match="weights and plain data only"):
        write_tensor_file(io.BytesIO(), CHECKPOINT | {"settings": {"path": Path("x")}})
    with pytest.raises(CheckpointError, match=r"can't hold w, whose type is torch.complex64"):
        write_tensor_file(io.BytesIO(), {"weights": {"w": torch.ones(1, dtype=torch.complex64)}})


def test_equal_checkpoints_are_equal_files(tmp_path: Path) -> None:
    files = {written(tmp_path / f"{number}.safetensors").read_bytes() for number in range(8)}
    assert len(files) == 1


def test_tensors_that_share_memory_are_written_each(tmp_path: Path) -> None:
    whole = torch.arange(4.0)
    path = written(
        tmp_path / "a.safetensors", {"weights": {"whole": whole, "half": whole[:2], "again": whole}}
    )
    weights = read_tensor_file(path)["weights"]
    assert {name: value.tolist() for name, value in weights.items()} == {
        "whole": [0, 1, 2, 3],
        "half": [0, 1],
        "again": [0, 1, 2, 3],
    }


def earlier(path: Path) -> bytes:
    """Write a file as versions until 0.1 did: three entries of metadata, the widest numbers first."""
    described = json.dumps({"format": "detector/1", "model": {"name": "m"}, "epoch": 3, "sealed": True})
    header = {
        "__metadata__": {"format": "pt", "detector": described, "sha256": "0" * 64},
        "a.count": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]},
        "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [8, 32]},
        "c": {"dtype": "F32", "shape": [0, 4], "data_offsets": [32, 32]},
        "d": {"dtype": "F32", "shape": [2, 2], "data_offsets": [32, 48]},
        "b": {"dtype": "F16", "shape": [2], "data_offsets": [48, 52]},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    numbers = struct.pack("<q6f4f2e", 7, *range(6), *(0, 2, 1, 3), *(1.5, -2))
    digest = hashlib.sha256(text + numbers).hexdigest().encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text.replace(b"0" * 64, digest) + numbers)
    return path.read_bytes()


def test_a_file_of_an_earlier_version_opens(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    earlier(path)
    content = read_tensor_file(path)
    weights = content.pop("weights")
    assert content == {"format": "detector/1", "model": {"name": "m"}, "epoch": 3}
    assert set(weights) == set(WEIGHTS)
    for name, value in WEIGHTS.items():
        assert torch.equal(weights[name], value), name
        assert weights[name].dtype == value.dtype


def test_every_bit_of_a_file_of_an_earlier_version_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    whole = earlier(path)
    for place in range(len(whole)):
        for bit in (place % 8, 5):  # 5: of a letter, its case
            turned = bytearray(whole)
            turned[place] ^= 1 << bit
            path.write_bytes(turned)
            with pytest.raises(CheckpointError):
                read_tensor_file(path)


def test_a_file_exported_by_an_earlier_version_opens(tmp_path: Path) -> None:
    """It has no checksum."""
    described = json.dumps({"format": "detector/1", "epoch": 3, "export": {"head": "one2many"}})
    header = {"__metadata__": {"format": "pt", "detector": described}, "x": ENTRY}
    content = read_tensor_file(by_hand(tmp_path / "a.safetensors", header, struct.pack("<f", 2.5)))
    assert content.pop("weights") == {"x": torch.tensor([2.5])}
    assert content == {"format": "detector/1", "epoch": 3, "export": {"head": "one2many"}}


def test_weights_without_an_architecture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds 1 tensors, without the architecture they belong to"):
        read_tensor_file(by_hand(tmp_path / "a.safetensors", {"x": ENTRY}, b"1234"))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.safetensors").read_bytes()
    for keep in range(0, len(whole), 7):
        (tmp_path / "a.safetensors").write_bytes(whole[:keep])
        with pytest.raises(CheckpointError):
            read_tensor_file(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("header", "numbers"),
    [
        (b"[" * 100_000, b"1234"),
        (b'{"x": {"more": ' + b"[" * 50_000 + b"]" * 50_000 + json.dumps(ENTRY)[1:].encode() + b"}", b"1234"),
        (b'{"a":1,"a":2}', b"1234"),
        (b"[1]", b"1234"),
        (b'{"\xff": 1}', b"1234"),
        ({"x": 3}, b"1234"),
        ({"x": ENTRY, "__metadata__": 3}, b"1234"),
        ({"x": ENTRY, "__metadata__": {"detector": {}}}, b"1234"),
        ({"x": ENTRY | {"dtype": "F7"}}, b"1234"),
        ({"x": ENTRY | {"dtype": "F8_E8M0", "shape": [4]}}, b"1234"),
        ({"x": ENTRY | {"shape": [-1]}}, b"1234"),
        ({"x": ENTRY | {"shape": [1 << 60]}}, b"1234"),
        ({"x": ENTRY | {"shape": [1 << 64]}}, b"1234"),
        ({"x": ENTRY | {"shape": [1 << 30]}}, b"1234"),
        ({"x": ENTRY | {"shape": [1 << 30], "data_offsets": [0, 1 << 32]}}, b"1234"),
        ({"x": ENTRY | {"shape": [(1 << 64) - 1, 0], "data_offsets": [0, 0]}}, b""),
        ({"x": ENTRY | {"data_offsets": [4, 8]}}, b"1234"),  # a hole before it
        ({"x": ENTRY, "y": ENTRY}, b"1234"),  # on each other
        ({"x": ENTRY}, b"12345678"),  # bytes that belong to no tensor
        ({}, b"12345678"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, header: Any, numbers: bytes) -> None:
    path = by_hand(tmp_path / "a.safetensors", header, numbers)
    with pytest.raises(
        CheckpointError, match=r"a.safetensors: can't be read as .safetensors \(.+\)$"
    ) as caught:
        read_tensor_file(path)
    assert len(str(caught.value)) < 500


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    entry = json.dumps(ENTRY)
    twice = f'{{"x": {entry}, "x": {entry}}}', f'{{"__metadata__": {{"a": "b", "a": "c"}}, "x": {entry}}}'
    for header in twice:
        with pytest.raises(CheckpointError, match=r"can't be read as .safetensors \(a key is there twice\)"):
            read_tensor_file(by_hand(tmp_path / "a.safetensors", header.encode(), b"1234"))
    inside = {"x": ENTRY, "__metadata__": {"detector": '{"epoch": 1, "epoch": 2}'}}
    with pytest.raises(CheckpointError, match=r"its metadata can't be read \(a key is there twice\)"):
        read_tensor_file(by_hand(tmp_path / "a.safetensors", inside, b"1234"))


@pytest.mark.parametrize("entry", [{"shape": [1] * 9}, {"dtype": "F8_E4M3", "shape": [4]}])
def test_tensors_of_no_checkpoint_are_refused(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(CheckpointError, match="the entry of 'x' is not that of a tensor that is read"):
        read_tensor_file(by_hand(tmp_path / "a.safetensors", {"x": ENTRY | entry}, b"1234"))


@pytest.mark.parametrize("described", ["", "[]", "[" * 100_000, "nonsense"])
def test_an_invalid_description_is_refused(tmp_path: Path, described: str) -> None:
    header = {"x": ENTRY, "__metadata__": {"detector": described}}
    with pytest.raises(CheckpointError, match=r"its metadata (can't be read|does not describe)"):
        read_tensor_file(by_hand(tmp_path / "a.safetensors", header, b"1234"))


@pytest.mark.parametrize("length", [0, 1, 9, 1 << 40, (1 << 64) - 1])
def test_a_header_longer_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(CheckpointError, match=r"is not a .safetensors file, or is cut short"):
        read_tensor_file(by_hand(tmp_path / "a.safetensors", {}, b"12345", length))


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_an_exported_file_is_run_and_is_a_checkpoint(
    tiny_model: Path, tmp_path: Path, precision: str, dtype: torch.dtype
) -> None:
    model = DetectionModel(load_model_config(tiny_model, names=["a", "b"])).eval()
    plain = {
        "format": "detector/1",
        "model": model.config.to_dict(),
        "settings": {},
        "epoch": 1,
        "metrics": {},
    }
    job: Any = SimpleNamespace(model=model, precision=precision, checkpoint=plain)
    path, metadata = tmp_path / "a.safetensors", {"head": model.selected_head}
    export(job)(path, metadata)
    content = load_checkpoint(path)
    assert content["weights"]["model.0.conv.weight"].dtype == dtype
    assert {key: content[key] for key in plain} == plain
    runtime, images = load(path), torch.rand(1, 3, 64, 64)
    assert runtime.metadata == metadata
    if precision == "fp32":
        with torch.no_grad():
            fused = model.fuse()
            expected = fused.decode(fused(images)[model.selected_head])
        assert torch.equal(torch.from_numpy(runtime.run(images.numpy())), expected)
    turned = bytearray(path.read_bytes())
    turned[-100] ^= 1
    path.write_bytes(turned)
    with pytest.raises(CheckpointError, match="its checksum is wrong"):
        load(path)
