"""Importances against Optuna's own, against sums by hand, and where there is little to say."""

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats import rankdata

from hpo.analysis import importance
from hpo.analysis.importance import (
    Evaluation,
    Importances,
    most_important_pair,
    ranked,
    target_quantile,
)

UNIT = FloatDistribution(0, 1)
FULL = importance.TREES
SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1, log=True),
    "width": IntDistribution(32, 1024, log=True),
    "depth": IntDistribution(1, 4),
    "momentum": FloatDistribution(0, 0.9, step=0.1),
    "activation": CategoricalDistribution(["relu", "tanh", "sigmoid"]),
    "batch_size": CategoricalDistribution([128]),
}


def trial(value: float | None, params: dict[str, Any], **more: Any) -> FrozenTrial:
    known = {"distributions": dict.fromkeys(params, UNIT), **more}
    return create_trial(value=value, params=params, **known)


def at_random(
    n: int, value: Callable[..., float], names: Sequence[str] = "abc", seed: int = 0
) -> list[FrozenTrial]:
    """Trials of a function of the named numbers, each evenly from 0 to 1."""
    rng = np.random.default_rng(seed)
    drawn = [dict(zip(names, rng.random(len(names)).tolist(), strict=True)) for _ in range(n)]
    return [trial(value(**params), params) for params in drawn]


def searched(n: int) -> list[FrozenTrial]:
    """Trials as a random search makes them over SPACE."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=n))
    for _ in range(n):
        asked = study.ask(SPACE)
        p = asked.params
        off = abs(np.log10(p["lr"]) + 2)
        study.tell(asked, 0.98 - 0.05 * off - 0.01 * p["depth"] + 1e-5 * p["width"])
    return study.get_trials()


def evaluated(trials: Sequence[FrozenTrial], **options: Any) -> Importances:
    found = importance.evaluate(trials, **{"resamples": 2, **options})
    assert found is not None
    return found


def shares(evaluation: Evaluation) -> dict[str, float]:
    return {name: share.share for name, share in evaluation.shares.items()}


def by_optuna(trials: list[FrozenTrial], evaluator: BaseImportanceEvaluator) -> dict[str, float]:
    """Optuna's own shares of what varies."""
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    found = get_param_importances(study, evaluator=evaluator)
    assert found.pop("batch_size", 0.0) == 0
    return found


def by_rank(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The trials with the ranks of their values, which fANOVA explains."""
    ranks = rankdata([t.value for t in trials])
    return [
        trial(float(rank), t.params, distributions=t.distributions)
        for t, rank in zip(trials, ranks, strict=True)
    ]


def said(importances: Importances) -> str:
    return " ".join(importances.notes)


@pytest.fixture(scope="module", autouse=True)
def _quiet_optuna():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture(autouse=True)
def _small_forests(monkeypatch: pytest.MonkeyPatch):
    """A quarter of the time; the tests against Optuna that have its defaults take FULL ones."""
    monkeypatch.setattr(importance, "TREES", 16)


# --- the shares --------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [5, 40])
def test_ped_anova_gives_optunas_shares(n: int):
    trials = searched(n)
    found = evaluated(trials)
    best = target_quantile(len(trials))
    theirs = by_optuna(trials, PedAnovaImportanceEvaluator(target_quantile=best))
    assert found.evaluations[0].evaluator == "PED-ANOVA"
    assert shares(found.evaluations[0]) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("n", [5, 40])
def test_fanova_gives_optunas_shares_for_the_same_seed(n: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importance, "TREES", FULL)
    trials = searched(n)
    fanova = evaluated(trials, seed=3).evaluations[1]
    assert fanova.evaluator == "fANOVA"
    theirs = by_optuna(by_rank(trials), FanovaImportanceEvaluator(seed=3))
    assert shares(fanova) == pytest.approx(theirs)


def test_fanova_on_the_log_scale_is_optunas_on_logarithms():
    trials = searched(40)
    ranges = {"lr": (math.log(1e-4), 0.0), "width": (math.log(32), math.log(1024))}
    logs = {name: FloatDistribution(*bounds) for name, bounds in ranges.items()}
    spelled = [
        trial(
            t.value,
            t.params | {name: float(np.log(t.params[name])) for name in logs},
            distributions=t.distributions | logs,
        )
        for t in by_rank(trials)
    ]
    found = shares(evaluated(trials, log_scale=True).evaluations[1])
    theirs = by_optuna(spelled, FanovaImportanceEvaluator(n_trees=16, seed=0))
    assert found == pytest.approx(theirs, abs=1e-6)
    assert found["lr"] > shares(evaluated(trials).evaluations[1])["lr"] + 0.05


def test_ped_anova_of_two_choices_by_hand():
    """The best 5 of 10 are those with u = x; v is p in 3 of them, in 5 of all. Two choices seen c
    and d times come out of Optuna's smoothing as (0.8 c + 0.2 d + 0.5) / (c + d + 1), one choice
    alone as (0.75 c + 0.5) / (c + 1): 4.25 / 6 against 0.5 for u, 3.3 / 6 against 0.5 for v; the
    importance is the mean square of how far these ratios are from 1."""
    space = {"u": CategoricalDistribution("xy"), "v": CategoricalDistribution("pq")}
    pairs = zip("xxxxxyyyyy", "pppqqppqqq", strict=True)
    trials = [
        trial((10 - i) / 10, {"u": u, "v": v}, distributions=space)
        for i, (u, v) in enumerate(pairs)
    ]
    u, v = (4.25 / 6 / 0.5 - 1) ** 2, (3.3 / 6 / 0.5 - 1) ** 2
    found = evaluated(trials)
    assert target_quantile(len(trials)) == 0.5
    assert shares(found.evaluations[0]) == pytest.approx({"u": u / (u + v), "v": v / (u + v)})


def test_fanova_of_an_additive_function_has_the_shares_of_its_variances():
    """3 a + b: variances 9 / 12 and 1 / 12; the forest rounds the weaker one off a little."""
    found = shares(evaluated(at_random(200, lambda a, b, c: 3 * a + b)).evaluations[1])
    assert found == pytest.approx({"a": 0.9, "b": 0.1, "c": 0.0}, abs=0.05)
    assert found["c"] < 0.01


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_what_alone_decides_gets_nearly_all(name: str):
    found = evaluated(at_random(100, lambda **params: params[name] ** 2))
    assert ranked(found)[0] == name
    for evaluation in found.evaluations:
        assert next(iter(evaluation.shares)) == name
        assert shares(evaluation)[name] > 0.8
        assert all(share < 0.15 for other, share in shares(evaluation).items() if other != name)


def test_the_strongest_pair_is_the_one_that_acts_together():
    found = evaluated(at_random(200, lambda a, b, c: (a - 0.5) * (c - 0.5) + 0.2 * b))
    assert found.pair is not None
    assert found.pair.names == most_important_pair(found) == ("a", "c")
    assert found.pair.share > 0.15 > max(found.pair.alone)
    assert "The strongest pair is a × c" in said(found)


def test_order_is_by_share():
    found = evaluated(at_random(100, lambda a, b, c: 2 * c + a))
    assert ranked(found)[:2] == ("c", "a")
    for evaluation in found.evaluations:
        assert sum(shares(evaluation).values()) == pytest.approx(1)
        assert list(shares(evaluation).values()) == sorted(
            shares(evaluation).values(), reverse=True
        )


def test_only_what_can_vary_has_a_share():
    assert set(ranked(evaluated(searched(20)))) == set(SPACE) - {"batch_size"}


@pytest.mark.parametrize(
    ("trials", "quantile"),
    [(2, 0.5), (9, 0.5), (10, 0.5), (20, 0.25), (49, 5 / 49), (50, 0.1), (400, 0.1)],
)
def test_best_part_holds_five_trials_where_half_of_them_do(trials: int, quantile: float):
    assert target_quantile(trials) == quantile
    assert math.ceil(quantile * trials) >= min(5, trials / 2)


# --- the intervals -----------------------------------------------------------------------------


def test_same_seed_same_answer_other_seed_other_intervals():
    trials = searched(30)
    assert evaluated(trials) == evaluated(trials)
    first, other = (evaluated(trials, seed=seed).evaluations[0].shares for seed in (0, 1))
    assert {n: s.share for n, s in first.items()} == {n: s.share for n, s in other.items()}
    assert first != other


def test_intervals_narrow_with_more_trials():
    def width(n: int, evaluator: int) -> float:
        trials = at_random(n, lambda a, b, c: 2 * a + b)
        share = evaluated(trials, resamples=20).evaluations[evaluator].shares["a"]
        return share.high - share.low

    for evaluator in (0, 1):
        assert width(160, evaluator) < 0.7 * width(20, evaluator)


def test_intervals_mostly_hold_the_mean_over_repeated_studies():
    runs = [
        evaluated(at_random(30, lambda a, b, c: 2 * a + b, seed=seed), resamples=20)
        for seed in range(6)
    ]
    for evaluator in (0, 1):
        found = [run.evaluations[evaluator].shares["a"] for run in runs]
        mean = sum(share.share for share in found) / len(found)
        assert sum(share.low <= mean <= share.high for share in found) >= 5


def test_interval_holds_its_share():
    for evaluation in evaluated(searched(30)).evaluations:
        assert all(0 <= s.low <= s.share <= s.high <= 1 for s in evaluation.shares.values())


def test_fanova_is_resampled_less_often_and_says_so():
    found = evaluated(searched(12), resamples=10)
    assert [evaluation.resamples for evaluation in found.evaluations] == [10, 4]
    assert "10 for PED-ANOVA and 4 for fANOVA" in said(found)


# --- where there is little to say --------------------------------------------------------------


def test_fewer_than_two_complete_trials_say_nothing():
    pruned = trial(0.5, {"a": 0.5}, state=TrialState.PRUNED)
    running = trial(None, {"a": 0.5}, state=TrialState.RUNNING)
    assert importance.evaluate([]) is None
    assert importance.evaluate([pruned, running, trial(0.9, {"a": 0.1})]) is None


def test_nothing_that_varies_says_nothing():
    fixed = {"batch_size": SPACE["batch_size"]}
    trials = [trial(i / 10, {"batch_size": 128}, distributions=fixed) for i in range(5)]
    assert importance.evaluate(trials) is None


def test_two_trials_give_shares_and_say_that_they_mean_nothing():
    found = evaluated(searched(2))
    assert most_important_pair(found) is not None
    for evaluation in found.evaluations:
        assert sum(shares(evaluation).values()) == pytest.approx(1)
        assert {(s.low, s.high) for s in evaluation.shares.values()} == {(0.0, 1.0)}
    assert "the shares mean nothing yet" in said(found)


def test_two_equal_trials_share_equally():
    found = evaluated([trial(0.5, {"a": 0.5, "b": 0.5})] * 2)
    for evaluation in found.evaluations:
        assert shares(evaluation) == {"a": 0.5, "b": 0.5}


def test_equal_values_share_equally_and_are_told():
    found = evaluated(at_random(20, lambda a, b, c: 0.5))
    for evaluation in found.evaluations:
        assert shares(evaluation) == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
        assert f"{evaluation.evaluator} finds no difference" in said(found)
    assert "All complete trials have the same value" in said(found)


def test_ties_over_the_whole_best_part_are_told():
    found = evaluated(at_random(20, lambda a, b, c: float(a > 0.95)))
    assert "PED-ANOVA finds no difference" in said(found)
    assert "fANOVA finds no difference" not in said(found)


def test_a_single_hyperparameter_has_it_all_and_no_partner():
    found = evaluated(at_random(20, lambda a: a, names="a"))
    assert [shares(evaluation) for evaluation in found.evaluations] == [{"a": 1.0}] * 2
    assert most_important_pair(found) is None
    assert "only a varies" in said(found)


def test_a_changed_range_is_left_out_by_fanova_alone():
    trials = at_random(20, lambda a, b, c: a)
    wider = {"a": UNIT, "b": UNIT, "c": FloatDistribution(0, 2)}
    changed = [trial(t.value, t.params, distributions=wider) for t in trials[10:]]
    found = evaluated(trials[:10] + changed)
    assert [set(e.shares) for e in found.evaluations] == [{"a", "b", "c"}, {"a", "b"}]
    assert "fANOVA leaves out c, " in said(found)


def test_ped_anova_is_alone_where_no_range_stayed():
    trials = at_random(10, lambda a, b, c: a)
    wider = dict.fromkeys("abc", FloatDistribution(0, 2))
    changed = [trial(t.value, t.params, distributions=wider) for t in trials]
    found = evaluated(trials + changed)
    assert [evaluation.evaluator for evaluation in found.evaluations] == ["PED-ANOVA"]
    assert "leaves out a, b and c" in said(found)


# --- the notes ---------------------------------------------------------------------------------


def test_notes_say_what_the_shares_stand_on():
    found = evaluated(at_random(60, lambda a, b, c: a))
    assert "PED-ANOVA asks what sets the best 6 of 60 trials apart from all; " in said(found)
    assert "fANOVA asks what explains the ranks of the 60 complete ones" in said(found)
    assert not any(word in said(found) for word in ("weak", "pruned", "diverged", "logarithmic"))


def test_a_small_study_is_called_weak():
    trials = at_random(30, lambda a, b, c: a)
    assert "ranking is weak" in said(evaluated(trials[:29]))
    assert "ranking is weak" not in said(evaluated(trials))


def test_pruned_trials_are_never_among_the_best_and_failed_ones_invisible():
    trials = at_random(30, lambda a, b, c: a)
    params = [{"a": 0.1, "b": b, "c": 0.3} for b in (0.2, 0.5, 0.8)]
    pruned = [trial(0.99, p, state=TrialState.PRUNED) for p in params]
    others = [trial(None, params[0], state=s) for s in (TrialState.FAIL, TrialState.RUNNING)]
    found, plain = evaluated([*pruned, *trials, *others]), evaluated(trials)
    assert "the ranks of the 30 complete ones" in said(found)
    assert shares(found.evaluations[1]) == shares(plain.evaluations[1])
    worst = [trial(-1.0, p) for p in params]
    best = target_quantile(len(trials) + len(worst))
    theirs = by_optuna([*trials, *worst], PedAnovaImportanceEvaluator(target_quantile=best))
    assert shares(found.evaluations[0]) == pytest.approx(theirs, abs=1e-12)
    assert "of 33 trials apart from all, those stopped early included" in said(found)
    assert "1 failed trial is invisible to both" in said(found)


def test_diverged_trials_are_counted_and_do_not_drown_the_rest():
    """b sets the accuracy, but above 0.8 of a a training diverges."""
    rows = at_random(60, lambda a, b, c: 0.0 if a > 0.8 else 0.9 + b / 20)
    lost = {"state": TrialState.PRUNED, "user_attrs": {"diverged": 1, "curve": {}}}
    trials = [trial(t.value, t.params, **({} if t.value else lost)) for t in rows]
    found = evaluated(trials)
    complete = sum(t.state is TrialState.COMPLETE for t in trials)
    assert complete < 60
    assert f"the ranks of the {complete} complete ones, and does not see what made" in said(found)
    assert ranked(found)[0] == "b"
    assert shares(found.evaluations[1])["b"] > 0.3


def test_overlapping_intervals_leave_the_order_open():
    alike = evaluated(at_random(30, lambda a, b, c: a + b), resamples=20)
    assert "By fANOVA it is not settled whether" in said(alike)
    clear = evaluated(at_random(100, lambda a, b, c: a), resamples=20)
    assert "not settled" not in said(clear)


def test_log_ranges_are_told_unless_seen_as_logarithms():
    trials = searched(12)
    assert "fANOVA weighs lr and width evenly on the plain scale" in said(evaluated(trials))
    assert "logarithmic" not in said(evaluated(trials, log_scale=True))


# --- manners -----------------------------------------------------------------------------------


def test_optuna_says_nothing_and_keeps_its_verbosity(capfd: pytest.CaptureFixture[str]):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        evaluated(at_random(12, lambda a, b, c: a))
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
    assert capfd.readouterr() == ("", "")


def test_importing_it_loads_neither_forests_nor_torch():
    program = (
        "import sys, hpo.analysis.importance; "
        "print({'torch', 'sklearn', 'optuna.importance._fanova'} & set(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.strip() == "set()"
