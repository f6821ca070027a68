"""How exact accuracies are: against statsmodels, published tables and simulation."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hpo.analysis.components import IMAGES, crossed, factorial
from hpo.analysis.precision import beats, mean_squares, precision
from hpo.analysis.selection import knee, lead, rivals
from hpo.study.config import SOURCES


def right(rng: np.random.Generator, seeds: int, images: int) -> np.ndarray:
    logit = rng.normal(4, 1.8, images) + 0.15 * rng.normal(0, 1, (seeds, 1))
    return rng.random((seeds, images)) < 1 / (1 + np.exp(-logit))


# --- seeds and images --------------------------------------------------------------------------


def test_mean_squares_are_those_of_an_analysis_of_variance():
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    y = np.random.default_rng(0).normal(0, 1, (4, 6))
    seeds, images = np.meshgrid(range(4), range(6), indexing="ij")
    table = pd.DataFrame({"y": y.ravel(), "seed": seeds.ravel(), "image": images.ravel()})
    squares = anova_lm(ols("y ~ C(seed) + C(image)", table).fit())["mean_sq"]
    assert mean_squares(y) == pytest.approx(tuple(squares))


def test_the_interval_over_seeds_and_images_is_the_wider_one():
    exact = precision(right(np.random.default_rng(1), 10, 2_000))
    assert exact.both[0] < exact.seeds[0] < exact.mean < exact.seeds[1] < exact.both[1]
    share, low, high = exact.images_share
    assert 0 < low < share < high <= 1


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_it_is_never_narrower_than_the_interval_over_seeds_alone(seeds):
    rng = np.random.default_rng(seeds)
    found = [precision(right(rng, seeds, 300)) for _ in range(200)]
    assert all(e.both[0] <= e.seeds[0] and e.seeds[1] <= e.both[1] for e in found)
    assert sum(e.both[1] > e.seeds[1] for e in found) > 10


def test_the_images_share_is_inside_its_interval_19_times_of_20(amount):
    """Of normal values with known variances: a true share of (1/50) / (1/50 + 1/50) = 1/2."""
    rng, studies = np.random.default_rng(9), amount(400, 2_000)
    truth, hits = 0.5, 0
    for _ in range(studies):
        y = rng.normal(0, 1 / math.sqrt(50), (4, 1)) + rng.normal(0, 1, (4, 50))
        _, low, high = precision(y).images_share
        hits += low < truth < high
    assert abs(hits / studies - 0.95) < 0.01 + 2 * math.sqrt(0.05 * 0.95 / studies)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_it_covers_the_truth_19_times_of_20(amount, seeds):
    rng, studies = np.random.default_rng(seeds), amount(300, 2_000)
    found = [precision(right(rng, seeds, 400)) for _ in range(studies)]
    truth = np.mean([exact.mean for exact in found])
    hits = np.mean([exact.both[0] < truth < exact.both[1] for exact in found])
    assert abs(hits - 0.95) < 0.02 + 2 * math.sqrt(0.05 * 0.95 / studies)


def test_one_seed_and_equal_seeds_have_no_interval_and_no_trouble():
    one = precision(np.ones((1, 5)))
    assert one.mean == 1.0
    assert math.isnan(one.both[0])
    alike = precision(np.tile([1, 0, 1, 1], (3, 1)))
    assert (alike.seeds, math.isnan(alike.images_share[0])) == ((0.75, 0.75), True)
    with pytest.raises(ValueError, match="needs values"):
        precision(np.empty((0, 3)))


# --- single runs -------------------------------------------------------------------------------


def test_one_run_beats_another_as_often_as_pairs_say():
    assert beats([3.0, 5.0], [1.0, 4.0])[0] == 0.75
    assert beats([1.0], [1.0])[0] == 0.5
    share, low, high = beats(range(10, 20), range(10))
    assert (share, high) == (1.0, 1.0)
    assert 0.7 < low < 0.9
    assert all(math.isnan(value) for value in beats([], [1.0]))


def test_its_interval_is_newcombes():
    """(θ̂ - θ)² = z² θ(1-θ) [1 + ((m+n)/2 - 1) ((1-θ)/(2-θ) + θ/(1+θ))] / (mn) at both ends."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(1, 1, 8), rng.normal(0, 1, 12)
    share, *bounds = beats(a, b)
    for p in bounds:
        spread = 1 + 9 * ((1 - p) / (2 - p) + p / (1 + p))
        assert (share - p) ** 2 == pytest.approx(1.96**2 * p * (1 - p) * spread / 96, rel=1e-4)


# --- the best of several -----------------------------------------------------------------------


def accuracies(rng: np.random.Generator, k: int, seeds: int = 5, ahead: float = 0.0) -> np.ndarray:
    """(seeds, k) in percent: runs of k networks with a deviation of 0.1 points, the first one
    `ahead` of the others, and a deviation of 0.1 points of the split that a seed has for all."""
    values = 98 + rng.normal(0, 0.1, (seeds, 1)) + rng.normal(0, 0.1, (seeds, k))
    values[:, 0] += ahead
    return values


@pytest.mark.parametrize("k", [2, 3, 5, 10])
def test_equal_finalists_seldom_have_a_leader_and_a_true_lead_is_found(amount, k):
    rng, studies = np.random.default_rng(k), amount(400, 2_000)
    false = sum(lead(accuracies(rng, k)).resolved for _ in range(studies))
    assert false <= (0.05 + 2 * math.sqrt(0.05 * 0.95 / studies)) * studies
    found = [accuracies(rng, k, ahead=0.2) for _ in range(studies)]
    assert sum(lead(v).resolved and v.mean(axis=0).argmax() == 0 for v in found) >= 0.5 * studies


def test_the_lead_of_two_is_the_paired_t_test_of_scipy():
    values = accuracies(np.random.default_rng(3), 2, ahead=0.2)
    theirs = stats.ttest_rel(values[:, 0], values[:, 1])
    low, high = theirs.confidence_interval()
    found = lead(values)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.resolved == (theirs.pvalue < 0.05)


def test_the_variance_of_many_is_that_of_an_analysis_of_variance():
    from statsmodels.formula.api import ols

    values = accuracies(np.random.default_rng(4), 4)
    seed, network = np.indices(values.shape)
    frame = pd.DataFrame({"y": values.ravel(), "s": seed.ravel(), "n": network.ravel()})
    fitted = ols("y ~ C(s) + C(n)", frame).fit()
    found = lead(values)
    half = stats.t.ppf(0.975, fitted.df_resid) * math.sqrt(2 * fitted.mse_resid / 5)
    assert found.high - found.mean == pytest.approx(half)


def test_a_network_that_errs_far_more_widens_no_interval():
    values = accuracies(np.random.default_rng(5), 3, ahead=0.2)
    wild = np.column_stack([values, [20.0, 90.0, 36.0, 50.0, 11.0]])
    assert lead(wild) == lead(values)
    assert rivals(wild) == rivals(values)
    assert lead(wild[:, 2:]).mean > 40, "two at least"


def test_the_best_is_among_the_rivals_19_times_of_20(amount):
    rng, studies = np.random.default_rng(6), amount(400, 2_000)
    found = [rivals(accuracies(rng, 5, ahead=0.02)) for _ in range(studies)]
    hits = np.mean([0 in each for each in found])
    assert hits >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / studies)
    assert all(len(each) >= 2 for each in found)
    clear = np.array([[98.0, 97.5, 98.1, 97.9], [98.1, 97.5, 98.0, 97.7], [98.0, 97.4, 98.1, 98.0]])
    assert rivals(clear) == [2, 0, 3]


def test_the_knee_is_farthest_from_the_chord():
    """Against the distance of points and a line in the plane, for a front with known places."""
    front = [(0.98, 1e5), (0.975, 2e4), (0.96, 1e3), (0.80, 1e2)]
    x = (np.log([cost for _, cost in front]) - math.log(1e2)) / math.log(1e3)
    y = (np.array([accuracy for accuracy, _ in front]) - 0.80) / 0.18
    chord = np.array([1.0, 1.0]) / math.sqrt(2)
    distances = [abs(chord[0] * b - chord[1] * a) for a, b in zip(x, y, strict=True)]
    assert knee(front) == int(np.argmax(distances)) == 2
    assert knee([(0.98, 1e5), (0.81, 5e4), (0.80, 1e2)]) is None
    assert knee([(0.98, 1e5), (0.80, 1e2)]) is None


# --- where variance comes from -----------------------------------------------------------------


def runs(rng: np.random.Generator, blocks: int, variances: dict[str, float]) -> np.ndarray:
    """(blocks, 2, 2, 2, 2 images alike) of runs whose sources have these variances."""
    found = np.zeros((blocks, 2, 2, 2))
    for name, variance in variances.items():
        shape = (blocks, *(2 if source in name else 1 for source in "swo"))
        found = found + rng.normal(0, variance**0.5, shape)
    return np.repeat(found[..., None], 2, axis=-1)


def test_shares_of_the_spread_are_found_and_add_up():
    truth = {"s": 3.0, "w": 1.0, "so": 2.0, "swo": 2.0}
    spread = crossed(runs(np.random.default_rng(4), 3_000, truth))
    found = {component.effect: component for component in spread.components}
    assert sum(component.share for component in spread.components) == pytest.approx(1)
    assert sum(component.raw for component in spread.components) == pytest.approx(1)
    wanted = {
        ("split",): 3 / 8, ("weights",): 1 / 8, ("split", "order"): 2 / 8, SOURCES: 2 / 8,
    }  # fmt: skip
    for effect, component in found.items():
        assert component.share == pytest.approx(wanted.get(effect, 0), abs=0.03)
        assert component.raw == pytest.approx(component.share, abs=0.03)
        assert component.low <= component.share <= component.high
    assert spread.std == pytest.approx(math.sqrt(8), rel=0.03)


@pytest.mark.parametrize("seed", [0, 3])
def test_they_are_the_restricted_likelihoods_of_statsmodels(seed):
    """With seed 0 one component is at its limit of 0, and its raw share below it."""
    from statsmodels.formula.api import mixedlm

    variances = {"s": 1.0, "w": 0.6, "sw": 0.5, "so": 0.7, "swo": 1.0}
    y = runs(np.random.default_rng(seed), 24, variances)
    found = {component.effect: component for component in crossed(y).components}
    names = zip("bswo", np.indices(y.shape[:4]), strict=True)
    frame = pd.DataFrame({"y": y[..., 0].ravel(), **{n: of.ravel() for n, of in names}})
    random = {"s": "0 + C(s)", "w": "0 + C(w)", "sw": "0 + C(s):C(w)", "so": "0 + C(s):C(o)"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a component at its limit
        model = mixedlm("y ~ 0 + C(b)", frame, "0", vc_formula=random, groups="b")
        fitted = model.fit(reml=True)
    theirs = dict(zip(model.exog_vc.names, fitted.vcomp, strict=True)) | {"swo": fitted.scale}
    effects = {"split": "s", "weights": "w", "order": "o"}
    for effect, component in found.items():
        variance = theirs.get("".join(effects.get(source, "") for source in effect), 0.0)
        assert component.share == pytest.approx(variance / sum(theirs.values()), abs=1e-3)
    assert (found["split", "weights"].raw < 0 == found["split", "weights"].share) == (seed == 0)


@pytest.mark.parametrize("alone", ["s", "swo"])
def test_the_only_source_has_all_of_the_spread_in_its_interval(amount, alone):
    rng, studies = np.random.default_rng(5), amount(40, 400)
    place = {"s": 0, "swo": 4}[alone]
    found = [crossed(runs(rng, 48, {alone: 1.0})).components[place] for _ in range(studies)]
    assert np.mean([c.high == 1 for c in found]) >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / studies)
    assert np.mean([c.share for c in found]) > 0.85


def test_runs_without_any_spread_have_no_shares():
    spread = crossed(np.ones((3, 2, 2, 2, 5), bool))
    assert spread.std == 0
    assert {component.share for component in spread.components} == {0.0}


def test_runs_that_differ_by_their_few_images_alone_are_said_to():
    right = np.random.default_rng(6).random((60, 2, 2, 2, 200)) < 0.9
    components = crossed(right).components
    assert components[-1].effect == IMAGES
    assert components[-1].share > 0.5


def test_a_factorial_is_split_as_an_analysis_of_variance_splits_it():
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    rng = np.random.default_rng(7)
    table = rng.normal(0, 1, (2, 3, 2))
    found = {c.effect: c for c in factorial(np.array([table, table]), ("a", "b", "c"))}
    a, b, c = np.meshgrid(range(2), range(3), range(2), indexing="ij")
    frame = pd.DataFrame({"y": table.ravel(), "a": a.ravel(), "b": b.ravel(), "c": c.ravel()})
    with pytest.warns(RuntimeWarning, match="divide by zero"):  # no residual is left
        squares = anova_lm(ols("y ~ C(a) * C(b) * C(c)", frame).fit())["sum_sq"]
    total = squares.drop("Residual").sum()
    for effect, component in found.items():
        name = ":".join(f"C({factor})" for factor in effect)
        assert component.share == pytest.approx(squares[name] / total)
