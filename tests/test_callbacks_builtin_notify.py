import json
import math
import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from types import SimpleNamespace

import pytest
from support.training import plain_trainer, play

from detector.callbacks.builtin.notify import Notify
from detector.errors import CallbackError


@pytest.fixture
def server():
    """A server on loopback that keeps the posts it gets and answers with `status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            http.login = self.headers["Authorization"]
            http.posts.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(http.status)
            self.end_headers()

        def log_message(self, *arguments):
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        http.posts, http.status = [], 200
        http.url = f"http://127.0.0.1:{http.server_port}/hook?key=secret"
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield http
        http.shutdown()
        thread.join()


def make_trainer(exception=None, **more):
    return plain_trainer(exception=exception, save_dir=Path("runs/train"), epochs=3, best_fitness=0.5, **more)


def run(callback, trainer, epochs=2):
    play(callback, [{"metrics/mAP50": 0.25, "train/loss": math.nan}] * epochs, trainer)


def test_a_finished_run_is_posted(server, caplog):
    run(Notify(server.url), make_trainer(), epochs=3)
    assert server.posts == [
        (
            "/hook?key=secret",
            "application/json",
            {
                "text": "train: finished after 3 of 3 epochs, best fitness 0.5000",
                "status": "finished",
                "run": "train",
                "save_dir": str(Path("runs/train")),
                "epochs": 3,
                "planned_epochs": 3,
                "best_fitness": 0.5,
                "metrics": {"metrics/mAP50": 0.25, "train/loss": None},
                "stop_reason": None,
                "error": None,
            },
        )
    ]
    assert not caplog.records


def test_a_failed_run_is_posted_with_the_reason():
    messages = []
    run(Notify(messages.append), make_trainer(ValueError("no luck")))
    (message,) = messages
    assert (message["status"], message["epochs"]) == ("failed", 2)
    assert message["error"] == "ValueError: no luck"
    assert message["text"].endswith("failed after 2 of 3 epochs, best fitness 0.5000; ValueError: no luck")


def test_an_interrupted_run_says_so():
    messages = []
    run(Notify(messages.append), make_trainer(KeyboardInterrupt()))
    assert messages[0]["status"] == "interrupted"
    assert messages[0]["error"] == "KeyboardInterrupt" and messages[0]["stop_reason"] == "Ctrl-C"


def test_a_run_that_was_ended_says_why():
    messages = []
    run(Notify(messages.append), make_trainer(stop_reason="STOP file", stop=True), epochs=1)
    assert messages[0]["status"] == "finished" and messages[0]["stop_reason"] == "STOP file"
    assert messages[0]["text"].endswith("1 of 3 epochs, best fitness 0.5000; STOP file")


def test_a_run_that_failed_before_it_had_a_folder_is_posted():
    messages = []
    trainer = SimpleNamespace(exception=OSError("full"), epochs=3, best_fitness=None, metrics={})
    Notify(messages.append).teardown(trainer)
    assert messages[0]["save_dir"] is None
    assert messages[0]["text"] == "training: failed after 0 of 3 epochs; OSError: full"


def test_a_refusal_is_one_warning_without_the_secret(server, caplog):
    server.status = 500
    run(Notify(server.url), make_trainer())
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("Notify: 127.0.0.1 did not take the message: HTTPError: ")
    assert "500" in record.getMessage()
    assert "secret" not in record.getMessage()


def test_user_and_password_of_the_url_are_sent_as_a_login(server):
    run(Notify(server.url.replace("//", "//me:p%40ss@")), make_trainer())
    assert len(server.posts) == 1 and server.login == "Basic bWU6cEBzcw=="  # me:p@ss


def test_the_url_may_be_in_a_variable_of_the_environment(server, monkeypatch):
    monkeypatch.setenv("CHAT_URL", server.url)
    run(Notify("$CHAT_URL"), make_trainer())
    assert len(server.posts) == 1
    monkeypatch.delenv("CHAT_URL")
    with pytest.raises(
        CallbackError, match=r"^Notify\('\$CHAT_URL'\): the environment variable CHAT_URL is not set$"
    ):
        Notify("$CHAT_URL")


def test_nobody_there_is_one_warning(caplog):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        run(Notify(f"http://127.0.0.1:{unused.getsockname()[1]}/"), make_trainer())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "did not take the message" in caplog.text


def test_a_recipient_that_hangs_holds_up_for_the_timeout_only(caplog):
    released = Event()
    started = perf_counter()
    run(Notify(lambda message: released.wait(30), timeout=0.05), make_trainer())
    released.set()
    assert perf_counter() - started < 5
    assert [record.getMessage() for record in caplog.records] == [
        "Notify: test_a_recipient_that_hangs_holds_up_for_the_timeout_only.<locals>.<lambda> "
        "did not take the message: no answer within 0.05 s"
    ]


def test_a_function_that_fails_is_one_warning(caplog):
    def tell(message):
        raise RuntimeError("not today")

    run(Notify(tell), make_trainer())
    (record,) = caplog.records
    assert record.getMessage().endswith("tell did not take the message: RuntimeError: not today")


@pytest.mark.parametrize(
    "to",
    ["ftp://host/x", "host/x", "file:///etc/passwd", "http://", "http://[::1", "http://h:x/", "", 3, None],
)
def test_anything_else_is_refused(to):
    with pytest.raises(
        CallbackError, match=r"expected an http or https URL, .* or a function of the message"
    ):
        Notify(to)


def test_a_bad_timeout_is_refused():
    with pytest.raises(CallbackError, match=r"Notify\(timeout=0\): expected a number > 0"):
        Notify(print, timeout=0)


def test_a_training_is_reported(train_tiny, tmp_path, server):
    train_tiny(Notify(server.url), epochs=1)
    ((_, _, message),) = server.posts
    assert (message["status"], message["epochs"]) == ("finished", 1)
    assert message["save_dir"] == str(tmp_path / "train")
    assert "metrics/mAP50" in message["metrics"]
