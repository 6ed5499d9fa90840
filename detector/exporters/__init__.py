"""Export formats: one function in one file each, found through a table.

A package adds a custom format with an entry point in the group `detector.exporters`: its name is the
format's name, and it names a `Format`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from detector.errors import ExportError, MissingPackageError, nearest
from detector.runtimes import Runtime

if TYPE_CHECKING:
    from detector.exporters.job import ExportSpec

log = logging.getLogger(__name__)

PLUGIN_GROUP = "detector.exporters"
NETWORK_SUFFIXES = (".pt", ".safetensors", ".yaml", ".yml")
"""Of files that a network is made of: weights and architectures."""

Write = Callable[[Path, Mapping[str, Any]], None]
"""Writes what was captured to a path, with metadata inside."""


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        suffix: of the exported file, or of the folder's name (`_openvino`).
        what: description for users.
        export: "module:function" that takes a `ExportSpec`, captures its network and returns a `Write`.
        load: "module:function" that opens a written file as a `Runtime`, called as `load(path, compute)`.
        precisions: those it can be written in, the default first.
        options: settings it knows, of `dynamic`, `nms`, `preprocess`, `opset`, `simplify`.
        computes: precisions its runtime can compute an fp32 file in; empty if that can't be chosen.
        graph: the file runs by itself, on inputs of its size; False for weights alone.
        look: "module:function" that is given the path before `load`, and refuses a file that would run code when it is
            opened; empty if none does.
        checksum: the metadata lies in the file or folder as it is given, so that a checksum can be put into it.
        packages: what must be importable to write and run it.
        extra: the extra of this package that installs them.
    """

    suffix: str
    what: str
    export: str
    load: str
    precisions: tuple[str, ...] = ("fp32",)
    options: frozenset[str] = frozenset()
    computes: tuple[str, ...] = ()
    graph: bool = True
    look: str = ""
    checksum: bool = False
    packages: tuple[str, ...] = ()
    extra: str = ""

    def missing(self) -> list[str]:
        """Return the packages that are not installed."""
        return [name for name in self.packages if find_spec(name) is None]

    def need(self, what: str) -> None:
        """Make sure that its packages are installed.

        Raises:
            MissingPackageError: naming them and the extra.
        """
        if missing := self.missing():
            install = f"'detector[{self.extra}]'" if self.extra else " ".join(missing)
            plural = "s" * (len(missing) > 1)
            raise MissingPackageError(
                f"{what} needs the {' and '.join(missing)} package{plural}: pip install {install}"
            )

    def capture(self, job: ExportSpec) -> Write:
        write: Write = _function(self.export)(job)
        return write

    def look_into(self, path: Path) -> None:
        """Refuse a file that would run code when it is opened.

        Raises:
            ExportError: saying why.
        """
        if self.look:
            _function(self.look)(path)

    def open(self, path: Path, compute: str | None = None) -> Runtime:
        """Open a written file in its runtime.

        Args:
            path: the file or folder.
            compute: one of `computes`, or None for the runtime's own choice.
        """
        self.need(str(path))
        runtime: Runtime = _function(self.load)(path, compute)
        return runtime


GRAPH_OPTIONS = frozenset({"dynamic", "nms", "preprocess"})

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "onnx": Format(
            suffix=".onnx",
            what="ONNX: for ONNX Runtime and many others",
            export="detector.exporters.onnx:export",
            load="detector.runtimes.onnx:load",
            checksum=True,
            precisions=("fp32", "fp16"),
            options=GRAPH_OPTIONS | {"opset", "simplify"},
            packages=("onnx", "onnxscript", "onnxslim", "onnxruntime"),
            extra="export",
        ),
        "openvino": Format(
            suffix="_openvino",
            what="OpenVINO: quickest on Intel and AMD processors",
            export="detector.exporters.openvino:export",
            load="detector.runtimes.openvino:load",
            checksum=True,
            precisions=("fp32", "fp16", "int8"),
            options=GRAPH_OPTIONS | {"simplify"},
            computes=("fp32", "bf16"),
            packages=("openvino", "onnx", "onnxscript", "onnxslim"),
            extra="openvino",
        ),
        "torchscript": Format(
            suffix=".torchscript",
            what="TorchScript: for libtorch, runs with torch alone",
            export="detector.exporters.torchscript:export",
            load="detector.runtimes.torchscript:load",
            checksum=True,
            look="detector.runtimes.torch_archives:look_into_script",
            precisions=("fp32", "bf16"),
            options=GRAPH_OPTIONS,
        ),
        "pt2": Format(
            suffix=".pt2",
            what="a torch.export program, runs with torch alone",
            export="detector.exporters.torch_export:export",
            load="detector.runtimes.torch_export:load",
            checksum=True,
            look="detector.runtimes.torch_archives:look_into_program",
            precisions=("fp32", "bf16"),
            options=GRAPH_OPTIONS,
        ),
        "ncnn": Format(
            suffix="_ncnn",
            what="ncnn: for phones and small boards",
            export="detector.exporters.ncnn:export",
            load="detector.runtimes.ncnn:load",
            checksum=True,
            precisions=("fp32", "fp16"),
            packages=("ncnn", "pnnx"),
            extra="ncnn",
        ),
        "executorch": Format(
            suffix=".pte",
            what="ExecuTorch: for phones and small devices",
            export="detector.exporters.executorch:export",
            load="detector.runtimes.executorch:load",
            checksum=True,
            packages=("executorch",),
            extra="executorch",
        ),
        "safetensors": Format(
            suffix=".safetensors",
            what="weights alone, to train on or to run with detector",
            export="detector.checkpoints.safetensors_file:export",
            load="detector.checkpoints.safetensors_file:load",
            precisions=("fp32", "fp16", "bf16"),
            graph=False,
        ),
    }
)
"""The formats that come with this package."""


def all_formats() -> dict[str, Format]:
    """Return the formats of this package, and those that installed packages add under other names."""
    formats = dict(FORMATS)
    for entry in entry_points(group=PLUGIN_GROUP):
        try:
            found = entry.load()
            if not isinstance(found, Format):
                raise TypeError(f"it is {type(found).__name__}, not a detector.exporters.Format")
        except Exception as error:  # third-party code: a broken plug-in must not end this program
            log.warning("the export format %s is left out: %s", entry.name, error)
        else:
            formats.setdefault(entry.name, found)
    return formats


def find_format(name: str) -> Format:
    """Return a format by name.

    Raises:
        ExportError: if there is none, with the nearest.
    """
    formats = all_formats()
    if name not in formats:
        allowed = ", ".join(f"{known} ({entry.what})" for known, entry in formats.items())
        raise ExportError(f"format={name}: expected one of {allowed}{nearest(name, formats)}")
    return formats[name]


def format_of(path: str | Path) -> tuple[str, Format] | None:
    """Return name and entry of the format that a path's ending belongs to, or None."""
    name = Path(path).name
    if name.endswith(".xml"):
        name = str(Path(path).absolute().parent)
    for known, entry in all_formats().items():
        if name.endswith(entry.suffix):
            return known, entry
    return None


def is_exported(path: str | Path) -> bool:
    """Whether a path names an exported file, to be run by its runtime; if not, it is a network's: see the endings."""
    return Path(path).suffix not in NETWORK_SUFFIXES and format_of(path) is not None


def _function(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
