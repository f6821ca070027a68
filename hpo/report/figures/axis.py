"""A hyperparameter or an accuracy on an axis: places, scale, ticks, limits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axis import XAxis, YAxis
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from hpo.language import t
from hpo.report.figures.style import fit, width

GOLDEN = 0.618034  # its multiples fill the unit interval evenly: jitter without randomness


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A hyperparameter and its value in each trial: numbers, or text and bools as categories; None
    or NaN if a trial has none."""

    name: str
    values: Sequence[float | str | None]
    log: bool = False


def focus(values: np.ndarray) -> tuple[float, float]:
    """Returns limits that separate the good values: at most four times the span of the best
    third."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 100.0
    top = float(finite.max())
    depth = 4 * (top - float(np.quantile(finite, 2 / 3)))
    low = float(finite[finite >= top - depth].min())
    margin = 0.06 * (top - low) or 0.5
    return low - margin, top + margin


def levels_of(parameter: Parameter) -> list[Any] | None:
    """Returns the values in order if they are categories or few numbers; None for a continuous
    axis."""
    present = [value for value in parameter.values if not is_missing(value)]
    if any(isinstance(value, str | bool | np.bool_) for value in present):
        return sorted(set(present), key=str)
    levels = sorted(set(present))  # type: ignore[type-var]
    return levels if len(levels) < 2 or len(levels) <= min(8, len(present) / 3) else None


def is_missing(value: object) -> bool:
    return value is None or value != value


def _numbers(parameter: Parameter) -> list[float]:
    return [math.nan if value is None else float(value) for value in parameter.values]


def is_log(parameter: Parameter) -> bool:
    return parameter.log and levels_of(parameter) is None


def axis_name(parameter: Parameter, name: str) -> str:
    """Returns the name, with a word on the axis's scale."""
    return t("{name} (log scale)", name=name) if is_log(parameter) else name


def places_of(parameter: Parameter) -> np.ndarray:
    """Returns each trial's place on the axis, spread over its strip; NaN without a value."""
    levels = levels_of(parameter)
    if levels is None:
        return np.array(_numbers(parameter))
    at = np.array([math.nan if is_missing(v) else levels.index(v) for v in parameter.values], float)
    jitter = (np.arange(len(at)) * GOLDEN + 0.5) % 1 - 0.5
    return np.asarray(at + 0.6 * jitter)


def value_text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def set_scale(axis: XAxis | YAxis, parameter: Parameter, inches: float) -> None:
    """Sets ticks and scale of an axis of this length; numbers as plain text."""
    levels, which = levels_of(parameter), axis.axis_name
    if levels is not None:
        axis.set_ticks(range(len(levels)), [level_text(level) for level in levels])
        axis.axes.set(**{f"{which}lim": (-0.5, max(len(levels), 1) - 0.5)})
        for label in axis.get_ticklabels() if which == "x" and _turned(levels, inches) else ():
            label.set(rotation=_angle(levels), ha="right", va="center", rotation_mode="anchor")
    else:
        set_number_scale(axis, parameter)


def set_number_scale(axis: XAxis | YAxis, parameter: Parameter) -> None:
    """Sets ticks and scale of an axis of numbers, be they few."""
    if parameter.log:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(_locator(parameter))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _locator(parameter: Parameter) -> Locator:
    numbers = [number for number in _numbers(parameter) if number == number]
    if not parameter.log:
        return MaxNLocator(5, integer=all(number.is_integer() for number in numbers))
    ratio = max(numbers) / min(numbers)
    if ratio < 5:
        return MaxNLocator(4)
    return LogLocator(subs=(1,) if ratio > 300 else (1, 2, 5), numticks=7)


def level_text(level: object) -> str:
    return fit(f"{level:g}" if isinstance(level, float) else str(level), 1.1)


def _turned(levels: list[Any], inches: float) -> bool:
    """Whether category names would collide side by side."""
    return len(levels) * (width([level_text(level) for level in levels]) + 0.1) > inches


def _angle(levels: list[Any]) -> int:
    return 50 if len(levels) <= 10 else 90


def label_height(parameter: Parameter, inches: float) -> float:
    """Returns the inches that turned labels need beyond level ones."""
    levels = levels_of(parameter)
    if levels is None or not _turned(levels, inches):
        return 0.0
    return width([level_text(level) for level in levels]) * math.sin(math.radians(_angle(levels)))
