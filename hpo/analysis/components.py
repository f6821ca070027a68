"""Where variance comes from: sources of randomness in a crossed design, factors of a factorial."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hpo.study.config import SOURCES

DRAWS = 10_000
IMAGES = ("images",)  # the row of the test images
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Component:
    """A share of a variance, 0 … 1, with its 95% interval. effect: the sources or factors
    that act together; IMAGES for the test images."""

    effect: tuple[str, ...]
    share: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The spread between runs of a network: its standard deviation with a 95% interval, and the
    shares of its variance, which add up to 1."""

    std: float
    low: float
    high: float
    components: tuple[Component, ...]


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns all subsets of one name or more, the small ones first."""
    sizes = range(1, len(names) + 1)
    return [subset for size in sizes for subset in combinations(names, size)]


def crossed(right: NDArray[np.bool_]) -> Spread:
    """Analyses blocks of runs, (blocks, 2, 2, 2, images): 1 where a network is right; the axes of
    two levels are those of SOURCES.

    Variance components by expected mean squares: of 2 × 2 × 2 runs each effect has one degree of
    freedom a block. Its part that the few test images cause is its mean square over single images,
    divided by their number. Shares below 0 count as 0. Intervals: generalized pivotal quantities,
    each mean square times its degrees of freedom over a draw of chi-squared (Burdick, Borror &
    Montgomery 2005).
    """
    effects = subsets(SOURCES)
    blocks = right.shape[0]
    squares, of_images = np.array([_mean_squares(right, effect) for effect in effects]).T
    # From variance components to expected mean squares: those of an effect and of all that contain
    # it, each times the runs of a block that share its levels.
    expected = [[2.0 ** (3 - len(c)) * (set(e) <= set(c)) for c in effects] for e in effects]
    inverse: Floats = np.linalg.inv(expected).astype(float)
    parts = _parts(inverse, squares[None], of_images[None])[0]
    rng = np.random.default_rng(0)
    drawn = blocks * squares / rng.chisquare(blocks, (DRAWS, len(effects)))
    resampled = _parts(inverse, drawn, np.broadcast_to(of_images, drawn.shape))
    shares = resampled / resampled.sum(axis=1, keepdims=True)
    share = parts / parts.sum() if parts.sum() else np.zeros_like(parts)
    deviations = np.sqrt((inverse @ drawn.T).sum(axis=0).clip(0))
    return Spread(
        std=float(np.sqrt(max((inverse @ squares).sum(), 0.0))),
        low=float(np.percentile(deviations, 2.5)),
        high=float(np.percentile(deviations, 97.5)),
        components=tuple(_components([*effects, IMAGES], share, shares)),
    )


def _components(
    effects: Sequence[tuple[str, ...]], shares: Floats, drawn: Floats
) -> list[Component]:
    """Returns the shares with the middle 95% of those drawn, widened to hold the share."""
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    return [
        Component(effect=effect, share=float(s), low=float(min(a, s)), high=float(max(b, s)))
        for effect, s, a, b in zip(effects, shares, low, high, strict=True)
    ]


def _mean_squares(right: NDArray[np.bool_], effect: Sequence[str]) -> tuple[float, float]:
    """Returns the effect's mean square over the blocks, and its part that the images cause."""
    contrast = right.astype(np.float64)
    for source in SOURCES:  # the axis is gone after each step, so the next one is axis 1 again
        first, second = contrast[:, 0], contrast[:, 1]
        contrast = second - first if source in effect else second + first
    of_mean = contrast.mean(axis=1, dtype=np.float64)
    by_image = contrast.var(axis=1, ddof=1, dtype=np.float64) / contrast.shape[1]
    return float((of_mean**2).mean() / 8), float(by_image.mean() / 8)


def _parts(inverse: Floats, squares: Floats, of_images: Floats) -> Floats:
    """Returns the components without the images' part, and that part, as columns; at least 0."""
    images = (of_images @ inverse.T).sum(axis=1, keepdims=True)
    parts = np.hstack(((squares - of_images) @ inverse.T, images))
    return parts.clip(min=0.0)


def factorial(values: Floats, names: Sequence[str], seed: int = 0) -> list[Component]:
    """Returns the shares of factors and of their interactions in the variance between the means of
    a full factorial.

    values: (seeds, levels of the first factor, levels of the second, …). Intervals: the middle 95%
    over resamples of the seeds.
    """
    effects = subsets(names)
    rows = np.random.default_rng(seed).integers(len(values), size=(1_000, len(values)))
    shares = _shares(values.mean(axis=0), names, effects)
    drawn = [_shares(values[row].mean(axis=0), names, effects) for row in rows]
    return _components(effects, shares, np.array(drawn))


def _shares(table: Floats, names: Sequence[str], effects: Sequence[tuple[str, ...]]) -> Floats:
    """Splits the variance of a table of means: an effect is what its margin has beyond those of
    its parts."""
    parts: dict[tuple[str, ...], Floats] = {(): np.asarray(table.mean())}
    for effect in effects:
        others = tuple(axis for axis, name in enumerate(names) if name not in effect)
        smaller = sum(part for key, part in parts.items() if set(key) < set(effect))
        parts[effect] = table.mean(axis=others, keepdims=True) - smaller
    squares = np.array([float((parts[effect] ** 2).mean()) for effect in effects])
    total = squares.sum()
    return squares / total if total else squares
