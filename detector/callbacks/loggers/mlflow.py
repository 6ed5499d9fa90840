"""MLflow: a SQLite store in the folder of the runs, or the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from threading import Lock
from time import perf_counter, sleep, time
from typing import Any, ClassVar
from urllib.parse import quote as quote_url

from detector.callbacks.loggers.base import Logger, environment, project_folder, project_name
from detector.callbacks.secrets import mask_urls
from detector.files.locks import locked

log = logging.getLogger(__name__)

PARAMETERS_A_REQUEST = 100  # MLflow's own limit
SECONDS = 15  # that a request may take; MLflow itself retries a dead server for minutes
FILE_SECONDS = 120  # the same of an upload: weights are large
STORE_SECONDS = 300  # to wait for other runs that open the same store; the first one makes its tables
PAUSE = 2  # seconds before the second and last attempt of a request
METRICS_A_REQUEST = 1000  # likewise
LETTERS = 250  # of a name, likewise
REFUSED = re.compile(r"[^\w\-./: ]")  # what MLflow does not allow in names


class MLflowLogger(Logger):
    """Logs to MLflow; the run is active meanwhile, so that custom calls of `mlflow.log_metric` reach it.

    Without MLFLOW_TRACKING_URI (or `mlflow.set_tracking_uri`) it writes `mlflow.db` into the folder of the
    runs. MLFLOW_EXPERIMENT_NAME and MLFLOW_RUN name experiment and run. An active run is joined, and left
    open at the end.
    """

    name, title, package = "mlflow", "MLflow", "mlflow"

    # MLflow has one address for the whole process, and trainings may run in several threads.
    _stores: ClassVar[list[str]] = []  # of the trainings that run now
    _switching: ClassVar[Lock] = Lock()

    @classmethod
    def needs(cls) -> str | None:
        """A slim MLflow can't write a store by itself."""
        if find_spec("sqlalchemy") is None and "MLFLOW_TRACKING_URI" not in os.environ:
            return "set MLFLOW_TRACKING_URI, or pip install mlflow for a local store"
        return None

    def open(self, trainer: Any) -> None:
        """Join the active run or start one."""
        self.own_store: str | None = None
        self.owns_run = False
        with environment(MLFLOW_DISABLE_TELEMETRY="true"):
            import mlflow
        if (run := mlflow.active_run()) is None:
            folder = project_folder(trainer)
            with self._switching, patience(), ExitStack() as held:
                if not mlflow.is_tracking_uri_set() or mlflow.get_tracking_uri() in self._stores:
                    self.own_store = sqlite_uri(folder / "mlflow.db")
                    self._stores.append(self.own_store)
                    mlflow.set_tracking_uri(self.own_store)
                store = folder / "mlflow.db" if self.own_store else sqlite_file(mlflow.get_tracking_uri())
                if store is not None:
                    # MLflow makes the tables of a new store, and two processes at once spoil it for each other
                    held.enter_context(locked(store.with_name(f"{store.name}.lock"), STORE_SECONDS))
                if self._can_continue():
                    run = mlflow.start_run(run_id=self.continues)
                else:
                    experiment = self._experiment(project_name(trainer), folder / "mlartifacts")
                    name = os.environ.get("MLFLOW_RUN") or trainer.save_dir.name
                    run = mlflow.start_run(experiment_id=experiment, run_name=name)
            self.owns_run = True
            self.run_id = run.info.run_id
        self.logs_to = run.info.run_id
        self.client = mlflow.MlflowClient(self.own_store)
        if (uri := self.client.tracking_uri).startswith("http"):
            place = (
                f"{mask_urls(uri, paths=False)}/#/experiments/{run.info.experiment_id}/runs/{self.logs_to}"
            )
            log.info("MLflow: %s", place)

    def _can_continue(self) -> bool:
        """Return whether the run of a training that is resumed is still there."""
        import mlflow

        if self.continues is None:
            return False
        try:
            if mlflow.MlflowClient().get_run(self.continues).info.lifecycle_stage == "active":
                return True
        except mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        log.info("MLflow: the run %s is not in this store any more; a new one begins", self.continues)
        return False

    def _experiment(self, name: str, artifacts: Path) -> str | None:
        """Return the experiment's id, made if need be; None leaves the choice to MLflow's own settings."""
        import mlflow

        if "MLFLOW_EXPERIMENT_ID" in os.environ:
            return None
        client = mlflow.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or name
        if (found := client.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        try:
            return str(client.create_experiment(name, artifacts.as_uri() if self.own_store else None))
        except mlflow.MlflowException as error:
            found = client.get_experiment_by_name(name)  # another run may have been quicker
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return str(found.experiment_id)

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        """Log parameters. A joined or continued run may hold some from before; they can't be changed."""
        from mlflow.entities import Param

        is_new = self.owns_run and self.run_id != self.continues
        known = {} if is_new else self._ask(lambda: self.client.get_run(self.logs_to)).data.params
        params = [Param(key(name), str(value)) for name, value in settings.items() if key(name) not in known]
        for start in range(0, len(params), PARAMETERS_A_REQUEST):
            part = params[start : start + PARAMETERS_A_REQUEST]
            self._ask(lambda part=part: self.client.log_batch(self.logs_to, params=part))  # type: ignore[misc]

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time() * 1000)
        rows = [Metric(key(name), value, now, step) for name, value in metrics.items()]
        for start in range(0, len(rows), METRICS_A_REQUEST):
            part = rows[start : start + METRICS_A_REQUEST]
            self._ask(lambda part=part: self.client.log_batch(self.logs_to, metrics=part))  # type: ignore[misc]

    def refuses(self, name: Any) -> str | None:
        """Return why MLflow does not take a metric of this name: it keeps each as a path."""
        if (problem := super().refuses(name)) is not None:
            return problem
        if len(name) > LETTERS:
            return f"it has {len(name)} letters, and at most {LETTERS} are allowed"
        if name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")):
            return "expected parts between single slashes, such as my/recall"
        return None

    def log_images(self, images: Mapping[str, Path], step: int) -> None:
        """Log images as artifacts: `pictures/results.png`, `predictions/epoch3.jpg`."""
        for name, path in images.items():
            folder, _, last = name.rpartition("/")
            self._file(path, folder if last == path.stem else name)

    def log_file(self, path: Path) -> None:
        self._file(path, "weights")

    def log_text(self, name: str, text: str, step: int) -> None:
        """Log a text as an artifact: `notes/epoch3.txt`."""
        self._ask(
            lambda: self.client.log_text(self.logs_to, text, f"{key(name)}/epoch{step}.txt"), FILE_SECONDS
        )

    def close(self, failed: bool) -> None:
        """End the run, if it is ours, and put MLflow back as it was."""
        if not (self.owns_run or self.own_store):
            return
        import mlflow

        status = self.outcome(failed).upper()
        with self._switching:
            if self.own_store:
                mlflow.set_tracking_uri(self.own_store)
            try:
                if self.owns_run:
                    if self.stop_reason:
                        self._ask(lambda: self.client.set_tag(self.logs_to, "stop_reason", self.stop_reason))
                    self._ask(lambda: end_run(self.client, self.logs_to, status))
            finally:
                self.owns_run = False
                if self.own_store:
                    self._stores.remove(self.own_store)
                    mlflow.set_tracking_uri(self._stores[-1] if self._stores else None)
        if self.own_store and not self.is_broken:
            log.info("MLflow: mlflow ui --backend-store-uri %s", quote(self.own_store))

    def _file(self, path: Path, folder: str) -> None:
        self._ask(lambda: self.client.log_artifact(self.logs_to, str(path), folder), FILE_SECONDS)

    def _ask(self, call: Callable[[], Any], seconds: int = SECONDS) -> Any:
        """Make a request, and repeat it once if it fails quickly: the failure may be temporary."""
        began = perf_counter()
        with patience(seconds):
            try:
                return call()
            except Exception as error:
                if self.is_broken or perf_counter() - began > seconds / 2:
                    raise
                log.debug("MLflow: %s; once more in %d s", error, PAUSE)
                sleep(PAUSE)
                return call()


def sqlite_uri(path: Path) -> str:
    """Return the address of a SQLite store, whatever letters its folder's name has.

    What follows a `?` is options there; `%20` is a space to SQLAlchemy from 2.1 on, and to SQLite itself in a `file:`.
    The driver is named because MLflow makes the folder of a `sqlite:///` address, without reading it so.
    """
    from sqlalchemy import make_url

    text, quoted = path.as_posix(), quote_url(path.as_posix(), safe="/:")
    for uri, database in (
        (f"sqlite:///{text}", text),
        (f"sqlite+pysqlite:///{quoted}", text),
        (f"sqlite+pysqlite:///file:{quoted}?uri=true", f"file:{quoted}"),
    ):
        if make_url(uri).database == database:
            return uri
    raise OSError(
        f"MLflow can't keep its store in {path.parent}: rename the folder, or set MLFLOW_TRACKING_URI"
    )


def patience(seconds: int = SECONDS) -> AbstractContextManager[None]:
    """Bound the time of MLflow's requests, and keep its links off stdout; what the user has set wins."""
    return environment(
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
        MLFLOW_HTTP_REQUEST_TIMEOUT=str(seconds),
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
    )


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite store, or None for a store of another kind."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(path) if path and path != uri.partition("?")[0] and not path.startswith(":") else None


def end_run(client: Any, run_id: str, status: str) -> None:
    """End a run; as the active one, if it still is."""
    import mlflow

    active = mlflow.active_run()
    if active is not None and active.info.run_id == run_id:
        mlflow.end_run(status)
    else:
        client.set_terminated(run_id, status)


def key(name: str) -> str:
    """Return a name as MLflow allows it."""
    return REFUSED.sub("_", name)
