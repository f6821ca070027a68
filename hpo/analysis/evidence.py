"""Evidence that stays valid however often it is looked at: e-processes over seeds.

An e-process starts at 1 and, if its null hypothesis is true, has an expectation of at most 1 at any
stopping time. So the chance that it ever reaches 1/p is at most p (Ville's inequality), and
1 / (its maximum so far) is a p-value at any number of seeds. Ramdas et al. (2023), "Game-theoretic
statistics and safe anytime-valid inference".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv, betaln, stdtr

from hpo.analysis.statistics import LEVEL, boundary

# Precision of the normal prior of mean / sd: effects of about one standard deviation are expected.
PRIOR = 1.0
EQUAL = 1e-12  # values that differ by a smaller share are alike

Floats = NDArray[np.float64]
Values = Sequence[float] | Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The evidence of n values for or against a statement.

    effect: with its 95% interval.
    low, high: infinite where n is too small, NaN where nothing can be tested. Of e-processes the
        interval is a confidence sequence, which covers at all n at once.
    test: its name; "" if nothing can be tested.
    p_for, p_against, p_small: one-sided p-values, small where the values support the statement,
        contradict it, or show a difference too small to matter.
    path_for, path_against, path_too_small: the e-processes by n behind the p-values, large where
        these are small. Empty for a test that is valid at one n only; the last one is None if no
        limit is given to what matters.
    """

    n: int
    effect: float
    low: float
    high: float
    test: str
    p_for: float
    p_against: float
    p_small: float = 1.0
    path_for: Floats = field(default_factory=lambda: np.empty(0))
    path_against: Floats = field(default_factory=lambda: np.empty(0))
    path_too_small: Floats | None = None

    @property
    def interval(self) -> tuple[float, float]:
        return self.low, self.high


NOTHING = Evidence(
    n=0, effect=math.nan, low=math.nan, high=math.nan, test="", p_for=1.0, p_against=1.0
)


def _evidence(
    n: int,
    effect: float,
    interval: tuple[float, float],
    test: str,
    above: Floats,
    below: Floats,
    small: Floats | None = None,
) -> Evidence:
    """Returns the evidence of e-processes, each with its p-value: 1 / (its maximum), at most 1."""
    (low, high), paths = interval, (above, below, small)
    p_for, p_against, p_small = (
        1.0 if path is None else float(1 / max(path.max(initial=1.0), 1.0)) for path in paths
    )
    return Evidence(
        n=n, effect=effect, low=low, high=high, test=test, p_for=p_for, p_against=p_against,
        p_small=p_small, path_for=above, path_against=below, path_too_small=small,
    )  # fmt: skip


# --- means -------------------------------------------------------------------------------------


def mean_above(values: Values, *, matters: float | None = None) -> Evidence:
    """Tests that a mean is above 0, by the t-test for any stopping time.

    matters: the smallest difference of interest. Raises ValueError for no values and for values
    that are not finite.
    """
    array = finite(values)
    small = None if matters is None else _within(array, matters)
    return _mean(array, _e_above(array), _e_above(-array), small)


def mean_within(values: Values, margin: float) -> Evidence:
    """Tests that a mean lies within ± margin. Raises ValueError as `mean_above` does."""
    array = finite(values)
    outside = np.maximum(_e_above(array - margin), _e_above(-array - margin)) / 2  # of two sides
    return _mean(array, _within(array, margin), outside)


def _mean(array: Floats, above: Floats, below: Floats, small: Floats | None = None) -> Evidence:
    test, effect = "" if _alike(array) else "t", float(array.mean())
    return _evidence(array.size, effect, confidence_sequence(array), test, above, below, small)


def _within(array: Floats, margin: float) -> Floats:
    """Both ends must be rejected, each at a time of its own, so the maxima are compared."""
    ends = (_e_above(array + margin), _e_above(margin - array))
    return np.minimum(*(np.maximum.accumulate(end) for end in ends))


def _e_above(values: Floats) -> Floats:
    """Returns the e-process against a mean of 0 or less, for n = 1, 2, …

    A mixture of likelihood ratios of t (Lai 1976; Pérez-Ortiz et al. 2024, "E-statistics, group
    invariance and anytime-valid testing"): the right Haar prior for the standard deviation, and for
    mean / sd the positive half of a normal distribution with precision PRIOR. It is twice the
    two-sided mixture times the posterior probability of a positive mean, which follows Student's t.
    1 while all values are alike. R's safestats has the same test (type eGauss with g = 1) and
    integrates the one-sided mixture numerically.
    """
    n = np.arange(1, values.size + 1)
    mean = np.cumsum(values) / n
    centred = values - values.mean()  # less is lost to rounding in the sums of squares
    squares = np.cumsum(centred**2) - np.cumsum(centred) ** 2 / n
    squares = np.maximum(squares, 0.0)  # around the mean of the first n
    with np.errstate(divide="ignore", invalid="ignore"):
        share = PRIOR / (PRIOR + n)
        ratio = (squares + n * mean**2) / (squares + share * n * mean**2)
        scale = np.sqrt((squares + share * n * mean**2) / (n * (n + PRIOR)))
        positive = stdtr(n, n * mean / (n + PRIOR) / scale)
        process = 2 * np.sqrt(share) * np.exp(n / 2 * np.log(ratio)) * positive
    alike = np.maximum.accumulate(values) - np.minimum.accumulate(values)
    alike = alike <= EQUAL * np.maximum.accumulate(np.abs(values))
    return np.where(alike, 1.0, process)


def confidence_sequence(values: Values, level: float = LEVEL) -> tuple[float, float]:
    """Returns the interval that covers a mean with 1 - level at all n at once: the means that the
    two-sided mixture, E = sqrt(φ/(φ+n)) · [(1 + t²/ν) / (1 + φ/(φ+n) · t²/ν)]^(n/2), has not
    rejected, with φ = PRIOR and ν = n - 1. NaN if all values are alike."""
    array = finite(values)
    n = array.size
    if _alike(array):
        return math.nan, math.nan
    share = PRIOR / (PRIOR + n)
    limit = (1 / (level * math.sqrt(share))) ** (2 / n)
    if share * limit >= 1:
        return -math.inf, math.inf
    half = math.sqrt((n - 1) * (limit - 1) / (1 - share * limit) / n) * array.std(ddof=1)
    return float(array.mean() - half), float(array.mean() + half)


def _alike(array: Floats) -> bool:
    return bool(np.ptp(array) <= EQUAL * np.abs(array).max())


def finite(values: Values) -> Floats:
    """Returns the values as an array. Raises ValueError for none, and if one is not finite."""
    array = np.asarray(values, float)
    if not array.size or not np.isfinite(array).all():
        raise ValueError(f"a test needs finite values, at least 1 of them; got {array.tolist()}")
    return array


# --- shares ------------------------------------------------------------------------------------


def mostly(hits: Sequence[bool]) -> Evidence:
    """Tests that a share is above one half. Raises ValueError for no values."""
    if not len(hits):
        raise ValueError("a share needs at least 1 try")
    signs = np.where(np.asarray(hits, bool), 1.0, -1.0)
    return _share(signs, "runs")


def mostly_above(differences: Values) -> Evidence:
    """Tests that a difference is above 0 more often than below; the effect is the share of those
    above. Zeros count for neither. Values may be infinite. Raises ValueError for no values and for
    NaN."""
    signs = np.sign(np.asarray(differences, float))
    if not signs.size or np.isnan(signs).any():
        raise ValueError(f"a test of signs needs values and no NaN; got {list(differences)}")
    return _share(signs, "signs")


def _share(signs: Floats, test: str) -> Evidence:
    hits, n = np.cumsum(signs > 0), np.cumsum(signs != 0)
    effect, test = (float(hits[-1] / n[-1]), test) if n[-1] else (0.5, "")
    interval = share_interval(int(hits[-1]), int(n[-1]))
    return _evidence(signs.size, effect, interval, test, _e_mostly(hits, n), _e_mostly(n - hits, n))


def _e_mostly(hits: Any, n: Any) -> Floats:
    """Returns the e-process against a share of one half or less: likelihood ratios mixed over
    shares from ½ to 1, 2 · 2^n · B(k+1, n-k+1) · P(Beta(k+1, n-k+1) > ½)."""
    a, b = hits + 1.0, n - hits + 1.0
    upper = betainc(b, a, 0.5)
    return np.asarray(np.exp((n + 1) * math.log(2) + betaln(a, b)) * upper, float)


def share_interval(hits: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Returns the confidence sequence of a share: the shares that the likelihood ratio, mixed
    evenly over 0 to 1, has not rejected. NaN for n = 0."""
    if not n:
        return math.nan, math.nan
    mixture = float(betaln(hits + 1, n - hits + 1)) + math.log(level)

    def accepted(share: float) -> bool:
        likelihood = hits * math.log(share) + (n - hits) * math.log1p(-share)
        return mixture < likelihood

    edge, top = 1e-9, min(max(hits / n, 1e-9), 1 - 1e-9)
    low = 0.0 if hits == 0 else boundary(accepted, edge, top)
    high = 1.0 if hits == n else boundary(accepted, 1 - edge, top)
    return low, high


def most_failures(failures: int, n: int, level: float = LEVEL) -> float:
    """Returns the upper bound of a failure rate, one-sided, after Clopper and Pearson (1934): 26%
    for 0 of 10."""
    return 1.0 if failures == n else float(betaincinv(failures + 1, n - failures, 1 - level))


# --- verdicts ----------------------------------------------------------------------------------


def combine(parts: Sequence[Evidence]) -> tuple[float, float, float]:
    """Returns the p-values (for, against, too small) of the statement that all parts are true; 1 if
    one of them has no values.

    It holds if each part does: the weakest decides (intersection-union test, Berger 1982). It is
    refuted, or too small to matter, if any part is: the smallest p-value times the number of parts
    (Bonferroni).
    """
    if not all(part.n for part in parts):
        return 1.0, 1.0, 1.0
    smallest = (min(part.p_against for part in parts), min(part.p_small for part in parts))
    against, small = (min(1.0, len(parts) * p) for p in smallest)
    return max(part.p_for for part in parts), against, small
