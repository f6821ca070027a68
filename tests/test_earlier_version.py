"""A database of hpo before it had packages is shown, reported and resumed.

tests/earlier_version/ holds a grid of 2 cells with 2 seeds and a search of 8 trials (mnist-5k), as
that version stored them in SQLite and wrote their curves.csv.
"""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from hpo.results.load import load_study
from hpo.results.study import StoredGrid
from hpo.storage.open import open_storage

STORED = Path(__file__).parent / "earlier_version"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the study files and the database, in which a kill left trial 1 of the grid
    RUNNING."""
    for name in ("grid.toml", "search.toml"):
        shutil.copy(STORED / name, tmp_path)
    with closing(sqlite3.connect(tmp_path / "hpo.db")) as connection:
        connection.executescript((STORED / "hpo.sql").read_text("utf-8"))
    return tmp_path


def curves(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"reports/{name}/curves.csv")


@pytest.mark.parametrize("name", ["grid", "search"])
def test_it_is_shown_and_reported_as_it_was(forked_hpo, folder, name):
    shown = forked_hpo("show", name)
    assert shown.code == 0, shown.err
    assert "best" in shown.out
    assert {"grid": "4/4", "search": "8/8"}[name] in shown.out
    assert forked_hpo("report", name).code == 0
    written = folder / f"reports/{name}/curves.csv"
    assert written.read_bytes() == (STORED / f"{name}.csv").read_bytes()


def test_a_grid_goes_on_and_trains_what_a_kill_left(hpo, folder):
    with closing(sqlite3.connect(folder / "hpo.db")) as connection, connection:
        connection.execute(
            "UPDATE trials SET state = 'RUNNING', datetime_complete = NULL WHERE study_id = "
            "(SELECT study_id FROM studies WHERE study_name = 'grid') AND number = 1"
        )
    answer = hpo("run", "grid.toml", "--seeds", "3", "--quiet")
    assert answer.code == 0, answer.err
    stored = load_study(open_storage(f"sqlite:///{folder / 'hpo.db'}"), "grid")
    assert isinstance(stored, StoredGrid)
    assert stored.planned_seeds is None, "nobody knows what was planned before the first trial"
    trials = pd.read_csv(folder / "reports/grid/trials.csv")
    assert trials["state"].value_counts().to_dict() == {"COMPLETE": 6, "FAIL": 1}
    assert trials["fail_reason"].dropna().to_list() == ["interrupted: its run was killed"]
    key, before = ["cell", "seed", "epoch"], pd.read_csv(STORED / "grid.csv")
    after = curves(folder, "grid").set_index(key).drop(columns="number").sort_index()
    before = before.set_index(key).drop(columns="number").sort_index()
    pd.testing.assert_frame_equal(after.loc[before.index], before)  # the seed trained again, too


def test_a_search_goes_on_with_its_finalists(hpo, folder):
    answer = hpo("run", "search.toml", "--trials", "9", "--quiet")
    assert answer.code == 0, answer.err
    stored = curves(folder, "search")
    assert stored["number"].nunique() == 9
    pd.testing.assert_frame_equal(stored[stored["number"] < 8], pd.read_csv(STORED / "search.csv"))
    assert "The winner is" in answer.out
