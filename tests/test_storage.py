"""Opening storages: together, and not what is somebody else's."""

import multiprocessing
from pathlib import Path

from hpo.storage.open import open_storage


def _open(url: str, barrier) -> None:
    barrier.wait(30)
    open_storage(url)


def test_processes_that_make_one_storage_at_the_same_moment_all_get_it(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    url = f"sqlite:///{tmp_path / 'hpo.db'}"
    processes = [context.Process(target=_open, args=(url, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4


def test_sqlite_is_read_while_it_is_written(tmp_path: Path):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    with storage.engine.connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    assert mode == "wal"
