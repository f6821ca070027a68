"""Evidence that stays valid however often it is looked at: e-processes, and one planned look.

An e-process starts at 1 and, if its null hypothesis is true, has an expectation of at most 1 at any
stopping time. So the chance that it ever reaches 1/p is at most p (Ville's inequality), and
1 / (its maximum so far) is a p-value at any number of seeds. Ramdas et al. (2023), "Game-theoretic
statistics and safe anytime-valid inference".

A study that fixed a number of seeds before its first trial has a second p-value: that of a test of
exactly these seeds, which is stronger there. The two share the error, each with one half:
p = min(2 · p of the planned look, 2 / (the maximum so far)) is valid at any number of seeds, for
P(p ≤ α) ≤ α/2 + α/2 (Bonferroni). Before the planned number only the e-process counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv, betaln, stdtr, stdtrit

from hpo.analysis.statistics import LEVEL, boundary

# Precision of the normal prior of mean / sd: effects of about one standard deviation are expected.
PRIOR = 1.0
SHARE = 0.5  # of the error, for the planned look; the rest is the e-process's
# Degrees of freedom that the planned t-test gives away, because differences of two networks are
# skewed: by 0.35 in accuracy, with which Student's own would err in more than 5% of studies.
GIVEN = 1
LEAST = 2 + GIVEN  # values of a planned t-test
EQUAL = 1e-12  # values that differ by a smaller share are alike

Floats = NDArray[np.float64]
Values = Sequence[float] | Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The evidence of n values for or against a statement.

    effect: with its 95% interval.
    low, high: infinite where n is too small, NaN where nothing can be tested. Of e-processes the
        interval covers at all n at once: what neither the planned look nor the confidence sequence
        rejects.
    test: its name; "" if nothing can be tested.
    p_for, p_against, p_small: one-sided p-values, small where the values support the statement,
        contradict it, or show a difference too small to matter.
    path_for, path_against, path_too_small: the e-processes by n behind the p-values, large where
        these are small. Empty for a test that is valid at one n only; the last one is None if no
        limit is given to what matters.
    spread: the values' standard deviation; NaN of shares and of one value.
    ties: values that count for neither side of a share, whose effect is that of the others.
    planned: how many of the first values the planned look tests; 0 while the study has not reached
        it; None without a plan.
    looks: the p-values of the planned look, in the order of the paths; 1 without one.
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
    spread: float = math.nan
    ties: int = 0
    planned: int | None = None
    looks: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def kept(self) -> float:
        """Returns the e-process's share of the error."""
        return _kept(self.planned)

    @property
    def interval(self) -> tuple[float, float]:
        return self.low, self.high


def _kept(planned: int | None) -> float:
    """Returns the e-process's share of the error: all of it without a plan."""
    return 1.0 if planned is None else 1 - SHARE


NOTHING = Evidence(
    n=0, effect=math.nan, low=math.nan, high=math.nan, test="", p_for=1.0, p_against=1.0
)


def _evidence(
    n: int,
    effect: float,
    interval: tuple[float, float],
    test: str,
    paths: tuple[Floats, Floats, Floats | None],
    looks: tuple[float, float, float],
    planned: int | None,
) -> Evidence:
    """Returns the evidence of e-processes and of a planned look. A p-value is the smaller of the
    look's and 1 / (the process's maximum), each over its share of the error; at most 1."""
    kept = _kept(planned)
    p_for, p_against, p_small = (
        min(1.0, 1 / (kept * (1.0 if path is None else path.max(initial=1.0))), look / SHARE)
        for path, look in zip(paths, looks, strict=True)
    )
    return Evidence(
        n=n, effect=effect, low=interval[0], high=interval[1], test=test, p_for=float(p_for),
        p_against=float(p_against), p_small=float(p_small), path_for=paths[0],
        path_against=paths[1], path_too_small=paths[2], planned=planned, looks=looks,
    )  # fmt: skip


# --- means -------------------------------------------------------------------------------------


def mean_above(
    values: Values, *, matters: float | None = None, planned: int | None = None
) -> Evidence:
    """Tests that a mean is above 0, by the t-test for any stopping time and, of the first `planned`
    values, by Student's.

    matters: the smallest difference of interest. planned: see Evidence. Raises ValueError for no
    values and for values that are not finite.
    """
    array = finite(values)
    above, below = _p_above(array[:planned]), _p_above(-array[:planned])
    small, look = None, 1.0
    if matters is not None:
        small, look = _within(array, matters), _p_within(array[:planned], matters)
    return _mean(array, (_e_above(array), _e_above(-array), small), (above, below, look), planned)


def mean_within(values: Values, margin: float, *, planned: int | None = None) -> Evidence:
    """Tests that a mean lies within ± margin: of the planned look by two one-sided t-tests. Raises
    ValueError as `mean_above` does."""
    array = finite(values)
    outside = np.maximum(_e_above(array - margin), _e_above(-array - margin)) / 2  # of two sides
    first = array[:planned]
    beyond = min(1.0, 2 * min(_p_above(first - margin), _p_above(-first - margin)))
    looks = _p_within(first, margin), beyond, 1.0
    return _mean(array, (_within(array, margin), outside, None), looks, planned)


def _mean(
    array: Floats,
    paths: tuple[Floats, Floats, Floats | None],
    looks: tuple[float, float, float],
    planned: int | None,
) -> Evidence:
    test, effect = "" if _alike(array) else "t", float(array.mean())
    looks = looks if planned else (1.0, 1.0, 1.0)
    interval = mean_interval(array, planned)
    found = _evidence(array.size, effect, interval, test, paths, looks, planned)
    return replace(found, spread=float(array.std(ddof=1)) if array.size > 1 else math.nan)


def mean_interval(values: Values, planned: int | None) -> tuple[float, float]:
    """Returns the 95% interval of a mean that covers at any n: the confidence sequence, cut by the
    t interval of the planned look, each with its share of the error."""
    low, high = confidence_sequence(values, LEVEL * _kept(planned))
    first = finite(values)[:planned] if planned else np.empty(0)
    if first.size < LEAST or _alike(first):
        return low, high
    freedom = first.size - 1 - GIVEN
    half = stdtrit(freedom, 1 - LEVEL * SHARE / 2) * first.std(ddof=1) / first.size**0.5
    return _cut((low, high), (float(first.mean() - half), float(first.mean() + half)))


def _cut(sequence: tuple[float, float], look: tuple[float, float]) -> tuple[float, float]:
    """Returns what both intervals hold; the sequence, which goes on with the seeds, if nothing."""
    low, high = max(sequence[0], look[0]), min(sequence[1], look[1])
    return (low, high) if low <= high else sequence


def _p_above(values: Floats) -> float:
    """Returns the one-sided p-value of Student's t-test against a mean of 0 or less, with GIVEN
    fewer degrees of freedom; 1 for too few values, and where all are alike."""
    if values.size < LEAST or _alike(values):
        return 1.0
    t = values.mean() / values.std(ddof=1) * values.size**0.5
    return float(stdtr(values.size - 1 - GIVEN, -t))


def _p_within(values: Floats, margin: float) -> float:
    """Two one-sided tests (Schuirmann 1987)."""
    return max(_p_above(values + margin), _p_above(margin - values))


def _within(array: Floats, margin: float) -> Floats:
    """Both ends must be rejected, each at a time of its own, so the maxima are compared."""
    ends = (_e_above(array + margin), _e_above(margin - array))
    return np.minimum(*(np.maximum.accumulate(end) for end in ends))


def _e_above(values: Floats) -> Floats:
    """Returns the e-process against a mean of 0 or less, for n = 1, 2, …; 1 while all are alike."""
    n = np.arange(1, values.size + 1)
    centred = values - values.mean()  # less is lost to rounding in the sums of squares
    squares = np.cumsum(centred**2) - np.cumsum(centred) ** 2 / n
    alike = np.maximum.accumulate(values) - np.minimum.accumulate(values)
    alike = alike <= EQUAL * np.maximum.accumulate(np.abs(values))
    return np.where(alike, 1.0, e_above(n, np.cumsum(values) / n, np.maximum(squares, 0.0)))


def e_above(n: Any, mean: Any, squares: Any) -> Floats:
    """Returns the evidence of n values against a mean of 0 or less, by their mean and their sum of
    squares around it.

    A mixture of likelihood ratios of t (Lai 1976; Pérez-Ortiz et al. 2024, "E-statistics, group
    invariance and anytime-valid testing"): the right Haar prior for the standard deviation, and for
    mean / sd the positive half of a normal distribution with precision PRIOR. It is twice the
    two-sided mixture times the posterior probability of a positive mean, which follows Student's t.
    R's safestats has the same test (type eGauss with g = 1) and integrates the one-sided mixture
    numerically.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        share = PRIOR / (PRIOR + n)
        ratio = (squares + n * mean**2) / (squares + share * n * mean**2)
        scale = np.sqrt((squares + share * n * mean**2) / (n * (n + PRIOR)))
        positive = stdtr(n, n * mean / (n + PRIOR) / scale)
        return np.asarray(2 * np.sqrt(share) * np.exp(n / 2 * np.log(ratio)) * positive, float)


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


def mostly(hits: Sequence[bool], *, planned: int | None = None) -> Evidence:
    """Tests that a share is above one half. Raises ValueError for no values."""
    if not len(hits):
        raise ValueError("a share needs at least 1 try")
    signs = np.where(np.asarray(hits, bool), 1.0, -1.0)
    return _share(signs, "runs", planned)


def mostly_above(differences: Values, *, planned: int | None = None) -> Evidence:
    """Tests that a difference is above 0 more often than below; the effect is the share of those
    above. Zeros count for neither. Values may be infinite. Raises ValueError for no values and for
    NaN."""
    signs = np.sign(np.asarray(differences, float))
    if not signs.size or np.isnan(signs).any():
        raise ValueError(f"a test of signs needs values and no NaN; got {list(differences)}")
    return _share(signs, "signs", planned)


def _share(signs: Floats, test: str, planned: int | None) -> Evidence:
    hits, n = np.cumsum(signs > 0), np.cumsum(signs != 0)
    effect, test = (float(hits[-1] / n[-1]), test) if n[-1] else (0.5, "")
    k, of = (int(hits[planned - 1]), int(n[planned - 1])) if planned else (0, 0)
    interval = share_interval(int(hits[-1]), int(n[-1]), LEVEL * _kept(planned))
    if of:  # Clopper and Pearson's interval, of the planned look
        tail = LEVEL * SHARE / 2
        low = float(betaincinv(k, of - k + 1, tail)) if k else 0.0
        high = float(betaincinv(k + 1, of - k, 1 - tail)) if k < of else 1.0
        interval = _cut(interval, (low, high))
    looks = _p_mostly(k, of), _p_mostly(of - k, of), 1.0
    paths = e_mostly(hits, n), e_mostly(n - hits, n), None
    found = _evidence(signs.size, effect, interval, test, paths, looks, planned)
    return replace(found, ties=signs.size - int(n[-1]))


def _p_mostly(hits: int, n: int) -> float:
    """Returns the exact binomial p-value against a share of one half or less."""
    return float(betainc(hits, n - hits + 1, 0.5)) if hits else 1.0


def e_mostly(hits: Any, n: Any) -> Floats:
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


def combine(parts: Sequence[Evidence]) -> tuple[float, ...]:
    """Returns the p-values for and against the statement that all parts are true, and, if a part
    has a limit to what matters, for a difference too small; 1 if a part has no values.

    It holds if each part does: the weakest decides (intersection-union test, Berger 1982). It is
    refuted, or too small to matter, if any part is: the smallest p-value times the number of parts
    (Bonferroni).
    """
    if not all(part.n for part in parts):
        return 1.0, 1.0
    against, small = (
        min(1.0, len(parts) * min(p))
        for p in ([part.p_against for part in parts], [part.p_small for part in parts])
    )
    limited = any(part.path_too_small is not None for part in parts)
    return max(part.p_for for part in parts), against, *([small] if limited else [])
