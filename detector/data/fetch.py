"""Download a data set as its YAML says."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from detector.errors import DataError
from detector.files.archives import unpack
from detector.files.atomic import move_into_place, staging_folder
from detector.files.download import check_url, download
from detector.files.names import file_name

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """One archive of a data set.

    Attributes:
        url: https address of a .zip, .tar, .tar.gz or .tgz file.
        into: Folder of the data set to unpack it into; "" is the data set's own folder.
        sha256: Hexadecimal digest the file must have, None to skip that check.
    """

    url: str
    into: str = ""
    sha256: str | None = None


def fetch_dataset(archives: Sequence[Archive], root: Path) -> Path:
    """Download archives and unpack them as the folder of a data set.

    An archive whose files all lie in one folder named like the data set is unpacked without that folder.
    Files that were downloaded stay in `.<name>.downloads` next to `root` until the data set is complete.

    Args:
        archives: What to fetch, in this order.
        root: The data set's folder; must not exist or be empty.

    Returns:
        `root`.

    Raises:
        DataError: As from `download` and `unpack`, or if two archives bring the same folder.
    """
    downloads = root.parent / f".{root.name}.downloads"
    for archive in archives:
        check_url(archive.url)
    with staging_folder(root) as staging:
        whole = staging / root.name
        whole.mkdir()
        for number, archive in enumerate(archives):
            name = file_name(archive.url.rsplit("/", 1)[-1])
            file = download(archive.url, downloads / str(number) / name, archive.sha256)
            LOGGER.info("unpacking %s", file)
            contents = unpack(file, staging / f"unpacked-{number}")
            entries = [entry for entry in contents.iterdir() if entry.name != "__MACOSX"]
            if len(entries) == 1 and entries[0].is_dir() and entries[0].name == root.name:
                contents = entries[0]
            _merge(contents, whole.joinpath(*PurePosixPath(archive.into).parts), archive.url)
        move_into_place(whole, root)
    shutil.rmtree(downloads, ignore_errors=True)
    return root


def _merge(source: Path, target: Path, url: str) -> None:
    """Move what is in `source` to `target`, folder into folder, replacing nothing."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _merge(entry, place, url)
        elif place.exists():
            raise DataError(f"{url}: {entry.name} is in another archive of the data set too; refused.")
        else:
            entry.rename(place)
