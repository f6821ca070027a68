"""Opening storages: together, and not what is somebody else's."""

import multiprocessing
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Ended
from optuna.study import StudyDirection
from scenes import GRID, ended, wait_for

from hpo.storage.open import log_note, open_storage, written_back
from hpo.storage.retry import StorageLost, retrying


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


def test_after_a_run_the_file_alone_holds_the_study(
    ended_search: Ended, forked_hpo: Callable, tmp_path: Path
):
    shutil.copy(ended_search.folder / "hpo.db", tmp_path)
    shown = forked_hpo("show", "tiny")
    assert (shown.code, shown.err) == (0, "")
    assert "8/8" in shown.out
    assert "The winner is" in shown.out


def test_a_log_that_somebody_reads_is_written_back_later_and_said(tmp_path: Path):
    url, said = f"sqlite:///{tmp_path / 'hpo.db'}", []
    storage = open_storage(url)
    with closing(sqlite3.connect(tmp_path / "hpo.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM studies").fetchall()
        storage.create_new_study([StudyDirection.MAXIMIZE], "study")
        with written_back(url, said.append):
            pass
    assert len(said) == 1
    assert "copy hpo.db together with it" in said[0]
    assert log_note(url)
    with written_back(url, said.append):
        pass
    assert len(said) == 1
    assert log_note(url) == []
    copied = shutil.copy(tmp_path / "hpo.db", tmp_path / "copy.db")
    assert [s.study_name for s in open_storage(f"sqlite:///{copied}").get_all_studies()] == [
        "study"
    ]


@pytest.mark.parametrize("url", ["sqlite:///{}/hpo.db", "journal:///{}/hpo.log"])
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_file_that_went_away_is_a_lost_storage(tmp_path: Path, url: str, how: str):
    url = url.format(tmp_path)
    storage = retrying(open_storage(url), url, print)
    study = storage.create_new_study([StudyDirection.MAXIMIZE], "study")
    file = Path(url.partition(":///")[2])
    file.rename(tmp_path / "elsewhere")
    if how == "replaced":
        shutil.copy(tmp_path / "elsewhere", file)
    with pytest.raises(StorageLost, match="its file was deleted, moved or replaced"):
        storage.set_study_user_attr(study, "key", 1)
    (tmp_path / "elsewhere").rename(file)
    storage.set_study_user_attr(study, "key", 2)


def test_a_database_in_the_place_of_a_moved_one_stays_whole_and_so_does_that(
    stage: Callable, tmp_path: Path
):
    other = tmp_path / "other.db"
    with written_back(f"sqlite:///{other}", print):
        open_storage(f"sqlite:///{other}").create_new_study([StudyDirection.MAXIMIZE], "precious")
    before = other.read_bytes()
    scene = stage(GRID.replace("seeds = 6", "seeds = 60"))
    process = scene.start("--quiet")
    wait_for(scene.finished)
    (tmp_path / "hpo.db").rename(tmp_path / "moved.db")
    other.rename(tmp_path / "hpo.db")
    output = ended(process, 30)
    assert process.returncode == 2, output
    assert (tmp_path / "hpo.db").read_bytes() == before
    opened = open_storage(f"sqlite:///{tmp_path}/hpo.db", create=False)
    assert [study.study_name for study in opened.get_all_studies()] == ["precious"]
    moved = open_storage(f"sqlite:///{tmp_path}/moved.db", create=False)
    [study] = moved.get_all_studies()
    assert any(t.state.is_finished() for t in moved.get_all_trials(study._study_id))


def test_a_run_whose_database_is_deleted_ends_with_a_line(stage: Callable, tmp_path: Path):
    scene = stage(GRID.replace("seeds = 6", "seeds = 60"))
    process = scene.start("--quiet")
    wait_for(scene.finished)
    for file in tmp_path.glob("hpo.db*"):
        file.unlink() if file.is_file() else None
    output = ended(process, 30)
    assert process.returncode == 2, output
    assert "sqlite:///hpo.db: its file was deleted" in output.splitlines()[-1]
    assert not list(tmp_path.glob("hpo.db*")), "and no empty file in its place"
