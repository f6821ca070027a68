"""Attributes of a stored study that something else has changed: a line that names study and
attribute, never an error of Python's."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hpo.errors import InputError
from hpo.results.load import load_study
from hpo.results.study import StoredSearch
from hpo.storage.open import open_storage
from hpo.study.columns import INTERNAL

DEEP = "[" * 3000 + "]" * 3000
OTHERS = (None, "x", 5, 1.5, True, ["x"], {"x": 1}, "DEEP")
OF_STUDY = (
    "study_file", "data", "binding", "sessions", "n_trials", "sampler_seed", "gave_up", "settled",
    "token", "seeds",
)  # fmt: skip
OF_TRIAL = ("curve", "diverged", "train_seconds", "cell", "seed", "mistakes", "test_loss", "stack")
# Values that are sound, by attribute; None is one where a run has nothing to say.
SOUND = {
    "n_trials": (5,), "sampler_seed": (5,), "seeds": (5,), "gave_up": (True,), "token": ("x",),
    "settled": (True,), "diverged": (True,), "train_seconds": (5, 1.5), "cell": ("x",),
    "seed": (5,), "test_loss": (None, 5, 1.5), "stack": (5,),
}  # fmt: skip


@pytest.fixture(scope="module")
def database(ended_search) -> bytes:
    with closing(sqlite3.connect(ended_search.folder / "hpo.db")) as connection:
        return connection.serialize()


def of_trial(key: str) -> str:
    return f"trial_{'system' if key in INTERNAL else 'user'}_attributes"


def loaded(folder: Path, database: bytes, table: str, key: str, text: str | None) -> Any:
    """What is read of the search after one attribute, of each study or trial that has it, was
    changed; None deletes it."""
    (folder / "hpo.db").write_bytes(database)
    with closing(sqlite3.connect(folder / "hpo.db")) as connection, connection:
        if text is None:
            connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,))
        else:
            connection.execute(f"UPDATE {table} SET value_json = ? WHERE key = ?", (text, key))
    storage = open_storage(f"sqlite:///{folder}/hpo.db", create=False)
    try:
        return load_study(storage, "tiny")
    finally:
        storage.engine.dispose()


@pytest.mark.parametrize("key", [*OF_STUDY, *OF_TRIAL])
def test_another_kind_of_value_is_a_line_that_names_study_and_attribute(tmp_path, database, key):
    table = of_trial(key) if key in OF_TRIAL else "study_user_attributes"
    for value in OTHERS:
        text = json.dumps(value).replace('"DEEP"', DEEP)
        if value in SOUND.get(key, ()) and type(value) in map(type, SOUND[key]):
            continue
        with pytest.raises(InputError) as refused:
            loaded(tmp_path, database, table, key, text)
        [line] = str(refused.value).splitlines()
        assert line.startswith(("study 'tiny'", "study 'tiny.finalists'", "stored study tiny"))
        assert key in line or key == "study_file"
        assert ("trial " in line) == (key in OF_TRIAL)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("curve", lambda v: {**v, "valid_loss": v["valid_loss"][:-1]}),
        ("curve", lambda v: {k: [] for k in v}),
        ("curve", lambda v: {k: w for k, w in v.items() if k != "valid_loss"}),
        ("mistakes", lambda v: {**v, "confusion": v["confusion"][1:]}),
        ("mistakes", lambda v: {**v, "worst": [{**v["worst"][0], "label": 99}]}),
        ("mistakes", lambda v: {**v, "worst": [{**v["worst"][0], "pixels": "~"}]}),
        ("cell", lambda v: "../../outside"),
    ],
)
def test_a_value_of_the_wrong_length_or_place_is_named(tmp_path, database, key, change):
    (tmp_path / "hpo.db").write_bytes(database)
    with closing(sqlite3.connect(tmp_path / "hpo.db")) as connection:
        query = f"SELECT value_json FROM {of_trial(key)} WHERE key = ? LIMIT 1"
        [text] = connection.execute(query, (key,)).fetchone()
    changed = json.dumps(change(json.loads(text)))
    with pytest.raises(InputError, match=f"study 'tiny.*trial [0-9]+, attribute {key}"):
        loaded(tmp_path, database, of_trial(key), key, changed)


def test_what_is_missing_is_named_if_it_is_needed(tmp_path, database):
    for key in ("data", "binding"):
        with pytest.raises(InputError, match=f"study 'tiny'.*{key}"):
            loaded(tmp_path, database, "study_user_attributes", key, None)
    for key in ("curve", "cell"):
        with pytest.raises(InputError, match=f"trial 0, attribute {key}"):
            loaded(tmp_path, database, of_trial(key), key, None)
    for key in ("train_valid_gap", "stack", "parameters"):  # of later versions
        stored = loaded(tmp_path, database, of_trial(key), key, None)
        assert isinstance(stored, StoredSearch)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trial_values SET value_type = 'zz'",
        "UPDATE trial_intermediate_values SET intermediate_value_type = 'zz'",
    ],
)
def test_damaged_rows_of_trials_are_a_line(tmp_path, database, change):
    (tmp_path / "hpo.db").write_bytes(database)
    with closing(sqlite3.connect(tmp_path / "hpo.db")) as connection, connection:
        connection.execute(change)
    storage = open_storage(f"sqlite:///{tmp_path}/hpo.db", create=False)
    with pytest.raises(InputError, match=r"study 'tiny[a-z.]*': its trials cannot be read"):
        load_study(storage, "tiny")
    storage.engine.dispose()
