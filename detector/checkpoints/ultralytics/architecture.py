"""The architecture table of an ultralytics checkpoint, converted to the form of this package."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

from torch import Tensor

from detector.checkpoints.network import build_on_meta, cannot_build, compare_shapes
from detector.checkpoints.ultralytics.unpickler import Placeholder
from detector.errors import CheckpointError
from detector.files.bounds import BoundsError, require_within
from detector.nn.config import config_from_table
from detector.nn.model import DetectionModel, ModelConfig

MAX_VALUES = 200_000  # of the table and of the names


def read_architecture(
    root: Placeholder, modules: Mapping[str, Placeholder], weights: Mapping[str, Tensor], path: Path
) -> tuple[ModelConfig, DetectionModel]:
    """Read the table; where it does not say which of its sizes it is, the weights do.

    Args:
        root: the network in the file.
        modules: its modules by name.
        weights: its weights.
        path: the file, for messages.

    Returns:
        The architecture, and the network it makes, without memory; the weights fit it.

    Raises:
        CheckpointError: if the table can't be read, or makes another network.
    """
    table = _plain(root.state.get("yaml"), path, "architecture")
    if not isinstance(table, dict):
        raise CheckpointError(f"{path}: its network has no table of its architecture")
    scales = table.get("scales")
    if not isinstance(scales, dict) or not scales:
        factors = [table.get("depth_multiple", 1.0), table.get("width_multiple", 1.0)]
        scales = {"": [*factors, table.get("max_channels", inf)]}
    rows = _rows(table, modules, path)
    head = f"model.{len(rows) - 1}"
    first = weights.get("model.0.conv.weight")
    channels = first.shape[1] if first is not None and first.ndim == 4 else 3
    if channels not in (1, 3):
        raise CheckpointError(
            f"{path}: its network takes images of {channels} channels; only 1 and 3 are read"
        )
    own = {
        "channels": channels,
        "names": _names(root, _rows_of(weights, f"{head}.cv3.0.2.weight", path), path),
        "scales": scales,
        "reg_max": _rows_of(weights, f"{head}.cv2.0.2.weight", path) // 4,
        "dual_head": f"{head}.one2one_cv2.0.2.weight" in weights,
        "class_branch": "plain" if f"{head}.cv3.0.0.conv.weight" in weights else "depthwise",
        "backbone": rows,
    }
    asked = table.get("scale")
    failure = None
    for scale in [asked] if isinstance(asked, str) and asked in scales else list(scales):
        try:
            config = config_from_table(own, str(path), scale=scale, name=_name(table, scale, path))
            network = build_on_meta(config, path)
            compare_shapes(network, weights, path)
            return config, network
        except CheckpointError as error:
            failure = failure or error
        except (ValueError, TypeError, ArithmeticError, AttributeError, KeyError) as error:
            failure = failure or cannot_build(path, "its network can't be built here", error)
    assert failure is not None
    raise failure from None


def _rows(table: Mapping[str, Any], modules: Mapping[str, Placeholder], path: Path) -> list[list[Any]]:
    """Return the table's rows as this package writes them."""
    backbone, end = table.get("backbone"), table.get("head")
    rows = [*backbone, *end] if isinstance(backbone, list) and isinstance(end, list) else []
    if not rows or not all(isinstance(row, list) and len(row) == 4 for row in rows):
        raise CheckpointError(f"{path}: the table of its architecture has no rows of four values")
    head = str(rows[-1][2])
    if head != "Detect":
        raise CheckpointError(
            f"{path}: its network ends in {head[:40]!r}; only networks that end in Detect (boxes) are read"
        )
    rows = [list(row) for row in rows]
    rows[-1][3] = []
    for index, row in enumerate(rows):
        pool = modules.get(f"model.{index}")
        if row[2] == "SPPF" and pool is not None and isinstance(row[3], list):
            act = modules.get(f"model.{index}.cv1.act")
            pools, add = pool.state.get("n"), pool.state.get("add")
            more = [pools if type(pools) is int else 3, add is True]
            more.append(act is None or not act.kind.endswith("Identity"))
            row[3] = [*(row[3] + [5])[:2], *(more if more != [3, False, True] else [])]
    return rows


def _names(root: Placeholder, count: int, path: Path) -> list[str]:
    """Return the class names, as many as the class layer has rows."""
    try:
        require_within("classes", count)
    except BoundsError as error:
        raise CheckpointError(f"{path}: asks for too much: {error}; it was not loaded") from None
    names = _plain(root.state.get("names"), path, "class names")
    if names is None:
        return [f"class_{number}" for number in range(count)]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or sorted(names, key=str) != sorted(range(count), key=str):
        raise CheckpointError(f"{path}: its class names do not fit its {count} classes")
    return [str(names[number]) for number in range(count)]


def _rows_of(weights: Mapping[str, Tensor], name: str, path: Path) -> int:
    if name not in weights or not weights[name].ndim:
        raise CheckpointError(f"{path}: its network has no {name}; only its one-to-many head can be read")
    return len(weights[name])


def _name(table: Mapping[str, Any], scale: Any, path: Path) -> str:
    stem = Path(str(table.get("yaml_file") or path.name)).stem
    return stem if stem.endswith(str(scale)) else f"{stem}{scale}"


def _plain(value: Any, path: Path, what: str, left: list[int] | None = None, depth: int = 0) -> Any:
    """Return plain data with tuples as lists.

    Raises:
        CheckpointError: if there is anything else in it, or without end.
    """
    left = [MAX_VALUES] if left is None else left
    left[0] -= 1
    if left[0] < 0 or depth > 10:
        raise CheckpointError(f"{path}: its {what} has no end")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item, path, what, left, depth + 1) for item in value]
    if isinstance(value, dict) and all(isinstance(key, (str, int, float)) for key in value):
        return {key: _plain(item, path, what, left, depth + 1) for key, item in value.items()}
    raise CheckpointError(f"{path}: its {what} is more than plain data")
