"""Opens the Optuna storage of a URL, with SQLite set up to be read while it is written."""

import warnings
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from hpo.errors import InputError

LOCK_SECONDS = 30


def shown(url: str) -> str:
    """The URL without its password, for people and logs."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "the storage"


def open_storage(url: str, *, create: bool = True) -> RDBStorage:
    """The storage of an SQLAlchemy URL, made where it is not there yet (unless create is False).

    Raises InputError for a URL that is none, a database that cannot be reached, and one that holds
    other things than Optuna's.
    """
    try:
        parsed = make_url(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        if sqlite and not create:
            _require_file(url, parsed.database)
        arguments: dict[str, Any] = {"timeout": LOCK_SECONDS} if sqlite else {}
        engine_kwargs = {"connect_args": arguments}
        _require_optuna(url, parsed, engine_kwargs, create)
        storage = RDBStorage(url, engine_kwargs=engine_kwargs)
    except (ArgumentError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"storage {shown(url)}: is no storage URL; write one such as sqlite:///hpo.db"
        ) from error
    except (SQLAlchemyError, ImportError, RuntimeError) as error:
        raise InputError(f"storage {shown(url)}: cannot be opened: {_reason(error)}") from error
    if sqlite:
        sqlalchemy.event.listen(storage.engine, "connect", _set_up_sqlite)
        storage.engine.dispose()
    return storage


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause: SQLAlchemy's own text runs over many."""
    cause = getattr(error, "orig", None) or error.__cause__ or error
    return str(cause).strip().split("\n")[0]


def _require_file(url: str, database: str | None) -> None:
    from pathlib import Path

    if database and not Path(database).is_file():
        raise InputError(f"storage {shown(url)}: there is no such file; `hpo run` makes it")


def _require_optuna(
    url: str, parsed: sqlalchemy.URL, engine_kwargs: dict[str, Any], create: bool
) -> None:
    engine = sqlalchemy.create_engine(parsed, **engine_kwargs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sqlalchemy.exc.SAWarning)
            tables = sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()
    if tables and "studies" not in tables:
        raise InputError(
            f"storage {shown(url)}: is a database of something else, without Optuna's tables; "
            "give --storage another one"
        )
    if not tables and not create:
        raise InputError(f"storage {shown(url)}: holds no studies yet; `hpo run` makes them")


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    """Write-ahead log: readers (the dashboard) and the one writer no longer block each other. With
    it, synchronous = normal survives a crash of the program (https://sqlite.org/wal.html)."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = wal")
    cursor.execute("PRAGMA synchronous = normal")
    cursor.close()


def quiet() -> None:
    """Optuna's own log lines would run through the progress display."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
