"""Files of weights of any origin: this package's own, `.safetensors`, and those of `ultralytics`.

| file | read by |
|---|---|
| own .pt | `torch.load(weights_only=True)`, after a look at the container |
| .safetensors | `tensor_file`, which has nothing to unpickle |
| .pt of ultralytics | `foreign`, which makes stand-ins of everything but tensors and plain data |
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from detector.engine.archive import check_archive
from detector.engine.foreign import describe, read_peer_checkpoint
from detector.engine.restore import check_content
from detector.engine.tensor_file import read_tensor_file
from detector.engine.vendor import find_weights
from detector.errors import CheckpointError, first_line

OWN_FORMAT = "detector/"  # how the format of own files starts


class NotPlainError(CheckpointError):
    """A file holds more than plain data and tensors, or is no pickle at all."""


def read_weights(weights: str | Path) -> dict[str, Any]:
    """Read a checkpoint, on the CPU, without running any code from it.

    Args:
        weights: path of a .pt or .safetensors file, or a published name such as `yolo26n.pt`.

    Returns:
        The content of a checkpoint; at least model, weights, settings, epoch and metrics.

    Raises:
        CheckpointError: if there is no such file, it is damaged or hostile, or no network can be made of it.
    """
    path = find_weights(weights)
    if path.suffix == ".safetensors":
        content: Any = read_tensor_file(path)
    else:
        try:
            content = load_plain(path)
        except NotPlainError:
            return read_peer_checkpoint(path)
    own = isinstance(content, dict) and str(content.get("format")).startswith(OWN_FORMAT)
    if not own:
        raise CheckpointError(
            f"{path}: {describe(content)}; expected a checkpoint written by detector, or by ultralytics with a "
            f"detection network"
        )
    check_content(content, path)
    return content  # type: ignore[no-any-return]


def load_plain(path: Path) -> Any:
    """Return what torch saved, if it is plain data and tensors only.

    Raises:
        NotPlainError: if it is more than that, or can't be unpickled.
        CheckpointError: if the file is none that torch writes.
    """
    check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of hostile files torch has much to say
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a malformed pickle may raise anything; there is nothing to go on with
        raise NotPlainError(
            f"{path}: can't be read as plain data ({first_line(error)}); it was not loaded"
        ) from None
