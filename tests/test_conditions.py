"""Conditions of a space: what they ask for, what is refused, and how a search samples them."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

from hpo.runs import samplers
from hpo.study.config import Config
from hpo.study.space import completed, draw, read_space, size, spelled, suggest

BASE: dict[str, Any] = {
    "depth": {"low": 1, "high": 4},
    "width": 16,
    "activation": "relu",
    "optimizer": ["sgd", "rmsprop", "adam"],
    "lr": {"low": 1e-3, "high": 0.1, "log": True},
}
MOMENTUM = {"low": 0.5, "high": 0.9, "when": {"optimizer": ["sgd", "rmsprop"]}}
NESTEROV = {"choices": [True, False], "when": {"optimizer": "sgd", "momentum": {"low": 0.6}}}
RESIDUAL = {"value": True, "when": {"depth": {"low": 3}}}
SPACE = {**BASE, "nesterov": NESTEROV, "momentum": MOMENTUM, "residual": RESIDUAL}


def parsed(table: dict[str, Any]) -> dict[str, Any]:
    space, faults = read_space(table)
    assert faults == []
    assert space is not None
    return space


def space_faults(table: dict[str, Any]) -> list[tuple[str, str]]:
    return [(str(name), text) for (name, *_), text in read_space(table)[1]]


def test_a_hyperparameter_is_drawn_only_where_its_conditions_hold():
    space, rng, seen = parsed(SPACE), random.Random(0), set()
    for _ in range(300):
        values = draw(space, rng)
        Config(**values)  # all of it goes together
        assert ("momentum" in values) == (values["optimizer"] != "adam")
        assert ("residual" in values) == (values["depth"] >= 3)
        wanted = values["optimizer"] == "sgd" and values.get("momentum", 0) >= 0.6
        assert ("nesterov" in values) == wanted
        seen.add(frozenset(values))
    assert len(seen) == 6


def test_tpe_samples_in_groups_and_a_trial_gives_its_configuration_back():
    space = parsed(SPACE)
    study = optuna.create_study(sampler=samplers.grouped_tpe(0), direction="maximize")
    for number in range(40):
        trial = study.ask()
        values = suggest(trial, space)
        assert completed(space, trial.params) == values
        study.tell(trial, float(number % 7))


@pytest.mark.parametrize(
    ("table", "count"),
    [
        ({"depth": [1, 3], "dropout": {"choices": [0.1, 0.2], "when": {"depth": 3}}}, 3),
        ({"depth": [1, 2, 3], "residual": {"choices": [True, False], "when": {"depth": 3}}}, 4),
        ({"depth": [1, 2, 3], "residual": {"value": True, "when": {"depth": 3}}}, 3),
        ({"momentum": {"low": 0.1, "high": 0.9, "when": {"optimizer": "sgd"}}}, math.inf),
    ],
)  # fmt: skip
def test_the_configurations_of_a_finite_space_are_counted(table: dict[str, Any], count: float):
    fixed = {"depth": 1, "width": 16, "activation": "relu", "optimizer": "sgd", "lr": 0.1}
    assert size(parsed({**fixed, **table})) == count


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("momentum", {**MOMENTUM, "when": {"optimiser": "a"}}, "when.optimiser: is not in the"),
        ("momentum", {**MOMENTUM, "when": {"dropout": 0.1}}, "when.dropout: is not in the space"),
        ("momentum", {**MOMENTUM, "when": {"optimizer": "sdg"}}, "when.optimizer: must be one of"),
        ("momentum", {**MOMENTUM, "when": {"optimizer": {"low": 1}}}, "must be a value, a list"),
        ("momentum", {**MOMENTUM, "when": {}}, "when: must be a table of conditions"),
        ("momentum", {**MOMENTUM, "when": 3}, "when: must be a table of conditions"),
        ("momentum", {**MOMENTUM, "when": {"momentum": 0.5}}, "when.momentum: is not in the space"),
        ("momentum", {"low": 0.5, "high": 0.9}, "is no hyperparameter of adam"),
        ("momentum", {"value": 0.9}, "needs no table"),
        ("momentum", {"value": 0.9, "low": 1, "when": {"depth": 1}}, "either low and high"),
        ("momentum", {"value": [0.9], "when": {"depth": 1}}, "value: must be one value"),
        ("momentum", {"choices": 0.9, "when": {"depth": 1}}, "choices: must be a list"),
        ("lr", {"value": 0.1, "when": {"depth": 1}}, "every network needs it"),
        ("residual", True, "needs a depth of 3 or more"),
        ("residual", {"value": True, "when": {"depth": {"low": 2}}}, "needs a depth of 3 or more"),
        ("warmup", {"low": 0.0, "high": 0.1}, None),
    ],
)  # fmt: skip
def test_wrong_conditions_are_told(name: str, value: Any, said: str | None):
    faults = space_faults({**BASE, name: value})
    if said is None:
        assert faults == []
    else:
        assert any(said in fault for of, fault in faults if of == name), faults


def test_a_circle_of_conditions_is_told():
    table = {
        **BASE,
        "dropout": {"value": 0.1, "when": {"input_noise": 0.1}},
        "input_noise": {"value": 0.1, "when": {"max_norm": 1.0}},
        "max_norm": {"value": 1.0, "when": {"dropout": 0.1}},
    }
    [(_, fault)] = space_faults(table)
    assert "its conditions go in a circle" in fault
    assert fault.count("→") == 3


def test_conditions_are_spelled_for_the_report_and_the_binding():
    space = parsed(SPACE)
    assert spelled(space["momentum"]) == "0.5 … 0.9, if optimizer is sgd or rmsprop"
    assert spelled(space["residual"]) == "True, if depth is 3 to inf"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([512, 256], None),
        ([[512, 256], [256, 128]], None),
        ("512-256", None),
        ([[512], [0]], "must be up to 100 widths"),
        ([512, "x"], "must be up to 100 widths"),
        ([[512], "512"], "has a choice twice"),
        ({"low": 1, "high": 2}, "has no range"),
    ],
)
def test_widths_are_a_value_or_choices_and_depth_and_width_follow(value: Any, said: str | None):
    table = {k: v for k, v in BASE.items() if k not in ("depth", "width")}
    faults = space_faults({**table, "widths": value})
    assert [fault for _, fault in faults if said is None or said not in fault] == []
    assert bool(faults) == (said is not None)
    if said is None:
        space = parsed({**table, "widths": value})
        params = {"widths": "512-256", "optimizer": "sgd", "lr": 0.1}
        drawn = Config(**suggest(optuna.trial.FixedTrial(params), space))
        assert (drawn.hidden, drawn.depth, drawn.width) == ((512, 256), 2, 512)


SEARCH = """
dataset = "wine"
[search]
n_trials = 12
[finalists]
k = 2
seeds = 2
[space]
depth = { low = 1, high = 4 }
width = 16
pyramid = { choices = [0.5, 1.0], when = { norm = "none" } }
activation = ["relu", "gelu"]
optimizer = ["sgd", "adam"]
lr = { low = 1e-3, high = 1e-1, log = true }
momentum = { low = 0.5, high = 0.95, when = { optimizer = "sgd" } }
norm = ["none", "batch", "layer"]
residual = { choices = [true, false], when = { norm = ["batch", "layer"], depth = { low = 3 } } }
dropout = { low = 0.0, high = 0.4 }
batch_size = 16
epochs = 4
"""


@pytest.mark.slow
def test_a_search_with_conditions_ends_in_a_report_and_goes_on(hpo: Callable, tmp_path: Path):
    (tmp_path / "mine.toml").write_text(SEARCH)
    answer = hpo("run", "mine.toml", "--quiet", timeout=120)
    assert (answer.code, answer.err) == (0, "")
    trials = pd.read_csv(tmp_path / "reports/mine/trials.csv")
    assert (trials["momentum"].notna() == (trials["optimizer"] == "sgd")).all()
    assert (
        trials["residual"].notna() == ((trials["norm"] != "none") & (trials["depth"] > 2))
    ).all()
    text = (tmp_path / "reports/mine/report.md").read_text("utf-8")
    assert "if optimizer is sgd" in text
    more = hpo("run", "mine.toml", "--quiet", "--trials", "16", timeout=120)
    assert (more.code, more.err) == (0, "")
    assert len(pd.read_csv(tmp_path / "reports/mine/trials.csv")) == 16
