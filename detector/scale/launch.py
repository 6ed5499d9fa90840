"""Start a training in several processes of this machine, by torch's elastic launcher."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import detector
from detector.callbacks.registry import CallbackRegistry, add_note
from detector.callbacks.state import load_state
from detector.device import usable_cores
from detector.errors import DetectorError, TrainingError
from detector.scale.payload import OUTPUT, RESULT, Result, not_returned, owners, require_portable, write_job
from detector.scale.ranks import require_shareable
from detector.settings import TrainSettings
from detector.training.signals import Terminated

if TYPE_CHECKING:
    from detector.training.resume import RunState

log = logging.getLogger(__name__)

WORKER = "detector.scale.worker"
END = b"\0end\0"


class RemoteError(Exception):
    """The traceback of an exception in another process, as its cause."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


def train_in_processes(
    model: Any,
    settings: TrainSettings,
    registry: CallbackRegistry,
    transforms: Any,
    run: RunState | None,
    count: int,
) -> Result:
    """Train in processes of their own, one per device, and bring back what rank 0 has.

    Args:
        model: the `YOLO` to train.
        settings: checked ones.
        registry: the callbacks of the run; those with a state get it back.
        transforms: the user's, of training samples.
        run: the run to resume, or None.
        count: of processes.

    Raises:
        CallbackError: if a callback can't be carried there.
        BaseException: what ended the first process that failed, its traceback being the cause.
    """
    if not isinstance(settings.batch, str) and settings.batch >= 1:
        require_shareable(int(settings.batch), count)
    require_portable(registry)
    for line in not_returned(registry):
        log.warning("%s", line)
    if run is not None:
        settings.resume = f"force:{run.folder}" if run.force else str(run.folder)
        run.content.clear()  # as large as the training itself
    folder = Path(tempfile.mkdtemp(prefix="detector-"))  # of this user alone
    try:
        write_job(folder, (model, settings, registry, transforms))
        log.info("%d processes train together", count)
        _run(folder, count)
        result: Result = pickle.loads((folder / RESULT).read_bytes())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    objects = owners(registry)
    for number, state in result.states.items():
        load_state(type(objects[number]).__name__, objects[number], state)
    return result


def _run(folder: Path, count: int) -> None:
    """Start the processes and wait for their end."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, launch_agent

    failure: BaseException
    with _own_signals(), _environment(count), _quiet_launcher(), _relayed_output(folder):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
        )
        try:
            launch_agent(config, sys.executable, ["-m", WORKER, str(folder)])
        except ChildFailedError as error:
            failure = _failure(folder, count, error)
        except SignalException as error:
            failure = KeyboardInterrupt() if error.sigval == signal.SIGINT else Terminated(error.sigval)
        else:
            return
        finally:
            _end_left(folder)
    raise failure


def _failure(folder: Path, count: int, ended: Any) -> BaseException:
    """Return what the first process that failed was ended by, its traceback being the cause.

    Args:
        folder: where the processes write it.
        count: how many there are.
        ended: the launcher's own error.
    """
    found = [pickle.loads(path.read_bytes()) for path in folder.glob("failure-*.pkl")]
    heard = {failure.rank for failure in found}
    silent = any(rank not in heard and left.exitcode < 0 for rank, left in ended.failures.items())
    causes = [failure for failure in found if not (failure.only_lost or (silent and failure.by_signal))]
    if not causes:
        return TrainingError(_unexplained(ended, count))
    first = min(causes, key=attrgetter("when"))
    error: BaseException = TrainingError(f"rank {first.rank} failed: {first.text.strip().splitlines()[-1]}")
    if first.error is not None:
        error = pickle.loads(first.error)
    if not isinstance(error, DetectorError):
        add_note(error, f"on rank {first.rank}")
    error.__cause__ = RemoteError(f"rank {first.rank}: {first.text}")
    return error


def _unexplained(ended: Any, count: int) -> str:
    """Say which process died without a word, as of a signal."""
    rank, failure = min(ended.failures.items(), key=lambda item: (item[1].exitcode >= 0, item[1].timestamp))
    how = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
    return (
        f"rank {rank} of {count} ended without a word ({how}), as systems end what takes too much memory; resume=true "
        "continues the run, with a smaller batch= or fewer workers= if it was that"
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Put the handlers of signals back that the launcher replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, n)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


@contextmanager
def _environment(count: int) -> Iterator[None]:
    """Let the processes find this package, share the cores, and talk to each other on this machine only."""
    before = dict(os.environ)
    package = str(Path(detector.__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [package, before.get("PYTHONPATH")]))
    os.environ["PYTHONSAFEPATH"] = "1"  # a package of this name in the current folder is another one
    os.environ.setdefault("OMP_NUM_THREADS", str(max(usable_cores() // count, 1)))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _quiet_launcher() -> Iterator[None]:
    """Keep the launcher's own messages back: what they say of a failure is said here."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


@contextmanager
def _relayed_output(folder: Path) -> Iterator[None]:
    """Write what the processes print where this one prints, as a notebook has no file for them to write to."""
    if _has_file(sys.stderr) or not hasattr(os, "mkfifo"):
        yield
        return
    pipe = folder / OUTPUT
    os.mkfifo(pipe, 0o600)
    # open for both, so that it has a reader and a writer from the beginning to the end
    ours = os.open(pipe, os.O_RDWR)
    relay = threading.Thread(target=_relay, args=(ours,), daemon=True)
    relay.start()
    try:
        yield
    finally:
        os.write(ours, END)
        relay.join()
        os.close(ours)


def _has_file(stream: Any) -> bool:
    """Return whether what is written to a stream goes to the file that a process inherits."""
    try:
        return stream is None or stream.fileno() == 2
    except (OSError, ValueError, AttributeError):  # io.UnsupportedOperation is the first two
        return False


def _relay(ours: int) -> None:
    """Print what arrives until the end."""
    while not (part := os.read(ours, 1 << 16)).endswith(END):
        sys.stderr.write(part.decode(errors="replace"))
        sys.stderr.flush()
    sys.stderr.write(part[: -len(END)].decode(errors="replace"))
    sys.stderr.flush()


def _end_left(folder: Path) -> None:
    """End processes that are still there, with those they started, as after a second Ctrl-C."""
    for path in folder.glob("pid-*"):
        with suppress(OSError, ValueError):
            pid = int(path.read_text())
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
