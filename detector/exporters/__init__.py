"""Export formats: one function in one file each, found through `EXPORTERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor, nn

Runtime = Callable[[Tensor], Tensor]


class Format(NamedTuple):
    """One format.

    Attributes:
        suffix: of the exported file.
        module: the file in this folder; its `export(network, images, path, metadata)` writes the file, its
            `load(path)` returns a function from images to predictions, and the metadata.
        what: for people.
    """

    suffix: str
    module: str
    what: str

    def export(self, network: nn.Module, images: Tensor, path: Path, metadata: Mapping[str, Any]) -> None:
        """Write a network to a file; `images` is an example of its input."""
        import_module(f"detector.exporters.{self.module}").export(network, images, path, metadata)

    def load(self, path: Path) -> tuple[Runtime, dict[str, Any]]:
        """Read a file back, to run it in its own runtime."""
        loaded: tuple[Runtime, dict[str, Any]] = import_module(f"detector.exporters.{self.module}").load(path)
        return loaded


EXPORTERS: Mapping[str, Format] = MappingProxyType(
    {"pt2": Format(".pt2", "torch_export", "a torch.export program: runs with torch alone")}
)
