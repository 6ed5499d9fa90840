"""Starter weights: those that come with the package, which a training of a bare architecture begins with.

They are pretrained on scenes of drawn motifs by `tools/starter.py`; docs/starter.md has their card.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from detector.checkpoints.checkpoint import read_weights
from detector.errors import SettingsError
from detector.nn.config import ModelConfig

STARTER = "starter"  # pretrained=starter
FOLDER = Path(__file__).parent / "starter_weights"


def starter_path(model: str) -> Path:
    """Return where the starter weights of an architecture are, if there are any: `yolo11n`."""
    return FOLDER / f"starter-{model}.safetensors"


def read_starter_weights(config: ModelConfig, required: bool = False) -> dict[str, Any] | None:
    """Return the starter weights of an architecture as `read_weights` does; None if it has none.

    Classes and the channels of an image may be others than those the weights were trained with.

    Args:
        config: the architecture.
        required: whether it is an error if it has none.

    Raises:
        SettingsError: if it has none, and they are required.
        CheckpointError: if the file is damaged.
    """
    path = starter_path(config.name)
    if path.is_file():
        content = read_weights(path)
        theirs = ModelConfig.from_dict(content["model"])
        if config == replace(
            theirs, names=config.names, channels=config.channels, value_range=config.value_range
        ):
            return content
    if required:
        known = ", ".join(sorted(path.stem.removeprefix("starter-") for path in FOLDER.glob("*.safetensors")))
        raise SettingsError(
            f"pretrained={STARTER}: there are starter weights for {known or 'no model'}, not for {config.name}; take "
            "one of these as model=, or pretrained=false for random weights"
        )
    return None
