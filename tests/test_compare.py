"""Two stored studies beside each other."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from rich.console import Console
from test_report import store

from hpo.analysis.compare import compare
from hpo.analysis.hypothesis_tests import Verdict
from hpo.errors import InputError
from hpo.results.load import load_study
from hpo.results.study import StoredGrid, StoredSearch
from hpo.storage.open import open_storage
from hpo.watch.terminal import comparison

CELLS = """
dataset = "mnist"
[base]
depth = 2
width = 32
activation = "relu"
optimizer = "sgd"
lr = 0.1
[[cells]]
name = "{}"
[[cells]]
name = "{}"
lr = 0.01
"""


def two(
    folder: Path, names=("plain", "slow"), others=("plain", "slow"), seeds=(8, 8)
) -> list[StoredGrid]:
    """Two stored grids of two cells."""
    found = []
    for name, cells, n in zip(("one", "two"), (names, others), seeds, strict=True):
        (folder / f"{name}.toml").write_text(CELLS.format(*cells))
        (folder / name).mkdir()
        found.append(store(folder / name, seeds=n, file=str(folder / f"{name}.toml"), name=name))
    return found


def moved(study: StoredGrid, cell: str, by: float, seed: int | None = None):
    """The study with other accuracies in a cell, of all seeds or of one."""
    frame = study.trials.copy()
    rows = frame["cell"] == cell
    if seed is not None:
        rows &= frame["seed"] == seed
    frame.loc[rows, ["valid_accuracy", "test_accuracy"]] += by
    return dataclasses.replace(study, trials=frame)


def reseeded(study: StoredGrid) -> StoredGrid:
    frame = study.trials.copy()
    frame["seed"] += 100
    return dataclasses.replace(study, trials=frame)


def said(first, second) -> str:
    console = Console(width=200, highlight=False, file=io.StringIO())
    for part in comparison(first, second):
        console.print(part, soft_wrap=isinstance(part, str))
    return console.file.getvalue()


def test_cells_of_one_name_are_compared_in_pairs_of_seeds(tmp_path):
    one, other = two(tmp_path)
    better = moved(one, "plain", 0.01)
    for seed in range(8):
        better = moved(better, "plain", 1e-4 * seed, seed)
    plain, slow = compare(better, other)
    assert plain.evidence.test == "paired t"
    assert plain.evidence.n == 8
    assert plain.evidence.effect == pytest.approx(1.035)
    assert (plain.verdict, slow.verdict) == (Verdict.HOLDS, Verdict.UNRESOLVED)
    assert compare(other, better)[0].verdict is Verdict.REFUTED
    assert "one is better" in said(better, other)
    assert "one is better" in said(other, better)


def test_without_seeds_in_common_runs_are_not_paired(tmp_path):
    one, other = two(tmp_path)
    row = compare(moved(one, "plain", 0.01), reseeded(other))[0]
    assert (row.evidence.test, row.evidence.n) == ("two-sample t", 16)
    assert row.verdict is Verdict.HOLDS


def test_runs_that_fail_to_learn_are_compared_by_permutations(tmp_path):
    one, other = two(tmp_path)
    failing = moved(one, "plain", -0.85, 3)
    assert compare(failing, moved(other, "plain", 1e-3, 1))[0].evidence.test == "sign flips"
    row = compare(failing, reseeded(other))[0]
    assert row.evidence.test == "permutation"
    assert np.isnan(row.evidence.low)
    assert "median" in said(failing, other)


def test_other_names_are_matched_by_their_configurations(tmp_path):
    rows = compare(*two(tmp_path, others=("a", "b")))
    assert [(r.name, r.sides[1].cell.name) for r in rows] == [("plain", "a"), ("slow", "b")]


def test_a_cell_of_one_name_that_is_another_network_is_said_to_be(tmp_path):
    assert "plain: lr 0.1 and 0.01." in said(*two(tmp_path, others=("slow", "plain")))


@pytest.mark.parametrize("seeds", [(8, 0), (1, 1)])
def test_no_runs_or_one_decide_nothing(tmp_path, seeds):
    one, other = two(tmp_path, seeds=seeds)
    assert all(row.verdict is Verdict.UNRESOLVED for row in compare(one, other))
    assert ("no runs" if not seeds[1] else "none, n = 2") in said(one, other)


def test_what_cannot_be_compared_is_a_line(tmp_path, ended_search):
    one, other = two(tmp_path)
    with pytest.raises(InputError, match="needs another one"):
        compare(one, one)
    elsewhere = dataclasses.replace(other, data={**other.data, "checksum": "1", "name": "kmnist"})
    with pytest.raises(InputError, match="'two' on KMNIST: their results are of different"):
        compare(one, elsewhere)
    cell = dataclasses.replace(other.file.cells[0], name="c")
    cell = dataclasses.replace(cell, config=dataclasses.replace(cell.config, width=7))
    alien = dataclasses.replace(other, file=other.file.model_copy(update={"cells": (cell,)}))
    with pytest.raises(InputError, match="no cell of one name or one configuration"):
        compare(one, alien)
    search = stored_search(ended_search)
    alike = dataclasses.replace(one, data=search.data)
    with pytest.raises(InputError, match="a grid and a search have nothing"):
        compare(alike, search)


def stored_search(ended_search) -> StoredSearch:
    storage = open_storage(f"sqlite:///{ended_search.folder}/hpo.db")
    found = load_study(storage, "tiny")
    assert isinstance(found, StoredSearch)
    return found


def test_searches_are_compared_by_their_winners(ended_search):
    search = stored_search(ended_search)
    again = dataclasses.replace(search, name="again")
    [row] = compare(search, again)
    assert row.name == "the winner"
    assert (row.evidence, row.verdict) == (None, Verdict.UNRESOLVED)
    text = said(search, again)
    assert "better" not in text
    assert "not tested" in text
    assert f"tiny: {len(search.ended)} trials, 1 winner." in text
    assert "only if both ran with --repeats, by" in text
    runs = search.winner.runs
    for metric in ("valid_accuracy", "test_accuracy"):
        low, high = scipy.stats.t.interval(
            0.95, len(runs) - 1, 100 * runs[metric].mean(), 100 * scipy.stats.sem(runs[metric])
        )
        assert f"({max(low, 0):.2f} to {min(high, 100):.2f})" in text
    with pytest.raises(InputError, match="has no winner yet"):
        compare(search, dataclasses.replace(again, tested=None))


def repeated(search: StoredSearch, name: str, by: list[float]) -> StoredSearch:
    """The search with repeats whose winners' validation accuracies are higher by so much."""
    repeats = []
    for i, more in enumerate(by):
        trials = search.tested.trials.assign(
            valid_accuracy=search.tested.trials["valid_accuracy"] + more
        )
        tested = dataclasses.replace(search.tested, trials=trials)
        repeats.append(dataclasses.replace(search, name=f"{name}.{i}", tested=tested))
    return dataclasses.replace(repeats[0], name=name, repeats=tuple(repeats[1:]))


def test_repeated_searches_are_tested_over_their_winners(ended_search):
    search = stored_search(ended_search)
    one, other = (
        repeated(search, "one", [0.10, 0.11, 0.12]), repeated(search, "other", [0.0, 0.01, 0.03])
    )  # fmt: skip
    [row] = compare(one, other)
    theirs = scipy.stats.ttest_ind([10, 11, 12], [0, 1, 3])
    assert (row.evidence.test, row.evidence.n) == ("two-sample t", 6)
    assert row.p == pytest.approx(theirs.pvalue)
    assert row.verdict is Verdict.HOLDS
    assert "one is better" in said(one, other)
    assert "3 winners" in said(one, other)
    assert compare(one, search)[0].evidence is None, "one side was not repeated"
    alike = dataclasses.replace(one.repeats[0], repeats=(one, one.repeats[1]))
    assert compare(one, alike)[0].evidence is None, "each is a repeat of the other"


def test_validation_decides_whatever_the_test_says(tmp_path):
    one, other = two(tmp_path)
    frame = one.trials.assign(test_accuracy=one.trials["test_accuracy"] - 0.3)
    worse = dataclasses.replace(one, trials=frame)
    better = moved(worse, "plain", 0.01)
    for seed in range(8):
        better = moved(better, "plain", 1e-4 * seed, seed)
    assert compare(better, other)[0].verdict is Verdict.HOLDS


def test_the_command_prints_a_table_or_a_line(forked_hpo, tmp_path):
    (tmp_path / "g").mkdir()
    for name in ("one", "two"):
        (tmp_path / "g" / f"{name}.toml").write_text(CELLS.format("plain", "slow"))
        store(tmp_path, seeds=3, file=str(tmp_path / "g" / f"{name}.toml"), name=name)
    answer = forked_hpo("compare", "one", "two")
    assert answer.code == 0, answer.err
    assert "plain" in answer.out
    assert "unresolved" in answer.out
    answer = forked_hpo("compare", "one", "three")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "'three': is not in the storage; there are: one, two" in answer.err
