"""Figures of a metric over two hyperparameters: a surface, strips, or a matrix.

scipy.interpolate and scipy.ndimage are imported in the functions: a grid's report needs neither,
and they take a fifth of a second to load.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PathCollection, QuadMesh
from matplotlib.colors import BoundaryNorm
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import MaxNLocator

from hpo.language import marked, t
from hpo.report.figures import axis, style
from hpo.report.figures.axis import Parameter
from hpo.report.figures.reference import Reference
from hpo.report.figures.svg import plot, tip
from hpo.study.metrics import Metric
from hpo.text import count

FIELD = marked("{where}: median {median}, best {best}, of {n}")


@style.as_svg
def contour(
    x: Parameter,
    y: Parameter,
    gains: Sequence[float],
    numbers: Sequence[int] = (),
    metric: Metric = axis.SHOWN,
    reference: Reference | None = None,
) -> Figure:
    """Draws the gains of trials over two hyperparameters.

    Two numbers: a smoothed surface; a number and a category: strips; two categories: a matrix of
    medians. Fewer than four trials, or trials on a line: the trials alone. gains: NaN is left
    out. numbers: of the trials, from 0 by default.
    """
    numbers = list(numbers) or range(len(gains))
    trials = zip(x.values, y.values, np.asarray(gains, float), numbers, strict=True)
    kept = [trial for trial in trials if not any(map(axis.is_missing, trial[:3]))]
    x, y = (replace(p, values=[trial[i] for trial in kept]) for i, p in enumerate((x, y)))
    values = np.array([trial[2] for trial in kept], float)
    if x.levels is not None and y.levels is None:
        x, y = y, x
    texts = [  # #34, lr 0.0123, width 256: 97.52%
        f"#{number}, {x.text(a)}, {y.text(b)}: {metric.spelled(value)}"
        for a, b, (*_, value, number) in zip(x.values, y.values, kept, strict=True)
    ]
    ticks = [axis.level_text(level) for level in y.levels or ("0.0001",)]
    left, turned = 0.45 + style.width(ticks), axis.label_height(x, 5.5)
    figure = style.blank(4.3 + turned, left=left, right=0.75, bottom=0.55 + turned)
    axes, norm = figure.subplots(), _bands(values, metric)
    axis.set_scale(axes.xaxis, x, 5.5)
    axis.set_scale(axes.yaxis, y, 3.0)
    if x.levels is None:
        note, beside = _plane(axes, x, y, values, norm, texts, metric), 0.0
    else:
        note, beside = _matrix(axes, x, y, values, norm, metric), 0.35  # of a field's number
    at = [p.place_of(reference.settings) if reference else math.nan for p in (x, y)]
    if reference and not any(map(math.isnan, at)):
        reference.mark(axes, at[0] + beside, at[1] + beside, metric, clip_on=False)
        note = t("{note}; diamond: the reference", note=note)
    style.head(axes, "", note)
    axes.set(xlabel=x.title(style.short(x.name)), ylabel=y.title(style.short(y.name)))
    label = metric.axis if y.levels is None else t("{metric}, median", metric=metric.axis)
    shades = ScalarMappable(norm, style.COLOURS)
    shown: Any = {"format": axis.value_ticks()} if metric.minimized else {}
    bar = figure.colorbar(shades, ax=axes, label=label, fraction=0.035, pad=0.02, **shown)
    artists = [*axes.collections, *bar.ax.collections, *bar.ax.patches]
    if isinstance(artists[0], ContourSet | QuadMesh):  # dark mode must not invert its colours
        for place, artist in enumerate(artists):
            if not isinstance(artist, LineCollection | PathCollection):
                artist.set_gid(f"hues-{place}")
    return figure


def _bands(values: np.ndarray, metric: Metric = axis.SHOWN) -> BoundaryNorm:
    """Returns bands of colour over the upper range; all below has the darkest colour."""
    locator = MaxNLocator(12, steps=[1, 2, 2.5, 5, 10])
    bounds = np.round(locator.tick_values(*axis.focus(values, metric)), 9)
    bounds = bounds[bounds <= metric.most]
    cut = bool((values < bounds[0]).any())
    return BoundaryNorm(bounds, 256, extend="min" if cut else "neither")


def _plane(
    axes: Axes, x: Parameter, y: Parameter, values: np.ndarray, norm: BoundaryNorm,
    texts: Sequence[str], metric: Metric,
) -> str:  # fmt: skip
    """Draws the trials over a number and another hyperparameter on coloured ground; returns how to
    read it."""
    note = (_surface if y.levels is None else _strips)(axes, x, y, values, norm)
    look: dict[str, Any] = {"s": 13, "c": style.BLACK, "edgecolors": "white", "clip_on": False}
    if not note:
        colours = mpl.colormaps[style.COLOURS](norm(values))
        look = {"s": 45, "c": colours, "edgecolors": style.BLACK}
    tip(axes.scatter(x.places, y.places, linewidths=0.6, zorder=3, **look), texts)
    best = int(values.argmax())
    star = {"marker": "*", "markersize": 16, "color": style.VERMILLION, "markeredgecolor": "white"}
    at = x.places[best : best + 1], y.places[best : best + 1]
    plot(axes, *at, texts[best : best + 1], linestyle="", clip_on=False, zorder=4, **star)
    return t(
        "{colour}; dots: {trials}; star: the best, {best}",
        colour=note or t("Colour: the trial's value"),
        trials=count(values.size, "trial"),
        best=metric.spelled(values[best]),
    )


def _unit_places(parameter: Parameter) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places of numbers from 0 to 1, and 81 evenly spaced values; in logarithms on a
    log scale."""
    places = np.log(parameter.places) if parameter.log else parameter.places
    low, high = places.min(), places.max()
    grid = np.linspace(low, high, 81)
    return (places - low) / (high - low), np.exp(grid) if parameter.log else grid


def _surface(axes: Axes, x: Parameter, y: Parameter, values: np.ndarray, norm: BoundaryNorm) -> str:
    """Draws a smoothed linear interpolation between the trials, inside their hull; nothing if they
    span no area."""
    from scipy.spatial import ConvexHull

    (u, across), (v, up) = _unit_places(x), _unit_places(y)
    places, first, which = np.unique(
        np.column_stack([u, v]), axis=0, return_index=True, return_inverse=True
    )
    spread = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
    if len(places) < 4 or spread[1] < 1e-3:
        return ""
    # One failure does not lower its neighbours.
    shown = np.maximum(values, norm.boundaries[0] - 1e-6)
    heights = _heights(places, np.bincount(which, shown) / np.bincount(which))
    filled = axes.contourf(
        across, up, heights, norm.boundaries, cmap=style.COLOURS, norm=norm, extend=norm.extend
    )
    corners = first[ConvexHull(places).vertices]
    hull = np.column_stack([x.places[corners], y.places[corners]])
    filled.set_clip_path(Polygon(hull, transform=axes.transData))
    return t("Colour: interpolated between the trials and smoothed")


def _heights(places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the surface on 81 × 81 points, smoothed by a Gaussian of 1/27 of its side; outside
    the hull as at the nearest trial."""
    from scipy.interpolate import griddata
    from scipy.ndimage import gaussian_filter

    steps = np.linspace(0, 1, 81)
    grid = tuple(np.meshgrid(steps, steps))
    inside, beyond = (griddata(places, values, grid, method=m) for m in ("linear", "nearest"))
    smooth = gaussian_filter(np.where(np.isfinite(inside), inside, beyond), 3)
    return np.asarray(smooth.round(6))  # rounded, so that equal heights stay in one band


def _strips(axes: Axes, x: Parameter, y: Parameter, values: np.ndarray, norm: BoundaryNorm) -> str:
    """Draws a strip per category, in fields of equal width with the colour of their trials'
    median."""
    levels = y.levels or []
    fields = min(max(values.size // (2 * len(levels)), 2), 12)
    unit, across = _unit_places(x)
    field = np.minimum((unit * fields).astype(int), fields - 1)
    row = np.array([levels.index(value) for value in y.values])
    medians = np.full((len(levels), fields), np.nan)
    for i, j in {*zip(field.tolist(), row.tolist(), strict=True)}:
        medians[j, i] = np.median(values[(field == i) & (row == j)])
    edges = (np.geomspace if x.log else np.linspace)(across[0], across[-1], fields + 1)
    sides, shown = np.arange(len(levels) + 1) - 0.5, np.ma.masked_invalid(medians)
    axes.pcolormesh(edges, sides, shown, cmap=style.COLOURS, norm=norm, edgecolors="white")
    axes.grid(visible=False)
    return t("Colour: median of the trials in a field")


def _matrix(
    axes: Axes, x: Parameter, y: Parameter, values: np.ndarray, norm: BoundaryNorm, metric: Metric
) -> str:
    """Draws median and number of the trials of each pair; returns how to read it."""
    columns, rows = x.levels or [], y.levels or []
    rough = metric.rough
    axes.grid(visible=False)
    groups: dict[tuple[int, int], list[float]] = {}
    for a, b, value in zip(x.values, y.values, values, strict=True):
        groups.setdefault((columns.index(a), rows.index(b)), []).append(float(value))
    for (i, j), group in groups.items():
        median = float(np.median(group))
        colour = mpl.colormaps[style.COLOURS](norm(median))
        field = Rectangle((i - 0.5, j - 0.5), 1, 1, facecolor=colour, edgecolor="white")
        where = f"{x.text(columns[i])}, {y.text(rows[j])}"
        spelled = {"median": metric.spelled(median), "best": metric.spelled(max(group))}
        text = t(FIELD, where=where, n=len(group), **spelled)
        tip(axes.add_patch(field), [text])
        light = float(np.dot(colour[:3], (0.299, 0.587, 0.114))) > 0.5
        ink, text = style.BLACK if light else "white", f"{rough.number(median)}\n({len(group)})"
        axes.text(i, j, text, ha="center", va="center", fontsize=8, color=ink)
    if not groups:
        return t("No trial to show")
    best = max(groups, key=lambda place: max(groups[place]))
    frame = Rectangle((best[0] - 0.47, best[1] - 0.47), 0.94, 0.94, fill=False)
    frame.set(edgecolor=style.VERMILLION, linewidth=2.5)
    axes.add_patch(frame)
    return t(
        "In each field: the median of its trials, their number in brackets; framed: the best "
        "trial, {best}",
        best=metric.spelled(max(groups[best])),
    )
