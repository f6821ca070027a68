"""How exact results are: over seeds alone, over seeds and test images, and for single runs."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtri, stdtrit

from hpo.analysis.statistics import boundary, estimate
from hpo.results.study import StoredGrid
from hpo.study.file import Cell

Z = 1.959963984540054  # 95% of a normal distribution
NOTHING = (math.nan, math.nan)
MOST = 8  # disputed images of each side


@dataclass(frozen=True, kw_only=True)
class Precision:
    """A mean result, or a mean difference, with two 95% intervals; NaN where nothing is known.

    seeds: for other seeds on the same test images. both: for other seeds and other test images,
    never narrower. images_share: the share of the variance between runs that comes from the test
    images being few, with its 95% interval; NaN for runs that do not differ.
    """

    mean: float = math.nan
    seeds: tuple[float, float] = NOTHING
    both: tuple[float, float] = NOTHING
    images_share: tuple[float, float, float] = (math.nan, *NOTHING)


def cell_precision(study: StoredGrid, cell: Cell) -> Precision:
    """Returns the precision of a cell's result over the seeds with which it learns; without stored
    images, and of numbers, not over images."""
    if not study.right(cell).empty:
        kept = learning_images(study, cell)
        return precision(kept.to_numpy()) if len(kept) else Precision()
    values = study.values(cell)[~study.failing(cell)].dropna()
    if not len(values):
        return Precision()
    found = estimate(values.to_numpy())
    return Precision(mean=found.mean, seeds=(found.low, found.high))


def learning_images(study: StoredGrid, cell: Cell) -> pd.DataFrame:
    """Returns the test images that a cell's networks get right, of the seeds with which it learns;
    empty if they are not stored."""
    right, failing = study.right(cell), study.failing(cell)
    return right if right.empty else right[~failing.loc[right.index].to_numpy()]


def precision(values: ArrayLike) -> Precision:
    """Analyses values of (seeds, images): 1 where a network is right and 0 where it is wrong, or
    the difference of two networks.

    Two-way random effects, variance s²_seed/J + s²_image/N + s²_both/(JN) for J seeds and N images
    (Gallas 2006), with the degrees of freedom of Hillis (2007). Their interval can be narrower than
    that over seeds alone, although the variance is larger, so the wider one counts. The images'
    share is MS_both/MS_seeds; that of the sample over the true one follows F. NaN intervals for one
    seed. Raises ValueError for no values.
    """
    y = np.asarray(values, float)
    if y.ndim != 2 or not y.size:
        raise ValueError(f"needs values of (seeds, images), got shape {y.shape}")
    mean, found = float(y.mean()), estimate(y.mean(axis=1))
    seeds = (found.low, found.high)
    if 1 in y.shape:
        return Precision(mean=mean, seeds=seeds)
    of_seeds, of_images, of_both = mean_squares(y)
    between = max(of_images - of_both, 0.0)
    variance, freedom, share = (of_seeds + between) / y.size, math.inf, Precision.images_share
    if of_seeds:
        free = len(y) - 1, (len(y) - 1) * (y.shape[1] - 1)
        freedom = (of_seeds + between) ** 2 / of_seeds**2 * free[0]
        ratios = 1.0, fdtri(*free, 0.025), fdtri(*free, 0.975)
        middle, low, high = (min(float(of_both / of_seeds * ratio), 1.0) for ratio in ratios)
        share = middle, low, high
    half = float(stdtrit(min(freedom, 1e9), 0.975)) * math.sqrt(variance)
    both = min(mean - half, found.low), max(mean + half, found.high)
    return Precision(mean=mean, seeds=seeds, both=both, images_share=share)


def mean_squares(y: NDArray[np.float64]) -> tuple[float, float, float]:
    """Returns the mean squares of (seeds, images): seeds, images, and seeds × images."""
    seeds, images = y.shape
    mean, by_seed, by_image = y.mean(), y.mean(axis=1), y.mean(axis=0)
    squares_seeds = images * ((by_seed - mean) ** 2).sum()
    squares_images = seeds * ((by_image - mean) ** 2).sum()
    rest = ((y - mean) ** 2).sum() - squares_seeds - squares_images
    freedom = (seeds - 1, images - 1, (seeds - 1) * (images - 1))
    squares = (squares_seeds, squares_images, max(float(rest), 0.0))
    of_seeds, of_images, of_both = (float(s / f) for s, f in zip(squares, freedom, strict=True))
    return of_seeds, of_images, of_both


def beats(a: ArrayLike, b: ArrayLike) -> tuple[float, float, float]:
    """Returns the probability that one run of a is above one run of b, with its 95% interval; equal
    values count half. NaN for no values.

    The estimate of Mann and Whitney, rliable's "probability of improvement" (Agarwal et al. 2021);
    the interval is method 5 of Newcombe (2006), which is not empty where all runs agree.
    """
    ours, theirs = np.asarray(a, float), np.asarray(b, float)
    if not ours.size or not theirs.size:
        return math.nan, math.nan, math.nan
    signs = np.sign(ours[:, None] - theirs[None, :])
    share = float((signs.mean() + 1) / 2)
    pairs, half_sum = ours.size * theirs.size, (ours.size + theirs.size) / 2 - 1

    def accepted(p: float) -> bool:
        spread = 1 + half_sum * ((1 - p) / (2 - p) + p / (1 + p))
        return (share - p) ** 2 < Z**2 * p * (1 - p) * spread / pairs

    edge = 1e-9  # where all runs agree, the share itself is no inner point
    low = 0.0 if share == 0 else boundary(accepted, 0.0, max(share - edge, edge))
    high = 1.0 if share == 1 else boundary(accepted, 1.0, min(share + edge, 1 - edge))
    return share, low, high


# --- disputed images ---------------------------------------------------------------------------


def disputing_pair(study: StoredGrid) -> tuple[Cell, Cell] | None:
    """Returns two networks: the best by the objective's mean, and the grid's first cell (the second
    best if the first cell is the best); None if fewer than two learn with all seeds."""
    learning = [c for c in study.file.cells if not study.fails(c) and not study.right(c).empty]
    ranked = sorted(learning, key=lambda cell: -study.gains(cell, study.metric).mean())
    if len(ranked) < 2:
        return None
    first = study.file.cells[0]
    return ranked[0], first if first in ranked[1:] else ranked[1]


def disputed(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[list[int], list[int]]:
    """Returns the images that ours gets right with more of its seeds than theirs, and the other way
    round, the largest difference first. ours and theirs: (seeds, images) of bool."""
    lead = ours.mean(axis=0).to_numpy() - theirs.mean(axis=0).to_numpy()
    sides = []
    for sign in (1, -1):
        order = np.argsort(-sign * lead, kind="stable")[:MOST]
        sides.append([int(image) for image in order if sign * lead[image] > 0])
    return sides[0], sides[1]
