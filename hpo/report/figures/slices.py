"""Figures of single hyperparameters: the trials' values over the values of each."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpo.language import marked, t
from hpo.report.figures import axis, style
from hpo.report.figures.axis import Parameter
from hpo.report.figures.reference import LINE, Reference
from hpo.report.figures.svg import plot
from hpo.study.metrics import Metric
from hpo.text import count

BELOW: dict[str, Any] = {"marker": "v", "markerfacecolor": "none", "markersize": 5.5, "alpha": 1.0}
BEST: dict[str, Any] = {
    "marker": "o",
    "markersize": 9.5,
    "markerfacecolor": "none",
    "markeredgecolor": style.BLACK,
    "markeredgewidth": 1.6,
    "linestyle": "",
}
MEDIAN: dict[str, Any] = {"color": style.BLACK, "linewidth": 1.6}
STATES: dict[str, dict[str, Any]] = {
    "COMPLETE": {"color": style.BLUE, "marker": "o", "markersize": 4, "alpha": 0.6},
    "PRUNED": {"color": style.GREY, "marker": "x", "markersize": 4},
    "LIMITED": {"color": style.GREY, "marker": "+", "markersize": 5.5},
    "DIVERGED": {"color": style.VERMILLION, "marker": "^", "markersize": 5.5},
}
TRAINED = ("COMPLETE", "PRUNED", "LIMITED")  # states with a value
# In the legend, and in a trial's tooltip.
NAMES = {
    "COMPLETE": (marked("complete"), marked("complete")),
    "PRUNED": (marked("pruned, at its last value"), marked("pruned")),
    "LIMITED": (
        marked("stopped at its time limit, at its last value"),
        marked("stopped at its time limit"),
    ),
    "DIVERGED": (marked("diverged, at the bottom edge"), marked("diverged")),
}
PANEL = 1.9  # a panel's height in inches
GAP = 0.36  # between two panels, whose outermost ticks may be wide numbers


@style.as_svg
def slices(
    parameters: Sequence[Parameter],
    gains: Sequence[float],
    states: Sequence[Literal["COMPLETE", "PRUNED", "LIMITED", "DIVERGED"]],
    numbers: Sequence[int] = (),
    metric: Metric = axis.SHOWN,
    reference: Reference | None = None,
) -> Figure:
    """Draws a panel per hyperparameter, at least one: gains over its values, the best COMPLETE
    trial ringed.

    Categories and few repeated numbers become strips with a bar at the median of the COMPLETE
    trials.

    gains: of the metric. Of a trial that was pruned or stopped at its time limit (LIMITED) the
    last one; of a diverged one it is ignored.
    numbers: of the trials, from 0 by default.
    """
    values, state = np.asarray(gains, float), np.asarray(states)
    finite = values[np.isin(state, TRAINED) & np.isfinite(values)]
    low, high = axis.focus(
        np.tile(finite, len(parameters)), metric
    )  # each trial is once in each panel
    if reference:
        low, high = reference.widened(low, high, metric)
        reference = reference if reference.shown(low, high) else None
    low -= 0.14 * (high - low)  # room for what lies below
    complete = np.where((state == "COMPLETE") & np.isfinite(values), values, np.nan)
    best = float(np.fmax.reduce(complete, initial=-np.inf))
    numbers = list(numbers) or range(len(values))
    figure, panels = _panels(parameters, metric)
    for (axes, across), parameter in zip(panels, parameters, strict=True):
        axes.set_ylim(low, high)
        axis.set_scale(axes.xaxis, parameter, across)
        _trials(axes, parameter, values, state, numbers, metric)
        _medians(axes, parameter, complete)
        ringed = np.flatnonzero(complete == best)[:1]
        axes.plot(parameter.places[ringed], values[ringed], **BEST, zorder=4, clip_on=False)
        if reference:
            reference.line(axes, metric)
            reference.mark(axes, parameter.place_of(reference.settings), reference.gain, metric)
        room = across / 1.3 - style.width([parameter.title("")])  # it is set in bold
        style.head(axes, parameter.title(style.fit(parameter.name, room)))
    looks = {t(NAMES[name][0]): STATES[name] for name in STATES if name in state}
    if below := int((finite < low).sum()):
        worse = axis.beyond(metric, low)
        name = t("{trials} {below}", trials=count(below, "trial"), below=worse)
        looks[name] = {"color": style.BLUE, **BELOW}
    if np.isfinite(best):
        looks[t("best trial: {best}", best=metric.spelled(best))] = BEST
    looks = {name: look | {"linestyle": ""} for name, look in looks.items()}
    if any(parameter.levels is not None for parameter in parameters):
        looks[t("median of the complete ones")] = MEDIAN
    if reference:
        looks[reference.text(metric)] = LINE
    handles = [Line2D([], [], **look) for look in looks.values()]
    figure.legend(handles, looks, loc="upper left", ncols=3, borderaxespad=0.2, handlelength=1.6)
    return figure


def _panels(
    parameters: Sequence[Parameter], metric: Metric
) -> tuple[Figure, list[tuple[Axes, float]]]:
    """Returns a figure and, for each panel, its axes and width in inches; up to three panels per
    row, each row as high as its category names need."""
    columns = 2 if len(parameters) in (2, 4) else min(3, len(parameters))
    across = (8 - 0.68 - 0.15 - GAP * (columns - 1)) / columns
    names = [axis.label_height(parameter, across) for parameter in parameters]
    rows = [max(names[start : start + columns]) for start in range(0, len(names), columns)]
    height = 0.4 + sum(0.65 + PANEL + row for row in rows)
    figure, places, top = Figure(figsize=(8, height)), [], height - 0.75
    for place in range(len(parameters)):
        row, column = divmod(place, columns)
        left, bottom = 0.68 + column * (across + GAP), top - sum(rows[:row]) - PANEL
        bottom -= row * (0.65 + PANEL)
        axes = figure.add_axes((left / 8, bottom / height, across / 8, PANEL / height))
        axis.set_gains(axes.yaxis, metric)
        axes.yaxis.label.set_visible(column == 0)
        axes.tick_params(labelleft=column == 0)
        places.append((axes, across))
    return figure, places


def _trials(
    axes: Axes,
    parameter: Parameter,
    values: np.ndarray,
    state: np.ndarray,
    numbers: Sequence[int],
    metric: Metric,
) -> None:
    """Draws the trials by state; those below the axis and diverged ones in lanes at the bottom."""
    texts = []  # #34, lr 0.0123: 97.52%, complete
    for number, value, gain, name in zip(numbers, parameter.values, values, state, strict=True):
        reached = "" if name == "DIVERGED" else f"{metric.spelled(gain)}, "
        texts.append(f"#{number}, {parameter.text(value)}: {reached}{t(NAMES[name][1])}")
    low, high = axes.get_ylim()
    lane, edge = (np.full(len(values), low + share * (high - low)) for share in (0.095, 0.03))
    draws = []
    for name in TRAINED:
        draws.append(((state == name) & (values >= low), values, STATES[name]))
        draws.append(((state == name) & (values < low), lane, STATES[name] | BELOW))
    draws.append((state == "DIVERGED", edge, STATES["DIVERGED"]))
    for shown, y, look in draws:
        plot(axes, parameter.places, y, texts, shown=shown, linestyle="", zorder=2.5, **look)


def _medians(axes: Axes, parameter: Parameter, complete: np.ndarray) -> None:
    """Draws a bar across each strip at the median of its COMPLETE trials; the others are NaN."""
    trials = list(zip(parameter.values, complete, strict=True))
    for place, level in enumerate(parameter.levels or ()):
        values = [gain for value, gain in trials if value == level and gain == gain]
        if values:
            axes.hlines(np.median(values), place - 0.36, place + 0.36, zorder=3, **MEDIAN)
