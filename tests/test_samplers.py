"""TPE as hpo asks it: Optuna's own, with one fit for several suggestions where many trials run."""

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.samplers._tpe import _truncnorm

from hpo.runs import samplers
from hpo.study.space import Domain, parse_domain, suggest

SPACE: dict[str, Any] = {
    "depth": {"low": 1, "high": 4},
    "width": {"low": 8, "high": 1024, "log": True},
    "activation": ["relu", "tanh"],
    "lr": {"low": 1e-4, "high": 1.0, "log": True},
}
DROPOUT = {"low": 0.1, "high": 0.5, "when": {"activation": "relu"}}


class Fits:
    """Counts the densities that a sampler fits."""

    def __init__(self, sampler: TPESampler, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, fit = 0, sampler._build_parzen_estimator

        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            return fit(*arguments, **options)

        monkeypatch.setattr(sampler, "_build_parzen_estimator", counted)


def domains(**more: Any) -> dict[str, Domain]:
    return {name: parse_domain(raw, name) for name, raw in {**SPACE, **more}.items()}


def value(params: dict[str, Any]) -> float:
    return -(np.log10(params["lr"]) ** 2) - params["depth"]


def asked(sampler: TPESampler, running: int, count: int, **more: Any) -> list[dict[str, Any]]:
    """The parameters of `count` trials that are asked for beside `running` others, after 30."""
    space = domains(**more)
    study = optuna.create_study(direction="maximize", sampler=TPESampler(seed=3))
    for _ in range(30):
        trial = study.ask()
        study.tell(trial, value(suggest(trial, space)))
    study.sampler = TPESampler(seed=4, n_startup_trials=10**6)  # at random
    for _ in range(running):
        suggest(study.ask(), space)
    study.sampler, found = sampler, []
    for _ in range(count):
        trial = study.ask()
        suggest(trial, space)
        found.append(trial.params)
    return found


def test_scipys_logarithm_is_the_one_that_optuna_computes():
    z = np.concatenate([np.linspace(-40, 10, 2_001), [-1e5, -1e3, 38.0]])
    theirs = np.array([_truncnorm._log_ndtr_single(float(each)) for each in z])
    np.testing.assert_allclose(_truncnorm._log_ndtr(z), theirs, rtol=2e-13, atol=1e-16)
    assert isinstance(_truncnorm._log_ndtr, np.ufunc)  # Optuna computes by it


@pytest.mark.parametrize("running", [1, 2 * samplers.RUNNING_EACH - 6])
def test_with_few_running_trials_it_is_optunas_sampler(running):
    assert asked(samplers.tpe(5, {}), running, 5) == asked(TPESampler(seed=5), running, 5)


@pytest.mark.parametrize(("more", "groups"), [({}, 1), ({"dropout": DROPOUT}, 2)])
def test_a_fit_gives_a_suggestion_for_each_50_running_trials(more, groups, monkeypatch):
    sampler = samplers.grouped_tpe(5) if more else samplers.tpe(5, {})
    fits = Fits(sampler, monkeypatch)
    found = asked(sampler, 4 * samplers.RUNNING_EACH, 12, **more)
    assert fits.count == 2 * groups * 3  # densities of good and of other trials, three fits
    assert len({tuple(sorted(params.items())) for params in found}) == 12
    for params in found:
        assert 1 <= params["depth"] <= 4
        assert 8 <= params["width"] <= 1024
        assert 1e-4 <= params["lr"] <= 1.0
    # It suggests what did well: a learning rate near 1, and few layers.
    assert np.mean([value(params) for params in found]) > -3.5


def test_with_two_objectives_each_parameter_has_suggestions_of_its_own(monkeypatch):
    sampler = samplers.tpe(1, {})
    space = domains()
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for _ in range(20):
        trial = study.ask()
        study.tell(trial, [value(suggest(trial, space)), 1.0])
    running = [study.ask() for _ in range(3 * samplers.RUNNING_EACH)]
    for trial in running:
        suggest(trial, space)
    fits = Fits(sampler, monkeypatch)
    for ahead in sampler._ahead.values():
        ahead.clear()
    for _ in range(3):
        params = suggest(study.ask(), space)
        assert params["activation"] in SPACE["activation"]
        assert 1e-4 <= params["lr"] <= 1.0
    assert fits.count == 2 * len(SPACE)
