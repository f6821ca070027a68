"""Figures of single networks: learning curves, confusion matrix, worst images, differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hpo.report.figures.grid import BLACK, BLUE, GREY, VERMILLION, blank, drawing, short, svg_text
from hpo.report.figures.search import ACCURACY, COLOURS, fit, focus, head, width
from hpo.report.figures.tooltips import tip
from hpo.text import count

MARKERS = "osD^vPXp<>"
FAR = 20.0  # percentage points from the baseline beyond which a cell gets an axis of its own
ACROSS = 8  # images in a row


@dataclass(frozen=True, kw_only=True)
class TrialCurve:
    """A trial's validation accuracies in percent, one per epoch."""

    label: str
    values: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class WorstImage:
    """A misclassified image. pixels: bytes (height, width), 255 is ink. probability: of its label,
    0 to 1."""

    pixels: np.ndarray
    label: int
    predicted: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class DifferenceRow:
    """A cell's mean paired difference from the baseline in points, with its 95% interval; NaN
    bounds for a single pair."""

    label: str
    mean: float
    low: float
    high: float


# --- trials' curves ----------------------------------------------------------------------------


def trial_curves(best: Sequence[TrialCurve], pruned: Sequence[TrialCurve]) -> str:
    """Draws the curves of up to ten best trials, and beside them the pruned ones with a cross at
    their end.

    best: at least one, the best first. The axes leave out the lowest values.
    """
    best = best[: len(MARKERS)]
    with drawing():
        lines = math.ceil(len(best) / 2)
        figure = blank(
            3.65 + 0.17 * lines, left=0.75, right=0.15, top=0.45, bottom=0.55 + 0.17 * lines
        )
        axes = figure.subplots(1, 2 if pruned else 1, squeeze=False)[0]
        _best_curves(axes[0], best)
        if pruned:
            _pruned_curves(axes[1], best[0], pruned)
        for axis in axes:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axis.set_xlim(0.5, max(1, *(len(curve.values) for curve in (*best, *pruned))) + 0.5)
            axis.set_xlabel("Epoch")
        axes[0].set_ylabel(ACCURACY)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower left", ncols=2, fontsize=8, labelspacing=0.3)
        return svg_text(figure)


def _best_curves(axes: Axes, best: Sequence[TrialCurve]) -> None:
    """Draws curves from dark (the best) to light, each with its own marker; leaves out the lowest
    twentieth of the values."""
    shades = mpl.colormaps[COLOURS](np.linspace(0, 0.88, len(best)))
    for place, curve in enumerate(best):
        (drawn,) = axes.plot(
            np.arange(1, len(curve.values) + 1), curve.values, color=shades[place],
            marker=MARKERS[place], markersize=4.5 if place else 5.5, zorder=3 - place / 20,
            linewidth=1.2 if place else 2.2, label=fit(curve.label, 3.4, 8),
        )  # fmt: skip
        tip(drawn, _epoch_texts(curve))
    every = np.concatenate([np.asarray(curve.values, float) for curve in best])
    finite = every[np.isfinite(every)]
    low = float(np.percentile(finite, 5, method="lower")) if finite.size else 0.0
    top = float(finite.max(initial=low))
    margin = 0.05 * (top - low) or 0.5
    axes.set_ylim(low - margin, top + margin)
    below = int((finite < low - margin).sum())
    note = "After each epoch"
    note += f"; {count(below, 'value')} below {low - margin:.1f}%" if below else ""
    head(axes, "The best trial" if len(best) == 1 else f"The {len(best)} best trials", note)


def _epoch_texts(curve: TrialCurve) -> list[str]:
    return [f"{curve.label}, epoch {e}: {value:.2f}%" for e, value in enumerate(curve.values, 1)]


def _pruned_curves(axes: Axes, best: TrialCurve, pruned: Sequence[TrialCurve]) -> None:
    """Draws thin lines up to a cross, or to a triangle if the end lies below the axis."""
    ends = np.array([([math.nan, *curve.values])[-1] for curve in pruned])
    axes.set_ylim(*focus(np.concatenate([ends, np.asarray(best.values, float)])))
    texts = [f"{c.label}, pruned at {end:.2f}%" for c, end in zip(pruned, ends, strict=True)]
    _pruned_lines(axes, pruned, texts)
    low = axes.get_ylim()[0]
    _pruned_ends(axes, [len(curve.values) for curve in pruned], ends, texts)
    epochs = np.arange(1, len(best.values) + 1)
    (blue,) = axes.plot(
        epochs, best.values, "o-", color=BLUE, markersize=4.5, linewidth=2.2, zorder=4
    )
    tip(blue, _epoch_texts(best))
    below = int((ends < low).sum())
    note = "Blue: the best trial; ×: pruned here"
    head(
        axes,
        f"{count(len(pruned), 'pruned trial')} beside the best",
        f"{note}; ▾: {below} below {low:.1f}%" if below else note,
    )


def _pruned_lines(axes: Axes, pruned: Sequence[TrialCurve], texts: Sequence[str]) -> None:
    """Draws the lines as one collection: single lines cost a millisecond each."""
    long = [(np.asarray(c.values, float), t) for c, t in zip(pruned, texts, strict=True)]
    long = [(values, text) for values, text in long if len(values) > 1]
    steps = [np.column_stack([np.arange(1, len(v) + 1), v]) for v, _ in long]
    drawn = LineCollection(steps, colors=GREY, linewidths=0.8)
    tip(axes.add_collection(drawn, autolim=False), [text for _, text in long])


def _pruned_ends(axes: Axes, epochs: Sequence[int], ends: np.ndarray, texts: Sequence[str]) -> None:
    """Draws a cross at each end, a triangle for each one below the axis."""
    below, at = ends < axes.get_ylim()[0], np.array(epochs)
    style: dict[str, Any] = {
        "color": BLACK, "markersize": 4.5, "zorder": 3, "alpha": 0.7, "linestyle": "",
    }  # fmt: skip
    (crosses,) = axes.plot(at[~below], ends[~below], marker="x", **style)
    tip(crosses, [text for text, low in zip(texts, below, strict=True) if not low])
    places, edge = np.full(below.sum(), 0.02), axes.get_xaxis_transform()
    (triangles,) = axes.plot(at[below], places, marker="v", transform=edge, **style)
    tip(triangles, [text for text, low in zip(texts, below, strict=True) if low])


# --- mistakes ----------------------------------------------------------------------------------


def confusion(matrix: Sequence[Sequence[float]]) -> str:
    """Draws the images of each label (row) by predicted class (column). Colour marks only mistakes.
    Beside each row: the percentage that is right."""
    with drawing(**{"axes.grid": False, "axes.spines.left": False}):
        counts = np.asarray(matrix, float)
        classes, mistakes = len(counts), np.where(np.eye(len(counts)), np.nan, counts)
        figure = blank(1.0 + 0.33 * classes, left=0.55, right=0.75, top=0.35, bottom=0.5)
        axes = figure.subplots()
        axes.spines["bottom"].set_visible(False)
        shades = mpl.colormaps["Blues"].with_extremes(bad="#EDEDED")
        top = max(1.0, float(np.nanmax(mistakes, initial=0)))
        mesh = axes.pcolormesh(
            np.ma.masked_invalid(mistakes), cmap=shades, vmin=0, vmax=top, edgecolor="white",
        )  # fmt: skip
        for (row, column), number in np.ndenumerate(counts):
            dark = row != column and number > 0.55 * top
            axes.text(
                column + 0.5, row + 0.5, _number(number), ha="center", va="center", fontsize=8.5,
                color="white" if dark else BLACK if number else GREY,
            )  # fmt: skip
        _confusion_axes(axes, counts)
        figure.colorbar(mesh, ax=axes, label="Mistakes (images)", fraction=0.03, pad=0.09)
        return svg_text(figure)


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.0f}" if float(value).is_integer() or value >= 100 else f"{value:.1f}"


def _confusion_axes(axes: Axes, counts: np.ndarray) -> None:
    """Orders the classes from the top left and writes each row's percentage."""
    classes = len(counts)
    axes.set(xlabel="Predicted", ylabel="Label", ylim=(classes, 0), aspect="auto")
    axes.set_xticks(np.arange(classes) + 0.5, [str(c) for c in range(classes)])
    axes.set_yticks(np.arange(classes) + 0.5, [str(c) for c in range(classes)])
    axes.tick_params(length=0)
    for place, row in enumerate(counts):
        right = f"{100 * row[place] / row.sum():.1f}%" if row.sum() > 0 else "–"
        axes.text(classes + 0.12, place + 0.5, right, va="center", fontsize=8.5)
    axes.text(classes + 0.12, -0.06, "correct", va="bottom", fontsize=8.5, color="#555555")


def worst_images(images: Sequence[WorstImage]) -> str:
    """Draws the images, eight per row, as ink on paper with label, predicted class and the label's
    probability. At least one image."""
    with drawing(**{"axes.grid": False}):
        rows = math.ceil(len(images) / ACROSS)
        figure = blank(1.42 * rows, left=0.06, right=0.06, top=0.06, bottom=0.46)
        every = figure.subplots(
            rows, ACROSS, squeeze=False, gridspec_kw={"wspace": 0.1, "hspace": 0.5}
        ).ravel()
        for axes in every[len(images) :]:
            axes.set_visible(False)
        for axes, image in zip(every, images, strict=False):
            axes.imshow(image.pixels, cmap="Greys", vmin=0, vmax=255, interpolation="none")
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set(visible=True, color="#BBBBBB")
            text = f"{image.label}, taken for {image.predicted}\n({_chance(image.probability)})"
            axes.set_xlabel(text, fontsize=8)
        return svg_text(figure)


def _chance(probability: float) -> str:
    percent = 100 * probability
    if percent < 0.01:
        return "<0.01%"
    return f"{percent:.2f}%" if percent < 0.1 else f"{percent:.1f}%"


# --- differences -------------------------------------------------------------------------------


def differences(rows: Sequence[DifferenceRow], baseline: str = "the baseline") -> str:
    """Draws a row per cell: its difference from the baseline with the 95% interval.

    Cells more than FAR points away have a scale of their own, on the left. A filled mark: the
    interval excludes zero. At least one row.
    """
    with drawing():
        names = [short(row.label) for row in rows]
        known = [row for row in rows if not math.isnan(row.mean)]
        sides = [[row for row in known if (abs(row.mean) > FAR) is far] for far in (True, False)]
        panels = [panel for panel in sides if panel] or [known]
        top = 0.35 if len(panels) == 1 else 0.6
        figure = blank(
            top + 0.55 + 0.27 * len(rows), left=0.25 + width(names), right=1.55, top=top, bottom=0.5
        )
        grid = {"wspace": 0.1, "width_ratios": [1, 2.4][-len(panels) :]}
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, gridspec_kw=grid)[0]
        for axis, panel in zip(axes, panels, strict=True):
            _difference_panel(axis, rows, panel)
        axes[0].set_yticks(range(len(rows)), names)
        axes[0].set_ylim(len(rows) - 0.5, -0.5)
        if len(panels) == 2:
            axes[0].set_title(f"Beyond {FAR:g} points", fontsize=9)
            axes[1].set_title("Scale enlarged", fontsize=9)
        for place, row in enumerate(rows):
            axes[-1].annotate(
                _difference_text(row), (1, place), xytext=(6, 0), va="center", fontsize=8,
                xycoords=axes[-1].get_yaxis_transform(), textcoords="offset points",
            )  # fmt: skip
        middle = (axes[0].get_position().x0 + axes[-1].get_position().x1) / 2
        text = f"Difference from {short(baseline)} (percentage points)"
        figure.supxlabel(text, fontsize=9, x=middle, y=0.07 / figure.get_figheight())
        _difference_legend(figure, rows)
        return svg_text(figure)


def _difference_text(row: DifferenceRow) -> str:
    if math.isnan(row.mean):
        return "–"
    text = f"{row.mean:+.2f}"
    if not math.isnan(row.low):
        text += f" [{row.low:+.2f}, {row.high:+.2f}]"
    return text.replace("-", "−")


MARKS: dict[str, dict[str, Any]] = {
    "95% interval without zero": {"marker": "o", "markerfacecolor": BLUE, "color": BLUE},
    "95% interval with zero": {"marker": "o", "markerfacecolor": "white", "color": GREY},
    "one seed, no interval": {"marker": "D", "markerfacecolor": "white", "color": VERMILLION},
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
        axes.axvline(0, color=BLACK, linewidth=1)
    for place, row in enumerate(rows):
        if not any(row is shown for shown in panel) or math.isnan(row.mean):
            continue
        style = {"markersize": 6, "markeredgewidth": 1.4, **MARKS[_mark(row)]}
        axes.plot([max(row.low, low), min(row.high, high)], [place] * 2, color=style["color"])
        for end, edge, out in ((row.low, "<", row.low < low), (row.high, ">", row.high > high)):
            at = min(max(end, low), high)
            axes.plot([at], [place], edge if out else "|", color=style["color"], clip_on=False)
        (mark,) = axes.plot([row.mean], [place], **style, zorder=3)
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


def _difference_legend(figure: Figure, rows: Sequence[DifferenceRow]) -> None:
    seen = {_mark(row) for row in rows if not math.isnan(row.mean)}
    styles = {name: style for name, style in MARKS.items() if name in seen}
    handles = [Line2D([], [], markeredgewidth=1.4, **style) for style in styles.values()]
    figure.legend(handles, list(styles), loc="upper right", ncols=3, borderaxespad=0.2)
