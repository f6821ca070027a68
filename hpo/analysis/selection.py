"""Whether the best of several is really the best, and how much choosing it flatters it."""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, ndtr

from hpo.analysis.statistics import LEVEL, boundary

GRID = 200  # points of a numerical integral


def against_best(values: NDArray[np.float64], overlap: float) -> list[tuple[float, float]]:
    """Returns for each column of (seeds, networks) the interval of its mean minus the best other
    mean, 95% for all means at once: low is 0 at most and high at least 0 (Hsu's constrained
    intervals). low = 0: it is the best. high = 0: it is not.

    Multiple comparisons with the best (Hsu 1984) for networks over the same seeds, so that the
    seeds' common part does not count. overlap: images to validate on over images to train on; the
    variance of a mean is (1/seeds + overlap) times that of a value, because the seeds' training
    sets overlap (Nadeau & Bengio 2003). Infinite intervals for one seed. Raises ValueError for
    fewer than two networks.
    """
    seeds, k = values.shape
    if k < 2:
        raise ValueError(f"needs two networks or more, got {k}")
    if seeds < 2:
        return [(-math.inf, math.inf)] * k
    means = values.mean(axis=0)
    rest = values - means - values.mean(axis=1, keepdims=True) + values.mean()
    freedom = (seeds - 1) * (k - 1)
    variance = float((rest**2).sum()) / freedom
    half = dunnett(k - 1, freedom) * math.sqrt(2 * variance * (1 / seeds + overlap))
    leads = [float(means[i] - np.delete(means, i).max()) for i in range(k)]
    return [(min(lead - half, 0.0), max(lead + half, 0.0)) for lead in leads]


@cache
def dunnett(comparisons: int, freedom: int, level: float = LEVEL) -> float:
    """Returns the one-sided critical value for comparisons with one common mean (Dunnett 1955): the
    quantile of the greatest of `comparisons` values of t whose correlation is one half."""
    z, weights = np.polynomial.hermite_e.hermegauss(64)
    weights = weights / weights.sum()
    tails = (np.arange(GRID) + 0.5) / GRID
    scales = np.sqrt(chdtri(freedom, tails) / freedom)

    def accepted(critical: float) -> bool:
        inner = ndtr(z[:, None] + math.sqrt(2) * critical * scales[None, :]) ** comparisons
        return float(weights @ inner.mean(axis=1)) >= 1 - level

    return boundary(accepted, 0.0, 200.0)
