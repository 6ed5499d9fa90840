"""Checkpoints: plain data, written whole or not at all, read without running code; and those that ultralytics wrote.

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
| origin | the file the training started from, and its licence: see `origin`; files written before have none |

| file | read by |
|---|---|
| own .pt | `torch.load(weights_only=True)`, after its checksum and container are verified: `torch_zip` |
| own .safetensors | `safetensors_file`, the same content without anything to unpickle |
| .pt of ultralytics | `ultralytics`, which makes inert placeholders of everything but tensors and plain data |
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch

from detector.checkpoints.network import check_bounds, check_content
from detector.checkpoints.origin import check_licence, check_origin, origin_of
from detector.checkpoints.published import resolve_weights
from detector.checkpoints.safetensors_file import read_tensor_file, write_tensor_file
from detector.checkpoints.torch_zip import append_checksum, check_archive, check_container
from detector.checkpoints.ultralytics import describe, read_ultralytics_checkpoint
from detector.errors import CheckpointError, first_line, write_remedy
from detector.files.atomic import atomic_write
from detector.plain_data import EXPECTED, NotPlainDataError, to_plain
from detector.version import __version__

FAMILY, NEWEST = "detector/", 1
FORMAT = f"{FAMILY}{NEWEST}"


class NotPlainError(CheckpointError):
    """A file holds more than plain data and tensors, or is not a pickle at all."""


def save_checkpoint(path: Path, checkpoint: dict[str, Any], keep: Path | None = None) -> None:
    """Write a checkpoint to a temporary file, flush it to disk and rename it to `path`; see `atomic_write`.

    What is written is read back before it replaces anything.

    Args:
        path: .pt, or .safetensors.
        checkpoint: its content, but for format and version.
        keep: the file that was at `path` stays under this name.

    Raises:
        CheckpointError: if it holds more than plain data, or can't be written; what was at `path` before is still
            there.
    """
    try:
        plain = {key: to_plain(value, key) for key, value in checkpoint.items()}
    except NotPlainDataError as problem:
        raise CheckpointError(
            f"can't write {path}: {problem}; expected {EXPECTED}. What was there before is untouched"
        ) from None
    content = {"format": FORMAT, "version": __version__, **plain}
    try:
        with atomic_write(path, keep) as file:
            if path.suffix == ".safetensors":
                write_tensor_file(file, content)
            else:
                torch.save(content, file)
                append_checksum(file)
            file.flush()
            _read_back(Path(file.name), path)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError
        if isinstance(error, CheckpointError):
            raise
        if "DataLoader worker" in str(error):  # it is raised wherever the process is when a worker is killed
            raise
        raise CheckpointError(
            f"can't write {path}: {error}; what was there before is untouched; {write_remedy(error)}"
        ) from error


def _read_back(written: Path, path: Path) -> None:
    """Open what was just written for `path`, without reading the tensors of a .pt: its checksum covers them.

    Raises:
        CheckpointError: if it can't be opened.
    """
    try:
        if path.suffix == ".safetensors":
            read_tensor_file(written)
            return
        check_container(written)
        torch.load(written, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever it is: the file is of no use
        raise CheckpointError(
            f"can't write {path}: it could not be opened again ({first_line(error)}); what was there before is "
            f"untouched"
        ) from None


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this package, on the CPU, without running any code from it.

    Raises:
        NotPlainError: if it holds more than plain data, or can't be unpickled.
        CheckpointError: if the file is missing, damaged, not ours, or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"weights {str(path)!r} do not exist: looked at {path.absolute()}")
    content: Any = read_tensor_file(path) if path.suffix == ".safetensors" else _load_plain(path)
    _check_format(content, path)
    check_bounds(content, path)
    check_content(content, path)
    check_origin(content.get("origin"), path)
    check_licence(content.get("licence"), path)
    return content  # type: ignore[no-any-return]


def read_weights(weights: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this package or of ultralytics, on the CPU, without running any code from it.

    Args:
        weights: path of a .pt or .safetensors file, or a published name such as `yolo26n.pt`.

    Returns:
        The content of a checkpoint; at least model, weights, settings, epoch and metrics; and as `origin` this file
        and those before it.

    Raises:
        CheckpointError: if there is no such file, it is damaged or hostile, or no network can be made of it.
    """
    path = resolve_weights(weights)
    try:
        content = load_checkpoint(path)
    except NotPlainError:
        content = read_ultralytics_checkpoint(path)
    licence = content.pop("licence", None)  # the origin has it
    return content | {"origin": origin_of(path, content.get("origin"), licence)}


def _load_plain(path: Path) -> Any:
    """Return what torch saved, if it is plain data and tensors only.

    Raises:
        NotPlainError: if it is more than that, or can't be unpickled.
        CheckpointError: if the file is not one that torch writes.
    """
    check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch prints many warnings about hostile files
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a malformed pickle may raise anything
        raise NotPlainError(
            f"{path}: can't be read as plain data ({first_line(error)}); it was not loaded"
        ) from None


def _check_format(content: Any, path: Path) -> None:
    """Make sure that content is that of a checkpoint of ours, in a format this version reads.

    Raises:
        CheckpointError: saying what it is instead.
    """
    named = content.get("format") if isinstance(content, dict) else None
    if not isinstance(named, str) or not named.startswith(FAMILY):
        raise CheckpointError(
            f"{path}: {describe(content)}; expected a checkpoint written by detector, or by ultralytics with a "
            f"detection network"
        )
    number = re.fullmatch("[1-9][0-9]{0,5}", named.removeprefix(FAMILY))
    if number is None:
        raise CheckpointError(
            f"{path}: its format is {named[:40]!r}; expected {FAMILY!r} and a whole number from 1, such as "
            f"{FORMAT!r}; give the file as detector wrote it"
        )
    if int(number[0]) > NEWEST:
        written = content.get("version")
        by = (
            f", written by detector {written[:40]}"
            if isinstance(written, str) and written[:40].isprintable()
            else ""
        )
        raise CheckpointError(
            f"{path}: is a checkpoint of the format {named}{by}; detector {__version__} reads {FORMAT}; update "
            f"detector to open it"
        )
