from __future__ import annotations

import hashlib
import http.server
import io
import multiprocessing
import os
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector.data.fetch import Archive, fetch_dataset
from detector.errors import DataError
from detector.files.archives import unpack
from detector.files.atomic import move_into_place, staging_folder
from detector.files.download import check_url, download
from detector.files.folders import is_offline
from detector.files.locks import locked

BODY = bytes(range(256)) * 4000  # 1 MB


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; its switches make it misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/data.bin": BODY}
        self.ranges = True
        self.etag = '"v1"'
        self.break_after: list[int] = []  # bytes after which the coming answers stop
        self.redirect = ""
        self.wrong_range = False
        self.requests: list[tuple[str, str | None, str | None]] = []

    def url(self, path: str = "/data.bin") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked, guard = self.headers.get("Range"), self.headers.get("If-Range")
        self.server.requests.append((self.path, asked, guard))
        if self.server.redirect:
            self.send_response(302)
            self.send_header("Location", self.server.redirect)
            self.end_headers()
            return
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = 0
        if asked and self.server.ranges and guard == self.server.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            first = start + 1 if self.server.wrong_range else start
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", self.server.etag)
        self.end_headers()
        cut = self.server.break_after.pop(0) if self.server.break_after else len(body)
        self.wfile.write(body[start : start + cut])

    def log_message(self, *_: object) -> None:
        """Keep the test output quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("DETECTOR_OFFLINE")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def part_of(target: Path, body: bytes, etag: str = '"v1"') -> None:
    target.with_name(f"{target.name}.part").write_bytes(body)
    target.with_name(f"{target.name}.part.etag").write_text(etag)


def visible(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))


# ---- download -----------------------------------------------------------------------------------------


def test_a_file_is_fetched_checked_and_not_fetched_again(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "new" / "data.bin"
    for _ in range(2):
        assert download(server.url(), target, hashlib.sha256(BODY).hexdigest(), len(BODY)) == target
    assert target.read_bytes() == BODY
    assert visible(target.parent) == ["data.bin"]
    assert len(server.requests) == 1


def test_a_broken_transfer_is_resumed(server: Server, tmp_path: Path) -> None:
    server.break_after = [300_000, 200_000]
    download(server.url(), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert [asked for _, asked, _ in server.requests] == [None, "bytes=300000-", "bytes=500000-"]
    assert server.requests[1][2] == '"v1"'


def test_a_transfer_broken_earlier_is_resumed(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path / "data.bin", BODY[:1000])
    download(server.url(), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert server.requests == [("/data.bin", "bytes=1000-", '"v1"')]


def test_a_part_that_is_complete_is_taken(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path / "data.bin", BODY)
    download(server.url(), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert len(server.requests) == 1


def test_a_part_longer_than_the_file_is_fetched_again(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path / "data.bin", BODY + b"more")
    download(server.url(), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    part_of(tmp_path / "data.bin", b"x" * 1000)
    download(server.url(), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_fetched_again(server: Server, tmp_path: Path) -> None:
    server.etag = '"v2"'
    part_of(tmp_path / "data.bin", b"x" * 1000)
    download(server.url(), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_a_part_of_unknown_origin_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(b"x" * 1000)
    download(server.url(), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert server.requests[0][1] is None


def test_another_range_than_asked_for_is_refused(server: Server, tmp_path: Path) -> None:
    server.wrong_range = True
    part_of(tmp_path / "data.bin", BODY[:1000])
    with pytest.raises(DataError, match="the server sent another range: bytes 1001-"):
        download(server.url(), tmp_path / "data.bin")
    assert not (tmp_path / "data.bin").exists()


def test_a_file_that_stays_truncated_is_no_file(server: Server, tmp_path: Path) -> None:
    server.break_after = [1000, 0]
    with pytest.raises(
        DataError, match=f"to {tmp_path}/data.bin failed: the connection broke after 1000 bytes"
    ):
        download(server.url(), tmp_path / "data.bin")
    assert visible(tmp_path) == ["data.bin.part", "data.bin.part.etag"]


@pytest.mark.parametrize(
    ("sha256", "size", "message"),
    [
        ("0" * 64, None, f"has SHA-256 {hashlib.sha256(BODY).hexdigest()}; expected 000000"),
        (None, 5, f"the downloaded file has {len(BODY)} bytes; expected 5; it was removed"),
    ],
)
def test_another_file_than_expected_is_removed(
    server: Server, tmp_path: Path, sha256: str | None, size: int | None, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        download(server.url(), tmp_path / "data.bin", sha256, size)
    assert message in str(caught.value)
    assert not (tmp_path / "data.bin").exists()
    assert not (tmp_path / "data.bin.part").exists()


def test_a_refusal_of_the_server_is_reported(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="failed: the server answered 404 Not Found"):
        download(server.url("/gone"), tmp_path / "gone")


def test_a_server_that_is_not_there_is_reported(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"failed: .*refused"):
        download("http://127.0.0.1:9/data.bin", tmp_path / "data.bin")


def test_a_redirect_may_not_leave_https(server: Server, tmp_path: Path) -> None:
    server.redirect = "http://example.org/data.bin"
    with pytest.raises(DataError, match=r"http://example.org/data.bin': only https:// addresses"):
        download(server.url(), tmp_path / "data.bin")


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/x", "https://127.1/x", "https://2130706433/x", "https://[::1]/x", "https://[::ffff:7f00:1]/x",
            "https://localhost/x", "https://0.0.0.0/x", "https://169.254.169.254/x"]
)  # fmt: skip
def test_a_redirect_may_not_lead_to_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"it redirects to .*, an address of this machine; refused"):
        check_url(url, "https://192.0.2.1/data.bin")
    check_url(url, "https://127.0.0.1/data.bin")
    monkeypatch.setenv("DETECTOR_INSECURE_DOWNLOADS", "1")
    check_url(url, "https://192.0.2.1/data.bin")


def test_a_name_that_stands_for_this_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTOR_OFFLINE", "0")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("127.0.0.1", 443))])
    with pytest.raises(DataError, match="its name stands for an address of this machine"):
        download("https://data.example.org/x", tmp_path / "x")


def test_a_data_yaml_may_not_reach_this_machine(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detector.data.config import load_data_config

    (tmp_path / "a.yaml").write_text(
        f"path: sets/pets\ntrain: images/train\nval: images/val\nnc: 1\ndownload: {server.url('/a.zip')}\n"
    )
    with pytest.raises(DataError, match="is an address of this machine; refused"):
        load_data_config(tmp_path / "a.yaml")
    assert not server.requests


def test_plain_http_is_fetched_only_if_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="only https"):
        check_url("http://192.0.2.1/x")
    monkeypatch.setenv("DETECTOR_INSECURE_DOWNLOADS", "1")
    check_url("http://192.0.2.1/x")
    with pytest.raises(DataError, match="only https"):
        check_url("ftp://192.0.2.1/x")


@pytest.mark.parametrize(
    "url", ["http://example.org/x", "file:///etc/passwd", "ftp://h/x", "bash x.sh", "https://"]
)
def test_only_https_is_fetched(url: str, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="only https:// addresses are fetched; commands and code are never run"
    ):
        download(url, tmp_path / "x")


def test_offline_forbids_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=f"is needed at {tmp_path}/x, but DETECTOR_OFFLINE is set"):
        download("https://example.org/x", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("DETECTOR_OFFLINE", "0")
    assert not is_offline()


def _fetch(url: str, target: str) -> None:
    os.environ.pop("DETECTOR_OFFLINE", None)
    download(url, Path(target))


def test_processes_that_want_the_same_file_share_one_download(server: Server, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_fetch, args=(server.url(), str(tmp_path / "data.bin"))) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert len(server.requests) == 1


def test_a_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    inside = threading.Event()

    def second() -> None:
        with locked(tmp_path / ".lock"):
            inside.set()

    waiting = threading.Thread(target=second)
    with locked(tmp_path / ".lock"):
        waiting.start()
        assert not inside.wait(0.3)
    waiting.join(5)
    assert inside.is_set()


# ---- archives -----------------------------------------------------------------------------------------


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, body in files.items():
            bundle.writestr(name, body)
    return path


def make_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as bundle:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            bundle.addfile(entry, io.BytesIO(body))
    return path


def make(path: Path, files: dict[str, bytes]) -> Path:
    return (make_zip if path.suffix == ".zip" else make_tar)(path, files)


KINDS = ["x.zip", "x.tar", "x.tar.gz", "x.tgz"]


@pytest.mark.parametrize("name", KINDS)
def test_archives_are_unpacked(tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / name, {"a/b.txt": b"one", "c.txt": b"two"})
    assert unpack(archive, tmp_path / "out") == tmp_path / "out"
    assert (tmp_path / "out/a/b.txt").read_bytes() == b"one"
    assert (tmp_path / "out/c.txt").read_bytes() == b"two"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", name]


@pytest.mark.parametrize("name", KINDS[:2])
@pytest.mark.parametrize(
    "entry", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "a\\..\\evil.txt", "C:/evil.txt"]
)
def test_no_entry_leaves_the_folder(tmp_path: Path, name: str, entry: str) -> None:
    archive = make(tmp_path / name, {"good.txt": b"1", entry: b"2"})
    with pytest.raises(DataError, match="would leave the folder; refused"):
        unpack(archive, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as bundle:
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = kind, "/etc/passwd"
        bundle.addfile(entry)
    with pytest.raises(DataError, match="entry 'link' is a link"):
        unpack(tmp_path / "x.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as bundle:
        bundle.writestr(entry, "/etc/passwd")
    with pytest.raises(DataError, match="entry 'link' is a link"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", KINDS)
def test_bombs_are_refused(tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / name, {"zeros": bytes(200_000), "more": b"1"})
    with pytest.raises(DataError, match="unpacks to more bytes than allowed; refused"):
        unpack(archive, tmp_path / "out", max_bytes=100_000)
    with pytest.raises(DataError, match="more than 1 entries; refused"):
        unpack(archive, tmp_path / "out", max_entries=1)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_name_twice_in_an_archive_is_refused(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "x.tar", {"a": b"1"})
    with tarfile.open(archive, "a") as bundle:
        bundle.addfile(tarfile.TarInfo("a"))
    with pytest.raises(DataError, match=r"can't be unpacked: .*File exists"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("name", KINDS)
def test_damaged_archives_leave_no_files(tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / name, {"a.bin": os.urandom(50_000), "b.bin": os.urandom(50_000)})
    archive.write_bytes(archive.read_bytes()[:60_000])
    with pytest.raises(DataError, match=rf"{tmp_path}/{name} can't be unpacked"):
        unpack(archive, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_other_files_are_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "x.rar").write_bytes(b"?")
    with pytest.raises(DataError, match=r"x.rar: expected one of \.zip, \.tar, \.tar\.gz, \.tgz"):
        unpack(tmp_path / "x.rar", tmp_path / "out")


def test_a_folder_with_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with staging_folder(tmp_path / "out") as staging:
        (staging / "new.txt").write_text("new")
        move_into_place(staging, tmp_path / "out")  # an empty folder may be
    with staging_folder(tmp_path / "out") as staging, pytest.raises(DataError, match="out is not empty"):
        move_into_place(staging, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert visible(tmp_path / "out") == ["new.txt"]


# ---- data sets ----------------------------------------------------------------------------------------


def served_zip(server: Server, name: str, files: dict[str, bytes], tmp_path: Path) -> str:
    server.files[f"/{name}"] = make_zip(tmp_path / f"made-{name}", files).read_bytes()
    return server.url(f"/{name}")


def test_a_dataset_is_put_together_from_its_archives(server: Server, tmp_path: Path) -> None:
    labels = served_zip(server, "labels.zip", {"set/labels/val/1.txt": b"", "__MACOSX/x": b""}, tmp_path)
    images = served_zip(server, "val.zip", {"val/1.jpg": b"jpg", "val/2.jpg": b"jpg"}, tmp_path)
    home = tmp_path / "home"
    fetch_dataset([Archive(labels), Archive(images, into="images")], home / "set")
    assert sorted(str(file.relative_to(home)) for file in home.rglob("*.*") if file.is_file()) == [
        "set/images/val/1.jpg",
        "set/images/val/2.jpg",
        "set/labels/val/1.txt",
    ]


def test_a_dataset_appears_only_whole_and_keeps_what_was_downloaded(server: Server, tmp_path: Path) -> None:
    first = served_zip(server, "a.zip", {"a.txt": b"a"}, tmp_path)
    archives = [Archive(first), Archive(server.url("/late.zip"))]
    with pytest.raises(DataError, match="404"):
        fetch_dataset(archives, tmp_path / "home" / "set")
    assert visible(tmp_path / "home") == []
    served_zip(server, "late.zip", {"b.txt": b"b"}, tmp_path)
    fetch_dataset(archives, tmp_path / "home" / "set")
    assert visible(tmp_path / "home" / "set") == ["a.txt", "b.txt"]
    assert [path for path, _, _ in server.requests] == ["/a.zip", "/late.zip", "/late.zip"]


def test_archives_may_not_replace_each_others_files(server: Server, tmp_path: Path) -> None:
    urls = [served_zip(server, f"{number}.zip", {"a.txt": b"a"}, tmp_path) for number in range(2)]
    with pytest.raises(DataError, match=r"1\.zip: a\.txt is in another archive of the data set too"):
        fetch_dataset([Archive(url) for url in urls], tmp_path / "home" / "set")


def test_a_data_yaml_downloads_what_is_missing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detector.data.config import load_data_config

    monkeypatch.setenv("DETECTOR_INSECURE_DOWNLOADS", "1")

    url = served_zip(
        server, "pets.zip", {"pets/images/val/1.png": b"x", "pets/images/train/2.png": b"x"}, tmp_path
    )
    yaml = tmp_path / "pets.yaml"
    yaml.write_text(f"path: sets/pets\ntrain: images/train\nval: images/val\nnc: 1\ndownload: {url}\n")
    config = load_data_config(yaml)
    assert config.split_images("val") == [tmp_path / "sets/pets/images/val/1.png"]
    assert config.split_images("train") == [tmp_path / "sets/pets/images/train/2.png"]
    assert load_data_config(yaml) == config
    assert len(server.requests) == 1
