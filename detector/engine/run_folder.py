"""The folder a run writes to."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import yaml

from detector.errors import SettingsError
from detector.files import replacing


def make_run_folder(project: str | Path, name: str, exist_ok: bool) -> Path:
    """Make and return `project/name`, or `name-2`, `name-3` ... if it exists.

    Raises:
        SettingsError: if the folder can't be made.
    """
    for number in count(1):
        folder = Path(project) / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True, exist_ok=exist_ok)
        except FileExistsError:
            if exist_ok:  # a file stands there
                raise SettingsError(
                    f"name={name}: {folder.absolute()} is a file; choose another name="
                ) from None
        except OSError as error:
            raise SettingsError(
                f"project={project}: can't write to {folder.absolute()} ({error.strerror}); choose another project="
            ) from None
        else:
            return folder.absolute()
    raise AssertionError("count() is endless")


def discard_if_unused(folder: Path | None) -> None:
    """Remove the folder of a run that failed before it wrote anything but its settings."""
    if folder is None or any(p.is_file() and p.name != "args.yaml" for p in folder.rglob("*")):
        return
    (folder / "args.yaml").unlink(missing_ok=True)
    for empty in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        empty.rmdir()
    folder.rmdir()


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    """Write plain data as YAML, keys in the given order, whole or not at all."""
    with replacing(path) as file:
        file.write(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode())
