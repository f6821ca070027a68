"""What a stored study is bound to: the code of one's own network, class names, shape, scale, and
columns; and that studies of earlier versions go on."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Answer, Ended
from in_process import opened, prepared
from own_runs import MODULES, own_study, pets, pets_run
from tiny import tiny_dataset

from hpo.errors import InputError
from hpo.runs import runner
from hpo.runs.plan import Watcher
from hpo.study import file as study_file
from hpo.study.binding import code_of


@pytest.fixture
def stored(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A whole search over a network of one's own in three modules, on arrays with class names."""
    ended = pets_run(tmp_path_factory)
    assert ended.answer.code == 0, ended.answer.err
    return ended


@pytest.fixture
def copy(stored: Ended, tmp_path: Path) -> Path:
    shutil.copytree(stored.folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


def refusal(answer: Answer) -> str:
    """What is said of a study that is stored with something else: lines that name both remedies."""
    assert answer.code == 2, (answer.out, answer.err)
    assert "'pets'" in answer.err
    assert "--name" in answer.err
    assert "--fresh" in answer.err
    return answer.err


# --- the code of one's own network -------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_a_study_does_not_go_on_with_other_code(forked_hpo: Callable, copy: Path, name: str):
    """Of the network's module, of one that it imports, and of one that this one imports."""
    text = MODULES[name].replace("from torch import nn", "from torch import nn\n\nSCALE = 2")
    (copy / name).write_text(text)
    line = refusal(forked_hpo("run", "pets.toml"))
    assert "petnet" in line or name.removesuffix(".py") in line


def test_the_code_is_kept_beside_the_winner_and_in_the_provenance(stored: Ended):
    report = stored.folder / "reports/pets"
    kept = {path.read_bytes() for path in (report / "best").rglob("*.py")}
    assert kept == {text.encode() for text in MODULES.values()}
    assert "marmalade" in (report / "provenance.json").read_text("utf-8")


def test_other_code_is_another_model_for_like(forked_hpo: Callable, copy: Path):
    (copy / "other.toml").write_text(own_study("petnet:other"))
    answer = forked_hpo("run", "other.toml", "--like", "pets")
    assert answer.code == 2, answer.out
    [line] = answer.err.splitlines()
    assert "--like" in line
    assert "petnet:build" in line


# --- the data ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"class_names": np.array(["dog", "cat"])}, "dog"),
        ({"x": pets()["x"].reshape(60, 2, 8)}, "8"),
        ({"x": pets()["x"].reshape(60, 16)}, "16"),
        ({"x": pets()["x"].view(np.int8)}, ""),
    ],
    ids=["class names swapped", "another shape", "rows in place of pictures", "no bytes"],
)
def test_a_study_does_not_go_on_with_the_same_bytes_that_mean_something_else(
    forked_hpo: Callable, copy: Path, changes: Mapping[str, Any], said: str
):
    np.savez(copy / "pets.npz", **{**pets(), **changes})
    assert said in refusal(forked_hpo("run", "pets.toml"))


# --- studies of earlier versions ---------------------------------------------------------------

EARLIER = ("dataset", "dataset checksum", "split", "sampler", "pruner", "model", "search")


def bindings(folder: Path) -> dict[int, dict[str, Any]]:
    """What the search and its finalists are bound to, by their numbers in the database."""
    with closing(sqlite3.connect(folder / "hpo.db")) as connection:
        rows = connection.execute(
            "SELECT study_id, value_json FROM study_user_attributes WHERE key = 'binding'"
        )
        return {number: json.loads(text) for number, text in rows}


def test_a_key_that_a_stored_study_lacks_is_added_and_is_no_difference(hpo: Callable, copy: Path):
    """As if an earlier version had stored it. A file beside that is not imported may change."""
    whole = bindings(copy)
    with closing(sqlite3.connect(copy / "hpo.db")) as connection, connection:
        for number, bound in whole.items():
            kept = {k: v for k, v in bound.items() if k in EARLIER or k.startswith("space.")}
            assert len(kept) < len(bound), "code, classes and shape are bound"
            connection.execute(
                "UPDATE study_user_attributes SET value_json = ? "
                "WHERE key = 'binding' AND study_id = ?",
                (json.dumps(kept), number),
            )
    (copy / "unrelated.py").write_text("print('not imported')\n")
    (copy / "petnet.py").touch()
    answer = hpo("run", "pets.toml", "--quiet")
    assert answer.code == 0, answer.err
    assert len(pd.read_csv(copy / "reports/pets/trials.csv")) == 2
    search = min(whole)
    assert bindings(copy)[search] == whole[search]
    np.savez(copy / "pets.npz", **{**pets(), "class_names": np.array(["dog", "cat"])})
    assert "dog" in refusal(hpo("run", "pets.toml"))


def test_modules_that_are_named_in_a_text_or_relative_belong_to_the_code(tmp_path: Path):
    (tmp_path / "net.py").write_text("import importlib\nfrom parts import a\n")
    (tmp_path / "later.py").write_text("")
    (tmp_path / "other.py").write_text("")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/__init__.py").write_text(
        'import importlib\nimportlib.import_module("later")\n'
    )
    (tmp_path / "parts/a.py").write_text("from . import b\n")
    (tmp_path / "parts/b.py").write_text("")
    found = code_of("net:build", str(tmp_path))
    assert list(found) == ["later.py", "net.py", "parts/__init__.py", "parts/a.py", "parts/b.py"]


NETWORK = """
from torch import nn


def build(shape, classes, units):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0], units), nn.Linear(units, classes))
"""
SEARCH = """
model = "changing:build"
[search]
n_trials = 1
[finalists]
k = 1
seeds = 1
[space]
units = 4
optimizer = "adam"
lr = { low = 1e-3, high = 1e-2, log = true }
epochs = 1
"""


class Editor(Watcher):
    """Changes the network's module as soon as the study is open, as a user might."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_open(self, study: object) -> None:
        self.path.write_text(NETWORK + "# changed\n")


def test_finalists_are_not_trained_with_code_that_changed_since_the_run_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "changing.py").write_text(NETWORK)
    (tmp_path / "mine.toml").write_text(SEARCH)
    file, watchers = (
        study_file.load(str(tmp_path / "mine.toml")),
        [Editor(tmp_path / "changing.py")],
    )
    storage, dataset = opened(tmp_path), tiny_dataset()
    run = prepared(file, storage, dataset, workers=1, out=tmp_path, watchers=watchers)
    with pytest.raises(InputError, match="its code changed while the study ran"):
        runner.run_search(run)
    assert not run.winner_folder.exists()
