"""The server of the live page: it shows the runs of one folder, and may ask one to stop or write its note.

It trusts nobody it does not have to:

* it listens on 127.0.0.1; on another address every request needs a token, which is printed once;
* the Host header has to be an address, `localhost` or this machine's name: a page of another site whose name was
  pointed here (DNS rebinding) is refused;
* what changes something is a POST of JSON whose Origin is this server;
* runs are found by looking, and asked for by name: no path is made of what a request says;
* answers carry policies that allow our own scripts only.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from threading import Lock
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

from detector.errors import DetectorError, SettingsError, first_line
from detector.files.names import printable
from detector.pages.html import static_text
from detector.pages.machine import describe_machine
from detector.pages.runs import RunFolder, UnknownRunError
from detector.runs.stopping import request_stop

log = logging.getLogger(__name__)

MAX_BODY = 1 << 16  # bytes of a POST
TIMEOUT = 20  # seconds that a client may take for its request
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
)
STATIC: Mapping[str, str] = MappingProxyType(
    {
        "style.css": "text/css",
        "charts.js": "text/javascript",
        "views.js": "text/javascript",
        "monitor.js": "text/javascript",
    }
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>runs – detector</title>
<link rel="stylesheet" href="/static/style.css">
</head>
<body>
<a class="skip" href="#main">to the content</a>
<header class="top"></header>
<main id="main"><noscript>This page is made by its own scripts; allow scripts to see it.</noscript></main>
<footer></footer>
<script src="/static/charts.js"></script>
<script src="/static/views.js"></script>
<script src="/static/monitor.js"></script>
</body>
</html>
"""


class RefusedError(Exception):
    """A request that is refused: the status to answer with, and one sentence."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class MonitorServer(ThreadingHTTPServer):
    """Serves the live page of a folder of runs.

    Args:
        folder: whose runs are shown.
        host: address to listen on.
        port: 0 takes a free one.

    Attributes:
        token: what every request has to bring, or None on a loopback address.
        url: where the page is, with the token.

    Raises:
        SettingsError: if there is no such folder, or it can't listen there.
    """

    daemon_threads = True
    allow_reuse_address = sys.platform != "win32"  # there it would take the port of another program

    def __init__(self, folder: Path, host: str = "127.0.0.1", port: int = 8765) -> None:
        self.runs = RunFolder(folder)
        self.working = (
            Lock()
        )  # one answer is put together at a time: many clients need no more memory than one
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family, address = found[0][0], found[0][4]
            super().__init__(address[:2], Handler)  # type: ignore[arg-type]
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SettingsError(
                f"can't listen on host={host} port={port} ({reason}); choose another port=, or port=0 for a free one"
            ) from None
        self.is_local = is_loopback(str(self.server_address[0]))
        self.token = None if self.is_local else secrets.token_urlsafe(24)
        self.names = {"localhost"} | {name.lower() for name in (host, socket.gethostname(), socket.getfqdn())}
        self.cookie = f"detector_{self.server_address[1]}"

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = str(self.server_address[0]), self.server_address[1]
        if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
            host = socket.gethostname()
        query = f"/?{urlencode({'token': self.token})}" if self.token else "/"
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{query}"

    def server_bind(self) -> None:
        """Bind without looking up the name of the address, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Name what went wrong in one line: clients that go away are not worth a traceback."""
        log.debug("a request was not answered", exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: MonitorServer
    server_version, sys_version = "detector", ""
    timeout = TIMEOUT
    QUERIES: ClassVar[Mapping[str, Callable[[RunFolder, _Query], Any]]] = MappingProxyType(
        {
            "/api/runs": lambda runs, query: runs.changes(query.whole("since")),
            "/api/run": lambda runs, query: runs.describe(query.text("run")),
            "/api/metrics": lambda runs, query: runs.metrics(
                query.text("run"), query.whole("offset"), query.text("id")
            ),
            "/api/log": lambda runs, query: runs.log(
                query.text("run"), query.whole("offset"), query.text("id")
            ),
            "/api/evaluation": lambda runs, query: runs.evaluation(query.text("run"), query.text("stamp")),
            "/api/images": lambda runs, query: runs.images(query.text("run")),
            "/api/machine": lambda runs, query: describe_machine(runs.folder),
        }
    )

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a page asks every other second."""
        log.debug(printable(format % args))

    # ------------------------------------------------------------------ who may ask

    def require_known_host(self) -> None:
        """Refuse a Host that is neither an address nor a name of this machine.

        Raises:
            RefusedError: if it is another one.
        """
        given = self.headers.get_all("Host") or [""]
        try:
            parts = urlsplit(f"//{given[0]}")
            name, port = (parts.hostname or "").lower(), parts.port or 80
        except ValueError:
            name, port = "", 0
        try:
            is_address = bool(ipaddress.ip_address(name.partition("%")[0]))
        except ValueError:
            is_address = False
        is_known = is_address or name in self.server.names
        if len(given) != 1 or not is_known or (self.server.is_local and port != self.server.server_port):
            raise RefusedError(
                HTTPStatus.FORBIDDEN, "this server is not known by that name; ask by its address"
            )

    def require_token(self, query: _Query) -> bool:
        """Refuse a request without the token, where one is needed; return whether it came with the address.

        Raises:
            RefusedError: without the token.
        """
        token = self.server.token
        if token is None:
            return False
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(self.headers.get("Cookie", ""))
        except CookieError:
            cookies.clear()
        kept = cookies.get(self.server.cookie)
        if kept is not None and _equal(kept.value, token):
            return False
        if _equal(query.text("token"), token):
            return True
        raise RefusedError(
            HTTPStatus.UNAUTHORIZED, "open the address with the token that `detector monitor` printed"
        )

    def require_own_origin(self) -> None:
        """Refuse what a page of another origin sends.

        Raises:
            RefusedError: if the Origin is not this server, or the content is not JSON.
        """
        if self.headers.get("Origin") != f"http://{self.headers.get('Host')}":
            raise RefusedError(HTTPStatus.FORBIDDEN, "only the page itself may change something")
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")

    # ------------------------------------------------------------------ requests

    def do_GET(self) -> None:
        self.answer(self.get)

    def do_POST(self) -> None:
        self.answer(self.post)

    def answer(self, handle: Callable[[str, _Query], None]) -> None:
        """Check who asks, handle the request, and answer problems with a sentence."""
        try:
            self.require_known_host()
            parts = urlsplit(self.path)
            query = _Query(parse_qs(parts.query, max_num_fields=20))
            if self.require_token(query) and self.command == "GET":
                self.keep_token(parts.path)
                return
            handle(parts.path, query)
        except RefusedError as refused:
            self.send_text(refused.status, str(refused))
        except UnknownRunError as error:
            self.send_text(HTTPStatus.NOT_FOUND, str(error))
        except (DetectorError, ValueError) as error:
            self.send_text(HTTPStatus.BAD_REQUEST, first_line(error))

    def get(self, path: str, query: _Query) -> None:
        """Send the page, its files, an image, or an answer as JSON."""
        if path == "/":
            self.send(HTTPStatus.OK, PAGE.encode(), "text/html; charset=utf-8")
        elif path.removeprefix("/static/") in STATIC and path.startswith("/static/"):
            name = path.removeprefix("/static/")
            self.send(HTTPStatus.OK, static_text(name).encode(), f"{STATIC[name]}; charset=utf-8")
        elif path == "/image":
            content, kind = self.server.runs.image(query.text("run"), query.text("name"))
            self.send(HTTPStatus.OK, content, kind)
        elif path in self.QUERIES:
            with self.server.working:
                content = _json(self.QUERIES[path](self.server.runs, query))
            self.send(HTTPStatus.OK, content, "application/json")
        else:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such page")

    def post(self, path: str, _: _Query) -> None:
        """Stop a run, or write its note."""
        self.require_own_origin()
        body = self.body()
        name = body.get("run")
        if not isinstance(name, str):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "expected the name of a run")
        if path == "/api/stop":
            request_stop(self.server.runs.find(name))
        elif path == "/api/note":
            note, star = body.get("note"), body.get("star")
            if not isinstance(note, str) or not isinstance(star, bool):
                raise RefusedError(
                    HTTPStatus.BAD_REQUEST, "expected a note, a text, and a star, true or false"
                )
            self.server.runs.write_note(name, note, star)
        else:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such page")
        self.send(HTTPStatus.OK, _json({"done": True}), "application/json")

    def body(self) -> dict[str, Any]:
        """Return the JSON of a POST."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MAX_BODY:,} bytes")
        try:
            value = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "expected a JSON object")
        return value

    # ------------------------------------------------------------------ answers

    def keep_token(self, path: str) -> None:
        """Put the token of an address into a cookie, and show the page without it: it is not to stay in a history."""
        if path != "/":
            raise RefusedError(HTTPStatus.UNAUTHORIZED, "open the page first")
        cookie = f"{self.server.cookie}={self.server.token}; Path=/; HttpOnly; SameSite=Strict"
        self.send(HTTPStatus.SEE_OTHER, b"", "text/plain", {"Location": "/", "Set-Cookie": cookie})

    def send_text(self, status: HTTPStatus, text: str) -> None:
        """Send a sentence."""
        self.send(status, printable(text).encode("utf-8", "replace"), "text/plain; charset=utf-8")

    def send(
        self, status: HTTPStatus, content: bytes, kind: str, more: Mapping[str, str] | None = None
    ) -> None:
        """Send an answer with the policies of all."""
        self.send_response(status)
        headers = {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content)), **(more or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


class _Query:
    """The part of an address after the question mark."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self.values = values

    def text(self, key: str) -> str:
        return self.values.get(key, [""])[0]

    def whole(self, key: str) -> int:
        """Return a number from 0, 0 where none is given.

        Raises:
            RefusedError: for anything else.
        """
        text = self.text(key) or "0"
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"{key}: expected a whole number")
        return int(text)


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches an address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _equal(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def monitor(folder: Path, host: str, port: int) -> None:
    """Serve the live page until Ctrl-C; its address is printed first."""
    with MonitorServer(folder, host, port) as server:
        print(server.url, flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
