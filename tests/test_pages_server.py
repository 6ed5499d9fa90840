"""The live page's server, asked over HTTP: what it answers, and whom it refuses."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from support.evaluations import evaluation_of
from support.runs import row_of, status_of, write_run

from detector.errors import SettingsError
from detector.pages.server import STATIC, MonitorServer

JPEG = b"\xff\xd8\xff\xe0 an image"


class Answer:
    def __init__(self, reply: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.content = reply.status, reply.headers, reply.read()

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class Page:
    """A client of a server that serves a folder."""

    def __init__(self, server: MonitorServer) -> None:
        self.server, self.port = server, server.server_port
        self.origin = f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str | None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {"Host": f"127.0.0.1:{self.port}"} | {
            key.replace("_", "-"): value for key, value in headers.items() if value is not None
        }
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
            if method == "POST" and "Content-Length" not in sent:
                sent["Content-Length"] = str(len(content))
            for key, value in sent.items():
                connection.putheader(key, value)
            connection.endheaders(content)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **query: Any) -> Any:
        answer = self.ask(f"{path}?{urlencode(query)}")
        assert answer.status == 200, answer.content
        return answer.json

    def post(self, path: str, body: Any, **headers: str | None) -> Answer:
        own = {"Origin": self.origin, "Content_Type": "application/json"}
        return self.ask(path, "POST", body, **(own | headers))


@contextmanager
def serving(folder: Path, host: str = "127.0.0.1") -> Iterator[Page]:
    with MonitorServer(folder, host, 0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Page(server)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of two runs: `train`, and `deep/other`, which runs; and a file outside it."""
    (tmp_path / "secret.jpg").write_bytes(JPEG)
    write_run(tmp_path / "runs/train", settings={"lr0": 0.02})
    (tmp_path / "runs/deep").mkdir()
    write_run(tmp_path / "runs/deep/other", state="running", ended=None, stop_reason=None, progress=0.5)
    return tmp_path / "runs"


@pytest.fixture
def page(runs: Path) -> Iterator[Page]:
    with serving(runs) as page:
        yield page


# ------------------------------------------------------------------ what it answers


def test_the_page_and_its_files_are_served_with_strict_policies(page: Page) -> None:
    for path in ("/", *(f"/static/{name}" for name in STATIC)):
        answer = page.ask(path)
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert b"<script>" not in page.ask("/").content  # all scripts are files
    assert page.ask("/static/../server.py").status == 404


def test_the_list_has_state_best_settings_and_note(page: Page) -> None:
    page.post("/api/note", {"run": "train", "note": "the good one", "star": True})
    rows = {row["run"]: row for row in page.get("/api/runs")["runs"]}
    assert set(rows) == {"train", "deep/other"}
    assert rows["train"]["state"] == "finished"
    assert rows["train"]["best"]["metrics/mAP50"] == 0.75
    assert rows["train"]["settings"] == {"data": "pets.yaml", "epochs": "3", "lr0": "0.02"}
    assert (rows["train"]["text"], rows["train"]["star"]) == ("the good one", True)
    assert (rows["deep/other"]["state"], rows["deep/other"]["progress"]) == ("running", 0.5)
    assert page.get("/api/runs")["defaults"]["epochs"] == "100"


def test_a_second_question_is_answered_with_what_changed(page: Page, runs: Path) -> None:
    first = page.get("/api/runs")
    assert len(first["runs"]) == 2
    unchanged = page.get("/api/runs", since=first["revision"])
    assert (unchanged["runs"], unchanged["gone"], unchanged["revision"]) == ([], [], first["revision"])
    (runs / "train/status.json").write_text(json.dumps(status_of(3, state="failed", error="it broke")))
    (runs / "deep/other/status.json").unlink()
    after = page.get("/api/runs", since=first["revision"])
    assert [(row["run"], row["state"], row["error"]) for row in after["runs"]] == [
        ("train", "failed", "it broke")
    ]
    assert after["gone"] == ["deep/other"]
    assert len(page.get("/api/runs", since=10**9)["runs"]) == 1  # the page is from before the server's start


def test_metrics_are_sent_from_where_the_page_is(page: Page, runs: Path) -> None:
    first = page.get("/api/metrics", run="train", offset=0, id="")
    assert [row["epoch"] for row in first["rows"]] == [1, 2, 3]
    again = page.get("/api/metrics", run="train", offset=first["offset"], id=first["id"])
    assert (again["rows"], again["reset"], again["offset"]) == ([], False, first["offset"])
    line = json.dumps(row_of(4, 4)) + "\n"
    with (runs / "train/metrics.jsonl").open("a") as file:
        file.write(line + '{"epoch": 5, "not yet who')
    new = page.get("/api/metrics", run="train", offset=first["offset"], id=first["id"])
    assert [row["epoch"] for row in new["rows"]] == [4]
    assert new["offset"] == first["offset"] + len(line)


def test_a_file_that_was_replaced_is_sent_again(page: Page, runs: Path) -> None:
    first = page.get("/api/metrics", run="train", offset=0, id="")
    new = runs / "new"
    new.write_text("".join(json.dumps(row_of(epoch, 9)) + "\n" for epoch in range(1, 9)))
    new.replace(runs / "train/metrics.jsonl")
    again = page.get("/api/metrics", run="train", offset=first["offset"], id=first["id"])
    assert (again["reset"], len(again["rows"])) == (True, 8)


def test_the_log_is_sent_as_it_grows_and_without_terminal_codes(page: Page, runs: Path) -> None:
    log = runs / "train/train.log"
    log.write_bytes(b"\x1b[31mred\x1b[0m\n 10 %\r 90 %\n\x07bell\n")
    first = page.get("/api/log", run="train", offset=0, id="")
    assert first["text"] == "red\n 90 %\n\\x07bell\n"
    with log.open("ab") as file:
        file.write(b"more\nhal")
    assert page.get("/api/log", run="train", offset=first["offset"], id=first["id"])["text"] == "more\n"


def test_of_a_long_log_the_end_is_sent_first(page: Page, runs: Path) -> None:
    (runs / "train/train.log").write_text("".join(f"line {number}\n" for number in range(50_000)))
    text = page.get("/api/log", run="train", offset=0, id="")["text"]
    assert len(text) < 1 << 16
    assert text.startswith("line ")
    assert text.endswith("line 49999\n")


def test_an_evaluation_is_sent_once(page: Page, runs: Path) -> None:
    nothing = page.get("/api/evaluation", run="train", stamp="none yet")
    assert nothing == {"stamp": "", "evaluation": None}
    (runs / "train/evaluation.json").write_text(json.dumps(evaluation_of(["cat", "dog"])))
    first = page.get("/api/evaluation", run="train", stamp="")
    assert first["evaluation"]["classes"][0]["name"] == "cat"
    assert page.get("/api/evaluation", run="train", stamp=first["stamp"]) == {"stamp": first["stamp"]}


def test_images_of_a_run_are_listed_and_served(page: Page, runs: Path) -> None:
    (runs / "train/train_batch0.jpg").write_bytes(JPEG)
    (runs / "train/predictions").mkdir()
    (runs / "train/predictions/epoch1.jpg").write_bytes(JPEG)
    assert {image["name"] for image in page.get("/api/images", run="train")} == {
        "train_batch0.jpg",
        "predictions/epoch1.jpg",
    }
    for name in ("train_batch0.jpg", "predictions/epoch1.jpg"):
        answer = page.ask(f"/image?run=train&name={quote(name, safe='')}")
        assert (answer.status, answer.headers["Content-Type"], answer.content) == (200, "image/jpeg", JPEG)


def test_stop_puts_the_file_there_and_only_for_a_run_that_runs(page: Page, runs: Path) -> None:
    assert page.post("/api/stop", {"run": "deep/other"}).status == 200
    assert (runs / "deep/other/STOP").is_file()
    answer = page.post("/api/stop", {"run": "train"})
    assert answer.status == 400
    assert b"does not run" in answer.content
    assert not (runs / "train/STOP").exists()


def test_the_page_works_for_a_run_that_was_killed(runs: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_run(runs / "killed", state="running", pid=dead.pid, process=None, ended=None)
    with (runs / "killed/metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "tra')
    with serving(runs) as page:
        row = next(row for row in page.get("/api/runs")["runs"] if row["run"] == "killed")
        assert (row["state"], row["remark"]) == ("interrupted", "its process is gone")
        assert len(page.get("/api/metrics", run="killed", offset=0, id="")["rows"]) == 3
        assert page.get("/api/run", run="killed")["state"] == "interrupted"


def test_a_run_whose_status_is_damaged_is_named_and_the_others_are_shown(runs: Path) -> None:
    (runs / "broken").mkdir()
    (runs / "broken/status.json").write_text("{")
    with serving(runs) as page:
        found = page.get("/api/runs")
        assert {row["run"]: row["state"] for row in found["runs"]}["broken"] == "unreadable"
        assert "broken" in found["problems"][0]
        assert page.get("/api/runs", since=found["revision"])["problems"] == found["problems"]
        assert len(found["runs"]) == 3
        assert page.ask("/api/run?run=broken").status == 404


def test_the_machine_is_described(page: Page) -> None:
    assert page.get("/api/machine")["cores"] == os.cpu_count()


# ------------------------------------------------------------------ whom it refuses


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1:1",
        "127.0.0.1.evil.example:{port}",
        "",
        "[::1",
        "a@b",
    ],
)
def test_another_host_name_is_refused(page: Page, host: str) -> None:
    for path in ("/", "/api/runs", "/static/views.js"):
        answer = page.ask(path, Host=host.format(port=page.port))
        assert answer.status == 403
        assert b"finished" not in answer.content


def test_localhost_is_not_another_host(page: Page) -> None:
    assert page.ask("/api/runs", Host=f"localhost:{page.port}").status == 200


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "http://127.0.0.1:1", "https://127.0.0.1:{port}"]
)
def test_a_post_from_another_origin_changes_nothing(page: Page, runs: Path, origin: str | None) -> None:
    origin = origin and origin.format(port=page.port)
    for path, body in (("/api/stop", {}), ("/api/note", {"note": "x", "star": True})):
        assert page.post(path, {"run": "deep/other"} | body, Origin=origin).status == 403
    assert not (runs / "deep/other/STOP").exists()
    assert not (runs / "deep/other/note.json").exists()


def test_a_form_of_another_page_changes_nothing(page: Page, runs: Path) -> None:
    assert page.post("/api/stop", {"run": "deep/other"}, Content_Type="text/plain").status == 415
    assert page.ask("/api/stop?run=deep%2Fother").status == 404
    assert not (runs / "deep/other/STOP").exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[1]",
        b"{",
        b"[" * 60_000,
        {"run": 3},
        {"run": "train"},
        {"run": "train", "note": 1, "star": True},
    ],
)
def test_other_bodies_are_refused_in_a_sentence(page: Page, body: Any) -> None:
    answer = page.post("/api/note", body)
    assert answer.status == 400
    assert answer.content.startswith(b"expected")


@pytest.mark.parametrize("length", ["100000", "-1", "x", "9" * 400])
def test_a_body_of_another_length_is_not_read(page: Page, length: str) -> None:
    assert page.post("/api/note", b"{}", Content_Length=length).status == 413


@pytest.mark.parametrize(
    "name", ["..", "../runs/train", "/etc", "train/..", "deep", "", "train\0", "./train", "TRAIN"]
)
def test_runs_are_found_by_their_names_only(page: Page, name: str) -> None:
    for path in ("/api/run", "/api/metrics", "/api/log", "/api/evaluation", "/api/images"):
        assert page.ask(f"{path}?{urlencode({'run': name})}").status == 404
    assert page.post("/api/note", {"run": name, "note": "", "star": True}).status == 404


@pytest.mark.parametrize(
    "name",
    [
        "../../secret.jpg", "predictions/../../../secret.jpg", "..%2f..%2fsecret.jpg", "/etc/hostname",
        "weights/best.pt", "status.json", "linked.jpg", "predictions/secret.jpg", "fake.jpg", "pipe.jpg",
        "folder.jpg", "..\\..\\secret.jpg",
    ],
)  # fmt: skip
def test_images_never_come_from_outside_the_run(page: Page, runs: Path, name: str) -> None:
    train = runs / "train"
    (train / "linked.jpg").symlink_to(runs.parent / "secret.jpg")
    (train / "predictions").symlink_to(runs.parent)
    (train / "fake.jpg").write_text("<script>alert(1)</script>")
    (train / "folder.jpg").mkdir()
    os.mkfifo(train / "pipe.jpg")
    answer = page.ask(f"/image?run=train&name={quote(name, safe='')}")
    assert answer.status == 400
    assert b"an image" not in answer.content.replace(b"not an image", b"")
    assert [image["name"] for image in page.get("/api/images", run="train")] == ["fake.jpg"]


@pytest.mark.parametrize(
    "name", ["status.json", "metrics.jsonl", "train.log", "note.json", "evaluation.json"]
)
def test_links_in_the_place_of_a_runs_files_are_not_followed(page: Page, runs: Path, name: str) -> None:
    secret = runs.parent / "secret.txt"
    secret.write_text('{"note": "secret", "epoch": 1, "state": "failed", "error": "secret"}\n')
    (runs / "train" / name).unlink(missing_ok=True)
    (runs / "train" / name).symlink_to(secret)
    for path in (
        "/api/runs",
        *(f"/api/{what}?run=train" for what in ("run", "metrics", "log", "evaluation")),
    ):
        assert b"secret" not in page.ask(path).content.replace(b"secret.txt", b"")
    (runs / "other").symlink_to(runs.parent)
    assert {row["run"] for row in page.get("/api/runs")["runs"]} == {"train", "deep/other"}


@pytest.mark.parametrize(
    "query", ["offset=-1", "offset=x", "offset=1e9", "offset=" + "9" * 30, "offset=%D9%A3"]
)
def test_offsets_are_whole_numbers(page: Page, query: str) -> None:
    assert page.ask(f"/api/metrics?run=train&{query}").status == 400


def test_other_methods_and_pages_are_refused(page: Page) -> None:
    assert page.ask("/api/runs", "PUT").status == 501
    assert page.ask("/nothing").status == 404
    assert page.post("/api/delete", {"run": "train"}).status == 404
    assert page.ask("/api/runs?" + "a=1&" * 50).status == 400


# ------------------------------------------------------------------ names of strangers


def test_hostile_names_come_as_data_shortened_and_without_control_characters(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    write_run(
        tmp_path / "runs" / "<img src=x>",
        settings={"name": evil, "lr0": "\x1b[2Jx", "m" * 1000: 1},
        command="detector \u202etrain " + "x" * 1_000_00,
        error=f"\x1b]0;{evil}\x07",
    )
    with serving(tmp_path / "runs") as page:
        for path in ("/api/runs", "/api/run?run=%3Cimg%20src%3Dx%3E"):
            answer = page.ask(path)
            assert answer.headers["Content-Type"] == "application/json"
            assert len(answer.content) < 20_000
            assert b"\\u001b" not in answer.content
            assert b"\\u202e" not in answer.content.replace(b"\\\\u202e", b"")
        assert page.get("/api/run", run="<img src=x>")["status"]["error"] == f"\\x1b]0;{evil}\\x07"


# ------------------------------------------------------------------ the token


def other_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loopback address count as one that others reach."""
    monkeypatch.setattr("detector.pages.server.is_loopback", lambda address: False)


@pytest.fixture
def guarded(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    other_address(monkeypatch)
    with serving(runs) as page:
        yield page


def test_loopback_needs_no_token(page: Page) -> None:
    assert page.server.token is None
    assert page.server.url == f"http://127.0.0.1:{page.port}/"


def test_all_addresses_need_a_token(runs: Path) -> None:
    with MonitorServer(runs, "0.0.0.0", 0) as server:
        assert server.token is not None
        assert server.url.endswith(f"/?token={server.token}")
        assert "0.0.0.0" not in server.url


@pytest.mark.parametrize(
    "path", ["/", "/static/views.js", "/api/runs", "/api/runs?token=wrong", "/image?run=train&name=a.jpg"]
)
def test_without_the_token_nothing_is_answered(guarded: Page, path: str) -> None:
    answer = guarded.ask(path)
    assert answer.status == 401
    assert answer.content == b"open the address with the token that `detector monitor` printed"


def test_the_token_becomes_a_cookie_and_leaves_the_address(guarded: Page, runs: Path) -> None:
    answer = guarded.ask(f"/?token={guarded.server.token}")
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
    kept = {"Cookie": cookie.partition(";")[0]}
    assert guarded.ask("/api/runs", **kept).status == 200
    assert guarded.post("/api/stop", {"run": "deep/other"}, **kept).status == 200
    assert guarded.post("/api/note", {"run": "train", "note": "", "star": True}).status == 401
    assert guarded.ask("/api/runs", Cookie=f"{guarded.server.cookie}=wrong").status == 401
    assert guarded.ask("/api/runs", Cookie="; ;=,\x80").status == 401


def test_tokens_are_new_with_each_server(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_address(monkeypatch)
    with MonitorServer(runs, "127.0.0.1", 0) as one, MonitorServer(runs, "127.0.0.1", 0) as other:
        assert one.token != other.token
        assert len(one.token or "") >= 32


# ------------------------------------------------------------------ starting it


def test_a_port_in_use_and_a_folder_that_is_not_there_are_named(runs: Path, page: Page) -> None:
    with pytest.raises(SettingsError, match=rf"port={page.port} .*choose another port="):
        MonitorServer(runs, "127.0.0.1", page.port)
    with pytest.raises(SettingsError, match="there is no such folder"):
        MonitorServer(runs / "nowhere")
    with pytest.raises(SettingsError, match="host=no host"):
        MonitorServer(runs, "no host")


def test_the_monitor_imports_no_torch_numpy_or_matplotlib(runs: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from detector.pages.server import MonitorServer; "
        "s = MonitorServer(Path(sys.argv[1]), port=0); s.runs.changes(0); s.runs.evaluation('train', 'x'); "
        "print([m for m in ('torch', 'numpy', 'cv2', 'matplotlib') if m in sys.modules])"
    )
    (runs / "train/evaluation.json").write_text(json.dumps(evaluation_of(["cat"])))
    done = subprocess.run([sys.executable, "-c", code, str(runs)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_two_hundred_runs_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(200):
        write_run(tmp_path / f"run{number}", epochs=2)
    reads: list[Path] = []
    real = __import__("detector.pages.runs", fromlist=["read_run"]).read_run

    def counted(folder: Path) -> Any:
        reads.append(folder)
        return real(folder)

    monkeypatch.setattr("detector.pages.runs.read_run", counted)
    with serving(tmp_path) as page:
        first = page.get("/api/runs")
        again = [page.get("/api/runs", since=first["revision"])["runs"] for _ in range(2)]
        assert (len(first["runs"]), again, len(reads)) == (200, [[], []], 200)
