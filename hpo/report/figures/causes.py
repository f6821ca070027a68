"""Figures of gradients, updates and quiet units over epochs."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from hpo.language import marked, t
from hpo.report.figures import style
from hpo.report.figures.tooltips import tip

ROWS = {
    "gradient_norm": marked("Gradient norm"),
    "largest_update": marked("Largest update /\nweight"),
    "quiet": marked("Quiet units (%)"),
}
QUIET = {"dead": marked("dead"), "saturated": marked("saturated")}

# {measure: (seeds, epochs, layers)}, see diagnosis.Diagnosis.
Measures = Mapping[str, NDArray[np.float64]]


def causes(networks: Sequence[tuple[str, Measures]]) -> str:
    """Draws a column per network and a row per measure: a line per layer, from dark at the input to
    light at the output, the median over the seeds."""
    with style.drawing():
        rows = ["gradient_norm", "largest_update"]
        rows += ["quiet"] if any(QUIET.keys() & measures.keys() for _, measures in networks) else []
        figure = style.blank(0.8 + 1.65 * len(rows), left=0.95, right=0.15, top=0.4, bottom=0.8)
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
        return style.svg_text(figure)


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
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    values = measures[name] * (100 if row == "quiet" else 1)
    middle = _median(values if row == "quiet" else np.where(values > 0, values, np.nan))
    epochs, layers = np.arange(1, len(middle) + 1), middle.shape[1]
    text = marked("layer {layer} of {layers}: {first:.2g} in epoch 1, {last:.2g} in epoch {epoch}")
    for layer, shade in enumerate(_shades(layers)):
        of_layer = middle[:, layer]
        (line,) = axes.plot(epochs, of_layer, marker="o", markersize=3, color=shade, linewidth=1.4)
        ends = {"first": of_layer[0], "last": of_layer[-1], "epoch": len(middle)}
        tip(line, [t(text, layer=layer + 1, layers=layers, **ends)])


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the median over the seeds; NaN if none has a figure."""
    known = np.isfinite(values).any(axis=0)
    filled = np.where(known, values, 0.0)
    return np.where(known, np.nanmedian(filled, axis=0), np.nan)
