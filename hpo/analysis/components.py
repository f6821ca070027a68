"""Where variance comes from: sources of randomness in a crossed design, factors of a factorial."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.study.config import SOURCES

DRAWS = 10_000
IMAGES = ("images",)  # the row of the test images
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Component:
    """A share of a variance, 0 … 1, with its 95% interval. effect: the sources or factors
    that act together; IMAGES for the test images. raw: the estimate without the limits 0 and 1."""

    effect: tuple[str, ...]
    share: float
    low: float
    high: float
    raw: float


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


def crossed(right: NDArray[Any]) -> Spread:
    """Analyses blocks of runs, (blocks, 2, 2, 2, images): 1 where a network is right; the axes of
    two levels are those of SOURCES. Of results that are not means over images, the last axis has
    one number, and there is no component of the images.

    Splits and initial weights are crossed. A batch order permutes a split's own images, so one seed
    orders the images of two splits without anything in common: orders are nested in splits, and the
    component of an effect with the order is that within the split.

    Shares: REML with components of at least 0. Raw: by expected mean squares, which may give less
    than 0. The part of a mean square that the few test images cause is its mean square over single
    images, divided by their number. Intervals: generalized pivotal quantities of the raw shares,
    each mean square times its degrees of freedom over a draw of chi-squared (Burdick, Borror &
    Montgomery 2005), cut at 0 and 1 only at the end, so that a true share of 0 or 1 is covered too.
    """
    effects = [e for e in subsets(SOURCES) if "order" not in e or "split" in e]
    squares, of_images, freedom = np.array([_mean_squares(right, effect) for effect in effects]).T
    # From variance components to expected mean squares: those of an effect and of all that contain
    # it, each times the runs of a block that share its levels.
    expected = [[2.0 ** (3 - len(c)) * (set(e) <= set(c)) for c in effects] for e in effects]
    inverse: Floats = np.linalg.inv(expected).astype(float)
    images = float((inverse @ of_images).sum())
    draws = np.random.default_rng(0).chisquare(freedom, (DRAWS, len(effects)))
    rows = np.vstack((squares, freedom * squares / draws))  # as measured, then as drawn
    variances = (rows @ inverse.T).sum(axis=1, keepdims=True)
    parts = np.hstack(((rows - of_images) @ inverse.T, np.full_like(variances, images)))
    shares = parts / np.where(variances, variances, 1.0)
    fitted = np.append(_reml(np.array(expected), squares, freedom, of_images), images)
    found = _components([*effects, IMAGES], fitted / (fitted.sum() or 1.0), shares[1:], shares[0])
    found = found if right.shape[-1] > 1 else found[:-1]
    low, high = np.percentile(np.sqrt(variances[1:]), (2.5, 97.5)).tolist()
    return Spread(std=float(variances[0, 0] ** 0.5), low=low, high=high, components=tuple(found))


def _components(
    effects: Sequence[tuple[str, ...]], shares: Floats, drawn: Floats, raw: Floats
) -> list[Component]:
    """Returns the shares with the middle 95% of those drawn, widened to hold the share."""
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0).clip(0, 1)
    rows = np.array((shares, np.minimum(low, shares), np.maximum(high, shares), raw)).T.tolist()
    return [
        Component(effect=effect, share=share, low=low, high=high, raw=raw)
        for effect, (share, low, high, raw) in zip(effects, rows, strict=True)
    ]


def _reml(expected: Floats, squares: Floats, freedom: Floats, fixed: Floats) -> Floats:
    """Returns the components of at least 0 that make the mean squares most likely.

    Mean squares of a balanced design are independent, each its expectation times chi-squared over
    its degrees of freedom, so this is REML (Searle, Casella & McCulloch 1992). fixed: a known part
    of the expectations.
    """
    from scipy.optimize import minimize

    scale = squares.mean() or 1.0
    observed, known = squares / scale, fixed / scale + 1e-9  # a mean square may be 0

    def surprise(parts: Floats) -> tuple[float, Floats]:
        means = expected @ parts + known
        slope = freedom * (1 / means - observed / means**2)
        return float(freedom @ (np.log(means) + observed / means)), expected.T @ slope

    known_options = {"bounds": [(0, None)] * len(squares), "options": {"ftol": 1e-12}}
    found = minimize(surprise, np.full(len(squares), 0.1), jac=True, **known_options)
    return np.asarray(scale * found.x, float)


def _mean_squares(right: NDArray[Any], effect: Sequence[str]) -> tuple[float, float, int]:
    """Returns the effect's mean square, its part that the images cause, and its degrees of
    freedom."""
    contrast = right.astype(np.float64)
    for source in SOURCES:  # the axis is gone after each step, so the next one is axis 1 again
        if source == "split" and "order" in effect:  # nested, so each split is a block
            contrast = contrast.reshape(-1, *contrast.shape[2:])
        else:
            first, second = contrast[:, 0], contrast[:, 1]
            contrast = second - first if source in effect else second + first
    runs, squares = 8 * len(right) / len(contrast), contrast.mean(axis=1) ** 2
    images = contrast.shape[1]
    by_image = contrast.var(axis=1, ddof=1) / images if images > 1 else np.zeros(1)
    return float(squares.mean() / runs), float(by_image.mean() / runs), len(contrast)


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
    return _components(effects, shares, np.array(drawn), shares)


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
