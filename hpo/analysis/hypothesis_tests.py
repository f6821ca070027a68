"""What n values say of a statement, and the verdict on many statements at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from hpo.analysis.statistics import estimate

LEVEL = 0.05
EXACT = 16  # values up to which all sign flips are tried, and not a sample of them
FLIPS = 9_999
ROUNDING = 1e-12  # of a sum: less does not make one of two greater

Values = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What n values say of one statement: its effect with a 95% interval (NaN or infinite bounds
    where so few values give none), and two one-sided p-values. p_for is small where the statement
    is supported beyond chance, p_against where it is contradicted so. test: its name, "" where
    nothing can be tested."""

    n: int
    effect: float
    low: float
    high: float
    p_for: float
    p_against: float
    test: str


class Verdict(Enum):
    """What is concluded of a statement."""

    HOLDS = "holds"
    UNRESOLVED = "unresolved"
    REFUTED = "refuted"


# --- statements --------------------------------------------------------------------------------


def greater(differences: Values, *, bimodal: bool = False) -> Evidence:
    """That the mean of paired differences is above 0: by the paired t-test, or by flipping signs
    where pairs are bimodal or all alike (a t of infinity would be false certainty).

    Raises ValueError without a difference, or for one that is not finite.
    """
    found = _finite(differences)
    if found.size == 1 or not found.any():
        return _untested(found)
    if bimodal or np.ptp(found) < 1e-12 * np.abs(found).max():
        return _sign_flip(found)
    mean = estimate(found)
    error = float(found.std(ddof=1)) / found.size**0.5
    return Evidence(
        n=found.size, effect=mean.mean, low=mean.low, high=mean.high,
        p_for=_t_above(mean.mean, error, found.size - 1),
        p_against=_t_above(-mean.mean, error, found.size - 1), test="paired t",
    )  # fmt: skip


def greater_unpaired(a: Values, b: Values, *, bimodal: bool = False) -> Evidence:
    """That the mean of a is above that of b, by Student's t-test for two samples of one spread; n
    counts both. (Welch's would grant them two, but of 10 values and 2 it rejects 25 of 1,000 true
    hypotheses at a level of 3.) Where they are bimodal by the permutation test of their means,
    which gives no interval.

    Raises ValueError where either has no value, or one that is not finite.
    """
    mean, error, degrees = _pooled(_finite(a), _finite(b))
    n = len(a) + len(b)
    if not degrees:
        return _nothing(n, mean)
    if bimodal:
        return _shuffled(_finite(a), _finite(b))
    half = float(stdtrit(degrees, 0.975)) * error
    return Evidence(
        n=n, effect=mean, low=mean - half, high=mean + half,
        p_for=_t_above(mean, error, degrees), p_against=_t_above(-mean, error, degrees),
        test="two-sample t",
    )  # fmt: skip


@cache
def mostly_fails(failures: int, n: int) -> Evidence:
    """That something fails more often than not: the exact binomial test against one half, with the
    interval of Clopper and Pearson (1934). Raises ValueError without a try."""
    if n < 1:
        raise ValueError("a share needs at least 1 try")
    from scipy.stats import binomtest  # half a second to load

    above = binomtest(failures, n, 0.5, alternative="greater").pvalue
    below = binomtest(failures, n, 0.5, alternative="less").pvalue
    interval = binomtest(failures, n).proportion_ci(0.95, method="exact")
    return Evidence(
        n=n, effect=failures / n, low=float(interval.low), high=float(interval.high),
        p_for=float(above), p_against=float(below), test="exact binomial",
    )  # fmt: skip


def within(differences: Values, margin: float) -> Evidence:
    """That the mean of paired differences lies within ± margin, by two one-sided t-tests
    (Schuirmann 1987). Raises ValueError as `greater` does."""
    found = _finite(differences)
    if found.size == 1:
        return _untested(found)
    error = float(found.std(ddof=1)) / found.size**0.5
    return _within(float(found.mean()), error, found.size - 1, found.size, margin)


def within_unpaired(a: Values, b: Values, margin: float) -> Evidence:
    """That the means of a and b lie within ± margin of each other, by two one-sided t-tests
    as `greater_unpaired` makes them.
    Raises ValueError as `greater_unpaired` does."""
    mean, error, degrees = _pooled(_finite(a), _finite(b))
    n = len(a) + len(b)
    if not degrees:
        return _nothing(n, mean)
    return _within(mean, error, degrees, n, margin)


def _within(mean: float, error: float, degrees: float, n: int, margin: float) -> Evidence:
    """Outside is looked for on two sides, so its p-value is doubled. Values all alike are too good
    to be true of so few."""
    if error == 0:
        return _nothing(n, mean)
    half = float(stdtrit(degrees, 0.975)) * error
    above = _t_above(mean - margin, error, degrees)
    below = _t_above(-margin - mean, error, degrees)
    return Evidence(
        n=n, effect=mean, low=mean - half, high=mean + half,
        p_for=max(_t_above(margin - mean, error, degrees), _t_above(mean + margin, error, degrees)),
        p_against=min(1.0, 2 * min(above, below)),
        test="equivalence",
    )  # fmt: skip


def _nothing(n: int, effect: float, bound: float = float("nan")) -> Evidence:
    """What can be seen, and not tested."""
    return Evidence(n=n, effect=effect, low=bound, high=bound, p_for=1.0, p_against=1.0, test="")


def _untested(found: NDArray[np.float64]) -> Evidence:
    """One value, or nothing but zeros."""
    bound = float("nan") if found.size == 1 else 0.0
    return _nothing(found.size, float(found.mean()), bound)


def _finite(values: Values) -> NDArray[np.float64]:
    found = np.asarray(values, float)
    if not found.size or not np.isfinite(found).all():
        raise ValueError(f"a test needs finite values, at least 1 of them; got {found.tolist()}")
    return found


def _t_above(mean: float, error: float, degrees: float) -> float:
    """The one-sided p-value for a mean above 0; without any spread the mean decides."""
    if error == 0:
        return 0.5 if mean == 0 else float(mean < 0)
    return float(stdtr(degrees, -mean / error))


def _shuffled(a: NDArray[np.float64], b: NDArray[np.float64]) -> Evidence:
    from scipy.stats import permutation_test

    def difference(x: Any, y: Any, axis: int) -> Any:
        return np.mean(x, axis=axis) - np.mean(y, axis=axis)

    p_for, p_against = (
        float(
            permutation_test(
                (a, b), difference, alternative=side, n_resamples=FLIPS, vectorized=True,
                random_state=0,
            ).pvalue
        )
        for side in ("greater", "less")
    )  # fmt: skip
    return Evidence(
        n=a.size + b.size, effect=float(a.mean() - b.mean()), low=float("nan"), high=float("nan"),
        p_for=p_for, p_against=p_against, test="permutation",
    )  # fmt: skip


def _pooled(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float, int]:
    """Difference of the means, its standard error and degrees of freedom, with one spread for both;
    0 degrees where it is not known, or there is none."""
    mean, degrees = float(a.mean() - b.mean()), a.size + b.size - 2
    squares = float(((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum())
    if not degrees or squares == 0:
        return mean, 0.0, 0
    return mean, (squares / degrees * (1 / a.size + 1 / b.size)) ** 0.5, degrees


# --- sign flips --------------------------------------------------------------------------------


def _sign_flip(found: NDArray[np.float64]) -> Evidence:
    """The permutation test of Fisher (1935): were the mean 0 and the differences symmetric about
    it, each could as well have had the other sign. The interval holds every mean that the test does
    not reject."""
    return Evidence(
        n=found.size, effect=float(found.mean()), low=_bound(found), high=-_bound(-found),
        p_for=_p_above(found, 0.0), p_against=_p_above(-found, 0.0), test="sign flips",
    )  # fmt: skip


def _p_above(found: NDArray[np.float64], mean: float) -> float:
    """The share of flips that give the differences from `mean` a sum as great as they have."""
    shifted = found - mean
    sums = _signs(shifted.size) @ shifted
    return float((sums >= shifted.sum() - ROUNDING * np.abs(shifted).sum()).mean())


@cache
def _signs(n: int) -> NDArray[np.float64]:
    """All flips of n values, or FLIPS at random and none flipped: a row a flip."""
    if n <= EXACT:
        bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        bits = np.vstack([np.ones(n, int), np.random.default_rng(0).integers(0, 2, (FLIPS, n))])
    return np.asarray(2.0 * bits - 1)


def _bound(found: NDArray[np.float64]) -> float:
    """The lower bound: the least mean that flips do not reject at 2.5%, for their p-value rises
    with it. Below the least difference that is 1 in 2^n: too much for fewer than 6 values."""
    if 0.5**found.size > LEVEL / 2:
        return -np.inf
    low, high = float(found.min()), float(found.mean())
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _p_above(found, middle) > LEVEL / 2 else (middle, high)
    return high


# --- verdicts ----------------------------------------------------------------------------------


def combine(parts: Sequence[Evidence]) -> tuple[float, float]:
    """(p_for, p_against) of the statement that all parts are true. It holds if each does, so the
    weakest part decides (the intersection-union test, Berger 1982); it is refuted if any part is,
    so the strongest contradiction counts as often as there were chances for it (Bonferroni)."""
    against = min(part.p_against for part in parts)
    return max(part.p_for for part in parts), min(1.0, len(parts) * against)


def judge(p_values: Sequence[tuple[float, float]]) -> list[tuple[Verdict, float]]:
    """The verdicts on statements with these (p_for, p_against), each with its two-sided p-value
    after Holm's correction (1979) over all of them: the chance of any false verdict is at most
    LEVEL. A statement that could not be tested, with p-values of 1, counts among them."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests  # a second to load

    two_sided = [min(1.0, 2 * min(pair)) for pair in p_values]
    corrected = [float(p) for p in multipletests(two_sided, method="holm")[1]]
    return [(_verdict(pair, p), p) for pair, p in zip(p_values, corrected, strict=True)]


def _verdict(pair: tuple[float, float], p: float) -> Verdict:
    if p >= LEVEL:
        return Verdict.UNRESOLVED
    return Verdict.HOLDS if pair[0] < pair[1] else Verdict.REFUTED


def prediction_interval(values: Values) -> tuple[float, float] | None:
    """Where one more value is expected with 95%: mean ± t·sd·√(1 + 1/n); None for fewer than 2."""
    found = _finite(values)
    if found.size < 2:
        return None
    half = float(stdtrit(found.size - 1, 0.975) * found.std(ddof=1) * (1 + 1 / found.size) ** 0.5)
    return float(found.mean()) - half, float(found.mean()) + half
