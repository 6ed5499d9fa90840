"""Files from the network and out of archives, so that what is half there is never taken for whole.

Downloads go over https, resume where they stopped, are checked and moved into place at once. Archives are
unpacked beside their destination, under limits, and renamed when whole. `DETECTOR_OFFLINE=1` forbids the
network.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout

from detector.errors import DataError, first_line
from detector.resources import is_offline

if TYPE_CHECKING:
    from http.client import HTTPResponse

LOGGER = logging.getLogger(__name__)

TIMEOUT = 10.0  # seconds without an answer or a byte
ATTEMPTS = 4  # how often a broken transfer is taken up again
CHUNK = 1 << 20  # bytes read at once
MAX_ENTRIES = 2_000_000  # against archives that fill a disk with empty files
MAX_RATIO = 100  # bytes unpacked for one in the archive: deflate reaches 1032 on zeros, images hardly shrink
MIN_LIMIT = 1 << 30  # bytes that any archive may unpack to
LOOPBACK = ("127.0.0.1", "::1", "localhost")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


class _Entry(NamedTuple):
    """A file or folder in an archive; neither reader takes more than `size` bytes for it."""

    name: str
    is_plain: bool
    size: int
    extract: Callable[..., object]


@dataclass(frozen=True)
class Archive:
    """One archive of a data set.

    Attributes:
        url: https address of a .zip, .tar, .tar.gz or .tgz file.
        into: Folder inside the data set where its contents go; "" is the data set's own folder.
        sha256: Hexadecimal digest the file must have, None to skip that check.
    """

    url: str
    into: str = ""
    sha256: str | None = None


# ---- into place, whole --------------------------------------------------------------------------------


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Yield a new empty folder beside `folder`, on the same disk; it is removed at the end if still there."""
    staging = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish(staging: Path, folder: Path) -> None:
    """Rename a finished staging folder to `folder`.

    Raises:
        DataError: If `folder` has files in it already.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    if folder.exists():
        raise DataError(f"{folder.absolute()} is not empty; move it away or choose another folder.")
    staging.rename(folder)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; wait while another process holds it. The system frees it when we die."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        LOGGER.info("waiting for another process that prepares %s", path.parent)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


# ---- download -----------------------------------------------------------------------------------------


def check_url(url: str) -> None:
    """Refuse addresses that are not https.

    Raises:
        DataError: For any scheme but https (plain http is allowed to this machine itself).
    """
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    schemes = ("https", "http") if parts.hostname in LOOPBACK else ("https",)
    if not parts.hostname or parts.scheme not in schemes:
        raise DataError(
            f"download {url!r}: only https:// addresses are fetched; commands and code are never run."
        )


def download(
    url: str,
    destination: Path,
    sha256: str | None = None,
    size: int | None = None,
    max_bytes: int | None = None,
) -> Path:
    """Fetch a file, unless it is there already.

    The bytes go to `<destination>.part`, which a later call takes up again if the server still has the
    same file (Range with If-Range, RFC 9110 section 13.1.5), and move into place when they are complete.

    Args:
        url: https address.
        destination: Where the file will lie; parent folders are made.
        sha256: Hexadecimal digest the file must have.
        size: Bytes the file must have.
        max_bytes: Most bytes it may have.

    Returns:
        `destination`.

    Raises:
        DataError: If the address is not https, DETECTOR_OFFLINE is set, the server can't be reached or
            refuses, or the file has another size or digest than expected or more bytes than allowed.
    """
    check_url(url)
    if destination.is_file():
        return destination
    if is_offline():
        raise DataError(f"{url} is needed at {destination.absolute()}, but DETECTOR_OFFLINE is set.")
    try:
        with locked(destination.with_name(f".{destination.name}.lock")):
            if not destination.is_file():  # another process may have been quicker
                part = destination.with_name(f"{destination.name}.part")
                _fetch(url, part, max_bytes)
                _verify(url, part, sha256, size)
                part.replace(destination)
                _validator_file(part).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"downloading {url} to {destination.absolute()} failed: {_reason(error)}.") from error
    return destination


def _reason(error: OSError) -> str:
    text = str(getattr(error, "reason", "") or error)
    return text.rstrip(".") or type(error).__name__


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _fetch(url: str, part: Path, max_bytes: int | None) -> None:
    """Bring `part` to its full length, taking broken transfers up again while they make progress."""
    from http.client import HTTPException

    for attempt in range(1, ATTEMPTS + 1):
        before = part.stat().st_size if part.is_file() else 0
        try:
            _transfer(url, part, max_bytes)
            return
        except (HTTPException, ConnectionError, TimeoutError) as error:
            after = part.stat().st_size if part.is_file() else 0
            if attempt == ATTEMPTS or after <= before:
                raise OSError(f"the connection broke after {after} bytes ({error})") from error
            LOGGER.warning("%s: the connection broke after %d bytes; resuming", url, after)


def _transfer(url: str, part: Path, max_bytes: int | None) -> None:
    """Ask once for what is missing of `part` and append it.

    Raises:
        DataError: If it grows past `max_bytes`; what was fetched is removed.
    """
    from http.client import IncompleteRead
    from urllib.error import HTTPError

    from tqdm import tqdm

    held = part.stat().st_size if part.is_file() else 0
    validator = _validator_file(part).read_text("ascii") if held and _validator_file(part).is_file() else ""
    try:
        response = _open(url, held if validator else 0, validator)
    except HTTPError as error:
        with error:
            if error.code != 416:  # range not satisfiable: we may hold it all
                raise OSError(f"the server answered {error.code} {error.reason}") from error
            if error.headers.get("Content-Range") == f"bytes */{held}":
                return
        response = _open(url, 0, "")
    with response:
        resumed = response.status == 206 and _starts_at(response, held)
        if response.status == 206 and not resumed:
            raise OSError(f"the server sent another range: {response.headers.get('Content-Range')}")
        held = held if resumed else 0
        length = response.headers.get("Content-Length")
        total = held + int(length) if length else None
        if not resumed:
            _validator_file(part).write_text(_validator(response), "ascii")
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(
                total=total,
                initial=held,
                unit="B",
                unit_scale=True,
                desc=part.stem,
                leave=False,
                disable=None,
            ) as bar,
        ):
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                if max_bytes is not None and file.tell() > max_bytes:
                    part.unlink()
                    raise DataError(f"{url} has more than {max_bytes:,} bytes; it was removed.")
    if total is not None and part.stat().st_size != total:
        raise IncompleteRead(b"", total - part.stat().st_size)


def _starts_at(response: HTTPResponse, offset: int) -> bool:
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {offset}-")


def _validator(response: HTTPResponse) -> str:
    """Return a strong entity tag or else the date: what If-Range may compare."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _open(url: str, offset: int, validator: str) -> HTTPResponse:
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class CheckedRedirects(HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
            check_url(newurl)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    headers = {"User-Agent": "detector", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    request = Request(url, headers=headers)
    response: HTTPResponse = build_opener(CheckedRedirects).open(request, timeout=TIMEOUT)
    return response


def _verify(url: str, part: Path, sha256: str | None, size: int | None) -> None:
    import hashlib

    found = part.stat().st_size
    problem = ""
    if size is not None and found != size:
        problem = f"has {found} bytes; expected {size}"
    elif sha256 is not None:
        digest = hashlib.sha256()
        with part.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != sha256.lower():
            problem = f"has SHA-256 {digest.hexdigest()}; expected {sha256}"
    if problem:
        part.unlink()
        raise DataError(f"{url}: the downloaded file {problem}; it was removed, check the address.")


# ---- archives -----------------------------------------------------------------------------------------


def unpack(archive: Path, folder: Path, max_bytes: int | None = None, max_entries: int = MAX_ENTRIES) -> Path:
    """Unpack a .zip, .tar, .tar.gz or .tgz file; `folder` appears only when everything is in it.

    Args:
        archive: The file.
        folder: Destination; must not exist or be empty.
        max_bytes: Most bytes all files may have together; by default 100 times the archive, at least 1 GiB.
        max_entries: Most files and folders.

    Returns:
        `folder`.

    Raises:
        DataError: If the archive is damaged or of another kind, an entry would leave the folder or is a
            link or device, a limit is passed, or `folder` has files in it.
    """
    with staging_folder(folder) as staging:
        _unpack_into(archive, staging, max_bytes, max_entries)
        publish(staging, folder)
    return folder


def _unpack_into(archive: Path, folder: Path, max_bytes: int | None, max_entries: int) -> None:
    import struct
    import tarfile
    import zipfile
    import zlib
    from lzma import LZMAError

    if not archive.name.lower().endswith(ARCHIVE_SUFFIXES):
        raise DataError(f"{archive.absolute()}: expected one of {', '.join(ARCHIVE_SUFFIXES)}.")
    damage: tuple[type[Exception], ...] = (
        *(OSError, EOFError, RuntimeError, ValueError, OverflowError, struct.error),
        *(zlib.error, LZMAError, zipfile.BadZipFile, tarfile.TarError),
    )
    reader = _zip_entries if archive.name.lower().endswith(".zip") else _tar_entries
    try:
        left = max(MIN_LIMIT, MAX_RATIO * archive.stat().st_size) if max_bytes is None else max_bytes
        with contextlib.closing(reader(archive)) as entries:
            for number, entry in enumerate(entries, 1):
                if number > max_entries:
                    raise DataError(f"{archive.absolute()}: more than {max_entries} entries; refused.")
                if not entry.is_plain:
                    raise DataError(f"{archive.absolute()}: entry {entry.name!r} is a link; refused.")
                target = folder.joinpath(*_safe_parts(archive, entry.name))
                left -= entry.size
                if left < 0:
                    raise DataError(f"{archive.absolute()}: unpacks to more bytes than allowed; refused.")
                if target.is_file():
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), entry.name)
                entry.extract(path=folder)
    except DataError:
        raise
    except damage as error:
        raise DataError(f"{archive.absolute()} can't be unpacked: {first_line(error)}.") from error


def _safe_parts(archive: Path, name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0]:
        raise DataError(f"{archive.absolute()}: entry {name!r} would leave the folder; refused.")
    return parts


def _zip_entries(archive: Path) -> Generator[_Entry, None, None]:
    import zipfile

    with zipfile.ZipFile(archive) as bundle:
        for entry in bundle.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)  # what made it on Unix; 0 elsewhere
            is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            yield _Entry(entry.filename, is_plain, entry.file_size, partial(bundle.extract, entry))


def _tar_entries(archive: Path) -> Generator[_Entry, None, None]:
    import tarfile

    with tarfile.open(archive) as bundle:
        for entry in bundle:
            extract = partial(bundle.extract, entry, set_attrs=False, filter="data")
            yield _Entry(entry.name, entry.isreg() or entry.isdir(), entry.size, extract)


def fetch_dataset(archives: Sequence[Archive], root: Path) -> Path:
    """Download archives and unpack them as the folder of a data set.

    An archive whose files all lie in one folder named like the data set is unpacked without that folder.
    Files that were downloaded stay in `.<name>.downloads` beside `root` until the data set is whole.

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
            file = download(archive.url, downloads / archive.url.rsplit("/", 1)[-1], archive.sha256)
            LOGGER.info("unpacking %s", file)
            contents = unpack(file, staging / f"unpacked-{number}")
            entries = [entry for entry in contents.iterdir() if entry.name != "__MACOSX"]
            if len(entries) == 1 and entries[0].is_dir() and entries[0].name == root.name:
                contents = entries[0]
            _merge(contents, whole.joinpath(*PurePosixPath(archive.into).parts), archive.url)
        publish(whole, root)
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
