"""Opens the Optuna storage of a URL. SQLite is set up to be read while it is written."""

import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from hpo.errors import InputError
from hpo.passwords import remove_passwords, without_password
from hpo.storage import journal
from hpo.text import error_text

JOURNAL = "journal"
LOCK_SECONDS = 30  # another process may write for so long, as while it creates the tables
MAKING_ATTEMPTS = 4  # 0.3 s apart: long enough for another process to create the tables
READERS_SECONDS = 3.0  # that the log waits for those who read an older state
OPTUNA_TABLES = {"studies", "trials", "version_info"}


class NothingStored(InputError):  # noqa: N818
    """There is no storage yet, or no study in it; the URL is right."""


class StorageLost(InputError):  # noqa: N818
    """The storage did not come back, or the study was deleted; nothing more can be stored."""


class StorageGone(StorageLost):
    """The storage's file was deleted, moved or replaced; SQLite would not notice."""


def absolute(url: str) -> str:
    """Returns the URL with the absolute path of its file."""
    file = file_of(url)
    return f"{make_url(url).get_backend_name()}:///{file}" if file else url


def check_storage(url: str, *, create: bool = True) -> None:
    """Raises what open_storage raises, as far as that is known without creating anything."""
    with _explained(url):
        parsed = make_url(url)
        file = _file(parsed)
        if parsed.get_backend_name() == JOURNAL and file is None:
            raise InputError(f"{_named(url)}: names no file; write {JOURNAL}:///hpo.log")
        if file is None or file.exists():
            if create and file and not _writable(file):
                raise InputError(
                    f"{_named(url)}: cannot be written (the file or its folder is "
                    "read-only); give another --storage"
                )
            if parsed.get_backend_name() != JOURNAL:
                _check_tables(url, create)
        elif not create:
            raise NothingStored(f"{_named(url)}: there is no such file; `hpo run` makes it")
        elif not file.parent.is_dir():
            raise InputError(f"{_named(url)}: there is no folder {file.parent}; make it")


def open_storage(url: str, *, create: bool = True) -> BaseStorage:
    """Opens the storage of an SQLAlchemy URL or of a journal file (journal:///hpo.log).

    create: creates it if it does not exist. Raises InputError for a wrong URL, a database that
    cannot be reached, one that cannot be written to (with create), and one that is not Optuna's;
    NothingStored if it does not exist and create is False.
    """
    check_storage(url, create=create)
    with _explained(url):
        parsed = make_url(url)
        file = _file(parsed)
        if parsed.get_backend_name() == JOURNAL:
            assert file is not None
            return journal.open_file(file, create=create)
        storage = _make(url, _engine_arguments(parsed, create))
        if create and file:
            with storage.engine.connect() as connection:  # waits for another one that writes
                connection.exec_driver_sql("PRAGMA journal_mode = wal")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            sqlalchemy.event.listen(storage.engine, "connect", _set_up_sqlite)
            storage.engine.dispose()
    return storage


def _make(url: str, engine_arguments: dict[str, Any]) -> RDBStorage:
    """Opens Optuna's storage; tries again if another process, such as a dashboard, creates the same
    tables at the same moment."""
    for _ in range(MAKING_ATTEMPTS - 1):
        with suppress(IntegrityError, OperationalError, ProgrammingError):
            return RDBStorage(url, engine_kwargs=engine_arguments)
        time.sleep(0.3)
    return RDBStorage(url, engine_kwargs=engine_arguments)


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turns errors of a storage into InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sqlalchemy.exc.SAWarning)
            yield
    except InputError:
        raise
    except (ArgumentError, ValueError) as error:
        raise InputError(
            f"{_named(url)}: is no storage URL; write one such as sqlite:///hpo.db"
        ) from error
    except ImportError as error:
        raise InputError(
            f"{_named(url)}: its database driver is not installed ({error}); install it"
        ) from error
    except (SQLAlchemyError, OptunaError, RuntimeError, OSError) as error:
        reason = remove_passwords(reason_of(error), url)
        raise InputError(
            f"{_named(url)}: cannot be opened ({reason}); give another --storage"
        ) from error


def _named(url: str) -> str:
    return f"storage {without_password(url)}"


def reason_of(error: BaseException) -> str:
    """Returns the text of the innermost cause; SQLAlchemy's own has many lines."""
    while cause := getattr(error, "orig", None) or error.__cause__:
        error = cause
    return remove_passwords(error_text(error))


def file_of(url: str) -> Path | None:
    """Returns the absolute path of an SQLite or journal file; None for other storages, and for
    what is no URL."""
    with suppress(ArgumentError):
        file = _file(make_url(url))
        return file and file.absolute()
    return None


def _file(url: sqlalchemy.URL) -> Path | None:
    """Returns the file of an SQLite or journal URL; None for other databases and for memory."""
    if url.get_backend_name() not in ("sqlite", JOURNAL) or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def _engine_arguments(url: sqlalchemy.URL, create: bool = True) -> dict[str, Any]:
    if url.get_backend_name() != "sqlite":
        return {"pool_pre_ping": True}  # a server may have closed a connection meanwhile
    file = _file(url)
    if file and not create:
        return {"creator": partial(_connect_existing, file.absolute(), LOCK_SECONDS)}
    return {"connect_args": {"timeout": LOCK_SECONDS}}


def _connect_existing(file: Path, wait: float) -> sqlite3.Connection:
    """Opens an existing file only, because SQLite would create it. A file that cannot be written is
    opened as immutable, without the files of a write-ahead log. wait: seconds for a lock."""
    mode = "mode=rw" if _writable(file) else "mode=ro&immutable=1"
    return sqlite3.connect(
        f"{file.as_uri()}?{mode}", uri=True, timeout=wait, check_same_thread=False
    )


def _writable(file: Path) -> bool:
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)


def _check_tables(url: str, create: bool) -> None:
    engine = sqlalchemy.create_engine(url, **_engine_arguments(make_url(url), create))
    try:
        tables = set(sqlalchemy.inspect(engine).get_table_names())
    finally:
        engine.dispose()
    # A kill while the tables are created leaves a part of them, which Optuna completes.
    all_of_optuna = {*models.BaseModel.metadata.tables, "alembic_version"}
    if not (tables >= OPTUNA_TABLES or tables <= all_of_optuna):
        raise InputError(
            f"{_named(url)}: is a database of something else, without Optuna's tables; "
            "give --storage another one"
        )
    if not tables and not create:
        raise NothingStored(f"{_named(url)}: holds no studies yet; `hpo run` makes them")


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    """With the write-ahead log, readers and the one writer do not block each other, and synchronous
    = normal survives a crash of the program (https://sqlite.org/wal.html). A longer wait happens in
    RetryingStorage, which hears Ctrl-C."""
    connection.execute("PRAGMA synchronous = normal")
    connection.execute("PRAGMA busy_timeout = 1000")


# --- SQLite's log ------------------------------------------------------------------------------


@contextmanager
def written_back(url: str, say: Callable[[str], None]) -> Iterator[None]:
    """Writes SQLite's log into the database file at the end of the block, so that this file alone
    holds all studies. say: told if somebody who still reads the file prevents it."""
    gone = False
    try:
        yield
    except StorageGone:
        gone = True  # another file may have its path, which the log would destroy
        raise
    finally:
        file = file_of(url)
        if not gone and log_note(url) and file and _writable(file) and not _write_back(file):
            say(f"{_named(url)}: is still read by another program; {log_note(url)[0]}")


def database_of(storage: BaseStorage) -> RDBStorage | None:
    """Returns the database behind a RetryingStorage and Optuna's cache; None for a journal file and
    for memory."""
    for wrapped in ("backend", "_backend"):
        storage = getattr(storage, wrapped, storage)
    return storage if isinstance(storage, RDBStorage) else None


def write_back_moved(storage: BaseStorage) -> None:
    """Writes SQLite's log into a file that was moved, through the connection that is open to it.
    The log keeps its path and would otherwise be taken for that of a file that replaced it."""
    database = database_of(storage)
    if database is None or database.engine.dialect.name != "sqlite":
        return
    with suppress(SQLAlchemyError, AttributeError):
        if database.engine.pool.checkedin():  # type: ignore[attr-defined]  # a new one would open the path
            with database.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _write_back(file: Path) -> bool:
    """Whether all of the log is in the file now."""
    with suppress(sqlite3.Error), closing(_connect_existing(file, READERS_SECONDS)) as connection:
        _, pages, written = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return bool(pages == written)
    return False


def log_note(url: str) -> list[str]:
    """Returns a line if some of the studies' newest data lie in SQLite's log, as during a run."""
    file = file_of(url)
    log = Path(f"{file}-wal")
    if not (file and file.exists() and log.exists() and log.stat().st_size):
        return []
    copied = f"copy {file.name} together with it, or after a run"
    return [f"the newest trials lie in {log.name}: {copied}"]


def artifacts_folder(url: str) -> Path:
    """Returns the folder of a storage's artifacts: hpo.artifacts beside hpo.db, or in the current
    folder."""
    file = _file(make_url(url))
    return file.with_suffix(".artifacts") if file else Path("hpo.artifacts")


def require_studies(storage: BaseStorage, url: str) -> None:
    """Raises NothingStored if the storage has no study."""
    if not storage.get_all_studies():
        raise NothingStored(f"{_named(url)}: holds no studies yet; `hpo run` makes them")


def quiet() -> None:
    """Silences Optuna's log lines, which would run through the progress display."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
