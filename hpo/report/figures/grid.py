"""The style of all figures, and a grid's figures: learning curves and overview."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hpo.report.figures import tooltips as hover
from hpo.report.figures.tooltips import tip
from hpo.text import legible

# Okabe and Ito (2008), "Color Universal Design", https://jfly.uni-koeln.de/color/
BLUE, VERMILLION, GREY, BLACK = "#0072B2", "#D55E00", "#8A8A8A", "#222222"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "hpo",
    "text.parse_math": False,  # a label is text, dollars and all
}
BACKEND = ("backend", "backend_fallback")  # no matter of looks, and slow to set
DEFAULTS = {key: value for key, value in mpl.rcParamsDefault.items() if key not in BACKEND}
PIXELS = 130  # an inch, of what is too much for vectors
Curve = np.ndarray


@dataclass(frozen=True, kw_only=True)
class CellCurves:
    """A cell's learning curves, each (seeds, epochs), NaN where a run diverged; accuracies in
    percent."""

    label: str
    collapsed: bool
    train_loss: Curve
    valid_loss: Curve
    train_accuracy: Curve
    valid_accuracy: Curve


@dataclass(frozen=True, kw_only=True)
class Dots:
    """A row of the overview: test accuracies of the seeds in percent, and the reported one."""

    label: str
    fails: bool
    values: Sequence[float]
    reported: float | None


def blank(height: float, *, left: float, right: float, top: float, bottom: float) -> Figure:
    """Returns a figure of 8 inches with margins in inches; a solved layout would take twice the
    time."""
    figure = Figure(figsize=(8, height))
    figure.subplots_adjust(
        left=left / 8, right=1 - right / 8, top=1 - top / height, bottom=bottom / height, wspace=0.2
    )
    return figure


@contextmanager
def drawing(**more: Any) -> Iterator[None]:
    """Draws everything within the block in STYLE (and `more`), not in the user's matplotlibrc."""
    with mpl.rc_context(DEFAULTS | STYLE | more):
        yield


def short(label: str) -> str:
    """Returns the label as a figure can show it, at most 40 characters."""
    label = legible(label)
    return label if len(label) <= 40 else f"{label[:39]}…"


def svg_text(figure: Figure) -> str:
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    hover.flatten_crowds(figure)
    figure.savefig(buffer, format="svg", metadata=nothing, dpi=PIXELS)
    return hover.with_titles(buffer.getvalue(), figure)


def curves(cells: Sequence[CellCurves], classes: int = 10) -> str:
    """Draws a row per cell: loss on the left, accuracy on the right. Cells that learn share their
    axes; a cell that fails has its own."""
    with drawing():
        figure = blank(0.45 + 2.35 * len(cells), left=0.6, right=0.1, top=0.6, bottom=0.5)
        axes = figure.subplots(len(cells), 2, squeeze=False, gridspec_kw={"hspace": 0.36})
        learned = [cell for cell in cells if not cell.collapsed]
        for (left, right), cell in zip(axes, cells, strict=True):
            _panel(left, cell.train_loss, cell.valid_loss, cell.collapsed)
            _panel(right, cell.train_accuracy, cell.valid_accuracy, cell.collapsed)
            left.set_ylabel("Loss")
            right.set_ylabel("Accuracy (%)")
            left.set_title(short(cell.label), loc="left", fontweight="bold")
            if cell.collapsed:
                _chance(left, right, cell, classes)
            else:
                left.set_ylim(*_limits(learned, "loss"))
                right.set_ylim(*_limits(learned, "accuracy"))
        for axis in axes[-1]:
            axis.set_xlabel("Epoch")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right", ncols=2)
        return svg_text(figure)


def _panel(axes: Axes, train: Curve, valid: Curve, collapsed: bool) -> None:
    epochs = np.arange(1, train.shape[1] + 1)
    parts = ((train, BLUE, "o", "-", "Train"), (valid, VERMILLION, "s", "--", "Validation"))
    for values, colour, marker, line, label in parts:
        finite = np.ma.masked_invalid(values)
        middle = np.ma.median(finite, axis=0) if collapsed else finite.mean(axis=0)
        low, high = (bound.filled(np.nan) for bound in (finite.min(axis=0), finite.max(axis=0)))
        axes.fill_between(epochs, low, high, color=colour, alpha=0.18, linewidth=0)
        (drawn,) = axes.plot(
            epochs, np.ma.filled(middle, np.nan), color=colour, marker=marker, linestyle=line,
            markersize=3.5, label=label,
        )  # fmt: skip
        ends = zip(epochs, np.ma.filled(middle, np.nan), low, high, strict=True)
        tip(drawn, [f"{label}, epoch {e}: {at:.4g} ({a:.4g} to {b:.4g})" for e, at, a, b in ends])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _limits(cells: Sequence[CellCurves], metric: str) -> tuple[float, float]:
    values = np.concatenate(
        [getattr(cell, f"{part}_{metric}").ravel() for cell in cells for part in ("train", "valid")]
    )
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.05 * (high - low) or 0.5
    return (0.0, high + margin) if metric == "loss" else (low - margin, min(high + margin, 100.5))


def _chance(left: Axes, right: Axes, cell: CellCurves, classes: int) -> None:
    """Sets axes around chance level; a loss above three times chance leaves the figure."""
    losses = np.concatenate([cell.train_loss.ravel(), cell.valid_loss.ravel()])
    chance = float(np.log(classes))
    top = min(float(np.nanmax(losses)) * 1.08, 3 * chance) if np.isfinite(losses).any() else chance
    left.set_ylim(0, max(top, 1.15 * chance))
    left.axhline(chance, color=GREY, linewidth=1, linestyle=":")
    _note(left, 0.04, f"dotted: chance, ln {classes} = {chance:.2f}")
    highest = float(
        np.nanmax(np.concatenate([cell.train_accuracy.ravel(), cell.valid_accuracy.ravel()]))
    )
    right.set_ylim(0, max(30.0, 1.1 * highest))
    right.axhline(100 / classes, color=GREY, linewidth=1, linestyle=":")
    _note(right, 0.9, f"dotted: chance, {100 / classes:g}%")


def _note(axes: Axes, height: float, text: str) -> None:
    axes.text(0.99, height, text, transform=axes.transAxes, ha="right", color="#555555", fontsize=8)


def overview(rows: Sequence[Dots], threshold: float) -> str:
    """Draws a row per network: a dot per seed, a bar at the mean, a diamond at the reported value.

    Networks that fail have a scale of their own on the left, and so have reported values below the
    threshold (percent).
    """
    with drawing():
        left, right = _placed(rows, threshold)
        panels = [panel for panel in (left, right) if any(values or d for values, d in panel)]
        longest, height = max(len(short(row.label)) for row in rows), 1.2 + 0.34 * len(rows)
        figure = blank(height, left=0.35 + 0.075 * longest, right=0.15, top=0.65, bottom=0.5)
        axes = figure.subplots(
            1,
            max(len(panels), 1),
            sharey=True,
            squeeze=False,
            width_ratios=[1, 2.2] if len(panels) == 2 else [1],
            gridspec_kw={"wspace": 0.04},
        )[0]
        for axis, panel in zip(axes, panels, strict=False):
            _dots(axis, panel, [row.label for row in rows], mean=panel is right)
            axis.set_xlabel("Test accuracy (%)")
        axes[0].set_yticks(range(len(rows)), [short(row.label) for row in rows])
        axes[0].invert_yaxis()
        if len(panels) == 2:
            axes[0].set_title("Networks that fail to learn", fontsize=9)
            axes[1].set_title("Networks that learn (scale enlarged)", fontsize=9)
        parts = [axis.get_legend_handles_labels() for axis in axes]
        unique = {text: handle for h, t in parts for handle, text in zip(h, t, strict=True)}
        figure.legend(unique.values(), unique.keys(), loc="upper center", ncols=3)
        return svg_text(figure)


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
            values, position + spread, "o", color=BLUE, alpha=0.55, markersize=4,
            markeredgewidth=0, label="one seed, reproduced",
        )  # fmt: skip
        tip(drawn, [f"{label}: {value:.2f}%" for value in values])
        if len(values) > 1 and mean:
            (bar,) = axes.plot(
                [np.mean(values)] * 2, [position - 0.32, position + 0.32], "-", color=BLACK,
                linewidth=1.6, label="mean of the seeds",
            )  # fmt: skip
            tip(bar, [f"{label}: mean {np.mean(values):.2f}%"])
        if reported:
            (diamond,) = axes.plot(
                reported, [position], "D", markerfacecolor="none", color=VERMILLION,
                markersize=7, markeredgewidth=1.5, label="reported, one run",
            )  # fmt: skip
            tip(diamond, [f"{label}: reported {reported[0]:.2f}%"])
    every = [value for values, reported in panel for value in (*values, *reported)]
    margin = 0.06 * (max(every) - min(every)) or 1.0
    low = min(every) - margin if mean else 0.0
    axes.set_xlim(low, min(max(every) + margin, 100.0 + margin / 4))
