"""Which network to take: whether the best really leads, which others may be the best as well, and
the knee of a front."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from hpo.analysis.statistics import LEVEL, Estimate

Floats = NDArray[np.float64]


def lead(values: Floats, most: float = 100.0) -> Estimate:
    """Returns the best mean minus the second best, with its 95% interval. values: (seeds, networks)
    of gains, of two seeds and two networks or more; most: the best gain that there can be.

    The two-sided t-test in pairs of seeds, its variance pooled. That the two were chosen by these
    values makes it err less often, not more: the second of many equal ones is close to the first
    (tests/benchmarks/validity.py). It is one for other seeds and splits of the same data; for other
    data, splits that overlap ask for a wider one (Nadeau & Bengio 2003).
    """
    second, best = np.sort(values.mean(axis=0))[-2:]
    error, freedom, _ = _pooled(values, most)
    half, mean = float(stdtrit(freedom, 1 - LEVEL / 2)) * error, float(best - second)
    return Estimate(n=len(values), mean=mean, low=mean - half, high=mean + half)


def rivals(values: Floats, most: float = 100.0) -> list[int]:
    """Returns the columns that may have the best mean as well as the best and the second best,
    the best first: by multiple comparisons with the best (Hsu 1984), of all at once by Bonferroni's
    correction. values and most: see lead."""
    means = values.mean(axis=0)
    error, freedom, alike = _pooled(values, most)
    half = float(stdtrit(freedom, 1 - LEVEL / (len(alike) - 1))) * error
    return [int(i) for place, i in enumerate(alike) if place < 2 or means.max() - means[i] < half]


def knee(front: Sequence[tuple[float, float]]) -> int | None:
    """Returns the place of a Pareto front's knee; None if no point lies above the chord.

    front: (gain, cost), the best and dearest first. The knee is the point farthest
    from the chord between the ends (Das 1999), on axes scaled to the front, costs on a log scale.
    """
    accuracy, cost = np.array(front, float).T
    scaled = ((axis - axis[-1]) / (axis[0] - axis[-1]) for axis in (accuracy, np.log(cost)))
    above = np.subtract(*scaled)[1:-1] if len(front) > 2 else np.zeros(1)
    return int(above.argmax()) + 1 if above.max() > 0 else None


def _pooled(values: Floats, most: float) -> tuple[float, int, NDArray[np.int64]]:
    """Returns the standard error of a difference of two means, its degrees of freedom, and the
    columns that it is pooled over, the best first: those that err at most twice as often as the
    best, because values spread more where they are worse; two at least. The common part of a
    seed does not count."""
    order, means = np.argsort(-values.mean(axis=0), kind="stable"), values.mean(axis=0)
    count = max(int((most - means <= 2 * (most - means.max())).sum()), 2)
    some = values[:, order[:count]]
    rest = some - some.mean(axis=0) - some.mean(axis=1, keepdims=True) + some.mean()
    freedom = (len(some) - 1) * (count - 1)
    return math.sqrt(2 * float((rest**2).sum()) / freedom / len(some)), freedom, order[:count]
