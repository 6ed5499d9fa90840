"""Where weights come from: the files they were read from, back to the first, and the licence that travels with them.

The `origin` of a checkpoint is None for weights from random numbers, or plain data:

| key | value |
|---|---|
| name | of the file the weights were read from, before they were trained on or exported |
| sha256 | of that file |
| licence | of those weights: what the file says, else that of the weights before them; None if nothing is known |
| chain | the same of the files before it (name, sha256, licence), the newest first |

A permissive licence asks for nothing of what is trained from the weights: it stays in the chain and goes no further.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detector.errors import CheckpointError, SettingsError
from detector.files.digest import file_sha256

FORCE = "force:"
MAX_CHAIN = 32  # files that are remembered: each has the licence of those before it
MAX_TEXT = 200  # of a name or a licence
LINK = ("name", "sha256", "licence")
# SPDX identifiers, case-folded
PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "0bsd", "cc0-1.0")


def origin_of(path: Path, before: Mapping[str, Any] | None, licence: str | None = None) -> dict[str, Any]:
    """Return the origin of weights that are read from a file.

    Args:
        path: the file.
        before: the origin of the weights in it, as the file says.
        licence: that the file itself states.
    """
    inherited = (before or {}).get("licence")
    if inherited and inherited.casefold() in PERMISSIVE:
        inherited = None
    licence = licence or inherited
    return {
        "name": path.name[:MAX_TEXT],
        "sha256": file_sha256(path),
        "licence": licence,
        "chain": links(before)[:MAX_CHAIN],
    }


def links(origin: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return an origin as a list of files, each with name, sha256 and licence; the newest first."""
    if not origin:
        return []
    return [{key: one[key] for key in LINK} for one in (origin, *origin["chain"])]


def joined(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the origin of weights of two files: what one file had no weights for is from the other."""
    known = links(new)
    chain = known[1:] + [link for link in links(old) if link not in known]
    licences = dict.fromkeys(one["licence"] for one in (new, old or {}) if one.get("licence"))
    return {
        **new,
        "licence": " AND ".join(licences)[:MAX_TEXT] or None,
        "chain": chain[:MAX_CHAIN],
    }


def check_origin(origin: Any, path: str | Path) -> None:
    """Make sure that the origin in a file is what `origin_of` returns.

    Raises:
        CheckpointError: if it is not.
    """
    if origin is None:
        return
    chain = origin.get("chain") if isinstance(origin, Mapping) else None
    if not isinstance(chain, list) or len(chain) > MAX_CHAIN or not all(map(_is_link, [origin, *chain])):
        raise CheckpointError(
            f"{path}: its origin can't be read; expected name, sha256, licence and chain of the file its weights are "
            f"from"
        )


def check_licence(licence: Any, path: str | Path) -> None:
    """Make sure that what a file says of the licence of its own weights is a short text, or nothing.

    Raises:
        CheckpointError: if it is not.
    """
    if licence is not None and not _is_text(licence):
        raise CheckpointError(
            f"{path}: its licence can't be read; expected up to {MAX_TEXT} printable characters"
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable()


def _is_link(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    name, digest, licence = (value.get(key) for key in LINK)
    texts = [name] if licence is None else [name, licence]
    return (
        all(map(_is_text, texts))
        and isinstance(digest, str)
        and re.fullmatch("[0-9a-f]{64}", digest) is not None
    )


def describe_origin(origin: Mapping[str, Any] | None) -> str:
    """Return an origin in one line, such as "best.pt (SHA-256 0123abcd, licence AGPL-3.0), from yolov8n.pt (...)"."""
    texts = [
        f"{one['name']} (SHA-256 {one['sha256'][:8]}, licence {one['licence'] or 'not stated'})"
        for one in links(origin)
    ]
    return ", from ".join(texts) or "random weights"


def choose_licence(given: str | None, origin: Mapping[str, Any] | None) -> tuple[str | None, bool]:
    """Return the licence to write into a file, and whether it contradicts that of the origin by force.

    Args:
        given: the setting, with `force:` before it to contradict the origin.
        origin: of the weights.

    Raises:
        SettingsError: if it contradicts the origin without force.
    """
    inherited = (origin or {}).get("licence")
    forced = given is not None and given.startswith(FORCE)
    licence = given.removeprefix(FORCE).strip() if given else None
    if not licence or inherited is None or _agree(licence, inherited):
        return licence or inherited, False
    if not forced:
        source = next(link for link in reversed(links(origin)) if link["licence"])
        raise SettingsError(
            f"licence={given}: these weights are from {source['name']}, whose licence is {inherited}; leave licence "
            f"out to write that, or give licence={FORCE}{licence} if you have them under another licence"
        )
    return licence, True


def _agree(a: str, b: str) -> bool:
    """Return whether two texts name one licence: AGPL-3.0 and "agpl-3.0 (see ...)" do, and its -only and -or-later."""
    short, long = sorted((" ".join(text.casefold().split()) for text in (a, b)), key=len)
    rest = long.removeprefix(short)
    return rest == "" or (long.startswith(short) and rest.startswith((" (", "-only", "-or-later")))
