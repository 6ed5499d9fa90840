"""Send a message when a run has ended."""

from __future__ import annotations

import json
import logging
import math
import os
from base64 import b64encode
from collections.abc import Callable
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

from detector.callbacks.builtin.checks import require_number
from detector.callbacks.callback import Callback
from detector.errors import CallbackError, ending, error_text

log = logging.getLogger(__name__)

Message = dict[str, Any]


class Notify(Callback):
    """Sends a message when a run has ended or failed: a JSON post to a URL, or a call of a function.

    The message is a dict: `status` ("finished", "failed" or "interrupted"), `run`, `save_dir`, `epochs` (done),
    `planned_epochs`, `best_fitness`, `metrics`, `stop_reason` (why it ended), `error` (None if all went well), and
    `text`, a line that says so, which is what chat services show. It is sent from a separate thread; if it can't be
    delivered within `timeout`, one warning says so.

    Args:
        to: an http or https URL; the name of an environment variable that holds one, as in `$CHAT_URL`, which
            keeps what is secret in it out of commands and YAML files; or a function of the message.
        timeout: seconds.

    Raises:
        CallbackError: for arguments that can't be used.
    """

    def __init__(self, to: str | Callable[[Message], object], timeout: float = 5) -> None:
        self.timeout = require_number("Notify", "timeout", timeout, above=True)
        self.to, self.place = _recipient(to)
        self.epochs_done = 0

    def on_pretrain_routine_start(self, trainer: Any) -> None:
        self.epochs_done = 0

    def on_train_start(self, trainer: Any) -> None:
        self.epochs_done = trainer.start_epoch  # a resumed run has some already

    def on_fit_epoch_end(self, trainer: Any) -> None:
        self.epochs_done = trainer.epoch + 1

    def teardown(self, trainer: Any) -> None:
        message = self._message(trainer)
        problems: list[str] = []

        def deliver() -> None:
            try:
                self.to(message) if callable(self.to) else _post(self.to, message, self.timeout)
            except Exception as error:  # a failure of the recipient must not fail a run that has ended
                problems.append(error_text(error))

        thread = Thread(target=deliver, name="Notify", daemon=True)
        thread.start()
        thread.join(self.timeout)
        if thread.is_alive():
            problems.append(f"no answer within {self.timeout:g} s")
        if problems:
            log.warning("Notify: %s did not take the message: %s", self.place, problems[0])

    def _message(self, trainer: Any) -> Message:
        error = trainer.exception
        folder = getattr(trainer, "save_dir", None)
        status = "finished" if error is None else "failed" if isinstance(error, Exception) else "interrupted"
        run = folder.name if folder is not None else "training"
        text = f"{run}: {status} after {self.epochs_done} of {trainer.epochs} epochs"
        if trainer.best_fitness is not None:
            text += f", best fitness {trainer.best_fitness:.4f}"
        reason = None if error is None else error_text(error)
        why = trainer.stop_reason if error is None else ending(error)
        return {
            "text": f"{text}; {why}" if why and (error is not None or trainer.stop) else text,
            "status": status,
            "run": run,
            "save_dir": None if folder is None else str(folder),
            "epochs": self.epochs_done,
            "planned_epochs": trainer.epochs,
            "best_fitness": _finite(trainer.best_fitness),
            "metrics": {name: _finite(value) for name, value in trainer.metrics.items()},
            "stop_reason": why,
            "error": reason,
        }


def _recipient(to: Any) -> tuple[Any, str]:
    """Return the URL or function, and what messages call it: no path, for it may hold a secret."""
    if callable(to):
        return to, getattr(to, "__qualname__", repr(to))
    address = to if isinstance(to, str) else ""
    if address.startswith("$") and not (address := os.environ.get(address[1:], "")):
        raise CallbackError(f"Notify({to!r}): the environment variable {to[1:]} is not set")
    try:
        url = urlsplit(address)
        url.port  # noqa: B018 - it is checked when it is read
    except ValueError:  # an unclosed bracket, a port that is not a number
        url = urlsplit("")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise CallbackError(
            f"Notify({to!r}): expected an http or https URL, $NAME of a variable that holds one, or a function "
            "of the message"
        )
    return address, url.hostname


def _finite(value: Any) -> float | None:
    """Return a number as JSON can hold it: None for NaN and infinity."""
    return float(value) if value is not None and math.isfinite(value) else None


def _post(url: str, message: Message, timeout: float) -> None:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    body = json.dumps(message, allow_nan=False).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "detector"}
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    request = Request(parts._replace(netloc=place).geturl(), body, headers, method="POST")
    if at:
        login = unquote(user if ":" in user else f"{user}:")
        request.add_unredirected_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    try:
        with urlopen(request, timeout=timeout) as answer:
            answer.read()
    except HTTPError as error:  # it is the open answer as well
        error.close()
        raise
