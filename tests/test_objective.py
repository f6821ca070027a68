"""The reusable objective, as a user's own script would use it."""

import math
import os

import joblib
import optuna
import pytest
import torch

import hpo
from hpo.errors import InputError
from hpo.study.names import ACTIVATIONS, OPTIMIZERS

SMALL = {
    "depth": {"low": 1, "high": 2},
    "width": [16, 32],
    "activation": ["relu", "tanh"],
    "optimizer": ["sgd", "adam"],
    "lr": {"low": 1e-3, "high": 0.3, "log": True},
    "epochs": 3,
}
OMP = {"OMP_NUM_THREADS": "4"}
PARAMS = {"depth": 1, "width": 16, "activation": "relu", "optimizer": "sgd", "lr": 0.1}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def objective() -> hpo.Objective:
    return hpo.Objective(dataset="mnist-5k", space=SMALL)


class Always(optuna.pruners.BasePruner):
    """Prunes whatever has reported."""

    def prune(self, study, trial) -> bool:
        return bool(trial.intermediate_values)


def test_a_study_optimizes_it_and_every_trial_has_its_curve(objective):
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    study.optimize(objective, n_trials=3)
    assert study.best_value > 0.5
    for trial in study.trials:
        assert set(trial.params) == {"depth", "width", "activation", "optimizer", "lr"}
        assert list(trial.intermediate_values) == [1, 2, 3]
        assert trial.value == trial.system_attrs["curve"]["valid_accuracy"][-1]
        assert trial.user_attrs["train_seconds"] > 0
        assert trial.user_attrs["parameters"] > 16 * 784


def test_a_fixed_trial_gives_the_same_value_every_time(objective):
    first, second = (optuna.trial.FixedTrial(dict(PARAMS)) for _ in range(2))
    assert objective(first) == objective(second) > 0.5
    assert not first.user_attrs["diverged"]


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "maximize"]])
def test_a_study_that_does_not_maximize_is_refused_in_its_first_trial(objective, directions):
    study = optuna.create_study(directions=directions)
    with pytest.raises(InputError, match=r'optuna\.create_study\(direction="maximize"\)'):
        study.optimize(objective, n_trials=3)
    assert [trial.state.name for trial in study.trials] == ["FAIL"]


@pytest.mark.parametrize(("usual", "environment", "used"), [(4, {}, 1), (6, {}, 4), (4, OMP, 4)])
def test_it_trains_with_one_thread_unless_the_user_has_set_another_number(
    objective, monkeypatch, usual, environment, used
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: usual)
    monkeypatch.setattr(joblib, "cpu_count", lambda **_: usual)
    torch.set_num_threads(4)
    seen = []
    monkeypatch.setattr(objective, "_trained", lambda _: seen.append(torch.get_num_threads()))
    objective(optuna.trial.FixedTrial(PARAMS))
    assert seen == [used]
    assert torch.get_num_threads() == 4


def test_a_pruned_trial_keeps_the_curve_that_it_has(objective):
    study = optuna.create_study(direction="maximize", pruner=Always())
    study.optimize(objective, n_trials=1)
    trial = study.trials[0]
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert len(trial.system_attrs["curve"]["train_loss"]) == 1


def test_a_diverged_trial_is_pruned_at_once():
    objective = hpo.Objective(dataset="mnist-5k", space={**SMALL, "lr": 1e6})
    trial = optuna.trial.FixedTrial({**PARAMS, "lr": 1e6})
    with pytest.raises(optuna.TrialPruned, match="diverged in epoch"):
        objective(trial)
    assert trial.user_attrs["diverged"]
    assert len(trial.user_attrs["curve"]["train_loss"]) < 3
    assert not any(
        isinstance(v, float) and not math.isfinite(v)
        for values in trial.user_attrs["curve"].values()
        for v in values
    )


def test_the_default_space_is_that_of_the_search_and_trains():
    objective = hpo.Objective(dataset="mnist-5k")
    drawn = {
        "depth": 4,
        "width": 32,
        "activation": "leaky_relu",
        "optimizer": "rmsprop",
        "lr": 1e-3,
    }
    assert objective(optuna.trial.FixedTrial(drawn)) > 0.5
    assert set(objective.space["activation"].values) == set(ACTIVATIONS)
    assert set(objective.space["optimizer"].values) == set(OPTIMIZERS)


def test_the_test_images_are_never_looked_at(monkeypatch):
    from hpo.data import datasets as data

    loaded = data.load("mnist-5k", data.default_dir())
    poisoned = {**vars(loaded), "test_images": None, "test_labels": None}
    monkeypatch.setattr(data, "load", lambda *_: data.Dataset(**poisoned))
    objective = hpo.Objective(dataset="mnist-5k", space=SMALL)
    assert objective(optuna.trial.FixedTrial(dict(PARAMS))) > 0.5


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lr": {"low": 0.1, "high": 0.01}}, "space.lr: low 0.1 is above high 0.01"),
        ({"activation": []}, "space.activation: is an empty list"),
        ({"activation": ["swish"]}, "space.activation: must be one of sigmoid"),
        ({"heads": 8}, "space.heads: unknown; known: depth"),
        ({"momentum": 0.9}, "space.momentum: is no hyperparameter of adam"),
        ({"nesterov": [True, False]}, "space.nesterov: needs optimizer sgd"),
    ],
)
def test_a_wrong_space_is_refused_before_any_training(changes, named):
    with pytest.raises(InputError, match=named):
        hpo.Objective(dataset="mnist-5k", space={**SMALL, **changes})


@pytest.mark.parametrize("seed", [2**64, 2**32, -1, True, 1.0, "1"])
def test_a_seed_that_no_generator_takes_is_refused(seed):
    with pytest.raises(InputError, match="seed: must be a whole number from 0 to 4294967295, got"):
        hpo.Objective(dataset="mnist-5k", seed=seed)


def test_a_missing_hyperparameter_and_an_unknown_dataset_are_refused():
    with pytest.raises(InputError, match=r"space\.depth: is missing"):
        hpo.Objective(dataset="mnist-5k", space={"width": 32})
    with pytest.raises(InputError, match="mnist, fashion-mnist"):
        hpo.Objective(dataset="imagenet")
