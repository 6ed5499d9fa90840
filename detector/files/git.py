"""The commit that the working folder is at, read from the files of git: no program is started, no setting of it obeyed.

The formats are those of git's documentation: gitrepository-layout(5), gitformat-index(5).
"""

from __future__ import annotations

import os
import re
import struct
from hashlib import sha1
from pathlib import Path
from typing import Any

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
MAX_TEXT, MAX_PACKED, MAX_INDEX = 1 << 16, 16 << 20, 16 << 20  # bytes of a small file, packed-refs, the index
MAX_FILES, MAX_HASHED = (
    20_000,
    64 << 20,
)  # files, and bytes of those that are read, to find out whether they were changed
LINK = 0o120000  # modes of an index
SUBMODULE = 0o160000


def describe_commit(folder: Path) -> dict[str, Any] | None:
    """Return `commit` (hexadecimal) and `dirty` of the work tree that a folder is in; None if it is in none.

    `dirty` says whether a file that git tracks differs from what was last added or committed; files that are new are
    not looked for. It is None where that can't be said: the tree is very large, or its index missing or of an unknown
    version.
    """
    for place in (folder, *folder.parents):
        if (entry := place / ".git").exists():
            try:
                git, shared = _folders(entry)
                commit = _resolve(git, shared)
            except (OSError, ValueError):  # it is not what git writes, or not ours to read
                return None
            if commit is None:
                return None
            try:
                return {"commit": commit, "dirty": is_changed(place, git / "index")}
            except (OSError, ValueError, struct.error):
                return {"commit": commit, "dirty": None}
    return None


def _folders(entry: Path) -> tuple[Path, Path]:
    """Return the folder of a work tree's HEAD and index, and the one with the branches; of a linked one they differ."""
    if entry.is_dir():
        return entry, entry
    git = entry.parent / _text(entry).removeprefix("gitdir:").strip()
    shared = git / "commondir"
    return git, git / _text(shared).strip() if shared.is_file() else git


def _resolve(git: Path, shared: Path) -> str | None:
    """Return the commit of HEAD, which may name a branch."""
    text = _text(git / "HEAD").strip()
    if not text.startswith("ref:"):
        return text if COMMIT.fullmatch(text) else None
    name = text.removeprefix("ref:").strip()
    if not re.fullmatch(r"refs/[^\\\x00-\x20~^:?*\[]+", name) or ".." in name:
        return None
    if (shared / name).is_file():
        text = _text(shared / name).strip()
        return text if COMMIT.fullmatch(text) else None
    packed = shared / "packed-refs"
    for line in _text(packed, MAX_PACKED).splitlines() if packed.is_file() else ():
        commit, _, known = line.partition(" ")
        if known == name and COMMIT.fullmatch(commit):
            return commit
    return None  # a branch without a commit yet


def is_changed(tree: Path, index: Path) -> bool | None:
    """Return whether a tracked file of a work tree differs from the index, or something was added since a commit.

    As git does, a file of the same size and time counts as unchanged; else its content is compared.
    """
    content = _bytes(index, MAX_INDEX)
    if content is None or content[:4] != b"DIRC":
        return None
    version, count = struct.unpack(">II", content[4:12])
    if version not in (2, 3) or count > MAX_FILES:
        return None
    position, budget = 12, MAX_HASHED
    for _ in range(count):
        seconds, fraction, mode, size = struct.unpack(">8xII8xI8xI", content[position : position + 40])
        (flags,) = struct.unpack(">H", content[position + 60 : position + 62])
        start = position + (64 if flags & 0x4000 else 62)
        end = content.index(b"\0", start)
        name, digest = content[start:end], content[position + 40 : position + 60]
        position += (end - position + 8) // 8 * 8  # padded with 1 to 8 zeros
        if mode == SUBMODULE or flags & 0x8000:  # 0x8000: "assume unchanged"
            continue
        path = tree / os.fsdecode(name)
        try:
            found = path.lstat()
        except OSError:
            return True
        if (found.st_size & 0xFFFFFFFF, found.st_mtime_ns) == (size, seconds * 10**9 + fraction):
            continue
        budget -= found.st_size
        if budget < 0:
            return None
        data = os.fsencode(path.readlink()) if mode == LINK and path.is_symlink() else path.read_bytes()
        if sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).digest() != digest:
            return True
    return _has_additions(content[position:])


def _has_additions(extensions: bytes) -> bool:
    """Return whether the saved tree of the index is void: something was added, and not committed yet."""
    while len(extensions) > 28:  # the checksum comes last
        name, (size,) = extensions[:4], struct.unpack(">I", extensions[4:8])
        if name == b"TREE":
            path, _, rest = extensions[8 : 8 + size].partition(b"\0")
            return path == b"" and rest.partition(b" ")[0] == b"-1"
        extensions = extensions[8 + size :]
    return False


def _text(path: Path, limit: int = MAX_TEXT) -> str:
    content = _bytes(path, limit)
    if content is None:
        raise ValueError(f"{path} is larger than git writes it")
    return content.decode("utf-8")


def _bytes(path: Path, limit: int) -> bytes | None:
    """Return the content of a file, or None if it has more bytes."""
    with path.open("rb") as file:
        content = file.read(limit + 1)
    return content if len(content) <= limit else None
