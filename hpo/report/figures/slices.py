"""Figures of single hyperparameters: slices, and a hyperparameter on an axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpo.language import marked, t
from hpo.report.figures import axis, style
from hpo.report.figures.axis import Parameter
from hpo.report.figures.tooltips import tip
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
STATES: dict[str, dict[str, Any]] = {
    "COMPLETE": {"color": style.BLUE, "marker": "o", "markersize": 4, "alpha": 0.6},
    "PRUNED": {"color": style.GREY, "marker": "x", "markersize": 4},
    "LIMITED": {"color": style.GREY, "marker": "+", "markersize": 5.5},
    "DIVERGED": {"color": style.VERMILLION, "marker": "^", "markersize": 5.5},
}
TRAINED = ("COMPLETE", "PRUNED", "LIMITED")  # states with an accuracy
NAMES = {
    "COMPLETE": marked("complete"),
    "PRUNED": marked("pruned, at its last value"),
    "LIMITED": marked("stopped at its time limit, at its last value"),
    "DIVERGED": marked("diverged, at the bottom edge"),
}


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A hyperparameter beside the trials' accuracies in percent.

    Of a trial that was pruned or stopped at its time limit (LIMITED) the last accuracy; of a
    diverged one it is ignored. numbers: of the trials, from 0 by default.
    """

    parameter: Parameter
    accuracies: Sequence[float]
    states: Sequence[Literal["COMPLETE", "PRUNED", "LIMITED", "DIVERGED"]]
    numbers: Sequence[int] = ()


PANEL = 1.9  # a panel's height in inches
GAP = 0.36  # between two panels, whose outermost ticks may be wide numbers


def slices(panels: Sequence[Slice]) -> str:
    """Draws a panel per hyperparameter: accuracies over its values, the best COMPLETE trial ringed.

    Categories and few repeated numbers become strips with a bar at the median of the COMPLETE
    trials. At least one panel.
    """
    with style.drawing():
        low, high = axis.focus(np.concatenate([_of(panel, *TRAINED) for panel in panels]))
        low -= 0.14 * (high - low)  # room for what lies below
        best = float(np.max(np.concatenate([_of(p, "COMPLETE") for p in panels]), initial=-1.0))
        figure, places = _panels(panels)
        for (axes, across), panel in zip(places, panels, strict=True):
            axes.set_ylim(low, high)
            axis.set_scale(axes.xaxis, panel.parameter, across)
            _slice(axes, panel, best)
            room = across / 1.3 - style.width(
                [axis.axis_name(panel.parameter, "")]
            )  # it is set in bold
            style.head(axes, axis.axis_name(panel.parameter, style.fit(panel.parameter.name, room)))
        _slices_legend(figure, panels, low, best)
        return style.svg_text(figure)


def _panels(panels: Sequence[Slice]) -> tuple[Figure, list[tuple[Axes, float]]]:
    """Returns a figure and, for each panel, its axes and width in inches; up to three panels per
    row, each row as high as its category names need."""
    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    across = (8 - 0.68 - 0.15 - GAP * (columns - 1)) / columns
    names = [axis.label_height(panel.parameter, across) for panel in panels]
    rows = [max(names[start : start + columns]) for start in range(0, len(panels), columns)]
    height = 0.4 + sum(0.65 + PANEL + row for row in rows)
    figure, places, top = Figure(figsize=(8, height)), [], height - 0.75
    for place in range(len(panels)):
        row, column = divmod(place, columns)
        left, bottom = 0.68 + column * (across + GAP), top - sum(rows[:row]) - PANEL
        bottom -= row * (0.65 + PANEL)
        axes = figure.add_axes((left / 8, bottom / height, across / 8, PANEL / height))
        axes.set_ylabel(t(style.ACCURACY) if column == 0 else "")
        axes.tick_params(labelleft=column == 0)
        places.append((axes, across))
    return figure, places


def _of(panel: Slice, *states: str) -> np.ndarray:
    """Returns the finite accuracies of the trials in these states."""
    values = np.asarray(panel.accuracies, float)
    chosen: np.ndarray = values[np.isin(panel.states, states) & np.isfinite(values)]
    return chosen


def _slice(axes: Axes, panel: Slice, best: float) -> None:
    """Draws the trials by state; those below the axis and diverged ones in lanes at the bottom."""
    accuracies, states = np.asarray(panel.accuracies, float), np.asarray(panel.states)
    x, (low, high) = axis.places_of(panel.parameter), axes.get_ylim()
    texts, below = _trial_texts(panel), accuracies < low
    lane, edge = (np.full(len(x), low + part * (high - low)) for part in (0.095, 0.03))

    def points(shown: np.ndarray, y: np.ndarray, look: dict[str, Any]) -> None:
        (drawn,) = axes.plot(x[shown], y[shown], **look, linestyle="", zorder=2.5)
        tip(drawn, [texts[index] for index in np.flatnonzero(shown)])

    for state in TRAINED:
        points((states == state) & (accuracies >= low), accuracies, STATES[state])
        points((states == state) & below, lane, STATES[state] | BELOW)
    points(states == "DIVERGED", edge, STATES["DIVERGED"])
    _medians(axes, panel)
    ringed = np.flatnonzero((states == "COMPLETE") & (accuracies == best))[:1]
    axes.plot(x[ringed], accuracies[ringed], **BEST, zorder=4, clip_on=False)


def _trial_texts(panel: Slice) -> list[str]:
    """#34, lr 0.0123: 97.52%, complete"""
    values, name = panel.parameter.values, panel.parameter.name
    trials = zip(values, panel.accuracies, panel.states, strict=True)
    numbers = list(panel.numbers) or range(len(values))
    words = {
        "COMPLETE": t("complete"),
        "PRUNED": t("pruned"),
        "LIMITED": t("stopped at its time limit"),
        "DIVERGED": t("diverged"),
    }
    return [
        f"#{number}, {name} {axis.value_text(value)}: "
        + ("" if state == "DIVERGED" else f"{accuracy:.2f}%, ")
        + words[state]
        for number, (value, accuracy, state) in zip(numbers, trials, strict=True)
    ]


def _medians(axes: Axes, panel: Slice) -> None:
    """Draws a bar across each strip at the median of its COMPLETE trials."""
    trials = list(zip(panel.parameter.values, panel.accuracies, panel.states, strict=True))
    for place, level in enumerate(axis.levels_of(panel.parameter) or ()):
        values = [a for v, a, state in trials if v == level and state == "COMPLETE" and a == a]
        if values:
            axes.hlines(
                np.median(values),
                place - 0.36,
                place + 0.36,
                color=style.BLACK,
                linewidth=1.6,
                zorder=3,
            )


def _slices_legend(figure: Figure, panels: Sequence[Slice], low: float, best: float) -> None:
    """Draws a legend of all states that occur, in two lines at the top."""
    seen = {state for panel in panels for state in panel.states}
    entries = [(dict(STATES[state]), t(NAMES[state])) for state in STATES if state in seen]
    below = max(int((_of(p, *TRAINED) < low).sum()) for p in panels)
    if below:
        name = t("{trials} below {low:.1f}%", trials=count(below, "trial"), low=low)
        entries.append(({"color": style.BLUE, **BELOW}, name))
    if best >= 0:
        entries.append((BEST, t("best trial: {best:.2f}%", best=best)))
    handles = [Line2D([], [], **{**look, "linestyle": ""}) for look, _ in entries]
    if any(axis.levels_of(panel.parameter) is not None for panel in panels):
        entries.append(({}, t("median of the complete ones")))
        handles.append(Line2D([], [], color=style.BLACK, linewidth=1.6))
    names = [name for _, name in entries]
    figure.legend(handles, names, loc="upper left", ncols=3, borderaxespad=0.2, handlelength=1.6)
