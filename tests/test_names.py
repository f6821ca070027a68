"""A new activation, optimizer, dataset and sampler is one entry each in the table of names.

A user's script adds them and calls hpo: worker processes get what it has added.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution

from hpo.study import names

SCRIPT = """
import numpy as np
import optuna

from hpo.data.datasets import make_dataset
from hpo.data.schema import Schema
from hpo.study.names import ACTIVATIONS, DATASETS, OPTIMIZERS, SAMPLERS
from hpo.study.names import Activation, Named, Optimizer

ACTIVATIONS["softplus"] = Activation(label="Soft plus", module="Softplus", code="mine:SOFTPLUS")
OPTIMIZERS["sign"] = Optimizer(label="Sign descent", code="mine:sign_descent", takes=())
DATASETS["stripes"] = Named(label="Stripes", code="mine:STRIPES")
SAMPLERS["nsga2"] = Named(label="NSGA-II", code="mine:nsga2")


class Stripes:
    mean, std = 0.5, 0.25

    def load(self, name, folder):
        rng = np.random.default_rng(0)
        labels = np.arange(400, dtype=np.uint8) % 10
        images = rng.integers(0, 60, (400, 10, 10), dtype=np.uint8)
        images[np.arange(400), labels] += 190
        parts = (images[:300], labels[:300]), (images[300:], labels[300:])
        return make_dataset(name, *parts, Schema(), scales=(self.mean, self.std))

    def missing(self, folder):
        return []


STRIPES = Stripes()


def nsga2(seed, best):
    return optuna.samplers.NSGAIISampler(seed=seed)


def sign_descent(weights, gradient, config):
    def step(lr):
        weights.sub_(gradient.sign(), alpha=lr)

    return step


def __getattr__(name):  # torch is loaded by the workers alone
    if name != "SOFTPLUS":
        raise AttributeError(name)
    import torch

    from hpo.training.activations import Activation

    aten = torch.ops.aten
    return Activation(
        forward=aten.softplus.out,
        backward=lambda d, z, out: aten.softplus_backward.grad_input(d, z, 1, 20, grad_input=out),
        keeps_input=True,
    )
"""
MAIN = """
import mine
from hpo.cli import main

if __name__ == "__main__":
    main()
"""
NETWORK = 'depth = {depth}\nwidth = 16\nactivation = "softplus"\noptimizer = "sign"\nlr = 5e-3\n'
GRID = f"""
dataset = "stripes"
[base]
{NETWORK.format(depth=1)}batch_size = 20
epochs = 8
[[cells]]
name = "new"
[[cells]]
name = "known"
activation = "relu"
optimizer = "adam"
"""
SEARCH = f"""
dataset = "stripes"
[search]
n_trials = 2
sampler = "nsga2"
[finalists]
k = 1
seeds = 1
[space]
{NETWORK.format(depth="[1, 2]")}batch_size = 20
epochs = 8
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    for name, text in {
        "mine.py": SCRIPT, "main.py": MAIN, "grid.toml": GRID, "search.toml": SEARCH
    }.items():  # fmt: skip
        (folder / name).write_text(text)
    return folder


def hpo(folder: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "main.py", *arguments],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("HPO_")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_new_names_go_through_a_grid_and_its_report(folder):
    hpo(folder, "run", "grid.toml", "--quiet")
    trials = pd.read_csv(folder / "reports/grid/trials.csv").set_index("cell")
    assert list(trials["state"]) == ["COMPLETE"] * 2
    assert (trials["test_accuracy"] > 0.9).all(), "stripes are easy"
    text = (folder / "reports/grid/report.md").read_text("utf-8")
    assert all(label in text for label in ("Soft plus", "Sign descent", "Stripes"))


@pytest.mark.slow
def test_new_names_go_through_a_search_its_report_and_its_saved_winner(folder):
    hpo(folder, "run", "search.toml", "--quiet", "--name", "mine")
    text = (folder / "reports/mine/report.md").read_text("utf-8")
    assert all(label in text for label in ("NSGA-II", "Stripes", "nn.Softplus()"))
    program = (
        "import mine, numpy as np; from pathlib import Path; from hpo.model.weights import load\n"
        "saved = load(Path('reports/mine/best')); data = mine.STRIPES.load('stripes', None)\n"
        "answers = saved.answers(data.test_images * 0.25 + 0.5).argmax(1)\n"
        "print((answers == data.test_labels).mean())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )
    assert float(ended.stdout) > 0.9


def test_every_entry_has_its_code_and_its_label():
    tables = (names.ACTIVATIONS, names.OPTIMIZERS, names.SCHEDULES, names.DATASETS)
    for table in (*tables, names.SAMPLERS, names.PRUNERS):
        assert all(named.load() and named.label for named in table.values())
    assert CategoricalDistribution(list(names.ACTIVATIONS))  # plain strings, for Optuna
