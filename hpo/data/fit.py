"""The numbers by which a schema feeds a network: measured on rows that are not tested on.

They are of all these rows, those to validate on among them; labels have no part in them.
"""

import math
from collections import Counter
from typing import Any

import numpy as np

from hpo.data.cells import FEW_LEVELS, RARE
from hpo.data.schema import LARGEST, LEAST_STD, Array, Floats, Scale, Schema, square, white_of
from hpo.errors import InputError
from hpo.text import quoted

QUANTILES = 101  # of each column


def measured(schema: Schema, x: Array, scales: tuple[float, float] | None = None) -> Schema:
    """Returns the schema with shape, normalization and range of the training examples.

    x: (N, …), levels as `schema.levels` has them: of all rows that were read. scales: mean and
    standard deviation to normalize by; None: those of x.
    """
    shape = x.shape[1:]
    if schema.pixels:
        shape = square(shape[0]) or shape if len(shape) == 1 else shape
        mean, std = scales or _moments(x, pixels=True)
        return schema.replace(shape=shape, flat=len(shape) > x.ndim - 1, mean=mean, std=std)
    numbers, table = schema.numbers_of(x), x.ndim == 2
    if not schema.columns:
        schema = schema.replace(shape=shape)
    schema = ranged(schema, x).replace(white=white_of(x, shape))
    if schema.columns:
        schema = _of_columns(schema, x, numbers)
    mean, std = scales or _scales(schema, numbers if table else x)
    schema = _with_quantiles(schema.replace(mean=mean, std=std), numbers)
    return schema.replace(shape=(schema.fed_width,)) if schema.columns else schema


def targeted(schema: Schema, labels: Array) -> Schema:
    """Returns the schema of a regression with the target's mean and standard deviation in the rows
    that are not tested on; any other schema as it is."""
    if not schema.target:
        return schema
    deviation = float(labels.std())
    if not LEAST_STD <= deviation <= LARGEST:
        raise InputError(f"the labels' standard deviation is {deviation:g}; give another unit")
    return schema.replace(target=(float(labels.mean()), deviation))


def ranged(schema: Schema, x: Array) -> Schema:
    """Returns the schema with the range of examples (N, …): of a table by column."""
    table = x.ndim == 2
    whole, axis = (schema.numbers_of(x), 0) if table else (x, None)
    low, high = (_plain(ends.reduce(whole, axis=axis)) for ends in (np.fmin, np.fmax))
    return schema.replace(low=low, high=high)


def _of_columns(schema: Schema, x: Array, numbers: Array) -> Schema:
    """Returns the schema with what stands in gaps, and the levels that have a place."""
    if (empty := np.isnan(numbers).all(axis=0)).any():
        name = schema.numbers[int(np.flatnonzero(empty)[0])]
        raise InputError(
            f"column {quoted(name)} has values only in rows that are tested on; leave it out "
            "(ignore)"
        )
    medians = [float(np.nanmedian(column)) for column in numbers.T]
    absent = np.flatnonzero(np.isnan(numbers).any(axis=0))
    gaps = tuple(schema.numbers[place] for place in absent)
    levels, merged = {}, []
    for place, name in enumerate(schema.columns):
        if name in schema.levels:
            known = x[
                x[:, place] < len(schema.levels[name]), place
            ]  # others: of rows to validate on
            counts = Counter(schema.levels[name][int(code)] for code in known)
            least = max(RARE * len(x), 2) if len(counts) > FEW_LEVELS else 0
            levels[name] = tuple(sorted(n for n, found in counts.items() if found >= least))
            merged += [name] * (len(levels[name]) < len(counts))
    return schema.replace(median=tuple(medians), gaps=gaps, levels=levels, merged=tuple(merged))


def recoded(x: Array, before: Schema, after: Schema) -> Array:
    """Returns examples with the places of `after.levels` in place of those of `before.levels`."""
    if not before.levels:
        return x
    x = x.copy()
    for place, name in enumerate(before.columns):
        if name in before.levels:
            places = {level: number for number, level in enumerate(after.levels[name])}
            none = len(places)
            new = np.array([*(places.get(level, none) for level in before.levels[name]), none])
            x[:, place] = new[x[:, place].astype(int)]
    return x


# --- scales ------------------------------------------------------------------------------------


def _scales(schema: Schema, x: Array) -> tuple[Scale, Scale]:
    if x.ndim > 2 or schema.scale == "standard":
        return _moments(x, pixels=False)
    if schema.scale == "robust":
        return _robust(x)
    return (0.0,) * x.shape[1], (1.0,) * x.shape[1]


def _robust(x: Array) -> tuple[Scale, Scale]:
    """Returns the medians, and the interquartile ranges: half the range where that is 0, and 1
    for a constant, as RealMLP has it."""
    low, middle, high = np.nanquantile(x, (0.25, 0.5, 0.75), axis=0)
    halves = (np.fmax.reduce(x, axis=0) - np.fmin.reduce(x, axis=0)) / 2
    spread = np.where(high > low, high - low, halves)
    return _plain(middle), _plain(np.where(spread > 0, spread, 1.0))


def _with_quantiles(schema: Schema, numbers: Array) -> Schema:
    """Returns the schema with the quantiles of its numbers, if its scale needs them."""
    if schema.scale != "quantile":
        return schema
    steps = np.linspace(0, 1, min(QUANTILES, len(numbers)))
    found = np.maximum.accumulate(np.nanquantile(numbers, steps, axis=0))
    names = schema.numbers or tuple(map(str, range(len(found.T))))
    quantiles = {name: tuple(map(float, each)) for name, each in zip(names, found.T, strict=True)}
    return schema.replace(quantiles=quantiles)


def _moments(x: Array, *, pixels: bool) -> tuple[Scale, Scale]:
    """Returns mean and standard deviation, 1 for a constant: of pixels of 0 … 1 and of pictures as
    a whole, of a table by column, without gaps."""
    if pixels and x.dtype.kind == "u":
        most, total = np.iinfo(x.dtype).max, max(x.size, 1)
        counts, levels = np.bincount(x.ravel(), minlength=most + 1), np.arange(most + 1) / most
        mean = float((counts * levels).sum() / total)
        variance = float((counts * (levels - mean) ** 2).sum() / total)
        return mean, math.sqrt(variance) or 1.0
    values, axis = x.astype(np.float64), None if pixels or x.ndim > 2 else 0
    gaps = axis == 0 and bool(np.isnan(values).any())
    means = np.nanmean(values, axis=axis) if gaps else values.mean(axis=axis)
    std = np.nanstd(values, axis=axis) if gaps else values.std(axis=axis)
    varies = np.fmax.reduce(values, axis=axis) > np.fmin.reduce(values, axis=axis)
    # The standard deviation of a constant 0.1 may be 1e-17.
    return _plain(means), _plain(np.where(varies & (std > 0), std, 1.0))


def _plain(found: Any) -> Scale:
    """Returns a number or an array as plain floats."""
    return tuple(map(float, found)) if np.ndim(found) else float(found)


# --- checks ------------------------------------------------------------------------------------


def check_told_apart(schema: Schema, x: Array, fed: Floats) -> None:
    """Raises InputError for a table without a column that varies, and for a column whose values a
    network could not tell apart. fed: what it is fed."""
    if (fed == fed[0]).all():
        raise InputError("every column has one value, so there is nothing to learn from")
    numbers = schema.numbers_of(x)
    fed = fed[:, : numbers.shape[1]]
    alike = fed.max(axis=0) == fed.min(axis=0)
    varies = np.fmax.reduce(numbers, axis=0) > np.fmin.reduce(numbers, axis=0)
    lost = varies & (alike | (np.asarray(schema.std) < LEAST_STD))
    if lost.any():
        place = int(np.flatnonzero(lost)[0])
        column = schema.numbers[place] if schema.columns else str(place)
        raise InputError(
            f"column {quoted(column)}: its values differ by less than a network can tell; give it "
            "another unit"
        )
