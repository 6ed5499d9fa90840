"""The storage of a study: a database, or a journal file, that one or several processes and machines write to."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from detector.callbacks.secrets import MASK, mask_urls
from detector.errors import MissingPackageError, SettingsError, TrainingError, first_line

PASSWORD = re.compile(r"(?:://[^:/@\s]*:|[?&]password=)([^&\s]+?)(?=@[^@]*$|&|$)")

MADE_BY_ANOTHER = re.compile(r"already exists|duplicate key|UNIQUE constraint|Duplicate entry", re.IGNORECASE)
"""What databases answer when two processes make the same tables at once."""

JOURNAL_SECONDS = 30  # after which the lock that a killed process has left on a journal file is taken away

LOCK_SECONDS = 60  # that a process waits while another one writes to a SQLite file


def require_optuna() -> None:
    """Refuse to tune without Optuna.

    Raises:
        MissingPackageError: if it is not installed.
    """
    if find_spec("optuna") is None:
        raise MissingPackageError("tune needs the optuna package: pip install 'detector[tune]'")


def mask_storage(storage: str) -> str:
    """Return `storage=` as it may be shown: without user, password and options."""
    return mask_urls(storage, paths=False) if "://" in storage else storage


def without_password(text: str, storage: str) -> str:
    """Return a text, such as that of an exception, in which neither the URL nor its password is to be read."""
    text = text.replace(storage, mask_storage(storage))
    for found in PASSWORD.findall(storage) if "://" in storage else []:
        for secret in {found, unquote(found)}:
            text = text.replace(secret, MASK)
    return text


def open_storage(storage: str | None, folder: Path, heartbeat: int) -> Any:
    """Open a storage; it is made if there is none.

    Args:
        storage: a database's URL, the path of a journal file, or None for a SQLite file in `folder`.
        folder: the study's run folder.
        heartbeat: seconds between two signs of life of a running trial; after twice that time it counts as dead.

    Returns:
        Optuna's storage.

    Raises:
        SettingsError: if it can't be opened.
        MissingPackageError: if the driver of the database is not installed.
    """
    if storage is None:
        return _open_database(f"sqlite:///{folder / 'study.db'}", heartbeat)
    if "://" in storage:
        return _open_database(storage, heartbeat)
    if Path(storage).suffix in (".db", ".sqlite", ".sqlite3"):
        raise SettingsError(f"storage={storage}: a SQLite file is given as storage=sqlite:///{storage}")
    return _open_journal(Path(storage))


def has_heartbeat(storage: Any) -> bool:
    """Return whether Optuna itself finds trials whose process is gone: in databases it does."""
    return getattr(storage, "heartbeat_interval", None) is not None


def close_storage(storage: Any) -> None:
    """Close the connections of a database; whoever asks it again opens another one."""
    if (engine := getattr(storage, "engine", None)) is not None:
        engine.dispose()


def _open_journal(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = JournalFileSymlinkLock(str(path), grace_period=JOURNAL_SECONDS)
        return JournalStorage(JournalFileBackend(str(path), lock))
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(
            f"storage={path}: can't write the journal file ({reason}); choose another path"
        ) from None
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        AssertionError,
    ):  # what replaying another file raises
        raise SettingsError(
            f"storage={path}: is not a journal file of Optuna; choose another path, or give a URL such as "
            f"storage=postgresql://host/database"
        ) from None


def _open_database(url: str, heartbeat: int) -> Any:
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    is_sqlite = url.startswith("sqlite")
    options = {"connect_args": {"timeout": LOCK_SECONDS}} if is_sqlite else {}
    shown = mask_storage(url)
    for attempt in range(5):
        try:
            with no_experimental_warnings():
                found = RDBStorage(url, engine_kwargs=options, heartbeat_interval=heartbeat)
            break
        except (ArgumentError, NoSuchModuleError):
            raise SettingsError(
                f"storage={shown}: expected the path of a journal file, or a URL such as sqlite:///study.db, "
                f"postgresql://host/database or mysql://host/database"
            ) from None
        except ImportError:
            raise MissingPackageError(
                f"storage={shown} needs the database's driver, such as psycopg or pymysql: pip install "
                f"'psycopg[binary]', and start the URL with postgresql+psycopg://, or mysql+pymysql://"
            ) from None
        except SQLAlchemyError as error:
            if attempt == 4 or not MADE_BY_ANOTHER.search(str(error)):
                raise SettingsError(
                    f"storage={shown}: can't be opened ({without_password(first_line(error), url)})"
                ) from None
            time.sleep(0.5)
        except RuntimeError as error:  # tables of another version of Optuna
            raise SettingsError(f"storage={shown}: {without_password(first_line(error), url)}") from None
    if is_sqlite:
        _lock_whole_transactions(found.engine)
    return found


def _lock_whole_transactions(engine: Any) -> None:
    """Let each transaction lock a SQLite file from its start on, as `SELECT ... FOR UPDATE` does in other databases.

    Without it two processes can both read that a trial waits, and both run it. The recipe is SQLAlchemy's
    ("Serializable isolation / Savepoints / Transactional DDL" in its documentation of SQLite).
    """
    from sqlalchemy import event

    def leave_it_to_us(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", leave_it_to_us)
    event.listen(engine, "begin", begin)
    engine.dispose()  # connections that were opened before


@contextmanager
def storage_failures(storage: str | None) -> Iterator[None]:
    """Turn what a database raises within a `with` block into one sentence without the password.

    Raises:
        TrainingError: naming the storage.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        text, shown = first_line(cause), "study.db in the run folder"
        if storage is not None:
            text, shown = without_password(text, storage), mask_storage(storage)
        raise TrainingError(
            f"the storage of the study failed ({shown}: {text}); the same command resumes the study"
        ) from None


@contextmanager
def no_experimental_warnings() -> Iterator[None]:
    """Leave out, for the length of a `with` block, that parts of Optuna may change in later versions."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
