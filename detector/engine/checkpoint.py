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

A checksum at the end of the file tells damaged ones, see `engine/seal.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from detector import __version__
from detector.engine.restore import check_content
from detector.engine.seal import seal
from detector.engine.tensor_file import write_tensor_file
from detector.engine.weight_files import load_plain
from detector.errors import CheckpointError
from detector.files import replacing

FORMAT = "detector/1"


def save_checkpoint(path: Path, checkpoint: dict[str, Any], keep: Path | None = None) -> None:
    """Write a checkpoint beside `path`, flush it to disk and rename it; see `replacing`.

    Args:
        path: .pt, or .safetensors.
        checkpoint: its content, but for format and version.
        keep: the file that was at `path` stays under this name.

    Raises:
        CheckpointError: if it can't be written; what was at `path` before is still there.
    """
    content = {"format": FORMAT, "version": __version__, **checkpoint}
    try:
        with replacing(path, keep) as file:
            if path.suffix == ".safetensors":
                write_tensor_file(file, content)
            else:
                torch.save(content, file)
                seal(file)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError
        raise CheckpointError(
            f"can't write {path}: {error}; what was there before is untouched. Free some space or choose another "
            f"project="
        ) from error


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
