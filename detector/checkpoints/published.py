"""Published weights by name: YOLOv8, YOLO11 and YOLO26 as ultralytics publishes them, downloaded on first use."""

from __future__ import annotations

import logging
from pathlib import Path

from detector.errors import CheckpointError, DataError, nearest
from detector.files.download import download
from detector.files.folders import cache_dir, expand_home, is_offline

log = logging.getLogger(__name__)

RELEASE = "https://github.com/ultralytics/assets/releases/download/v8.4.0"
LICENCE = "AGPL-3.0"
NAMES = tuple(f"{family}{size}.pt" for family in ("yolov8", "yolo11", "yolo26") for size in "nsmlx")
MAX_BYTES = 1 << 30


def resolve_weights(weights: str | Path) -> Path:
    """Return the path of a file of weights; a published one that is missing is downloaded into the user's cache.

    Args:
        weights: a path, or a name such as `yolo26n.pt`. A file of that name in the working folder comes first.

    Raises:
        CheckpointError: if there is no such file and it can't be fetched.
    """
    path = expand_home(weights)
    if path.is_file():
        return path
    if str(weights) not in NAMES:
        hint = nearest(path.name, NAMES) if path.parent == Path() else ""
        raise CheckpointError(f"weights {str(weights)!r} do not exist: looked at {path.absolute()}{hint}")
    kept = cache_dir("weights") / path.name
    if kept.is_file():
        return kept
    url = f"{RELEASE}/{path.name}"
    if is_offline():
        raise CheckpointError(
            f"weights {path.name!r} are neither at {path.absolute()} nor at {kept}, and DETECTOR_OFFLINE is set; "
            f"fetch {url} elsewhere (licence: {LICENCE}) and put it in one of these places"
        )
    log.warning("fetching %s: these weights are published under %s, not this package's licence", url, LICENCE)
    try:
        return download(url, kept, max_bytes=MAX_BYTES)
    except DataError as error:
        raise CheckpointError(
            f"weights {path.name!r} are not at {path.absolute()} and can't be fetched: {error}"
        ) from None
