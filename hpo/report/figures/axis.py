"""A hyperparameter or a metric on an axis: places, scale, ticks, limits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axis import XAxis, YAxis
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from hpo.language import printed, t
from hpo.report.figures.style import fit, width
from hpo.study.metrics import ACCURACY, BY_NAME, Metric

SHOWN = BY_NAME[ACCURACY]  # what figures show by default
TICK_GAP = 0.06  # inches between two labels of an axis, at least
GOLDEN = 0.618034  # its multiples fill the unit interval evenly: jitter without randomness


def is_missing(value: object) -> bool:
    return value is None or value != value


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A hyperparameter and its value in each trial: numbers, or text and bools as categories; None
    or NaN if a trial has none."""

    name: str
    values: Sequence[float | str | None]
    log: bool = False

    @cached_property
    def levels(self) -> list[Any] | None:
        """The values in order if they are categories or few numbers; None for a continuous
        axis."""
        present = [value for value in self.values if not is_missing(value)]
        if any(isinstance(value, str | bool | np.bool_) for value in present):
            return sorted(set(present), key=str)
        levels = sorted(set(present))  # type: ignore[type-var]
        return levels if len(levels) < 2 or len(levels) <= min(8, len(present) / 3) else None

    @cached_property
    def places(self) -> np.ndarray:
        """Each trial's place on the axis, spread over its strip; NaN without a value."""
        if self.levels is None:
            return np.array([*self.values], float)
        index = {level: place for place, level in enumerate(self.levels)}
        at = np.array([math.nan if is_missing(v) else index[v] for v in self.values])
        return np.asarray(at + 0.6 * ((np.arange(len(at)) * GOLDEN + 0.5) % 1 - 0.5))

    def place_of(self, settings: Mapping[str, Any]) -> float:
        """Returns the place of a network that is no trial; NaN beyond the trials' values."""
        value: Any = settings.get(self.name)
        if is_missing(value):
            return math.nan
        if self.levels is not None:
            return float(self.levels.index(value)) if value in self.levels else math.nan
        least, most = self.known.min(), self.known.max()
        return (
            float(value) if isinstance(value, int | float) and least <= value <= most else math.nan
        )

    @property
    def known(self) -> np.ndarray:
        """The numbers of those trials that have one."""
        numbers = np.array([*self.values], float)
        return np.asarray(numbers[~np.isnan(numbers)])

    def title(self, name: str) -> str:
        """Returns the name, with a word on the axis's scale."""
        log = self.log and self.levels is None
        return t("{name} (log scale)", name=name) if log else name

    def text(self, value: object) -> str:
        """lr 0.0123"""
        return f"{self.name} {f'{value:.4g}' if isinstance(value, float) else value}"


def set_gains(axis: XAxis | YAxis, metric: Metric) -> None:
    """Names an axis of gains, and shows the metric's values at its ticks."""
    axis.set_label_text(metric.axis)
    if metric.minimized:
        axis.set_major_formatter(value_ticks())


def value_ticks() -> FuncFormatter:
    """Shows at a gain the value of a metric that is minimized."""
    return FuncFormatter(lambda gain, _: printed("{:g}", 0.0 - gain))


def beyond(metric: Metric, gain: float) -> str:
    """below 95.0%, above 0.123: what is worse than this gain."""
    return metric.rough.beyond(gain)


def focus(values: np.ndarray, metric: Metric = SHOWN) -> tuple[float, float]:
    """Returns limits that separate the good gains: at most four times the span of the best
    third."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return metric.gain(metric.worst), metric.most
    top = float(finite.max())
    depth = 4 * (top - float(np.quantile(finite, 2 / 3)))
    low = float(finite[finite >= top - depth].min())
    return around(low, top, 0.06, metric)


def around(low: float, high: float, share: float, metric: Metric = SHOWN) -> tuple[float, float]:
    """Returns limits of gains with a margin on both sides, a share of what lies between."""
    margin = share * (high - low) or 0.5 * metric.point
    return within(low - margin, high + margin, metric)


def within(low: float, high: float, metric: Metric = SHOWN) -> tuple[float, float]:
    """Returns limits of gains without a tick above the best, such as 100%; a dot there has room."""
    return low, min(high, metric.most + 0.03 * max(metric.most - low, 0))


def set_scale(axis: XAxis | YAxis, parameter: Parameter, inches: float) -> None:
    """Sets ticks and scale of an axis of this length; numbers as plain text."""
    levels, which = parameter.levels, axis.axis_name
    if levels is None:
        set_number_scale(axis, parameter, inches)
        return
    axis.set_ticks(range(len(levels)), [level_text(level) for level in levels])
    axis.axes.set(**{f"{which}lim": (-0.5, max(len(levels), 1) - 0.5)})
    angle = _angle(levels, inches)
    for label in axis.get_ticklabels() if which == "x" and angle else ():
        label.set(rotation=angle, ha="right", va="center", rotation_mode="anchor")


def set_number_scale(axis: XAxis | YAxis, parameter: Parameter, inches: float) -> None:
    """Sets ticks and scale of an axis of numbers, be they few."""
    if parameter.log:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    locators = _locators(parameter)
    chosen = locators[0]
    if axis.axis_name == "x":
        fitting = (each for each in locators if _has_room(each, parameter, inches))
        chosen = next(fitting, locators[-1])
    axis.set_major_locator(chosen)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _locators(parameter: Parameter) -> list[Locator]:
    """Returns locators of the ticks, that of the most first."""
    numbers = parameter.known
    if not parameter.log:
        whole = all(number.is_integer() for number in numbers)
        return [MaxNLocator(n, integer=whole) for n in (5, 4, 3, 2)]
    ratio = numbers.max() / numbers.min()
    if ratio < 5:
        return [MaxNLocator(n) for n in (4, 3, 2)]
    subs = [] if ratio > 300 else [(1, 2, 5), (1, 3)]
    fine = [LogLocator(subs=each, numticks=7) for each in subs]
    return [*fine, *(LogLocator(subs=(1,), numticks=n) for n in (7, 5, 4, 3, 2))]


def _has_room(locator: Locator, parameter: Parameter, inches: float) -> bool:
    """Whether the labels of two ticks or more have room side by side on an axis of this length."""
    scale = math.log if parameter.log else float
    low, high = scale(parameter.known.min()), scale(parameter.known.max())
    if low == high:
        return True
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)  # matplotlib's margins
    ends = (math.exp(low), math.exp(high)) if parameter.log else (low, high)
    ticks = [tick for tick in locator.tick_values(*ends) if ends[0] <= tick <= ends[1]]
    places = [inches * (scale(tick) - low) / (high - low) for tick in ticks]
    labels = [(place, width([f"{tick:g}"]) / 2) for place, tick in zip(places, ticks, strict=True)]
    gaps = [right - left - half - other for (left, half), (right, other) in pairwise(labels)]
    return bool(gaps) and min(gaps) >= TICK_GAP


def level_text(level: object) -> str:
    return fit(f"{level:g}" if isinstance(level, float) else str(level), 1.1)


def _angle(levels: list[Any], inches: float) -> int:
    """Returns by how many degrees category names are turned; 0 if they have room side by side."""
    if len(levels) * (width([level_text(level) for level in levels]) + 0.1) <= inches:
        return 0
    return 50 if len(levels) <= 10 else 90


def label_height(parameter: Parameter, inches: float) -> float:
    """Returns the inches that turned labels need beyond level ones."""
    levels = parameter.levels or []
    widest = width([level_text(level) for level in levels])
    return widest * math.sin(math.radians(_angle(levels, inches)))
