"""Small searches on one's own data that several tests read: each is run once, by the first that
asks, also where pytest has several processes."""

import fcntl
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import forked
import numpy as np
import pandas as pd
import pytest
from conftest import Answer, Ended

SEARCH = """
dataset = DATASET
[search]
n_trials = 2
[finalists]
k = 1
seeds = 1
[space]
depth = 1
width = 8
activation = "relu"
optimizer = "adam"
lr = [0.02, 1e-7]
batch_size = 16
epochs = 12
"""


def study(dataset: str) -> str:
    """A search that finds its winner whatever the data: the other learning rate learns nothing."""
    return SEARCH.replace("DATASET", dataset)


def hpo_in(folder: Path, *arguments: str) -> Answer:
    """The hpo command in a folder, as the fixture hpo. Its output goes into files beside it."""
    ended = forked.command(list(arguments), folder, 120, TMPDIR=tempfile.gettempdir())
    assert ended.code is not None, f"it hangs\n{ended.out}\n{ended.err}"
    return Answer(ended.code, ended.out, ended.err)


def once(
    factory: pytest.TempPathFactory, name: str, prepare: Callable[[Path], None], *options: str
) -> Ended:
    """hpo run NAME.toml in a folder that `prepare` has filled. To be read: a test that changes
    something works on a copy."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    around = root / f"own-{name}"
    around.mkdir(exist_ok=True)
    folder, told = around / "run", around / "answer.json"
    with open(around / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            folder.mkdir()
            prepare(folder)
            answer = hpo_in(folder, "run", f"{name}.toml", *options)
            told.write_text(json.dumps([answer.code, answer.out, answer.err]))
    return Ended(folder, Answer(*json.loads(told.read_text())))


# --- a table -----------------------------------------------------------------------------------

CLASSES = {11: 35, 12: 45, 13: 55}  # labels, and how many rows have them


def flowers() -> pd.DataFrame:
    """Three columns of different scales that tell three kinds; `y` is one of them. `rownames` and
    `serial` count, `twin` is the label in other words."""
    rng = np.random.default_rng(0)
    kind = rng.permutation(np.repeat(list(CLASSES), list(CLASSES.values())))
    level, n = kind - 12, len(kind)
    columns = {
        "rownames": np.arange(1, n + 1),
        "serial": np.arange(500, 500 + n),
        "petal": 2.0 * level + rng.normal(0, 0.4, n),
        "y": 5.0 - level + rng.normal(0, 0.2, n),
        "sepal": 300.0 + 80.0 * level**2 + rng.normal(0, 9, n),
        "twin": np.select([kind == 11, kind == 12], [7, 5], 6),
        "kind": kind,
    }
    return pd.DataFrame(columns).round(3)


def flowers_run(factory: pytest.TempPathFactory) -> Ended:
    """A search on a table whose label is named in the study file."""

    def prepare(folder: Path) -> None:
        flowers().to_csv(folder / "flowers.csv", index=False)
        text = study('{ file = "flowers.csv", label = "kind" }')
        (folder / "flowers.toml").write_text(text)

    return once(factory, "flowers", prepare)


# --- a network of one's own --------------------------------------------------------------------

PETNET = """
from petparts import layers
from torch import nn


def build(shape, classes, units):
    return nn.Sequential(nn.Flatten(), *layers(shape, classes, units))  # the word is marmalade


def other(shape, classes, units):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
"""
PETPARTS = """
import petdeep
from torch import nn


def layers(shape, classes, units):
    return nn.Linear(16, units), petdeep.ACTIVATION(), nn.Linear(units, classes)
"""
PETDEEP = """
from torch import nn

ACTIVATION = nn.Tanh
"""
MODULES = {"petnet.py": PETNET, "petparts.py": PETPARTS, "petdeep.py": PETDEEP}
OWN_SPACE = """
units = 6
optimizer = "adam"
lr = [0.02, 1e-7]
batch_size = 16
epochs = 4
"""


def own_study(factory: str = "petnet:build") -> str:
    head, _, _ = study('"pets.npz"').partition("depth = 1")
    return f'model = "{factory}"\n{head}{OWN_SPACE}'


def pets() -> dict[str, np.ndarray]:
    """60 pictures of 4 × 4 bytes below 128: dogs are brighter."""
    rng, y = np.random.default_rng(0), np.arange(60) % 2
    x = (rng.integers(0, 60, (60, 4, 4)) + 60 * y[:, None, None]).astype(np.uint8)
    return {"x": x, "y": y, "class_names": np.array(["cat", "dog"])}


def pets_run(factory: pytest.TempPathFactory) -> Ended:
    """A search over a network of one's own, in three modules."""

    def prepare(folder: Path) -> None:
        np.savez(folder / "pets.npz", **pets())
        for name, text in MODULES.items():
            (folder / name).write_text(text)
        (folder / "pets.toml").write_text(own_study())

    return once(factory, "pets", prepare)
