"""A look into .pt2 and .torchscript files before torch opens them: opening such a file can run what is in it.

torch unpickles parts of a `.pt2`, evaluates its expressions as Python, looks up the functions it names and loads the
libraries it holds; a `.torchscript` runs its `__setstate__`, and its code may read and write files. Here everything is
refused that no exporter writes for a detector. The archive is read with torch's own reader, so that what is looked at
is what torch will open. What remains is that torch computes what the file says, with the memory and time it asks for.
"""

from __future__ import annotations

import ast
import io
import json
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from detector.errors import ExportError, first_line

MAX_TEXT_BYTES = 64 << 20  # of code, graph and pickles; 0.7 MB for yolo11n
MAX_EXPRESSION = 4000, 500  # letters and parts of an expression
MAX_POWER = 8
SIZES = ("size", "stride", "storage_offset")
MAX_INTEGER = 1 << 62

PROGRAM_ENTRIES = re.compile(
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt"
    r"|extra/[^/]*|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
)
SCRIPT_ENTRIES = re.compile(
    r"(data|constants)\.pkl|code/[\w./]+\.py(\.debug_pkl)?|(constants|data)/\d+|extra/[^/]*|version|byteorder"
    r"|\.data/(version|serialization_id)"
)
OPERATORS = re.compile(
    r"torch\.ops\.(aten|torchvision)\.(?!save\b|from_file\b)\w+\.\w+|torch\.sym_\w+|math\.(ceil|floor|trunc)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
)
"""What the nodes of a graph may call: operators of torch, save the two that read and write files."""
WORD = re.compile(r"[\w.]*", re.ASCII)
TREE_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict")
FUNCTIONS = frozenset(
    {
        *("Symbol", "Integer", "Float", "Rational", "Mul", "Add", "Pow", "PowByNatural", "Mod", "PythonMod"),
        *(
            "FloorDiv",
            "CeilDiv",
            "CleanDiv",
            "IntTrueDiv",
            "FloatTrueDiv",
            "ModularIndexing",
            "Max",
            "Min",
            "Abs",
        ),
        *(
            "ToFloat",
            "CeilToInt",
            "FloorToInt",
            "TruncToInt",
            "Eq",
            "Ne",
            "Equality",
            "Unequality",
            "And",
            "Or",
            "Not",
        ),
        *(
            "StrictLessThan",
            "StrictGreaterThan",
            "LessThan",
            "GreaterThan",
            "Where",
            "Piecewise",
            "ExprCondPair",
        ),
    }
)
"""What expressions may call: the numbers, symbols and functions of sizes."""
PARTS = (
    *(
        ast.Expression,
        ast.Constant,
        ast.Name,
        ast.Load,
        ast.BinOp,
        ast.UnaryOp,
        ast.Compare,
        ast.BoolOp,
        ast.Tuple,
    ),
    *(ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.keyword, ast.Call, ast.Subscript, ast.Attribute),
)
SUSPECT_CODE = re.compile(
    r"__setstate__|__getstate__|torch\.classes|\bsave\b|\bfrom_file\b|\bops\.(?!aten\.|torchvision\.|prim\.)"
    r"|\bgetattr\b[^\n]*\\"
)


class _SuspectError(ValueError):
    """What an archive holds that no exporter writes; the text is a clause after "it"."""


def look_into_program(path: Path) -> None:
    """Refuse a .pt2 that could run code when torch opens it.

    Raises:
        ExportError: saying what it holds, or that it can't be read.
    """
    _look(path, PROGRAM_ENTRIES, _check_program)


def look_into_script(path: Path) -> None:
    """Refuse a .torchscript that could run code when torch opens it, or read and write files when it predicts.

    Raises:
        ExportError: saying what it holds, or that it can't be read.
    """
    _look(path, SCRIPT_ENTRIES, _check_script)


def _look(path: Path, known: re.Pattern[str], check: Callable[[Any, list[str]], None]) -> None:
    try:
        with zipfile.ZipFile(path) as archive:  # what is packed is unpacked by torch, whatever its size
            packed = sum(entry.file_size for entry in archive.infolist() if entry.compress_type)
        if packed > MAX_TEXT_BYTES:
            raise _SuspectError(f"unpacks to {packed:,} bytes; at most {MAX_TEXT_BYTES:,} are read")
        reader = torch._C.PyTorchFileReader(str(path))
        names = reader.get_all_records()
        for name in names:
            if not known.fullmatch(name):
                raise _SuspectError(f"holds {name[:80]!r}, which no exporter writes for a detector")
        check(reader, names)
    except _SuspectError as error:
        raise ExportError(
            f"{path}: was not opened, it {error}, and opening it could run code; if you trust whoever it is from, "
            f"give trust=true"
        ) from None
    except Exception as error:  # a damaged archive may raise anything
        raise ExportError(f"{path}: torch can't open it, it is damaged ({first_line(error)})") from None


def _read(reader: Any, name: str) -> bytes:
    """Return an entry of text."""
    if reader.get_record_size(name) > MAX_TEXT_BYTES:
        raise _SuspectError(f"has more than {MAX_TEXT_BYTES:,} bytes of {name[:80]!r}")
    return bytes(reader.get_record(name))


# ---- .torchscript ---------------------------------------------------------------------------------------


def _check_script(reader: Any, names: list[str]) -> None:
    for name in names:
        if name.endswith(".py"):
            found = SUSPECT_CODE.search(_read(reader, name).decode("utf-8"))
            if found:
                raise _SuspectError(f"has {found[0][:40]!r} in its code")
        elif name.endswith("pkl"):
            for opcode, argument, _ in pickletools.genops(_read(reader, name)):
                if opcode.name == "GLOBAL" and "torch.classes" in str(argument).replace(" ", "."):
                    raise _SuspectError(f"makes an object of {str(argument)[:80]!r}")


# ---- .pt2 -----------------------------------------------------------------------------------------------


def _check_program(reader: Any, names: list[str]) -> None:
    for kind in ("weights", "constants"):
        for entry in json.loads(_read(reader, f"data/{kind}/model_{kind}_config.json"))["config"].values():
            if entry["use_pickle"] is not False or f"data/{kind}/{entry['path_name']}" not in names:
                raise _SuspectError(f"has {kind} that are not plain numbers")
            sizes = [size["as_int"] for size in entry["tensor_meta"]["sizes"]]
            if not reader.get_record_size(f"data/{kind}/{entry['path_name']}") and 0 not in sizes:
                raise _SuspectError(f"has {kind} of {sizes} without numbers")
    _check_inputs(_read(reader, "data/sample_inputs/model.pt"))
    for text in _texts(json.loads(_read(reader, "models/model.json"))):
        if not WORD.fullmatch(text):
            check_expression(text)


def _check_inputs(content: bytes) -> None:
    """Make sure that the example in a program is tensors and plain data."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(entry.compress_type for entry in archive.infolist()):
            raise _SuspectError("has compressed sample inputs")
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # a malformed pickle may raise anything
        raise _SuspectError("has sample inputs that are not tensors") from None


def _texts(graph: Any) -> Iterator[str]:
    """Yield the names and expressions in a graph; operators and structures of arguments are checked here."""
    todo = [graph]
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, dict):
            for key, item in value.items():
                yield key
                if key in ("target", "as_operator") and not (
                    isinstance(item, str) and OPERATORS.fullmatch(item)
                ):
                    raise _SuspectError(f"calls {str(item)[:80]!r}")
                if key in ("in_spec", "out_spec") and isinstance(item, str):
                    _check_structure(json.loads(item))
                elif key == "treespec_namedtuple_fields" and item:
                    raise _SuspectError("names classes of its own")
                elif not _is_only_read(key, item):
                    todo.append(item)


def _is_only_read(key: str, item: Any) -> bool:
    """Whether torch keeps a value as text: remarks, and arguments that are text."""
    if key == "metadata":
        return isinstance(item, dict) and all(isinstance(text, str) for text in item.values())
    return key in ("as_string", "torch_version") and isinstance(item, str)


def _check_structure(spec: Any) -> None:
    """Make sure that the structure of arguments is one of tuples, lists and dicts: others are imported by name."""
    todo = [spec[1]]
    while todo:
        node = todo.pop()
        if node["type"] not in TREE_TYPES:
            raise _SuspectError(f"has arguments of the class {str(node['type'])[:80]!r}")
        todo += node["children_spec"]


def check_expression(text: str) -> None:
    """Make sure that an expression is one of sizes; torch evaluates it as Python.

    Raises:
        ValueError: if it is anything else, or could take long to evaluate.
    """
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval"))) if len(text) <= MAX_EXPRESSION[0] else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        nodes = []
    if not nodes or len(nodes) > MAX_EXPRESSION[1] or not all(map(_is_plain, nodes)):
        raise _SuspectError(f"has the expression {text[:80]!r}")


def _is_plain(node: ast.AST) -> bool:
    """Whether a part of an expression is one of those that sizes are written with."""
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):  # L['images'].size()
            return not node.args + node.keywords
        known = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
        power = isinstance(node.func, ast.Name) and node.func.id in ("Pow", "PowByNatural")
        return known and (not power or (len(node.args) == 2 and _is_small(node.args[1])))
    if isinstance(node, ast.BinOp):
        return not isinstance(node.op, (ast.Pow, ast.LShift)) or (
            isinstance(node.op, ast.Pow) and _is_small(node.right)
        )
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return bool(WORD.fullmatch(node.value))
        return isinstance(node.value, (int, float)) and abs(node.value) < MAX_INTEGER
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, (ast.Constant, ast.UnaryOp))
    if isinstance(node, ast.Attribute):
        return node.attr in SIZES
    if isinstance(node, ast.Name):
        return not node.id.startswith("_")
    return isinstance(node, PARTS)


def _is_small(node: ast.expr) -> bool:
    """Whether an exponent is a number that can be computed: 2, -1, Integer(2)."""
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        node = node.args[0]
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value <= MAX_POWER
