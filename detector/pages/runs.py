"""The runs of a folder as the live page asks for them: by name, and only what is new since it last asked."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from detector.errors import DataError
from detector.files.atomic import replace_file
from detector.pages.content import EVALUATION, default_of, describe_run, log_text, read_evaluation, shown
from detector.runs.listing import PLACES, find_runs
from detector.runs.record import (
    LOG,
    METRICS,
    STATUS,
    Run,
    current_state,
    parse_json,
    parse_metrics,
    read_bounded,
    read_run,
)

NOTE = "note.json"
MAX_NOTE = 1 << 16  # bytes of the file
MAX_NOTE_LETTERS = 4000
MAX_CHUNK = 1 << 20  # bytes of a file that one answer holds; the page asks again for the rest
FIRST_LOG = 1 << 16  # bytes of the end of a log that are sent first
MAX_IMAGE = 32 << 20  # bytes
MAX_IMAGES = 400  # of a run
IMAGE = re.compile(r"(predictions/)?[^/\\\x00]{1,200}\.(jpg|jpeg|png)", re.IGNORECASE)
LISTED = ("epoch", "epochs", "progress", "eta_s", "seconds", "started", "ended", "stop_reason", "error")


class UnknownRunError(DataError):
    """There is no run of that name in the folder."""


@dataclass
class _Known:
    """What is known of a run: its files' stamps, its status or why there is none, its row, and since which revision."""

    stamps: tuple[Any, ...]
    run: Run | None
    problem: str = ""
    row: dict[str, Any] = field(default_factory=dict)
    revision: int = 0


class RunFolder:
    """The runs at and below a folder. Threads may ask at once.

    Args:
        folder: whose runs are shown; nothing outside it is ever read.

    Raises:
        SettingsError: if there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        find_runs(self.folder)
        self._known: dict[str, _Known] = {}
        self._gone: dict[str, int] = {}
        self._revision = 0
        self._problems: list[str] = []
        self._lock = Lock()

    # ------------------------------------------------------------------ the list

    def changes(self, since: int) -> dict[str, Any]:
        """Return the runs that have changed since a revision, and those that are gone.

        Returns:
            `revision`, to ask with next; `runs`: rows; `gone`: names; `defaults` of the settings in these rows.
        """
        with self._lock:
            self._look()
            if since > self._revision:  # the page is older than this server
                since = 0
            rows = [known.row for known in self._known.values() if known.revision > since]
            gone = [name for name, revision in self._gone.items() if revision > since]
            keys = dict.fromkeys(key for row in rows for key in row["settings"])
            return {
                "revision": self._revision,
                "runs": rows,
                "gone": gone,
                "defaults": {key: _setting_text(default_of(key)) for key in keys},
                "problems": self._problems,
            }

    def _look(self) -> None:
        """Look at all runs; those whose files have not changed are not read again."""
        folders, problems = find_runs(self.folder)
        names = {self._name_of(folder): folder for folder in folders}
        for name in [name for name in self._known if name not in names]:
            self._revision += 1
            self._gone[name] = self._revision
            del self._known[name]
        for name, folder in names.items():
            stamps = (_stamp(folder / STATUS), _stamp(folder / NOTE))
            known = self._known.get(name)
            if known is None or known.stamps != stamps:
                known = self._known[name] = _read(folder, stamps, known)
            elif known.run is None or known.run.status["state"] != "running":
                continue
            # of one that runs the process may be gone by now
            row = self._row(name, known.run)
            if row != known.row:
                self._revision += 1
                known.row, known.revision = row, self._revision
                self._gone.pop(name, None)
        problems += [known.problem for known in self._known.values() if known.problem]
        self._problems = [str(shown(text)) for text in problems[:20]]

    def _name_of(self, folder: Path) -> str:
        relative = folder.relative_to(self.folder).as_posix()
        return self.folder.name if relative == "." else relative

    def _row(self, name: str, run: Run | None) -> dict[str, Any]:
        if run is None:
            return {"run": name, "title": shown(name), "state": "unreadable", "settings": {}, "best": {}}
        state, note = current_state(run.status)
        settings = {key: _setting_text(value) for key, value in run.settings.items() if key not in PLACES}
        best = {
            key: value for key, value in run.best.items() if key in ("epoch", "fitness") or "metrics/" in key
        }
        return {
            "run": name,
            "title": shown(name),
            "state": state,
            "remark": shown(note),
            "best": best,
            "settings": settings,
            **{key: shown(run.status[key]) for key in LISTED},
            **read_note(run.folder),
        }

    # ------------------------------------------------------------------ one run

    def find(self, name: str) -> Path:
        """Return the folder of a run by its name in the list; no path is made of the name.

        Raises:
            UnknownRunError: if there is no such run.
        """
        with self._lock:
            if name not in self._known:
                self._look()
            known = self._known.get(name)
        if known is None or known.run is None:
            raise UnknownRunError("there is no such run")
        return known.run.folder

    def describe(self, name: str) -> dict[str, Any]:
        """Return what the page shows of a run's status, with its note."""
        folder = self.find(name)
        return describe_run(read_run(folder), name) | read_note(folder)

    def metrics(self, name: str, offset: int, identity: str) -> dict[str, Any]:
        """Return the rows of metrics.jsonl after an offset; see `_new_part`."""
        part, content = _new_part(self.find(name) / METRICS, offset, identity, None)
        return part | {"rows": [shown(row, 100) for row in parse_metrics(content.split(b"\n"))]}

    def log(self, name: str, offset: int, identity: str) -> dict[str, Any]:
        """Return the text of train.log after an offset; see `_new_part`."""
        part, content = _new_part(self.find(name) / LOG, offset, identity, FIRST_LOG)
        return part | {"text": log_text(content.decode("utf-8", "replace"))}

    def evaluation(self, name: str, stamp: str) -> dict[str, Any]:
        """Return evaluation.json, unless it is still the one of a stamp."""
        folder = self.find(name)
        now = _stamp(folder / EVALUATION)
        return {"stamp": now} | ({} if now == stamp else {"evaluation": read_evaluation(folder)})

    def images(self, name: str) -> list[dict[str, Any]]:
        """Return the images of a run folder and of its `predictions`: name and stamp, newest first."""
        folder = self.find(name)
        found: list[tuple[int, str, str]] = []
        for place, prefix in ((folder, ""), (folder / "predictions", "predictions/")):
            if place.is_symlink() or not place.is_dir():
                continue
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False) and IMAGE.fullmatch(prefix + entry.name):
                        stamp = entry.stat(follow_symlinks=False).st_mtime_ns
                        found.append((stamp, prefix + entry.name, str(stamp)))
        found.sort(reverse=True)
        return [
            {"name": image, "title": shown(image), "stamp": stamp} for _, image, stamp in found[:MAX_IMAGES]
        ]

    def image(self, name: str, image: str) -> tuple[bytes, str]:
        """Return the bytes of an image that `images` lists, and its media type.

        Raises:
            DataError: if it does not, or can't be read.
        """
        folder = self.find(name)
        parts = image.split("/")
        is_linked = len(parts) == 2 and (folder / parts[0]).is_symlink()
        if not IMAGE.fullmatch(image) or ".." in parts or is_linked:
            raise DataError("there is no such image")
        content = read_bounded(folder.joinpath(*parts), MAX_IMAGE)
        for start, kind in ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png")):
            if content.startswith(start):
                return content, kind
        raise DataError("it is not an image")

    def write_note(self, name: str, note: str, star: bool) -> None:
        """Write note.json.

        Raises:
            DataError: if it is too long, or can't be written.
        """
        if len(note) > MAX_NOTE_LETTERS:
            raise DataError(f"the note has {len(note):,} letters; at most {MAX_NOTE_LETTERS:,} are kept")
        path = self.find(name) / NOTE
        try:
            replace_file(path, json.dumps({"note": note, "star": star}).encode())
        except OSError as error:
            raise DataError(f"can't write the note ({error.strerror})") from None


def _read(folder: Path, stamps: tuple[Any, ...], before: _Known | None) -> _Known:
    known = _Known(stamps, None) if before is None else replace(before, stamps=stamps, run=None, problem="")
    try:
        known.run = read_run(folder)
    except DataError as error:
        known.problem = str(error)
    return known


def read_note(folder: Path) -> dict[str, Any]:
    """Return `text` and `star` of a run's note.json; none where there is none, or it is not one."""
    value: Any = None
    if (folder / NOTE).exists():
        try:
            value = parse_json(read_bounded(folder / NOTE, MAX_NOTE))
        except ValueError:  # also DataError: someone else's file; it is replaced with the next note
            value = None
    note: Mapping[str, Any] = value if isinstance(value, dict) else {}
    text = note.get("note")
    return {
        "text": shown(text, MAX_NOTE_LETTERS) if isinstance(text, str) else "",
        "star": note.get("star") is True,
    }


def _setting_text(value: Any) -> str:
    from detector.fields import format_value

    text = json.dumps(value) if isinstance(value, dict) else format_value(value)
    return str(shown(text, 200))


def _stamp(path: Path) -> str:
    """Return a text that changes when a file does; "" if there is none."""
    try:
        found = path.lstat()
    except OSError:
        return ""
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def _new_part(path: Path, offset: int, identity: str, tail: int | None) -> tuple[dict[str, Any], bytes]:
    """Return what was appended to a file, whole lines only.

    Args:
        path: the file; there may be none yet.
        offset: bytes that the page has; 0 for none.
        identity: of the file they are of; of another one, or one that is shorter now, all is sent again.
        tail: how many bytes of the end are sent first; None sends it from the start.

    Returns:
        `id`, `offset` to ask with next, `reset`: whether the page has to forget what it had, `more`: whether there is
        more already; and the bytes.

    Raises:
        DataError: if the file is a link, or no regular file.
    """
    flags = (
        os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return {"id": "", "offset": 0, "reset": offset > 0, "more": False}, b""
    except OSError as error:
        raise DataError(f"{path.name} can't be read ({error.strerror})") from None
    with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{path.name} is not a file")
        now = f"{found.st_dev}-{found.st_ino}"
        is_other = identity != now or found.st_size < offset
        start = 0 if is_other else offset
        is_cut = is_other and tail is not None and found.st_size > tail
        if is_cut and tail is not None:
            start = found.st_size - tail
        file.seek(start)
        content = file.read(MAX_CHUNK)
    skipped = content.find(b"\n") + 1 if is_cut else 0
    end = content.rfind(b"\n") + 1
    if not end and len(content) == MAX_CHUNK:  # a line that never ends is passed over
        end = skipped = len(content)
    reply = {
        "id": now,
        "offset": start + end,
        "reset": is_other and offset > 0,
        "more": len(content) == MAX_CHUNK,
    }
    return reply, content[skipped:end]
