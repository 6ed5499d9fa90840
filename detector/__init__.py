"""Train, validate and run YOLO-style object detectors, with a callback registry at every stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detector.version import __version__

__all__ = ["YOLO", "Callback", "__version__", "every_rank"]

if TYPE_CHECKING:
    from detector.callbacks.callback import Callback
    from detector.callbacks.every_rank import every_rank
    from detector.yolo import YOLO

_LAZY = {
    "YOLO": "detector.yolo",
    "Callback": "detector.callbacks.callback",
    "every_rank": "detector.callbacks.every_rank",
}


def __getattr__(name: str) -> Any:
    """Load the public classes on first use, so that `import detector` stays free of torch."""
    if name not in _LAZY:
        raise AttributeError(f"module 'detector' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
