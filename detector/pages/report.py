"""report.html: a run as one file that opens without a network."""

from __future__ import annotations

import base64
from pathlib import Path

from detector.errors import DataError
from detector.files.atomic import replace_file
from detector.files.names import shortened
from detector.pages.content import MAX_JPEG, MAX_POINTS, checked_jpeg, read_content
from detector.pages.html import whole_page
from detector.runs.record import now, read_bounded
from detector.version import __version__

REPORT, LABELS = "report.html", "labels.jpg"


def write_report(folder: str | Path) -> Path:
    """Write the report of a run into its folder; also of one that runs, was interrupted or failed.

    Returns:
        Its path.

    Raises:
        DataError: if it is not a run folder, or the file can't be written.
    """
    folder = Path(folder)
    name = folder.absolute().name
    content = read_content(folder, name, MAX_POINTS) | {"written": now(), "version": __version__}
    content["labels"] = _image(folder / LABELS)
    page = whole_page(f"{shortened(name)} – report", content, "report.js")
    path = folder / REPORT
    try:
        replace_file(path, page.encode())
    except OSError as error:
        raise DataError(
            f"{path}: can't write the report ({error.strerror}); choose a writable folder."
        ) from None
    return path


def _image(path: Path) -> str | None:
    """Return a JPEG of the run in base64; None if there is none, or it is too large for a page."""
    try:
        content = read_bounded(path, MAX_JPEG // 4 * 3)
    except DataError:
        return None
    return checked_jpeg(base64.b64encode(content).decode())
