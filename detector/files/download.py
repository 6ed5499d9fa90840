"""Downloads, so that an incomplete file is never taken for a complete one.

They go over https, resume where they stopped, are verified and moved into place when complete.
`DETECTOR_OFFLINE=1` forbids the network; `DETECTOR_INSECURE_DOWNLOADS=1` allows plain http and
this machine's own addresses.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.errors import DataError
from detector.files.digest import file_sha256
from detector.files.folders import allows_insecure, is_offline
from detector.files.locks import locked

if TYPE_CHECKING:
    from http.client import HTTPResponse

LOGGER = logging.getLogger(__name__)

TIMEOUT = 10.0  # seconds without an answer or a byte
ATTEMPTS = 4  # how often a broken transfer is resumed
CHUNK = 1 << 20  # bytes read at once
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check_url(url: str, source: str | None = None) -> None:
    """Refuse addresses that are not https, and redirects to this machine.

    Args:
        url: the address.
        source: the address that redirects to it.

    Raises:
        DataError: For any scheme but https (plain http is allowed to this machine itself), or where another machine
            redirects to this one. With DETECTOR_INSECURE_DOWNLOADS, http and such redirects are allowed.
    """
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    plain_http = parts.hostname in LOOPBACK or allows_insecure()
    if not parts.hostname or parts.scheme not in (("https", "http") if plain_http else ("https",)):
        raise DataError(
            f"download {url!r}: only https:// addresses are fetched; commands and code are never run."
        )
    if source is not None and is_local(url) and not (is_local(source) or allows_insecure()):
        raise DataError(
            f"download {source!r}: it redirects to {url!r}, an address of this machine; refused. If you trust it, set "
            f"DETECTOR_INSECURE_DOWNLOADS=1."
        )


def is_local(url: str) -> bool:
    """Return whether an address is, or its name resolves to, this machine or its link-local services."""
    import ipaddress
    import socket
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError):
        return False  # then it can't be opened either
    for *_, address in found:
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip
        if ip.is_loopback or ip.is_link_local or ip.is_unspecified:
            return True
    return False


def download(
    url: str,
    destination: Path,
    sha256: str | None = None,
    size: int | None = None,
    max_bytes: int | None = None,
) -> Path:
    """Download a file, unless it exists already.

    The bytes go to `<destination>.part`, which a later call resumes if the server still has the
    same file (Range with If-Range, RFC 9110 section 13.1.5), and move into place when they are complete.

    Args:
        url: https address.
        destination: Path of the file; parent folders are made.
        sha256: Hexadecimal digest the file must have.
        size: Bytes the file must have.
        max_bytes: Maximum size.

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
    """Complete `part`, resuming broken transfers while they make progress."""
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
    """Request the missing bytes of `part` once and append them.

    Raises:
        DataError: If it grows past `max_bytes`; what was fetched is removed.
    """
    from http.client import IncompleteRead
    from urllib.error import HTTPError

    from tqdm import tqdm

    have = part.stat().st_size if part.is_file() else 0
    validator = _validator_file(part).read_text("ascii") if have and _validator_file(part).is_file() else ""
    try:
        response = _open(url, have if validator else 0, validator)
    except HTTPError as error:
        with error:
            if error.code != 416:  # range not satisfiable: the part may be complete
                raise OSError(f"the server answered {error.code} {error.reason}") from error
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return
        response = _open(url, 0, "")
    with response:
        resumed = response.status == 206 and _starts_at(response, have)
        if response.status == 206 and not resumed:
            raise OSError(f"the server sent another range: {response.headers.get('Content-Range')}")
        have = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        if not resumed:
            _validator_file(part).write_text(_validator(response), "ascii")
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(
                total=total,
                initial=have,
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
    from urllib.parse import urlsplit
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class CheckedRedirects(HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
            check_url(newurl, req.full_url)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    headers = {"User-Agent": "detector", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    if urlsplit(url).hostname not in LOOPBACK and is_local(url) and not allows_insecure():
        raise DataError(f"download {url!r}: its name stands for an address of this machine; refused.")
    request = Request(url, headers=headers)
    response: HTTPResponse = build_opener(CheckedRedirects).open(request, timeout=TIMEOUT)
    return response


def _verify(url: str, part: Path, sha256: str | None, size: int | None) -> None:
    length, problem = part.stat().st_size, ""
    if size is not None and length != size:
        problem = f"has {length} bytes; expected {size}"
    elif sha256 is not None and (digest := file_sha256(part)) != sha256.lower():
        problem = f"has SHA-256 {digest}; expected {sha256}"
    if problem:
        part.unlink()
        raise DataError(f"{url}: the downloaded file {problem}; it was removed, check the address.")
