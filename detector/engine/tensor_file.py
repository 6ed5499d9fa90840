"""Checkpoints as `.safetensors`: a header in JSON, then the bytes of the tensors, and nothing to unpickle.

The format is public (https://huggingface.co/docs/safetensors): eight bytes of length, a JSON map from tensor name
to dtype, shape and place, the numbers. What a checkpoint holds besides weights lies in the header's metadata, as
JSON text under `detector`; other programs see the weights and pass over it. `sha256` in the metadata is the
checksum of the header, with zeros in its place, and the numbers; `sealed` among the JSON says that there is one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from detector.engine.archive import MAX_FILE_BYTES
from detector.errors import CheckpointError, first_line

MAX_HEADER_BYTES = 16 << 20
MAX_DIMENSIONS = 8
NO_DIGEST = "0" * 64
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}


def write_tensor_file(file: IO[bytes], checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint's weights, and as metadata everything of it that is plain data.

    Args:
        file: open for writing, at its start.
        checkpoint: content of a checkpoint; `weights` is its map of tensors.

    Raises:
        CheckpointError: if something in it is neither.
    """
    plain = {key: value for key, value in checkpoint.items() if key != "weights"}
    try:
        described = json.dumps(plain | {"sealed": True})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"a .safetensors file holds weights and plain data only ({error})") from None
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "detector": described, "sha256": NO_DIGEST}}
    weights = {name: value.detach().cpu().contiguous() for name, value in checkpoint["weights"].items()}
    # the widest numbers first, as the format's own writer has it: every tensor is aligned
    order = sorted(weights, key=lambda name: (-weights[name].element_size(), name))
    unknown = next((name for name in order if weights[name].dtype not in CODES), None)
    if unknown is not None:
        raise CheckpointError(f".safetensors can't hold {unknown}, whose type is {weights[unknown].dtype}")
    end = 0
    for name in order:
        start, end = end, end + weights[name].nbytes
        header[name] = {
            "dtype": CODES[weights[name].dtype],
            "shape": list(weights[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    total = hashlib.sha256(text)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        numbers = weights[name].flatten().view(torch.uint8).numpy().tobytes()
        total.update(numbers)
        file.write(numbers)
    file.seek(8 + text.index(NO_DIGEST.encode()))
    file.write(total.hexdigest().encode())


def read_tensor_file(path: str | Path) -> dict[str, Any]:
    """Read what `write_tensor_file` wrote.

    Raises:
        CheckpointError: if the file is damaged, or does not say which architecture its weights belong to.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if not 10 <= size <= MAX_FILE_BYTES or not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
                raise CheckpointError(f"{path}: is no .safetensors file, or is cut short")
            text = file.read(length)
            header = json.loads(text.decode("utf-8"), object_pairs_hook=_once)
            numbers = bytearray(file.read())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: can't be read as .safetensors ({first_line(error)})") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: its header is no map of tensors")
    metadata = header.pop("__metadata__", {})
    weights = _tensors(path, header, numbers)
    metadata = metadata if isinstance(metadata, dict) else {}
    described = metadata.get("detector")
    if not isinstance(described, str):
        raise CheckpointError(
            f"{path}: holds {len(weights)} tensors, without the architecture they belong to; expected a file "
            f"that detector wrote"
        )
    try:
        content = json.loads(described, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its metadata can't be read ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: its metadata is no description of a checkpoint")
    digest = metadata.get("sha256", NO_DIGEST if content.pop("sealed", False) else None)
    if digest is not None and _digest(text, str(digest), numbers) != digest:
        raise CheckpointError(f"{path}: is damaged: changed after it was written (its checksum is wrong)")
    return {**content, "weights": weights}


def _digest(header: bytes, digest: str, numbers: bytearray) -> str:
    """Return SHA-256 of a file whose header holds `digest`."""
    total = hashlib.sha256(header.replace(digest.encode(), NO_DIGEST.encode(), 1))
    total.update(numbers)
    return total.hexdigest()


def _tensors(path: Path, header: Mapping[str, Any], numbers: bytearray) -> dict[str, Tensor]:
    """Check every entry, then cut the tensors out of the file's numbers."""
    places = []
    for name, entry in header.items():
        fields = entry if isinstance(entry, dict) else {}
        dtype = DTYPES.get(str(fields.get("dtype")))
        shape, place = _counts(fields.get("shape")), _counts(fields.get("data_offsets"))
        if dtype is None or shape is None or place is None or len(place) != 2:
            raise CheckpointError(f"{path}: the entry of {name[:80]!r} is not that of a tensor that is read")
        places.append((place[0], place[1], name, dtype, shape))
    weights, end = {}, 0
    for start, stop, name, dtype, shape in sorted(places, key=lambda place: place[:2]):
        if start != end or stop - start != prod(shape) * dtype.itemsize or stop > len(numbers):
            raise CheckpointError(f"{path}: the numbers of {name[:80]!r} are not where its entry says")
        end = stop
        if stop > start:
            flat = torch.frombuffer(numbers, dtype=torch.uint8, count=stop - start, offset=start)
            weights[name] = flat.clone().view(dtype).reshape(shape)
        else:
            weights[name] = torch.empty(shape, dtype=dtype)
    if end != len(numbers):
        raise CheckpointError(f"{path}: has {len(numbers) - end} bytes that belong to no tensor")
    return {name: weights[name] for name in header}


def _counts(numbers: Any) -> list[int] | None:
    """Return a short list of whole numbers from 0, or None if it is something else."""
    if not isinstance(numbers, list) or len(numbers) > MAX_DIMENSIONS:
        return None
    return numbers if all(type(number) is int and 0 <= number < 1 << 40 for number in numbers) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found
