"""Figures of a search: progress, importances, two objectives."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hpo.language import marked, t
from hpo.report.figures import style
from hpo.report.figures.axis import (
    SHOWN,
    Parameter,
    around,
    beyond,
    set_gains,
    set_number_scale,
    within,
)
from hpo.report.figures.reference import LINE, Reference
from hpo.report.figures.svg import plot, plot_above_edge, tip
from hpo.study.metrics import Metric
from hpo.text import count

BEST_SO_FAR = marked("{label}: best {best}")
# {evaluator: (share, low, high)} in percent; NaN bounds without an interval.
Shares = Mapping[str, tuple[float, float, float]]
WIDTHS = (2.2, 1.5, 1.5, 1.8)  # of the lines, the study's own first

# --- progress ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Run:
    """A search's finished trials in the order of completion.

    The gains of their values (NaN if pruned), the seconds at which they ended, and their
    numbers (from 0 by default).
    """

    label: str
    values: Sequence[float]
    seconds: Sequence[float]
    numbers: Sequence[int] = ()

    @property
    def so_far(self) -> np.ndarray:
        """The best value after each trial."""
        return np.fmax.accumulate(np.asarray(self.values, float))


@style.as_svg
def progress(
    runs: Sequence[Run], metric: Metric = SHOWN, reference: Reference | None = None
) -> Figure:
    """Draws the best value so far, over finished trials (left) and over time (right).

    The first run is the study's own, with its trials as dots; further runs of one label share a
    style. At least one run, at most four labels.
    """
    looks = [{**line, "linewidth": w} for line, w in zip(style.LINES, WIDTHS, strict=True)]
    styles = dict(zip(dict.fromkeys(run.label for run in runs), looks, strict=False))
    top = 0.3 + 0.19 * math.ceil((len(styles) + (reference is not None)) / 2)
    figure = style.blank(2.9 + top, left=0.75, top=top)
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.06})
    limits = _progress_limits(runs, metric)
    if reference:
        limits = reference.widened(*limits, metric)
        reference = reference if reference.shown(*limits) else None
    seconds, unit = _unit(max((end for run in runs for end in run.seconds), default=0))
    left.set(ylim=limits, xlabel=t("Finished trials"))
    set_gains(left.yaxis, metric)
    right.set_xlabel(t("Time since the start ({unit})", unit=t(unit)))
    counted = [np.arange(1, len(run.values) + 1) for run in runs]
    timed = [np.asarray(run.seconds) / seconds for run in runs]
    for axes, places in ((left, counted), (right, timed)):
        for run, x in reversed([*zip(runs, places, strict=True)]):
            so_far, look = run.so_far, styles[run.label]
            axes.step(x, so_far, where="post", zorder=3, **look)
            bests = map(metric.spelled, so_far[-1:])
            texts = [t(BEST_SO_FAR, label=run.label, best=best) for best in bests]
            end = {"color": look["color"], "marker": ".", "markersize": 8, "zorder": 3}
            plot(axes, x[-1:], so_far[-1:], texts, linestyle="", **end)
        _trial_dots(axes, places[0], runs[0], metric)
        axes.set_xlim(left=0)
        if reference:
            reference.line(axes, metric)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.head(left, "", _progress_note(runs[0], limits[0], metric))
    handles = [Line2D([], [], **look) for look in styles.values()]
    labels = [_best_label(label, runs, metric) for label in styles]
    if reference:
        handles, labels = [*handles, Line2D([], [], **LINE)], [*labels, reference.text(metric)]
    figure.legend(handles, labels, loc="upper right", ncols=2, handlelength=3, borderaxespad=0.2)
    return figure


def _unit(seconds: float) -> tuple[float, str]:
    """Returns the seconds of a suitable unit, and the unit's name."""
    if seconds > 3 * 3600:
        return 3600, marked("hours")
    return (60, marked("minutes")) if seconds > 180 else (1, marked("seconds"))


def _progress_limits(runs: Sequence[Run], metric: Metric = SHOWN) -> tuple[float, float]:
    """Returns limits around the best values from a tenth of the trials on, at most ten points deep
    unless a run ends lower."""
    curves = [run.so_far for run in runs if np.isfinite(run.so_far).any()]
    if not curves:
        return metric.gain(metric.worst), metric.most
    late = [float(np.nanmin(c[min(math.ceil(len(c) / 10), len(c) - 1) :])) for c in curves]
    finals = [float(np.nanmax(curve)) for curve in curves]
    top = max(finals)
    low = min(min(finals), max(min(late), top - 10 * metric.point))
    span = max(top - low, 0.5 * metric.point)
    return within(low - 0.5 * span, top + 0.08 * span, metric)


def _trial_dots(axes: Axes, x: np.ndarray, run: Run, metric: Metric) -> None:
    """Draws the trials; those below the axis as triangles at its edge."""
    values = np.asarray(run.values, float)
    text = marked("#{number}: {value}, finished as number {place}")
    spelled = map(metric.spelled, values)
    trials = zip(list(run.numbers) or range(len(values)), spelled, strict=True)
    texts = [t(text, number=n, value=v, place=place) for place, (n, v) in enumerate(trials, 1)]
    look = {"color": style.BLUE, "alpha": 0.5, "markeredgewidth": 0}
    plot_above_edge(axes, x, values, texts, 0.022, 5, marker="o", markersize=4, **look)


def _progress_note(run: Run, low: float, metric: Metric) -> str:
    values = np.asarray(run.values, float)
    below, stopped = int((values < low).sum()), int(np.isnan(values).sum())
    parts = [t("Dots: single trials")]
    if below:
        parts += [t("▾: {trials} {below}", trials=count(below, "trial"), below=beyond(metric, low))]
    if stopped:
        parts += [t("{n} stopped early, without a dot", n=stopped)]
    return "; ".join(parts)


def _best_label(label: str, runs: Sequence[Run], metric: Metric) -> str:
    """Returns a run's label with the best that all runs of that label reached."""
    ends = [end for run in runs if run.label == label for end in run.so_far[-1:]]
    best = max((end for end in ends if np.isfinite(end)), default=None)
    shown = style.short(label)
    return shown if best is None else t(BEST_SO_FAR, label=shown, best=metric.spelled(best))


# --- importance --------------------------------------------------------------------------------


@style.as_svg
def importance(shares: Mapping[str, Shares]) -> Figure:
    """Draws a group per hyperparameter and a bar per evaluator, the largest by the first evaluator
    on top.

    shares: by hyperparameter, at least one; of four evaluators at most.
    """
    evaluators = list(dict.fromkeys(name for known in shares.values() for name in known))
    table = {
        name: [known.get(evaluator, (math.nan,) * 3) for evaluator in evaluators]
        for name, known in shares.items()
    }
    order = sorted(table, key=lambda name: -np.nan_to_num(table[name][0][0], nan=-1))
    names = [style.short(name) for name in order]
    height = 0.9 + len(order) * (0.14 + 0.2 * len(evaluators))
    figure = style.blank(height, left=0.25 + style.width(names))
    axes = figure.subplots()
    for index, evaluator in enumerate(evaluators):
        bars = {name: table[name][index] for name in order}
        _importance_bars(axes, bars, evaluator, index, 0.8 / len(evaluators))
    axes.set_yticks(range(len(order)), names)
    axes.set(ylim=(len(order) - 0.5, -0.5), xlabel=t("Share of the importance (%)"))
    ends = [end for bars in table.values() for bar in bars for end in bar]
    axes.set_xlim(0, 1.1 * float(np.nanmax([0.0, *ends])) or 100)
    axes.grid(visible=False, axis="y")
    figure.legend(loc="upper right", ncols=len(evaluators))
    return figure


def _importance_bars(axes: Axes, bars: Shares, evaluator: str, index: int, height: float) -> None:
    """Draws one evaluator's bars with intervals and numbers; a dash without a value. bars: by
    hyperparameter."""
    y = np.arange(len(bars)) - 0.4 + height * (index + 0.5)
    shares = np.array(list(bars.values()))
    drawn = axes.barh(
        y, np.nan_to_num(shares[:, 0]), 0.9 * height, color=style.LINES[index]["color"],
        hatch=("", "////", "....", "xx")[index], edgecolor="white", linewidth=0, label=evaluator,
    )  # fmt: skip
    for patch, name, at, (share, low, high) in zip(drawn.patches, bars, y, shares, strict=True):
        text = f"{name}, {evaluator}: {share:.1f}%"
        if low <= high:
            axes.plot([low, high], [at, at], "|-", color=style.BLACK, linewidth=1.2, markersize=6)
            text += f" ({t('{low:.1f} to {high:.1f}', low=low, high=high)})"
        tip(patch, [text])
        text = "–" if math.isnan(share) else f"{share:.0f}%" if share >= 1 or not share else "<1%"
        axes.annotate(
            text, (float(np.nanmax([0.0, share, high])), at), xytext=(5, 0), va="center",
            textcoords="offset points", fontsize=8,
        )  # fmt: skip


# --- two objectives ----------------------------------------------------------------------------


@style.as_svg
def pareto(
    numbers: Sequence[int],
    gains: Sequence[float],
    costs: Sequence[float],
    front: Sequence[int],
    finalists: Sequence[int],
    name: str,
    metric: Metric = SHOWN,
    reference: Reference | None = None,
) -> Figure:
    """Draws gains over the second objective, with the front as a line and finalists ringed.

    numbers: of the trials, at least one.
    gains: of their values of the metric.
    costs: the second objective (parameters or seconds), which is to be small.
    front: the places of the trials on the front, the best first.
    finalists: the numbers of some of the trials.
    name: of the second objective.
    """
    figure = style.blank(3.6, left=0.75, right=0.2)
    axes = figure.subplots()
    x, y = np.asarray(costs, float), np.asarray(gains, float)
    places = [*reversed(front)]
    ends = x[places], y[places]
    low, high = around(ends[1].min(), y.max(), 0.06, metric)
    if reference:
        low, high = reference.widened(low, high, metric)
    wide = x.min() > 0 and x.max() > 10 * x.min()
    set_number_scale(axes.xaxis, Parameter(name=name, values=x.tolist(), log=wide), 7.0)
    text = marked("#{n}: {value}, {cost} {name}")  # #34: 97.52%, 12,304 parameters
    spelled = [f"{cost:,.0f}" if cost >= 100 else f"{cost:.3g}" for cost in costs]
    trials = zip(numbers, map(metric.spelled, y), spelled, strict=True)
    texts = [t(text, n=n, value=value, cost=cost, name=name) for n, value, cost in trials]
    dot = {"color": style.BLUE, "marker": "o", "linestyle": "", "markersize": 4, "alpha": 0.55}
    dots = plot(axes, x, y, texts, shown=y >= low, **dot)
    (line,) = axes.step(*ends, where="post", color=style.BLACK, linewidth=1.2)
    ringed = np.isin(numbers, finalists)
    (rings,) = axes.plot(
        x[ringed], y[ringed], "o", color=style.VERMILLION, markersize=10, markeredgewidth=1.5,
        markerfacecolor="none",
    )  # fmt: skip
    axes.set(ylim=(low, high), xlabel=name.capitalize())
    set_gains(axes.yaxis, metric)
    shown = {t("trials ({n})", n=len(x)): dots, t("Pareto front"): line}
    shown |= {t("finalists"): rings} if ringed.any() else {}
    if reference and reference.shown(low, high) and math.isfinite(reference.cost):
        mark = reference.mark(axes, reference.cost, reference.gain, metric)
        shown[reference.text(metric)] = mark
    figure.legend(shown.values(), shown, loc="upper right", ncols=4, borderaxespad=0.2)
    below = int((y < low).sum())
    left_out = t("{n} {below} not shown", n=below, below=beyond(metric, low)) if below else ""
    style.head(axes, "", left_out)
    return figure
