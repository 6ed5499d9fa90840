"""Checkpoints as `.safetensors`: a header in JSON, then the bytes of the tensors, and nothing to unpickle.

The format is public (https://huggingface.co/docs/safetensors), and its package reads and writes it. What a checkpoint
holds besides weights lies in the header's metadata, as JSON text under `detector`; other programs see the weights and
ignore it. Of that text, `sha256` is the checksum of the header, with zeros in its place, and of the numbers;
`checksum` says that there is one, should its own name be what was damaged.

Files of earlier versions open as well: those had `sha256` next to `detector` and `OLD_CHECKSUM_KEY` inside, or
in exported files no checksum. All metadata is one entry now because the package writes entries in random order: equal
checkpoints are to be equal files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from detector.checkpoints.network import build_network, check_content, read_config
from detector.checkpoints.torch_zip import MAX_DIMENSIONS, MAX_FILE_BYTES
from detector.errors import CheckpointError, first_line
from detector.runtimes import METADATA, TensorSpec

if TYPE_CHECKING:
    from detector.exporters import Write
    from detector.exporters.job import ExportSpec

MAX_HEADER_BYTES = 16 << 20  # some 100 bytes per tensor, and names, settings and metrics
DTYPES = frozenset(
    {
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    }
)
NO_DIGEST = "0" * 64
OLD_CHECKSUM_KEY = "sealed"  # what earlier versions wrote instead of `checksum`
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def write_tensor_file(file: IO[bytes], checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint's weights, and as metadata everything of it that is plain data.

    Args:
        file: open for writing, at its start.
        checkpoint: content of a checkpoint; `weights` is its map of tensors.

    Raises:
        CheckpointError: if it holds anything else.
    """
    plain = {key: value for key, value in checkpoint.items() if key != "weights"}
    try:
        described = json.dumps({"checksum": "sha256", "sha256": NO_DIGEST} | plain)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"a .safetensors file holds weights and plain data only ({error})") from None
    weights: dict[str, Tensor] = {}
    for name, value in checkpoint["weights"].items():
        if value.dtype not in DTYPES:
            raise CheckpointError(f".safetensors can't hold {name}, whose type is {value.dtype}")
        # a copy each: the package refuses tensors that share memory
        weights[name] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    content = save_tensors(weights, {METADATA: described})
    file.write(content)
    file.seek(content.index(NO_DIGEST.encode()))
    file.write(hashlib.sha256(memoryview(content)[8:]).hexdigest().encode())


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
                raise CheckpointError(f"{path}: is not a .safetensors file, or is cut short")
            file.seek(0)
            content = file.read()
        weights = load_tensors(content)
        header = content[8 : 8 + length]
        metadata = json.loads(header, object_pairs_hook=_once).get("__metadata__") or {}
    except CheckpointError:
        raise
    except KeyError as error:  # of the package's table of types
        raise CheckpointError(f"{path}: can't be read as .safetensors (torch has no type {error})") from None
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: can't be read as .safetensors ({first_line(error)})") from None
    for name, value in weights.items():
        if value.dtype not in DTYPES or value.ndim > MAX_DIMENSIONS:
            raise CheckpointError(f"{path}: the entry of {name[:80]!r} is not that of a tensor that is read")
    if METADATA not in metadata:
        raise CheckpointError(
            f"{path}: holds {len(weights)} tensors, without the architecture they belong to; expected a file "
            f"that detector wrote"
        )
    described = _describe(path, metadata[METADATA])
    expected = _take_digest(described, metadata)
    if expected is not None and expected != _digest(header, expected, memoryview(content)[8 + length :]):
        raise CheckpointError(f"{path}: is damaged: changed after it was written (its checksum is wrong)")
    return {**described, "weights": weights}


def _describe(path: Path, text: str) -> dict[str, Any]:
    """Return what a file's metadata holds of a checkpoint."""
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its metadata can't be read ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: its metadata does not describe a checkpoint")
    return content


def _take_digest(described: dict[str, Any], metadata: Mapping[str, str]) -> str | None:
    """Take the checksum out of a file's description: NO_DIGEST, which no file has, if it is lost; None without one."""
    promised = [described.pop("checksum", None), described.pop(OLD_CHECKSUM_KEY, None)]
    digest = described.pop("sha256", metadata.get("sha256"))
    return str(digest) if digest is not None else NO_DIGEST if any(promised) else None


def _digest(header: bytes, digest: str, numbers: memoryview) -> str:
    """Return SHA-256 of a file whose header holds `digest`."""
    total = hashlib.sha256(header.replace(digest.encode(), NO_DIGEST.encode(), 1))
    total.update(numbers)
    return total.hexdigest()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


# ---- as a format to export to ---------------------------------------------------------------------------


def export(job: ExportSpec) -> Write:
    """Take the weights of a job, unfused: `YOLO("best.safetensors")` opens the file, and can train on."""
    dtype = PRECISIONS[job.precision]
    weights = {
        name: value.to(dtype if value.is_floating_point() else value.dtype)
        for name, value in job.model.state_dict().items()
    }

    def write(path: Path, metadata: Mapping[str, Any]) -> None:
        with path.open("wb") as file:
            write_tensor_file(file, {**job.checkpoint, "export": metadata, "weights": weights})

    return write


class Weights:
    """A network with the weights of an exported file, run by torch on the CPU: it shows what the file computes."""

    in_torch = True
    takes_pixels = False

    def __init__(self, path: Path) -> None:
        content = read_tensor_file(path)
        check_content(content, path)
        network = build_network(read_config(content["model"], path), content["weights"], path)
        self.metadata = content["export"]
        network.head.selected = self.metadata["head"]
        self.network = network.fuse()
        self.input, self.output = TensorSpec(), TensorSpec()

    @torch.inference_mode()
    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        preds = self.network(torch.from_numpy(images))[self.network.selected_head]
        decoded: NDArray[np.float32] = self.network.decode(preds).numpy()
        return decoded


def load(path: Path, compute: str | None = None) -> Weights:
    """Open an exported file as a `Runtime`."""
    return Weights(path)
