"""Figures of a grid: learning curves, overview, differences from the baseline, interactions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hpo.language import marked, t
from hpo.report.figures import style
from hpo.report.figures.axis import around, within_100
from hpo.report.figures.tooltips import tip
from hpo.text import minus

PARTS = {
    "train": (marked("Train"), style.BLUE, "o", "-"),
    "valid": (marked("Validation"), style.VERMILLION, "s", "--"),
}
LINES = (
    (style.BLUE, "o", "-"),
    (style.VERMILLION, "s", "--"),
    (style.GREEN, "^", "-."),
    (style.PURPLE, "D", ":"),
)
FAR = 20.0  # percentage points from the baseline beyond which a cell gets an axis of its own


@dataclass(frozen=True, kw_only=True)
class CellCurves:
    """A cell's learning curves: {metric: (seeds, epochs)}, NaN where a run diverged; accuracies in
    percent. collapsed: whether a run failed to learn."""

    label: str
    collapsed: bool
    values: Mapping[str, np.ndarray]

    def both(self, metric: str) -> np.ndarray:
        """Returns the values in training and in validation, one after the other."""
        return np.concatenate([self.values[f"{part}_{metric}"].ravel() for part in PARTS])


@dataclass(frozen=True, kw_only=True)
class Dots:
    """A row of the overview: test accuracies of the seeds in percent, and the reported one."""

    label: str
    fails: bool
    values: Sequence[float]
    reported: float | None


@dataclass(frozen=True, kw_only=True)
class DifferenceRow:
    """A cell's mean paired difference from the baseline in points, with its 95% interval; NaN
    bounds for a single pair."""

    label: str
    mean: float
    low: float
    high: float


def curves(cells: Sequence[CellCurves], classes: int = 10, chance: float = 10.0) -> str:
    """Draws a row per cell: loss on the left, accuracy on the right. Cells that learn share their
    axes; a cell that fails has its own. chance: accuracy of a guess in percent."""
    with style.drawing():
        figure = style.blank(0.45 + 2.35 * len(cells), left=0.6, right=0.1, top=0.6, bottom=0.5)
        axes = figure.subplots(len(cells), 2, squeeze=False, gridspec_kw={"hspace": 0.36})
        learned = [cell for cell in cells if not cell.collapsed]
        for (left, right), cell in zip(axes, cells, strict=True):
            _panel(left, cell, "loss")
            _panel(right, cell, "accuracy")
            left.set_ylabel(t("Loss"))
            right.set_ylabel(t("Accuracy (%)"))
            left.set_title(style.short(cell.label), loc="left", fontweight="bold")
            if cell.collapsed:
                _chance(left, right, cell, classes, chance)
            else:
                left.set_ylim(*_limits(learned, "loss"))
                right.set_ylim(*_limits(learned, "accuracy"))
        for axis in axes[-1]:
            axis.set_xlabel(t("Epoch"))
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right", ncols=2)
        return style.svg_text(figure)


def _panel(axes: Axes, cell: CellCurves, metric: str) -> None:
    for part, (name, colour, marker, line) in PARTS.items():
        label, values = t(name), cell.values[f"{part}_{metric}"]
        epochs = np.arange(1, values.shape[1] + 1)
        finite = np.ma.masked_invalid(values)
        middle = np.ma.median(finite, axis=0) if cell.collapsed else finite.mean(axis=0)
        low, high = (bound.filled(np.nan) for bound in (finite.min(axis=0), finite.max(axis=0)))
        axes.fill_between(epochs, low, high, color=colour, alpha=0.18, linewidth=0)
        (drawn,) = axes.plot(
            epochs, np.ma.filled(middle, np.nan), color=colour, marker=marker, linestyle=line,
            markersize=3.5, label=label,
        )  # fmt: skip
        text = marked("{label}, epoch {epoch}: {value:.4g} ({low:.4g} to {high:.4g})")
        ends = zip(epochs, np.ma.filled(middle, np.nan), low, high, strict=True)
        tip(
            drawn,
            [t(text, label=label, epoch=e, value=value, low=a, high=b) for e, value, a, b in ends],
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _limits(cells: Sequence[CellCurves], metric: str) -> tuple[float, float]:
    values = np.concatenate([cell.both(metric) for cell in cells])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if metric == "loss":
        return 0.0, high + (0.05 * (high - low) or 0.5)
    return around(low, high, 0.05)


def _chance(left: Axes, right: Axes, cell: CellCurves, classes: int, percent: float) -> None:
    """Sets axes around chance level; a loss above three times chance leaves the figure."""
    losses = cell.both("loss")
    chance = float(np.log(classes))
    top = min(float(np.nanmax(losses)) * 1.08, 3 * chance) if np.isfinite(losses).any() else chance
    left.set_ylim(0, max(top, 1.15 * chance))
    left.axhline(chance, color=style.GREY, linewidth=1, linestyle=":")
    _note(left, 0.04, t("dotted: chance, ln {n} = {loss:.2f}", n=classes, loss=chance))
    highest = float(np.nanmax(cell.both("accuracy")))
    right.set_ylim(*within_100(0, max(30.0, 1.1 * highest, 1.1 * percent)))
    right.axhline(percent, color=style.GREY, linewidth=1, linestyle=":")
    _note(right, 0.9, t("dotted: chance, {percent:.3g}%", percent=percent))


def _note(axes: Axes, height: float, text: str) -> None:
    axes.text(
        0.99, height, text, transform=axes.transAxes, ha="right", color=style.DARK_GREY, fontsize=8
    )


def overview(rows: Sequence[Dots], threshold: float) -> str:
    """Draws a row per network: a dot per seed, a bar at the mean, a diamond at the reported value.

    Networks that fail have a scale of their own on the left, and so have reported values below the
    threshold (percent).
    """
    with style.drawing():
        left, right = _placed(rows, threshold)
        panels = [panel for panel in (left, right) if any(values or d for values, d in panel)]
        names, height = [style.short(row.label) for row in rows], 1.2 + 0.34 * len(rows)
        room = max(0.35 + 0.075 * max(map(len, names)), 0.15 + style.width(names))
        figure = style.blank(height, left=room, right=0.15, top=0.65, bottom=0.5)
        grid = {"wspace": 0.04, "width_ratios": [1, 2.2] if len(panels) == 2 else [1]}
        axes = figure.subplots(
            1, max(len(panels), 1), sharey=True, squeeze=False, gridspec_kw=grid
        )[0]
        for axis, panel in zip(axes, panels, strict=False):
            _dots(axis, panel, [row.label for row in rows], mean=panel is right)
            axis.set_xlabel(t("Test accuracy (%)"))
        axes[0].set_yticks(range(len(rows)), names)
        axes[0].invert_yaxis()
        if len(panels) == 2:
            axes[0].set_title(t("Networks that fail to learn"), fontsize=9)
            axes[1].set_title(t("Networks that learn (scale enlarged)"), fontsize=9)
        parts = [axis.get_legend_handles_labels() for axis in axes]
        unique = {text: handle for part in parts for handle, text in zip(*part, strict=True)}
        figure.legend(unique.values(), unique.keys(), loc="upper center", ncols=3)
        return style.svg_text(figure)


Panel = list[tuple[Sequence[float], list[float]]]


def _placed(rows: Sequence[Dots], threshold: float) -> tuple[Panel, Panel]:
    """(seeds' values, reported ones) of each row, for the left and for the right panel."""
    left: Panel = []
    right: Panel = []
    for row in rows:
        reported = [] if row.reported is None else [row.reported]
        low = [value for value in reported if row.fails or value < threshold]
        left.append((row.values if row.fails else [], low))
        right.append(([] if row.fails else row.values, [v for v in reported if v not in low]))
    return left, right


def _dots(axes: Axes, panel: Panel, labels: Sequence[str], *, mean: bool) -> None:
    for position, (label, (values, reported)) in enumerate(zip(labels, panel, strict=True)):
        spread = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(len(values))
        (drawn,) = axes.plot(
            values, position + spread, "o", color=style.BLUE, alpha=0.55, markersize=4,
            markeredgewidth=0, label=t("one seed, reproduced"),
        )  # fmt: skip
        tip(drawn, [f"{label}: {value:.2f}%" for value in values])
        if len(values) > 1 and mean:
            (bar,) = axes.plot(
                [np.mean(values)] * 2, [position - 0.32, position + 0.32], "-", color=style.BLACK,
                linewidth=1.6, label=t("mean of the seeds"),
            )  # fmt: skip
            tip(bar, [t("{label}: mean {mean:.2f}%", label=label, mean=np.mean(values))])
        if reported:
            (diamond,) = axes.plot(
                reported, [position], "D", markerfacecolor="none", color=style.VERMILLION,
                markersize=7, markeredgewidth=1.5, label=t("reported, one run"),
            )  # fmt: skip
            tip(diamond, [t("{label}: reported {value:.2f}%", label=label, value=reported[0])])
    every = [value for values, reported in panel for value in (*values, *reported)]
    margin = 0.06 * (max(every) - min(every)) or 1.0
    low = min(every) - margin if mean else 0.0
    axes.set_xlim(low, min(max(every) + margin, 100.0 + margin / 4))


def differences(rows: Sequence[DifferenceRow], baseline: str = "the baseline") -> str:
    """Draws a row per cell: its difference from the baseline with the 95% interval.

    Cells more than FAR points away have a scale of their own, on the left. A filled mark: the
    interval excludes zero. At least one row.
    """
    with style.drawing():
        names = [style.short(row.label) for row in rows]
        known = [row for row in rows if not math.isnan(row.mean)]
        sides = [[row for row in known if (abs(row.mean) > FAR) is far] for far in (True, False)]
        panels = [panel for panel in sides if panel] or [known]
        top = 0.35 if len(panels) == 1 else 0.6
        height = top + 0.55 + 0.27 * len(rows)
        right = max(1.55, 0.2 + style.width([_difference_text(row) for row in rows], 8))
        figure = style.blank(
            height, left=0.25 + style.width(names), right=right, top=top, bottom=0.5
        )
        grid = {"wspace": 0.1, "width_ratios": [1, 2.4][-len(panels) :]}
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, gridspec_kw=grid)[0]
        for axis, panel in zip(axes, panels, strict=True):
            _difference_panel(axis, rows, panel)
        axes[0].set_yticks(range(len(rows)), names)
        axes[0].set_ylim(len(rows) - 0.5, -0.5)
        if len(panels) == 2:
            axes[0].xaxis.set_major_locator(MaxNLocator(3, prune="both"))  # narrow
            axes[0].set_title(t("Beyond {far:g} points", far=FAR), fontsize=9)
            axes[1].set_title(t("Scale enlarged"), fontsize=9)
        for place, row in enumerate(rows):
            axes[-1].annotate(
                _difference_text(row), (1, place), xytext=(6, 0), va="center", fontsize=8,
                xycoords=axes[-1].get_yaxis_transform(), textcoords="offset points",
            )  # fmt: skip
        middle = (axes[0].get_position().x0 + axes[-1].get_position().x1) / 2
        text = t("Difference from {baseline} (percentage points)", baseline=style.short(baseline))
        figure.supxlabel(text, fontsize=9, x=middle, y=0.07 / figure.get_figheight())
        seen = {_mark(row) for row in known}
        names = [name for name in MARKS if name in seen]
        handles = [Line2D([], [], **MARKS[name]) for name in names]
        labels = [t(name) for name in names]
        figure.legend(handles, labels, loc="upper right", ncols=3, borderaxespad=0.2)
        return style.svg_text(figure)


def _difference_text(row: DifferenceRow) -> str:
    if math.isnan(row.mean):
        return "–"
    text = f"{row.mean:+.2f}"
    if not math.isnan(row.low):
        text += f" [{row.low:+.2f}, {row.high:+.2f}]"
    return minus(text)


# The mark, the colour of its edge, and what fills it.
LOOKS = {
    marked("95% interval without zero"): ("o", style.BLUE, style.BLUE),
    marked("95% interval with zero"): ("o", style.GREY, "white"),
    marked("one seed, no interval"): ("D", style.VERMILLION, "white"),
}
MARKS: dict[str, dict[str, Any]] = {
    name: {"marker": marker, "markerfacecolor": inside, "color": edge, "markeredgewidth": 1.4}
    for name, (marker, edge, inside) in LOOKS.items()
}


def _mark(row: DifferenceRow) -> str:
    names = list(MARKS)
    if math.isnan(row.low) or math.isnan(row.high):
        return names[2]
    return names[0] if row.low > 0 or row.high < 0 else names[1]


def _difference_panel(
    axes: Axes, rows: Sequence[DifferenceRow], panel: Sequence[DifferenceRow]
) -> None:
    """Draws the panel's rows at their places; an interval that leaves the axis ends in an arrow."""
    low, high = _difference_limits(panel)
    axes.set_xlim(low, high)
    if low < 0 < high:
        axes.axvline(0, color=style.BLACK, linewidth=1)
    for place, row in enumerate(rows):
        if not any(row is shown for shown in panel) or math.isnan(row.mean):
            continue
        look = {"markersize": 6, **MARKS[_mark(row)]}
        axes.plot([max(row.low, low), min(row.high, high)], [place] * 2, color=look["color"])
        for end, edge, out in ((row.low, "<", row.low < low), (row.high, ">", row.high > high)):
            at = min(max(end, low), high)
            axes.plot([at], [place], edge if out else "|", color=look["color"], clip_on=False)
        (mark,) = axes.plot([row.mean], [place], **look, zorder=3)
        tip(mark, [f"{row.label}: {_difference_text(row)}"])
    axes.xaxis.set_major_locator(MaxNLocator(6 if low <= 0 <= high else 2, prune="both"))


def _difference_limits(panel: Sequence[DifferenceRow]) -> tuple[float, float]:
    """Returns limits around the means, zero included unless the cells are FAR away, and as much of
    the intervals as one and a half times the means' spread."""
    means = [row.mean for row in panel if not math.isnan(row.mean)] or [0.0]
    far = abs(means[0]) > FAR
    places = means if far else [*means, 0.0]
    low, high = min(places), max(places)
    reach = 1.5 * max(high - low, 5.0 if far else 0.1)
    ends = [end for row in panel for end in (row.low, row.high) if not math.isnan(end)]
    low, high = max(min([low, *ends]), low - reach), min(max([high, *ends]), high + reach)
    margin = 0.08 * (high - low) or 0.5
    return low - margin, high + margin


def interactions(
    panels: Mapping[str, Mapping[str, np.ndarray]], factor: str, levels: Sequence[str]
) -> str:
    """Draws test accuracies in percent over the levels of a factor: the mean over seeds with a dot
    a seed. Lines that are not parallel are an interaction.

    panels: {levels of the other factors: {level of a second factor, a line: (levels, seeds)}}.
    """
    with style.drawing():
        figure = style.blank(2.9, left=0.6, right=0.1, top=0.55, bottom=0.5)
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, lines) in zip(grid, panels.items(), strict=True):
            axes.set_title(title, loc="left", fontweight="bold")
            places = np.arange(len(levels))
            for number, (label, values) in enumerate(lines.items()):
                colour, marker, look = LINES[number % len(LINES)]
                shift = 0.06 * (number - (len(lines) - 1) / 2)
                means = np.nanmean(values, axis=1)
                (line,) = axes.plot(
                    places + shift, means, color=colour, marker=marker, linestyle=look,
                    label=label, markersize=5,
                )  # fmt: skip
                known = zip(levels, means, strict=True)
                tip(line, [f"{label}, {factor} {level}: {mean:.2f}%" for level, mean in known])
                axes.plot(
                    np.repeat(places, values.shape[1]) + shift, values.ravel(), ".", color=colour,
                    alpha=0.35, markersize=4, markeredgewidth=0,
                )  # fmt: skip
            axes.set_xticks(places, levels)
            axes.set_xlabel(factor)
            axes.set_xlim(-0.3, len(levels) - 0.7)
        grid[0].set_ylabel(t("Test accuracy (%)"))
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right", ncols=len(labels), labelcolor=style.BLACK)
        return style.svg_text(figure)
