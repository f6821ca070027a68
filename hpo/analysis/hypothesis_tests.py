"""Hypothesis tests on values per seed, and verdicts with Holm's correction.

scipy.stats is imported in the functions: it takes a sixth of a second to load.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

import numpy as np

from hpo.analysis.evidence import Evidence, Floats, Values, finite
from hpo.analysis.statistics import LEVEL
from hpo.language import marked

EXACT = 16  # values up to which all sign flips are tried; beyond, a sample of FLIPS
FLIPS = 9_999
FEW = 5  # values from which one more can be predicted
ROUNDING = 1e-12  # of a sum: a smaller difference is none


class Verdict(Enum):
    """The conclusion on a statement."""

    HOLDS = marked("holds")
    UNRESOLVED = marked("unresolved")
    REFUTED = marked("refuted")
    TOO_SMALL = marked("too small to matter")
    UNTESTABLE = marked("not testable")


# --- tests -------------------------------------------------------------------------------------


def greater(differences: Values, *, bimodal: bool = False) -> Evidence:
    """Tests that the mean of paired differences is above 0, by the paired t-test.

    By sign flips where pairs are bimodal, and where all values are equal: t would be infinite.
    These are the permutation test of Fisher (1935): if the mean is 0 and the distribution
    symmetric, each value could as well have the other sign. Their interval holds all means that are
    not rejected. Raises ValueError for no values and for values that are not finite.
    """
    values = finite(differences)
    n, effect = values.size, values.mean()
    if n == 1 or not values.any():
        bound = math.nan if n == 1 else 0.0
        return _evidence(n, effect, (bound, bound), 1.0, 1.0, "")
    if bimodal or np.ptp(values) < 1e-12 * np.abs(values).max():
        interval = _bound(values), -_bound(-values)
        p_for, p_against = _p_above(values, 0.0), _p_above(-values, 0.0)
        return _evidence(n, effect, interval, p_for, p_against, "sign flips")
    from scipy.stats import ttest_1samp

    return _evidence(n, effect, *_t(ttest_1samp, values, 0), "paired t")


def greater_unpaired(a: Values, b: Values, *, bimodal: bool = False) -> Evidence:
    """Tests that the mean of a is above that of b, by Student's t-test for two samples; n counts
    both. By a permutation test of the means, without an interval, where they are bimodal and both
    have two values or more.

    Welch's test allows two spreads, but of 10 values and 2 it rejects 25 of 1,000 true hypotheses
    at a level of 3. Raises ValueError as `greater` does.
    """
    from scipy.stats import permutation_test, ttest_ind

    def difference(x: Any, y: Any, axis: int) -> Any:
        return np.mean(x, axis=axis) - np.mean(y, axis=axis)

    samples = ours, theirs = finite(a), finite(b)
    n, effect, nothing = len(ours) + len(theirs), ours.mean() - theirs.mean(), (math.nan, math.nan)
    if n == 2 or np.ptp(ours) == np.ptp(theirs) == 0:  # no degree of freedom, or no spread
        return _evidence(n, effect, nothing, 1.0, 1.0, "")
    if not bimodal:
        return _evidence(n, effect, *_t(ttest_ind, ours, theirs), "two-sample t")
    if 1 in (len(ours), len(theirs)):
        return _evidence(n, effect, nothing, 1.0, 1.0, "")
    options: dict[str, Any] = {"n_resamples": FLIPS, "vectorized": True, "random_state": 0}
    above, below = (
        permutation_test(samples, difference, alternative=side, **options).pvalue
        for side in ("greater", "less")
    )
    return _evidence(n, effect, nothing, above, below, "permutation")


def _t(test: Any, a: Floats, b: Any) -> tuple[Any, float, float]:
    """Returns a t-test's 95% interval, and its p-values for a mean above and below 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of values that are nearly equal
        both, above, below = (test(a, b, alternative=s) for s in ("two-sided", "greater", "less"))
    return both.confidence_interval(), above.pvalue, below.pvalue


def _evidence(
    n: int, effect: float, interval: Any, p_for: float, p_against: float, test: str
) -> Evidence:
    low, high = map(float, interval)
    return Evidence(
        n=n, effect=float(effect), low=low, high=high, test=test, p_for=float(p_for),
        p_against=float(p_against),
    )  # fmt: skip


# --- sign flips --------------------------------------------------------------------------------


def _p_above(values: Floats, mean: float) -> float:
    """Returns the share of flips that give the differences from `mean` as large a sum."""
    shifted = values - mean
    sums = _signs(shifted.size) @ shifted
    return float((sums >= shifted.sum() - ROUNDING * np.abs(shifted).sum()).mean())


@cache
def _signs(n: int) -> Floats:
    """Returns all flips of n values, or FLIPS random ones and the one without a flip, as rows."""
    if n <= EXACT:
        bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        bits = np.vstack([np.ones(n, int), np.random.default_rng(0).integers(0, 2, (FLIPS, n))])
    return np.asarray(2.0 * bits - 1)


def _bound(values: Floats) -> float:
    """Returns the lower bound: the least mean that flips do not reject at 2.5%, by bisection. The
    smallest p-value is 1 in 2^n, so fewer than 6 values have none."""
    if 0.5**values.size > LEVEL / 2:
        return -np.inf
    low, high = float(values.min()), float(values.mean())
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _p_above(values, middle) > LEVEL / 2 else (middle, high)
    return high


# --- verdicts ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A verdict, its p-value after correction, and the factor of the correction."""

    verdict: Verdict
    p: float
    factor: int


def judge(p_values: Sequence[Sequence[float]], *, more: int = 0) -> list[Judged]:
    """Returns the verdict on each statement's p-values: for it, against it, and, if given, for a
    difference too small to matter.

    Holm's correction (1979) over all statements keeps the chance of any wrong verdict at LEVEL;
    `more` counts further ones with p = 1, as do statements that could not be tested. Of the null
    hypotheses behind two p-values exactly one is true (a mean is above 0 or it is not), so the
    smaller one counts as it is; of three at most two are true, so it is doubled. (The correction of
    statsmodels does not tell the factors, and collects garbage at every call.)
    """
    doubling = np.array([*(len(each) - 1 for each in p_values), *[1] * more], int)
    smallest = np.array([*(min(each) for each in p_values), *[1.0] * more])
    smallest = np.minimum(doubling * smallest, 1.0)
    order = np.argsort(smallest, kind="stable")
    factors = np.empty(smallest.size, int)
    factors[order] = np.arange(smallest.size, 0, -1)
    corrected = np.empty(smallest.size)
    corrected[order] = np.maximum.accumulate((factors * smallest)[order])
    decided, judged = (Verdict.HOLDS, Verdict.REFUTED, Verdict.TOO_SMALL), []
    found = zip(p_values, np.minimum(corrected, 1.0), factors * doubling, strict=False)
    for given, p, factor in found:
        verdict = Verdict.UNRESOLVED if p >= LEVEL else decided[int(np.argmin(given))]
        judged.append(Judged(verdict=verdict, p=float(p), factor=int(factor)))
    return judged


def one_more(
    values: Sequence[float], *, collapsed: bool, logs: bool = False
) -> tuple[float, float]:
    """Returns where one more run is expected: the 95% prediction interval of the finite values, or
    their range where runs fail to learn; NaN for fewer than FEW. logs: of values above 0 that
    spread in proportion to their size, such as losses."""
    known = [value for value in values if math.isfinite(value)]
    if len(known) < FEW:
        return math.nan, math.nan
    if collapsed:
        return min(known), max(known)
    if logs and min(known) > 0:
        low, high = prediction_interval(np.log(known))
        return math.exp(low), math.exp(high)
    return prediction_interval(known)


def prediction_interval(values: Values) -> tuple[float, float]:
    """Returns where one more value is expected with 95%: mean ± t·sd·√(1 + 1/n); NaN for n < 2."""
    array = finite(values)
    if array.size < 2:
        return math.nan, math.nan
    from scipy.stats import t

    scale = array.std(ddof=1) * (1 + 1 / array.size) ** 0.5
    low, high = t.interval(0.95, array.size - 1, loc=array.mean(), scale=scale or 1e-300)
    return float(low), float(high)
