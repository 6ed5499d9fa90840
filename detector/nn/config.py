"""Architecture tables: reading and checking a model YAML, and what its rows come to at a chosen size."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import ceil, inf
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from detector.errors import ModelError, nearest
from detector.fields import is_range
from detector.files.bounds import BoundsError, require_within
from detector.files.folders import resource_dir
from detector.files.safe_yaml import YamlError, read_yaml
from detector.nn import blocks

BLOCKS: dict[str, type[nn.Module]] = {
    block.__name__: block
    for block in (
        blocks.Conv,
        blocks.DWConv,
        blocks.Bottleneck,
        blocks.C2f,
        blocks.C3,
        blocks.C3k2,
        blocks.C2PSA,
        blocks.SPPF,
        blocks.Upsample,
        blocks.Concat,
    )
}
DETECT = "Detect"
LISTS = (list, tuple)
ROW = "[from, repeats, block, [arguments]]"
ALIASES = {  # spellings of other YOLO tables, read as well
    ("nn.Upsample", "[None, 2, 'nearest']"): ("Upsample", [2]),
    ("nn.Upsample", "['None', 2, 'nearest']"): ("Upsample", [2]),
    ("Concat", "[1]"): ("Concat", []),
    (DETECT, "['nc']"): (DETECT, []),
}
INPUT_KEYS = ("channels", "value_range")  # of a config; those of images of 3 channels and 8 bits have neither
CLASS_BRANCHES = ("plain", "depthwise")
MAX_FACTOR = 100  # of depth and width; the shipped tables go up to 1.5
MAX_REPEATS = 1000  # of a row; the shipped tables go up to 6
DEEP_SCALES = ("m", "l", "x")  # sizes whose C3k2 rows always use C3k


class Rule(NamedTuple):
    """What a value has to be: in words, and as a question."""

    wanted: str
    fits: Callable[[Any], bool]


COUNT = Rule("a whole number from 1", lambda v: type(v) is int and v > 0)
POSITIVE = Rule("a number above 0", lambda v: type(v) in (int, float) and v > 0)
CHANNELS = Rule("1 (grey) or 3 (colour)", lambda v: type(v) is int and v in (1, 3))
RANGE = Rule(
    "two numbers, [the value that becomes 0, the one that becomes 255]",
    lambda v: v is None or is_range(v),
)
FLAG = Rule("true or false", lambda v: type(v) is bool)
ROWS = Rule(f"rows {ROW}", lambda v: isinstance(v, LISTS))
ARGUMENTS = {"int": COUNT, "float": POSITIVE, "bool": FLAG}
"""By the annotation of a block's parameter."""
TABLE = {
    "nc": Rule(COUNT.wanted, lambda v: v is None or COUNT.fits(v)),
    "names": Rule(
        "a list of class names", lambda v: v is None or (isinstance(v, (*LISTS, dict)) and len(v) > 0)
    ),
    "scales": Rule(
        "size: [depth, width, maximum channels]", lambda v: v is None or (isinstance(v, dict) and len(v) > 0)
    ),
    "reg_max": COUNT,
    "dual_head": FLAG,
    "end2end": FLAG,
    "class_branch": Rule(f"one of {', '.join(CLASS_BRANCHES)}", lambda v: v in CLASS_BRANCHES),
    "channels": CHANNELS,
    "ch": CHANNELS,  # another spelling
    "value_range": RANGE,
    "backbone": ROWS,
    "head": ROWS,
}
"""The keys of a model YAML."""


class Row(NamedTuple):
    """One layer of a table: the layers it reads, how often, which block, its arguments."""

    source: tuple[int, ...]
    repeats: int
    block: str
    args: tuple[Any, ...]


class Layer(NamedTuple):
    """A row at the chosen size: absolute sources, the finished constructor arguments, its output."""

    source: tuple[int, ...]
    block: str
    copies: int
    arguments: dict[str, Any]
    channels: int
    stride: int


@dataclass(frozen=True)
class ModelConfig:
    """An architecture at one size for one list of classes; plain data that a checkpoint can hold.

    Attributes:
        name: what it is called, such as "yolo11s".
        scale: the size's letter; empty where the table has no sizes.
        depth: factor on repeats above 1.
        width: factor on channels.
        max_channels: bound on channels before `width`.
        names: one name per class.
        reg_max: bins per box side; 1 for plain distances.
        dual_head: has the one-to-one head too.
        class_branch: "plain" or "depthwise" convolutions in the head's class branch.
        rows: the table, unscaled.
        channels: of an image: 1 is grey, 3 colour.
        value_range: values of images of 16 bits that become 0 and 255; None = their upper 8 bits are taken.
    """

    name: str
    scale: str
    depth: float
    width: float
    max_channels: float
    names: tuple[str, ...]
    reg_max: int
    dual_head: bool
    class_branch: str
    rows: tuple[Row, ...]
    channels: int = 3
    value_range: tuple[float, float] | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.names)

    def to_dict(self) -> dict[str, Any]:
        """Return dicts, lists, strings and numbers that `from_dict` turns back into an equal config.

        What describes the images is only in it where it is not the default.
        """
        data = asdict(self)
        data["names"] = list(self.names)
        data["rows"] = [[list(row.source), row.repeats, row.block, list(row.args)] for row in self.rows]
        if data.pop("channels") != 3:
            data["channels"] = self.channels
        if data.pop("value_range") is not None:
            data["value_range"] = list(self.value_range or ())
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], file: str = "model description") -> ModelConfig:
        """Check and read what `to_dict` gave.

        Args:
            data: the plain data.
            file: what error messages call its origin.

        Raises:
            ModelError: a key is missing or unknown, or a value can't be used.
        """
        known = [field.name for field in fields(cls)]
        wrong = [f"unknown {key!r}" for key in data if key not in known]
        wrong += [f"missing {key!r}" for key in known if key not in (*data, *INPUT_KEYS)]
        if wrong:
            raise ModelError(f"{file}: {', '.join(wrong)}; expected exactly the keys {', '.join(known)}.")
        scales = {data["scale"]: [data["depth"], data["width"], data["max_channels"]]}
        table = {key: data[key] for key in ("names", "reg_max", "dual_head", "class_branch")}
        table |= {"scales": scales, "backbone": data["rows"], "head": []}
        table |= {key: data[key] for key in INPUT_KEYS if key in data}
        return config_from_table(table, file, scale=data["scale"], name=str(data["name"]))

    def layers(self, file: str = "") -> list[Layer]:
        """Work out every layer at this size.

        Args:
            file: what error messages call the origin of the rows.

        Raises:
            ModelError: maps of different stride are joined.
        """
        layers: list[Layer] = []
        blocks = 0
        for i, row in enumerate(self.rows):
            where = _where(file or self.name, i, row)
            source = tuple(i + s if s < 0 else s for s in row.source)
            strides = {layers[s].stride if s >= 0 else 1 for s in source}
            if row.block == DETECT:
                layers.append(Layer(source, DETECT, 1, {}, 0, 0))
            elif len(strides) > 1:
                raise ModelError(
                    f"{where}: joins maps of strides {sorted(strides)}; expected maps of one stride."
                )
            else:
                channels = [layers[s].channels if s >= 0 else self.channels for s in source]
                layers.append(self._layer(row, source, channels, strides.pop()))
            blocks += layers[-1].copies * layers[-1].arguments.get("repeats", 1)
            try:
                require_within("layers", blocks)
                _require_small(layers[-1])
            except BoundsError as error:
                raise ModelError(f"{where}: {error}.") from None
        return layers

    def _layer(self, row: Row, source: tuple[int, ...], channels: list[int], stride: int) -> Layer:
        """Scale one row (not Detect)."""
        parameters = _parameters(row.block)
        arguments = dict(zip(_row_parameters(row.block), row.args, strict=False))
        repeats = max(1, round(row.repeats * self.depth)) if row.repeats > 1 else 1
        channels_out = sum(channels)
        if "channels_out" in parameters:
            channels_out = 8 * ceil(min(arguments["channels_out"], self.max_channels) * self.width / 8)
            arguments |= {"channels_in": channels[0], "channels_out": channels_out}
        if row.block == "C3k2" and self.scale in DEEP_SCALES:
            arguments["c3k"] = True
        if "repeats" in parameters:
            arguments["repeats"], repeats = repeats, 1
        enlarged = arguments.get("scale", 2) if row.block == "Upsample" else 1
        stride = stride * int(arguments.get("stride", 1)) ** repeats // enlarged
        return Layer(source, row.block, repeats, arguments, channels_out, stride)


def _require_small(layer: Layer) -> None:
    """Refuse a layer with numbers, or with a number of weights, that no network has.

    Raises:
        BoundsError: naming what is too much.
    """
    for value in (layer.channels, *layer.arguments.values()):
        require_within("as a number of a layer", value)
    given = layer.arguments
    weights = given.get("channels_in", 0) * layer.channels * given.get("kernel", 3) ** 2
    weights *= max(given.get("expansion", 1), 1) ** 2
    require_within("weights", weights * layer.copies * given.get("repeats", 1))


def load_model_config(
    model: str | Path, num_classes: int | None = None, names: Sequence[str] | None = None
) -> ModelConfig:
    """Read an architecture by name or path.

    A name or path without such a file may carry a size: `yolo11s` is size s of `yolo11.yaml`, `mines.yaml`
    size s of `mine.yaml`. An existing file is read at the size its name ends in after a digit, a hyphen or an
    underscore (`mine-s.yaml`), or else at the first of its sizes.

    Args:
        model: shipped architecture (`yolov8n`, `yolo11s.yaml`, ...) or path of a YAML in the format explained
            in `cfg/models/yolov8.yaml`.
        num_classes: number of classes instead of the file's.
        names: class names instead of the file's.

    Raises:
        ModelError: there is no such file, or its content can't be used.
    """
    path, scale = _find(Path(model))
    table = _read(path)
    scales = table.get("scales")
    if scale is None and isinstance(scales, dict):
        ending = re.search(r"[\d_-]([^\W\d_]+)$", path.stem)
        scale = ending[1] if ending and ending[1] in scales else None
    if names is not None or num_classes is not None:
        table = {key: value for key, value in table.items() if key not in ("nc", "names")}
        table |= {"names": list(names)} if names is not None else {"nc": num_classes}
    if names is not None and num_classes not in (None, len(names)):
        raise ModelError(f"num_classes={num_classes}, but {len(names)} names were given; expected as many.")
    return config_from_table(table, str(path), scale)


def config_from_table(
    table: Mapping[str, Any], file: str, scale: str | None = None, name: str | None = None
) -> ModelConfig:
    """Check a table and choose a size of it.

    Args:
        table: content of a model YAML.
        file: its path, for messages and for the config's name.
        scale: size; None takes the first.
        name: name of the config instead of the file's stem and the size.

    Raises:
        ModelError: the table or some rows can't be used.
    """
    unknown = [f"unknown key {key!r}{nearest(str(key), TABLE)}" for key in table if key not in TABLE]
    problems = [f"{', '.join(unknown)}; allowed are {', '.join(TABLE)}"] if unknown else []
    problems += [
        f"{key}={table[key]!r}; expected {rule.wanted}"
        for key, rule in TABLE.items()
        if key in table and not rule.fits(table[key])
    ]
    if "channels" in table and table.get("ch", table["channels"]) != table["channels"]:
        problems.append("channels and ch differ; keep channels")
    if problems:
        raise ModelError("\n".join(f"{file}: {problem}." for problem in problems))
    scale, (depth, width, max_channels) = _size(table.get("scales"), scale, file)
    rows = _rows([*table.get("backbone", ()), *table.get("head", ())], file)
    branch = "depthwise" if any(row.block == "C3k2" for row in rows) else "plain"
    stem = Path(file).stem
    config = ModelConfig(
        name=name or (stem if not scale or stem.endswith(scale) else stem + scale),
        scale=scale,
        depth=depth,
        width=width,
        max_channels=max_channels,
        names=_names(table, file),
        reg_max=table.get("reg_max", 16),  # as in YOLOv8 and YOLO11
        dual_head=table.get("dual_head", table.get("end2end", False)),
        class_branch=table.get("class_branch", branch),
        rows=rows,
        channels=table.get("channels", table.get("ch", 3)),
        value_range=_range(table.get("value_range")),
    )
    config.layers(file)
    return config


def _find(path: Path) -> tuple[Path, str | None]:
    """Locate a model YAML: (path, size taken off the end of the name or None)."""
    if path.suffix not in ("", ".yaml", ".yml"):
        raise ModelError(
            f"model {str(path)!r} is not an architecture; expected a .yaml file or a name like yolo11n."
        )
    shipped = resource_dir("cfg") / "models"
    suffixes = (path.suffix,) if path.suffix else (".yaml", ".yml")
    for folder in (path.parent, shipped) if path.parent == Path() else (path.parent,):
        for suffix in suffixes:
            exact, trimmed = folder / (path.stem + suffix), folder / (path.stem[:-1] + suffix)
            if exact.is_file():
                return exact, None
            if path.stem[:-1] and trimmed.is_file() and path.stem[-1] in (_read(trimmed).get("scales") or ()):
                return trimmed, path.stem[-1]
    names = [f.stem + s for f in sorted(shipped.glob("*.yaml")) for s in _read(f).get("scales") or [""]]
    hint = nearest(path.stem, names)
    raise ModelError(
        f"no model {str(path)!r}{hint}; expected the path of a YAML or one of {', '.join(names)}."
    )


def _read(path: Path) -> dict[str, Any]:
    """Parse a YAML that holds a mapping."""
    try:
        table = read_yaml(path)
    except (YamlError, OSError) as error:
        raise ModelError(f"{path}: not readable as YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(table, dict):
        raise ModelError(f"{path}: expected keys such as backbone and head, found {type(table).__name__}.")
    return table


def _size(scales: Any, scale: str | None, file: str) -> tuple[str, tuple[float, float, float]]:
    """Choose a size: its name and (depth, width, maximum channels)."""
    if scales is None:
        return "", (1.0, 1.0, inf)
    scale = next(iter(scales)) if scale is None else scale
    if scale not in scales:
        raise ModelError(f"{file}: no size {scale!r}; it has {', '.join(map(str, scales))}.")
    values = scales[scale]
    if not isinstance(values, LISTS) or len(values) != 3 or not all(map(POSITIVE.fits, values)):
        raise ModelError(
            f"{file}: size {scale}: {values!r}; expected [depth, width, maximum channels], all above 0."
        )
    depth, width, max_channels = (float(v) for v in values)
    if max(depth, width) > MAX_FACTOR:
        raise ModelError(f"{file}: size {scale}: {values!r}; expected depth and width up to {MAX_FACTOR}.")
    return str(scale), (depth, width, max_channels)


def _range(given: Any) -> tuple[float, float] | None:
    return None if given is None else (given[0], given[1])


def _names(table: Mapping[str, Any], file: str) -> tuple[str, ...]:
    """Class names from `names` and / or `nc`; class_0 ... where only their number is known."""
    names, num_classes = table.get("names"), table.get("nc")
    try:
        require_within("classes", len(names) if names else num_classes or 1)
        require_within("as a number of a layer", table.get("reg_max", 1))
    except BoundsError as error:
        raise ModelError(f"{file}: {error}.") from None
    if names is None:
        return tuple(f"class_{i}" for i in range(num_classes or 80))
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise ModelError(f"{file}: names has the keys {list(names)}; expected 0 to {len(names) - 1}.")
        names = [names[i] for i in range(len(names))]
    if num_classes not in (None, len(names)):
        raise ModelError(f"{file}: nc={num_classes}, but names lists {len(names)}; expected as many.")
    return tuple(str(name) for name in names)


def _rows(raw: list[Any], file: str) -> tuple[Row, ...]:
    """Check all rows of backbone and head; every bad one is reported."""
    rows, problems = [], []
    for i, values in enumerate(raw):
        try:
            rows.append(_row(values, i, file))
        except ModelError as error:
            problems.append(str(error))
    if problems:
        raise ModelError("\n".join(problems))
    places = [i for i, row in enumerate(rows) if row.block == DETECT]
    if not rows or places != [len(rows) - 1]:
        raise ModelError(
            f"{file}: Detect in rows {places} of {len(rows)}; expected it once, as the last row."
        )
    return tuple(rows)


def _row(values: Any, index: int, file: str) -> Row:
    """Check one row."""
    where = _where(file, index, values)
    if not isinstance(values, LISTS) or len(values) != 4:
        raise ModelError(f"{where}: expected {ROW}.")
    source, repeats, block, args = values
    block, args = ALIASES.get((str(block), str(args)), (block, args))
    source = list(source) if isinstance(source, LISTS) else [source]
    if not source or any(type(s) is not int or not -max(index, 1) <= s < index for s in source):
        raise ModelError(
            f"{where}: from={values[0]!r}; expected earlier layers (0 to {index - 1}) or -1 and below."
        )
    if type(repeats) is not int or not 1 <= repeats <= MAX_REPEATS:
        raise ModelError(f"{where}: repeats={repeats!r}; expected a whole number from 1 to {MAX_REPEATS}.")
    if block not in (*BLOCKS, DETECT):
        hint = nearest(str(block), (*BLOCKS, DETECT))
        raise ModelError(
            f"{where}: unknown block {block!r}{hint}; allowed are {', '.join(BLOCKS)}, {DETECT}."
        )
    if len(source) > 1 and block not in ("Concat", DETECT):
        raise ModelError(
            f"{where}: {block} reads one layer; expected a single number as from, or a Concat before it."
        )
    if not isinstance(args, LISTS):
        raise ModelError(f"{where}: arguments={args!r}; expected a list.")
    _check_arguments(block, args, where)
    return Row(tuple(source), repeats, block, tuple(args))


def _where(file: str, index: int, row: Any) -> str:
    """Return a row's name for messages."""
    shown = list(row) if isinstance(row, tuple) else row
    return f"{file}: row {index} {shown}"


def _check_arguments(block: str, args: Sequence[Any], where: str) -> None:
    """Check number, types and ranges of a row's arguments against the block's constructor."""
    parameters = list(_row_parameters(block).values())
    required = [p for p in parameters if p.default is p.empty]
    usage = f"{block} takes [{', '.join(p.name + _default(p) for p in parameters)}]"
    if not len(required) <= len(args) <= len(parameters):
        raise ModelError(f"{where}: {len(args)} arguments; {usage}.")
    for parameter, value in zip(parameters, args, strict=False):
        rule = ARGUMENTS[parameter.annotation]
        if not rule.fits(value):
            raise ModelError(f"{where}: {parameter.name}={value!r}; expected {rule.wanted}; {usage}.")


def _default(parameter: inspect.Parameter) -> str:
    """Write a parameter's default as it is written in a row."""
    return "" if parameter.default is parameter.empty else f"={str(parameter.default).lower()}"


def _parameters(block: str) -> Mapping[str, inspect.Parameter]:
    """Constructor parameters of a block."""
    return {} if block in ("Concat", DETECT) else inspect.signature(BLOCKS[block]).parameters


def _row_parameters(block: str) -> dict[str, inspect.Parameter]:
    """The parameters a row gives: the table knows the input channels and the repeats itself."""
    return {key: p for key, p in _parameters(block).items() if key not in ("channels_in", "repeats")}
