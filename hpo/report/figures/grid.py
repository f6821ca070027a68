"""Figures of a grid: learning curves, overview, differences from the baseline, interactions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hpo.language import marked, printed, t
from hpo.report.figures import style
from hpo.report.figures.axis import SHOWN, around, set_gains, value_ticks, within
from hpo.report.figures.svg import plot
from hpo.study.metrics import Metric, capital

PARTS = {"train": marked("Train"), "valid": marked("Validation")}
LINES = [{**line, "marker": m} for line, m in zip(style.LINES, "os^D", strict=True)]
# Percentage points from the baseline beyond which a cell gets another axis: a network that fails
# lies some 80 away, and would press the others, tenths apart, into one place. Of other metrics so
# much is a fifth of the way from a guess to the best.
FAR = 20.0

# --- learning curves ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CellCurves:
    """A cell's learning curves: {metric: (seeds, epochs)}, as a person reads them, NaN where a run
    diverged. collapsed: whether a run failed to learn."""

    label: str
    collapsed: bool
    values: Mapping[str, np.ndarray]

    def parts(self, kind: str) -> dict[str, np.ndarray]:
        """Returns {part: its values} of those parts, training and validation, that have some."""
        known = {part: self.values.get(f"{part}_{kind}") for part in PARTS}
        return {part: values for part, values in known.items() if values is not None}

    def both(self, kind: str) -> np.ndarray:
        """Returns the values in training and in validation, one after the other."""
        return np.concatenate([values.ravel() for values in self.parts(kind).values()])


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a guess gets: its loss, its value of the metric on the right as a person reads it, and
    how a figure says both."""

    loss: float
    value: float
    texts: tuple[str, str]


def guess_of_classes(classes: int = 10, percent: float = 10.0) -> Guess:
    """percent: the accuracy of a guess."""
    loss = float(np.log(classes))
    texts = (
        t("dotted: chance, ln {n} = {loss:.2f}", n=classes, loss=loss),
        t("dotted: chance, {percent:.3g}%", percent=percent),
    )
    return Guess(loss=loss, value=percent, texts=texts)


@style.as_svg
def curves(
    cells: Sequence[CellCurves], guess: Guess | None = None, metric: Metric = SHOWN
) -> Figure:
    """Draws a row per cell: loss on the left, the metric on the right. Cells that learn share their
    axes; a cell that fails has its own, with what a guess gets. guess: None: among ten classes."""
    figure = style.blank(0.45 + 2.35 * len(cells), left=0.6, right=0.1, top=0.6)
    axes = figure.subplots(len(cells), 2, squeeze=False, gridspec_kw={"hspace": 0.36})
    learned = [cell for cell in cells if not cell.collapsed]
    for (left, right), cell in zip(axes, cells, strict=True):
        _panel(left, cell, "loss")
        _panel(right, cell, metric.kind)
        left.set_ylabel(t("Loss"))
        right.set_ylabel(t("Accuracy (%)") if metric.kind == "accuracy" else metric.header)
        left.set_title(style.short(cell.label), loc="left", fontweight="bold")
        if cell.collapsed:
            _chance(left, right, cell, guess or guess_of_classes(), metric)
        else:
            left.set_ylim(*_limits(learned, "loss"))
            right.set_ylim(*_limits(learned, metric.kind, metric))
    for axis in axes[-1]:
        axis.set_xlabel(t("Epoch"))
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="upper right", ncols=2)
    return figure


def _panel(axes: Axes, cell: CellCurves, metric: str) -> None:
    text = marked("{label}, epoch {epoch}: {value:.4g} ({low:.4g} to {high:.4g})")
    known = cell.parts(metric)
    for (part, name), look in zip(PARTS.items(), LINES, strict=False):
        if part not in known:
            continue
        label, values = t(name), known[part]
        epochs = np.arange(1, values.shape[1] + 1)
        finite = np.ma.masked_invalid(values)
        middle = np.ma.median(finite, axis=0) if cell.collapsed else finite.mean(axis=0)
        bounds = (finite.min(axis=0), finite.max(axis=0), middle)
        low, high, middle = (np.ma.filled(bound, np.nan) for bound in bounds)
        axes.fill_between(epochs, low, high, color=look["color"], alpha=0.18, linewidth=0)
        texts = [
            t(text, label=label, epoch=e, value=value, low=a, high=b)
            for e, value, a, b in zip(epochs, middle, low, high, strict=True)
        ]
        plot(axes, epochs, middle, texts, label=label, markersize=3.5, **look)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _limits(
    cells: Sequence[CellCurves], kind: str, metric: Metric | None = None
) -> tuple[float, float]:
    """metric: None for the loss."""
    values = np.concatenate([cell.both(kind) for cell in cells])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if metric is None or metric.minimized:
        return 0.0, high + (0.05 * (high - low) or 0.5 * (metric.point if metric else 1.0))
    return around(low, high, 0.05, metric)


def _chance(left: Axes, right: Axes, cell: CellCurves, guess: Guess, metric: Metric) -> None:
    """Sets axes around what a guess gets; a loss far above it and most others leaves the figure."""
    left.set_ylim(0, _highest(cell.both("loss"), guess.loss))
    values = cell.both(metric.kind)
    if metric.minimized:
        right.set_ylim(0, _highest(values, guess.value))
    else:
        finite = values[np.isfinite(values)]
        highest = float(finite.max(initial=0.0))
        low, most = 0.0, max(30.0, 1.1 * highest, 1.1 * guess.value)
        if metric.kind != "accuracy":
            low, most = max(min(float(finite.min(initial=0.0)), 0.0), -1.0), 1.0
        right.set_ylim(*within(low, most, metric))
    if metric.kind != "accuracy" and not np.isfinite(cell.both("loss")).any():
        for axes in (left, right):
            axes.set_xlim(0.5, cell.values["valid_loss"].shape[1] + 0.5)
    for axes, level, height, text in (
        (left, guess.loss, 0.04, guess.texts[0]),
        (right, guess.value, 0.04 if metric.minimized else 0.9, guess.texts[1]),
    ):
        axes.axhline(level, color=style.GREY, linewidth=1, linestyle=":")
        box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1}
        look = {"ha": "right", "color": style.DARK_GREY, "bbox": box}
        axes.text(0.99, height, text, look, transform=axes.transAxes, fontsize=8)


def _highest(values: np.ndarray, guess: float) -> float:
    """Returns the upper limit of an axis of errors."""
    finite = values[np.isfinite(values)]
    most = max(3 * guess, 1.5 * float(np.median(finite))) if finite.size else guess
    return float(max(min(1.08 * finite.max(initial=0.0), most), 1.15 * guess))


# --- overview ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Dots:
    """A row of the overview: gains of the seeds' results, and the reported one."""

    label: str
    fails: bool
    values: Sequence[float]
    reported: float | None

    def on(self, side: str, threshold: float) -> tuple[Sequence[float], list[float]]:
        """Returns what the left or the right panel shows: the seeds' values, the reported one."""
        values = self.values if self.fails == (side == "left") else []
        reported = [] if self.reported is None else [self.reported]
        return values, [v for v in reported if (self.fails or v < threshold) == (side == "left")]


@style.as_svg
def overview(
    rows: Sequence[Dots], threshold: float, metric: Metric = SHOWN, floor: float = 0.0
) -> Figure:
    """Draws a row per network: a dot per seed, a bar at the mean, a diamond at the reported value.

    Networks that fail have a scale of their own on the left, and so have reported values below the
    threshold, a gain. floor: the least gain that is drawn; a worse run stands there.
    """
    left, right = ([row.on(side, threshold) for row in rows] for side in ("left", "right"))
    panels = [panel for panel in (left, right) if any(values or d for values, d in panel)]
    names = [style.short(row.label) for row in rows]
    room = max(0.35 + 0.075 * max(map(len, names)), 0.15 + style.width(names))
    figure = style.blank(1.2 + 0.34 * len(rows), left=room, top=0.65)
    grid = {"wspace": 0.04, "width_ratios": [1, 2.2] if len(panels) == 2 else [1]}
    axes = figure.subplots(1, max(len(panels), 1), sharey=True, squeeze=False, gridspec_kw=grid)[0]
    for axis, panel in zip(axes, panels, strict=False):
        least = None if panel is right else floor
        _dots(axis, panel, [row.label for row in rows], metric, least)
        set_gains(axis.xaxis, metric)
    axes[0].set_yticks(range(len(rows)), names)
    axes[0].invert_yaxis()
    if len(panels) == 2:
        axes[0].set_title(t("Networks that fail to learn"), fontsize=9)
        axes[1].set_title(t("Networks that learn (scale enlarged)"), fontsize=9)
    parts = [axis.get_legend_handles_labels() for axis in axes]
    unique = {text: handle for part in parts for handle, text in zip(*part, strict=True)}
    figure.legend(unique.values(), unique.keys(), loc="upper center", ncols=3)
    return figure


DOT = {"marker": "o", "color": style.BLUE, "alpha": 0.55, "markersize": 4, "markeredgewidth": 0}
REPORTED = {
    "marker": "D",
    "color": style.VERMILLION,
    "markerfacecolor": "none",
    "markersize": 7,
    "markeredgewidth": 1.5,
}


def _dots(
    axes: Axes,
    panel: Sequence[tuple[Sequence[float], list[float]]],
    labels: Sequence[str],
    metric: Metric,
    floor: float | None,
) -> None:
    """floor: see overview; None: of networks that learn, with their means."""
    seed, bar = t("one seed"), {"color": style.BLACK, "linewidth": 1.6}
    for place, (label, (values, reported)) in enumerate(zip(labels, panel, strict=True)):
        spread = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(len(values))
        texts = [f"{label}: {metric.spelled(value)}" for value in values]
        places = values if floor is None else [max(value, floor) for value in values]
        plot(axes, places, place + spread, texts, label=seed, linestyle="", **DOT)
        if len(values) > 1 and floor is None:
            text = t(
                "{label}: mean {mean}", label=label, mean=metric.spelled(float(np.mean(values)))
            )
            ends, name = [place - 0.32, place + 0.32], t("mean of the seeds")
            plot(axes, [np.mean(values)] * 2, ends, [text], label=name, **bar)
        for value in reported:
            text = t("{label}: reported {value}", label=label, value=metric.spelled(value))
            name, at = t("reported, one run"), value if floor is None else max(value, floor)
            plot(axes, [at], [place], [text], label=name, linestyle="", **REPORTED)
    every = [value for values, reported in panel for value in (*values, *reported)]
    every = every if floor is None else [max(value, floor) for value in every]
    margin = 0.06 * (max(every) - min(every)) or metric.point
    low = min(every) - margin
    if floor is not None:
        low = floor if metric.kind == "accuracy" else floor - margin
    margin = max(margin, 0.06 * (max(every) - low))  # or a dot at the end would be cut
    axes.set_xlim(low, min(max(every) + margin, metric.most + margin / 4))


# --- differences -------------------------------------------------------------------------------

MARKS: dict[str, dict[str, Any]] = {
    marked("95% interval without zero"): {"marker": "o", "color": style.BLUE, "mfc": style.BLUE},
    marked("95% interval with zero"): {"marker": "o", "color": style.GREY, "mfc": "white"},
    marked("too few seeds, no interval"): {
        "marker": "D",
        "color": style.VERMILLION,
        "mfc": "white",
    },
}
EDGE = 1.4  # points of a mark's edge


@dataclass(frozen=True, kw_only=True)
class DifferenceRow:
    """A cell's mean paired difference from the baseline, of gains, with its 95% interval; NaN
    bounds for a single pair."""

    label: str
    mean: float
    low: float
    high: float
    metric: Metric = SHOWN

    @property
    def text(self) -> str:
        """Returns the difference of the metric's values."""
        if math.isnan(self.mean):
            return "–"
        ends = (self.low, self.high)[:: self.metric.sign]
        mean, low, high = (
            printed(f"{{:+.{self.metric.digits}f}}", self.metric.sign * gain + 0.0)
            for gain in (self.mean, *ends)
        )
        return mean if math.isnan(self.low) else f"{mean} [{low}, {high}]"

    @property
    def mark(self) -> str:
        """One of MARKS."""
        resolved, open_, single = MARKS
        if math.isnan(self.low) or math.isnan(self.high):
            return single
        return resolved if self.low > 0 or self.high < 0 else open_


@style.as_svg
def differences(
    rows: Sequence[DifferenceRow], baseline: str = "the baseline", beyond: float = FAR
) -> Figure:
    """Draws a row per cell: its difference from the baseline with the 95% interval.

    Cells farther away than `beyond` have a scale of their own, on the left. A filled mark: the
    interval excludes zero. At least one row.
    """
    names, metric = [style.short(row.label) for row in rows], rows[0].metric
    known = {place: row for place, row in enumerate(rows) if not math.isnan(row.mean)}
    far = {place: row for place, row in known.items() if abs(row.mean) > beyond}
    near = {place: row for place, row in known.items() if place not in far}
    panels = [panel for panel in (far, near) if panel] or [known]
    top = 0.35 if len(panels) == 1 else 0.6
    right = max(1.55, 0.2 + style.width([row.text for row in rows], 8))
    height, left = top + 0.55 + 0.27 * len(rows), 0.25 + style.width(names)
    figure = style.blank(height, left=left, right=right, top=top)
    grid = {"wspace": 0.1, "width_ratios": [1, 2.4][-len(panels) :]}
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, gridspec_kw=grid)[0]
    for axis, panel in zip(axes, panels, strict=True):
        _difference_panel(axis, panel, beyond)
        if metric.minimized:
            axis.xaxis.set_major_formatter(value_ticks())
    axes[0].set_yticks(range(len(rows)), names)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    if len(panels) == 2:
        axes[0].xaxis.set_major_locator(MaxNLocator(3, prune="both"))  # narrow
        far_text = metric.in_unit(f"{beyond:.3g}")
        axes[0].set_title(t("Beyond {far}", far=far_text), fontsize=9)
        axes[1].set_title(t("Scale enlarged"), fontsize=9)
    for place, row in enumerate(rows):
        axes[-1].annotate(
            row.text, (1, place), xytext=(6, 0), va="center", fontsize=8,
            xycoords=axes[-1].get_yaxis_transform(), textcoords="offset points",
        )  # fmt: skip
    middle = (axes[0].get_position().x0 + axes[-1].get_position().x1) / 2
    figure.supxlabel(
        _difference_label(metric, style.short(baseline)),
        fontsize=9, x=middle, y=0.07 / figure.get_figheight(),
    )  # fmt: skip
    shown = {row.mark for row in known.values()}
    handles = {t(name): Line2D([], [], mew=EDGE, **MARKS[name]) for name in MARKS if name in shown}
    figure.legend(handles.values(), handles, loc="upper right", ncols=3, borderaxespad=0.2)
    return figure


def _difference_label(metric: Metric, baseline: str) -> str:
    if metric.mark:
        return t("Difference from {baseline} (percentage points)", baseline=baseline)
    known = {"metric": capital(t(metric.words)), "baseline": baseline}
    if metric.minimized:
        return t("{metric}, difference from {baseline}: less is better", **known)
    return t("{metric}, difference from {baseline}", **known)


def _difference_panel(axes: Axes, panel: Mapping[int, DifferenceRow], beyond: float) -> None:
    """Draws rows at their places; an interval that leaves the axis ends in an arrow."""
    low, high = _difference_limits([*panel.values()], beyond)
    axes.set_xlim(low, high)
    if low < 0 < high:
        axes.axvline(0, color=style.BLACK, linewidth=1)
    for place, row in panel.items():
        look = MARKS[row.mark] | {"markersize": 6, "mew": EDGE}
        axes.plot([max(row.low, low), min(row.high, high)], [place] * 2, color=look["color"])
        for end, edge, out in ((row.low, "<", row.low < low), (row.high, ">", row.high > high)):
            at = min(max(end, low), high)
            axes.plot([at], [place], edge if out else "|", color=look["color"], clip_on=False)
        plot(axes, [row.mean], [place], [f"{row.label}: {row.text}"], **look, zorder=3)
    axes.xaxis.set_major_locator(MaxNLocator(6 if low <= 0 <= high else 2, prune="both"))


def _difference_limits(panel: Sequence[DifferenceRow], beyond: float) -> tuple[float, float]:
    """Returns limits around the means, zero included unless the cells are far away, and as much of
    the intervals as one and a half times the means' spread."""
    means = [row.mean for row in panel] or [0.0]
    far = abs(means[0]) > beyond
    places = means if far else [*means, 0.0]
    low, high = min(places), max(places)
    least = beyond / 200 if panel and panel[0].metric.mark else beyond / 20
    reach = 1.5 * max(high - low, beyond / 2 if far else least)
    ends = [end for row in panel for end in (row.low, row.high) if not math.isnan(end)]
    low, high = max(min([low, *ends]), low - reach), min(max([high, *ends]), high + reach)
    margin = 0.08 * (high - low) or beyond / 40
    return low - margin, high + margin


# --- interactions ------------------------------------------------------------------------------


@style.as_svg
def interactions(
    panels: Mapping[str, Mapping[str, np.ndarray]],
    factor: str,
    levels: Sequence[str],
    metric: Metric = SHOWN,
) -> Figure:
    """Draws gains over the levels of a factor: the mean over seeds with a dot a seed. Lines that
    are not parallel are an interaction.

    panels: {levels of the other factors: {level of a second factor, a line: (levels, seeds)}}.
    """
    figure = style.blank(2.9, left=0.6, right=0.1, top=0.55)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    places = np.arange(len(levels))
    for axes, (title, lines) in zip(grid, panels.items(), strict=True):
        axes.set_title(title, loc="left", fontweight="bold")
        for number, (label, values) in enumerate(lines.items()):
            look = LINES[number % len(LINES)]
            shift = 0.06 * (number - (len(lines) - 1) / 2)
            means = np.nanmean(values, axis=1)
            known = zip(levels, means, strict=True)
            texts = [f"{label}, {factor} {level}: {metric.spelled(mean)}" for level, mean in known]
            plot(axes, places + shift, means, texts, label=label, markersize=5, **look)
            x, dot = np.repeat(places, values.shape[1]) + shift, {"alpha": 0.35, "markersize": 4}
            axes.plot(x, values.ravel(), ".", color=look["color"], markeredgewidth=0, **dot)
        axes.set_xticks(places, levels)
        axes.set_xlabel(factor)
        axes.set_xlim(-0.3, len(levels) - 0.7)
    set_gains(grid[0].yaxis, metric)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", ncols=len(labels), labelcolor=style.BLACK)
    return figure
