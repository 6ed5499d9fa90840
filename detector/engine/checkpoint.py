"""Checkpoints: plain data, written whole or not at all, read without running code.

Under the suffix `.safetensors` the same content is written in that format.

A checkpoint is a dict of numbers, strings, lists, dicts and tensors that
`torch.load(path, weights_only=True)` opens:

| key | value |
|---|---|
| format | "detector/1" |
| version | the package's version |
| model | `ModelConfig.to_dict()`: the architecture and the class names |
| weights | state-dict key -> tensor, float32 |
| settings | the training settings |
| epoch | epoch the weights are from, from 0 |
| metrics | name -> number, of that epoch |
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from detector import __version__
from detector.engine.restore import check_content
from detector.engine.tensor_file import write_tensor_file
from detector.engine.weight_files import load_plain
from detector.errors import CheckpointError

FORMAT = "detector/1"


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint to a temporary file beside `path`, flush it to disk and rename it.

    Raises:
        CheckpointError: if it can't be written; what was at `path` before is still there.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            content = {"format": FORMAT, "version": __version__, **checkpoint}
            if path.suffix == ".safetensors":
                write_tensor_file(file, content)
            else:
                torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError
        raise CheckpointError(
            f"can't write {path}: {error}; free some space or choose another project="
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be flushed."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this package, on the CPU, without running any code from it.

    Raises:
        CheckpointError: if the file is missing, damaged, not ours, or holds more than plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"weights {str(path)!r} do not exist: looked at {path.absolute()}")
    checkpoint = load_plain(path)
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected a checkpoint written by detector (format {FORMAT})")
    check_content(checkpoint, path)
    return checkpoint
