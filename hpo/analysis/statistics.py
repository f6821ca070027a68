"""Means, standard deviations and paired differences over seeds, and what few seeds can show."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, nctdtr, ndtr, stdtrit

LEVEL = 0.05  # of all tests: the chance of a false verdict
POWER = 0.8
MOST_SEEDS = 10_000


@dataclass(frozen=True, kw_only=True)
class Summary:
    """n finite values. sd: the sample standard deviation (n - 1), NaN for one value."""

    n: int
    mean: float
    sd: float
    median: float
    low: float
    high: float


def summarize(values: Sequence[float]) -> Summary | None:
    """Summarizes the finite values; None if there are none."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return None
    return Summary(
        n=finite.size,
        mean=float(finite.mean()),
        sd=float(finite.std(ddof=1)) if finite.size > 1 else float("nan"),
        median=float(np.median(finite)),
        low=float(finite.min()),
        high=float(finite.max()),
    )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean, or a mean of paired differences, with its 95% interval (NaN bounds for one value)."""

    n: int
    mean: float
    low: float
    high: float

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def estimate(values: Sequence[float] | NDArray[np.float64], *, share: float = 0.0) -> Estimate:
    """Returns the mean with Student's t interval. Raises ValueError for no values.

    share: rows that judge a network over rows that train it, where networks share training rows, as
    those of folds do. The variance of their mean is then taken as s² (1 / n + share), by Nadeau and
    Bengio (Machine Learning 52 (2003) 239-281).
    """
    if not len(values):
        raise ValueError("a mean needs at least 1 value")
    array = np.asarray(values, float)
    n, mean = array.size, float(array.mean())
    if n == 1:
        return Estimate(n=1, mean=mean, low=float("nan"), high=float("nan"))
    # By scipy.special: scipy.stats would add a sixth of a second to `hpo show`.
    error = float(array.std(ddof=1)) * (1 / n + share) ** 0.5
    half = float(stdtrit(n - 1, 0.975)) * error
    return Estimate(n=n, mean=mean, low=mean - half, high=mean + half)


def ranked_right(difference: float, std: float) -> float:
    """Returns the probability that single runs of two networks come out in their true order."""
    return float(ndtr(difference / (math.sqrt(2) * std)))


def seeds_needed(difference: float, std: float) -> int:
    """Returns how many seeds each of two networks needs, unpaired, for a t-test at LEVEL to find a
    difference with POWER; at most MOST_SEEDS."""
    counts = range(2, MOST_SEEDS)  # power rises with them
    return 2 + bisect_left(counts, POWER, key=lambda n: power(difference / std, n))


def power(effect: float, n: int) -> float:
    """Returns the chance that a two-sided t-test at LEVEL of n values and n others finds that their
    means differ by `effect` standard deviations: t is then noncentral."""
    freedom, shift = 2 * (n - 1), effect * math.sqrt(n / 2)
    critical = stdtrit(freedom, 1 - LEVEL / 2)
    tails = nctdtr(freedom, shift, [-critical, critical])
    below, above = np.nan_to_num(tails)  # NaN: a chance too small for SciPy
    return float(below + 1 - above)


def guess_line(n: int, share: float) -> float:
    """Returns the accuracy on n rows above which more are right than a constant answer gets, which
    the share of the largest class gives: by a one-sided exact binomial test at LEVEL."""
    most = bisect_left(range(n), 1 - LEVEL, key=lambda right: bdtr(right, n, share))
    return (most + 0.5) / n


def boundary(accepted: Callable[[float], bool], outside: float, inside: float) -> float:
    """Returns by bisection where `accepted` begins to be true, from outside to inside."""
    for _ in range(60):
        middle = (outside + inside) / 2
        outside, inside = (outside, middle) if accepted(middle) else (middle, inside)
    return inside
