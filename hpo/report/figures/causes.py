"""Figures of gradients, updates and quiet units over epochs."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from hpo.language import marked, t
from hpo.report.figures import style
from hpo.report.figures.svg import plot

ROWS = {
    "gradient_norm": marked("Gradient norm"),
    "largest_update": marked("Largest update /\nweight"),
    "quiet": marked("Quiet units (%)"),
}
QUIET = {"dead": marked("dead"), "saturated": marked("saturated")}

# {measure: (seeds, epochs, layers)}, see training.diagnostics.Diagnosis.
Measures = Mapping[str, NDArray[np.float64]]


@style.as_svg
def causes(networks: Sequence[tuple[str, Measures]]) -> Figure:
    """Draws a column per network and a row per measure: a line per layer, from dark at the input to
    light at the output, the median over the seeds."""
    rows = ["gradient_norm", "largest_update"]
    rows += ["quiet"] if any(QUIET.keys() & measures.keys() for _, measures in networks) else []
    figure = style.blank(0.8 + 1.65 * len(rows), left=0.95, top=0.4, bottom=0.8)
    grid = figure.subplots(
        len(rows), len(networks), sharex=True, sharey="row", squeeze=False,
        gridspec_kw={"hspace": 0.16, "wspace": 0.06},
    )  # fmt: skip
    for column, (label, measures) in enumerate(networks):
        grid[0, column].set_title(style.short(label), loc="left", fontweight="bold")
        for axes, row in zip(grid[:, column], rows, strict=True):
            _panel(axes, measures, row)
        grid[-1, column].set_xlabel(t("Epoch"))
        grid[-1, column].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes, row in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(t(ROWS[row]))
    figure.align_ylabels(grid[:, 0])
    handles = [Line2D([], [], color=shade, linewidth=2) for shade in _shades(2)]
    labels = [t("first layer, at the input"), t("last layer")]
    figure.legend(handles, labels, loc="lower right", ncols=2, borderaxespad=0.2)
    return figure


def _shades(layers: int) -> NDArray[np.float64]:
    return np.asarray(mpl.colormaps[style.COLOURS](np.linspace(0, 0.85, layers)))


def _panel(axes: Axes, measures: Measures, row: str) -> None:
    name = next((m for m in QUIET if m in measures), "") if row == "quiet" else row
    if row == "quiet":
        axes.set_ylim(-4, 104)
        if not name:
            note = t("not of this activation")
            axes.annotate(note, (0.5, 0.5), xycoords="axes fraction", ha="center")
            return
        axes.annotate(
            t(QUIET[name]), (1, 0.5), xytext=(-4, 0), xycoords="axes fraction", ha="right",
            textcoords="offset points", fontsize=8, color=style.DARK_GREY,
        )  # fmt: skip
        middle = _median(100 * measures[name])
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        middle = _median(np.where(measures[name] > 0, measures[name], np.nan))
    epochs, layers = len(middle), middle.shape[1]
    text = marked("layer {layer} of {layers}: {first:.2g} in epoch 1, {last:.2g} in epoch {epoch}")
    look = {"marker": "o", "markersize": 3, "linewidth": 1.4}
    for layer, (line, shade) in enumerate(zip(middle.T, _shades(layers), strict=True), 1):
        ends = {"first": line[0], "last": line[-1], "epoch": epochs}
        texts = [t(text, layer=layer, layers=layers, **ends)]
        plot(axes, range(1, epochs + 1), line, texts, color=shade, **look)


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the median over the seeds; NaN if none has a value."""
    known = np.isfinite(values).any(axis=0)
    filled = np.where(known, values, 0.0)
    return np.where(known, np.nanmedian(filled, axis=0), np.nan)
