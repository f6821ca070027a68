"""Learning curves of trials: the best and those stopped early, and one as a small picture."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hpo.language import marked, nt, t
from hpo.report.figures import style
from hpo.report.figures.axis import SHOWN, around, beyond, focus, set_gains, within
from hpo.report.figures.reference import LINE, Reference
from hpo.report.figures.svg import plot, plot_above_edge, tip
from hpo.study.metrics import Metric
from hpo.text import count

MARKERS = "osD^vPXp<>"
PARTS = (("train", "training", style.VERMILLION, "--"), ("valid", "validation", style.BLUE, "-"))
Curve = Mapping[str, Sequence[float | None]]


class CurvePicture:
    """Draws one curve after another into one figure: a new figure would double the time. In
    English, as Optuna's dashboard is, which shows it."""

    def __init__(self) -> None:
        with style.drawing():
            self.figure = Figure(figsize=(6.4, 2.7), dpi=120)
            FigureCanvasAgg(self.figure)
            self.axes = self.figure.subplots(1, 2)
            self.figure.subplots_adjust(0.085, 0.17, 0.985, 0.88, wspace=0.24)
            self.lines = {}
            titles = {"loss": "Loss", "accuracy": "Accuracy (%)"}
            for axes, (metric, title) in zip(self.axes, titles.items(), strict=True):
                for part, label, colour, look in PARTS:
                    (line,) = axes.plot([], [], look, color=colour, marker="o", ms=3, label=label)
                    self.lines[f"{part}_{metric}"] = line
                axes.set_title(title, loc="left")
                axes.set_xlabel("Epoch")
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            self.axes[0].legend()

    def png(self, curve: Curve, epochs: int) -> bytes:
        """Returns a PNG. curve: the trial's metrics, one value per epoch, None if it is not a
        number. epochs: of a complete training."""
        regression = "valid_rmse" in curve
        self.axes[1].set_title("RMSE" if regression else "Accuracy (%)", loc="left")
        for metric, line in self.lines.items():
            scale = 100 if metric.endswith("accuracy") else 1
            name = "valid_rmse" if regression and metric == "valid_accuracy" else metric
            values = scale * np.array([*curve[name]], float)
            line.set_data(range(1, len(values) + 1), values)
        with style.drawing():
            for axes in self.axes:
                axes.relim()
                axes.autoscale_view()
                axes.set_xlim(0.5, epochs + 0.5)
            second = self.axes[1]
            if not regression:
                second.set_ylim(*within(*second.get_ylim()))
            second.set_autoscaley_on(True)
            buffer = io.BytesIO()
            self.figure.savefig(buffer, format="png")
        return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class TrialCurve:
    """The gains of a trial's values of the objective, one per epoch."""

    label: str
    values: Sequence[float]
    metric: Metric = SHOWN

    @property
    def epochs(self) -> range:
        return range(1, len(self.values) + 1)

    @property
    def texts(self) -> list[str]:
        """For each epoch's tooltip."""
        text = marked("{label}, epoch {epoch}: {value}")
        values = enumerate(map(self.metric.spelled, self.values), 1)
        return [t(text, label=self.label, epoch=epoch, value=value) for epoch, value in values]


@style.as_svg
def trial_curves(
    best: Sequence[TrialCurve],
    stopped: Sequence[TrialCurve],
    reference: Reference | None = None,
) -> Figure:
    """Draws the curves of up to ten best trials, and beside them those stopped early, by the pruner
    or at their time limit, with a cross at their end.

    best: at least one, the best first. The axes leave out the lowest values.
    """
    best = best[: len(MARKERS)]
    lines = 0.17 * math.ceil((len(best) + (reference is not None)) / 2)
    figure = style.blank(3.65 + lines, left=0.75, top=0.45, bottom=0.55 + lines)
    axes = figure.subplots(1, 2 if stopped else 1, squeeze=False)[0]
    _best_curves(axes[0], best)
    if reference and reference.curve:
        name = reference.text(best[0].metric)
        curve = TrialCurve(label=name, values=reference.curve, metric=best[0].metric)
        plot(axes[0], curve.epochs, curve.values, curve.texts, label=name, zorder=4, **LINE)
    if stopped:
        _stopped_curves(axes[1], best[0], stopped)
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_xlim(0.5, max(1, *(len(curve.values) for curve in (*best, *stopped))) + 0.5)
        axis.set_xlabel(t("Epoch"))
        set_gains(axis.yaxis, best[0].metric)
    for axis in axes[1:]:
        axis.yaxis.label.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower left", ncols=2, fontsize=8, labelspacing=0.3)
    return figure


def _best_curves(axes: Axes, best: Sequence[TrialCurve]) -> None:
    """Draws curves from dark (the best) to light, each with its own marker; leaves out the lowest
    twentieth of the values."""
    shades = mpl.colormaps[style.COLOURS](np.linspace(0, 0.88, len(best)))
    for place, curve in enumerate(best):
        size, wide = (4.5, 1.2) if place else (5.5, 2.2)
        plot(
            axes, curve.epochs, curve.values, curve.texts, color=shades[place],
            marker=MARKERS[place], zorder=3 - place / 20, label=style.fit(curve.label, 3.4, 8),
            markersize=size, linewidth=wide,
        )  # fmt: skip
    every = np.concatenate([np.asarray(curve.values, float) for curve in best])
    finite = every[np.isfinite(every)]
    least = float(np.percentile(finite, 5, method="lower")) if finite.size else 0.0
    metric = best[0].metric
    low, top = around(least, float(finite.max(initial=least)), 0.05, metric)
    axes.set_ylim(low, top)
    note = t("After each epoch")
    if below := int((finite < low).sum()):
        values = count(below, "value")
        note += "; " + t("{values} {below}", values=values, below=beyond(metric, low))
    title = t("The best trial") if len(best) == 1 else t("The {n} best trials", n=len(best))
    style.head(axes, title, note)


def _stopped_curves(axes: Axes, best: TrialCurve, stopped: Sequence[TrialCurve]) -> None:
    """Draws thin lines up to a cross, or to a triangle if the end lies below the axis."""
    ends = np.array([([math.nan, *curve.values])[-1] for curve in stopped])
    axes.set_ylim(*focus(np.concatenate([ends, np.asarray(best.values, float)]), best.metric))
    text, spelled = marked("{label}, stopped at {end}"), map(best.metric.spelled, ends)
    texts = [t(text, label=of.label, end=end) for of, end in zip(stopped, spelled, strict=True)]
    long = [place for place, curve in enumerate(stopped) if len(curve.values) > 1]
    # One collection: lines by themselves take a millisecond each.
    lines = [list(enumerate(stopped[place].values, 1)) for place in long]
    drawn = LineCollection(lines, colors=style.GREY, linewidths=0.8)
    tip(axes.add_collection(drawn, autolim=False), [texts[place] for place in long])
    look = {"color": style.BLACK, "alpha": 0.7, "marker": "x", "markersize": 4.5, "zorder": 3}
    plot_above_edge(axes, [len(curve.values) for curve in stopped], ends, texts, 0.02, 4.5, **look)
    look = {"color": style.BLUE, "marker": "o", "zorder": 4}
    plot(axes, best.epochs, best.values, best.texts, markersize=4.5, linewidth=2.2, **look)
    low = axes.get_ylim()[0]
    note = t("Blue: the best trial; ×: stopped here")
    if below := int((ends < low).sum()):
        note += "; " + t("▾: {n} {below}", n=below, below=beyond(best.metric, low))
    title = nt("{n} trial stopped early", "{n} trials stopped early", len(stopped))
    style.head(axes, t("{trials} beside the best", trials=title), note)
