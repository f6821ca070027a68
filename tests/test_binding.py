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
from own_runs import MODULES, own_study, pets, pets_run

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
