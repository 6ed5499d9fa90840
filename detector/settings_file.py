"""Read a YAML file of settings: `cfg=mine.yaml`, or the args.yaml of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detector.errors import SettingsError
from detector.files.safe_yaml import YamlError, read_yaml


def read_cfg(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings; it may hold those of several commands.

    Raises:
        SettingsError: if it is missing or is not a mapping.
    """
    try:
        content = read_yaml(Path(path))
    except OSError as error:
        raise SettingsError(f"cfg={path}: can't be read ({error.strerror})") from None
    except YamlError as error:
        raise SettingsError(f"cfg={path}: is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError(f"cfg={path}: expected lines of 'setting: value'")
    return content
