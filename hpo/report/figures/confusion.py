"""Figures of what networks confuse: the confusion matrix, the worst and disputed images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpo.language import t
from hpo.report.figures import style
from hpo.report.figures.svg import plot

ACROSS = 8  # images in a row
NAME = 1.5  # inches of a class's name, at most
NUMBERED = 26  # classes up to which the matrix has numbers


@dataclass(frozen=True, kw_only=True)
class WorstImage:
    """A misclassified image. pixels: bytes (height, width), 255 is ink, or (height, width, 3).
    probability: of its label, 0 to 1."""

    pixels: np.ndarray
    label: str
    predicted: str
    probability: float


@style.as_svg
def confusion(
    matrix: Sequence[Sequence[float]], names: Sequence[str], things: str = "images"
) -> Figure:
    """Draws the examples of each label (row) by predicted class (column). Colour marks only
    mistakes. Beside each row: the percentage that is right. names: of the classes. things: what the
    examples are called."""
    counts = np.asarray(matrix, float)
    classes, mistakes = len(counts), np.where(np.eye(len(counts)), np.nan, counts)
    labels = [style.fit(name, NAME) for name in names]
    widest, across = style.width(labels), (8 - 1.3) / classes
    upright = widest > 0.9 * across
    below = widest + 0.45 if upright else 0.5
    height = 0.5 + below + (0.33 if classes <= NUMBERED else 0.16) * classes
    figure = style.blank(height, left=0.45 + widest, right=0.75, bottom=below)
    axes = figure.subplots()
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    shades = mpl.colormaps["Blues"].with_extremes(bad="#EDEDED")
    top = max(1.0, float(np.nanmax(mistakes, initial=0)))
    shown = np.ma.masked_invalid(mistakes)
    mesh = axes.pcolormesh(shown, cmap=shades, vmin=0, vmax=top, edgecolor="white")
    for (line, column), number in np.ndenumerate(counts if classes <= NUMBERED else []):
        dark = line != column and number > 0.55 * top
        axes.text(
            column + 0.5, line + 0.5, _number(number), ha="center", va="center",
            fontsize=8.5 if classes <= 12 else 6.5,
            color="white" if dark else style.BLACK if number else style.GREY,
        )  # fmt: skip
    _confusion_axes(axes, counts, labels, upright=upright)
    label = t("Mistakes ({things})", things=things)
    figure.colorbar(mesh, ax=axes, label=label, fraction=0.03, pad=0.09)
    return figure


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.0f}" if float(value).is_integer() or value >= 100 else f"{value:.1f}"


def _confusion_axes(
    axes: Axes, counts: np.ndarray, labels: Sequence[str], *, upright: bool
) -> None:
    """Orders the classes from the top left and writes each row's percentage. upright: whether the
    columns' names are too wide to lie."""
    classes = len(counts)
    axes.set(xlabel=t("Predicted"), ylabel=t("Label"), ylim=(classes, 0), aspect="auto")
    size = 9 if classes <= NUMBERED else 6
    axes.set_xticks(np.arange(classes) + 0.5, labels, rotation=90 if upright else 0, fontsize=size)
    axes.set_yticks(np.arange(classes) + 0.5, labels, fontsize=size)
    axes.tick_params(length=0)
    for place, row in enumerate(counts):
        right = f"{100 * row[place] / row.sum():.1f}%" if row.sum() > 0 else "–"
        axes.text(1.012 * classes, place + 0.5, right, va="center", fontsize=8.5 * size / 9)
    look = {"va": "bottom", "color": style.DARK_GREY}
    axes.text(1.012 * classes, -0.06, t("correct"), look, fontsize=8.5)


@style.as_svg
def worst_images(images: Sequence[WorstImage]) -> Figure:
    """Draws the images, eight per row, as ink on paper with label, predicted class and the label's
    probability. At least one image."""
    rows = math.ceil(len(images) / ACROSS)
    figure = style.blank(1.42 * rows, left=0.06, right=0.06, top=0.06, bottom=0.46)
    gaps = {"wspace": 0.1, "hspace": 0.5}
    grid = figure.subplots(rows, ACROSS, squeeze=False, gridspec_kw=gaps)
    _images(grid.ravel().tolist(), [(image.pixels, _taken_for(image)) for image in images])
    return figure


def _images(places: Sequence[Axes], images: Sequence[tuple[np.ndarray, str]]) -> None:
    """Draws each image as ink on paper, framed, with its text below; the other places are empty."""
    for axes in places[len(images) :]:
        axes.set_visible(False)
    for axes, (pixels, text) in zip(places, images, strict=False):
        axes.grid(visible=False)
        axes.imshow(pixels, cmap="Greys", vmin=0, vmax=255, interpolation="none")
        axes.set_xlabel(text, fontsize=8)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=True, color="#BBBBBB")


def _taken_for(image: WorstImage) -> str:
    """7, taken for 2 (0.1%) in two lines; with long names in three: rose, as aster (0.1%)."""
    label, predicted, percent = image.label, image.predicted, 100 * image.probability
    text = t("{label}, taken for {predicted}", label=label, predicted=predicted)
    if style.width([text], 8) > 0.95:
        label, predicted = style.fit(label, 0.95, 8), style.fit(predicted, 0.8, 8)
        text = t("{label},\nas {predicted}", label=label, predicted=predicted)
    chance = f"{percent:.2f}%" if percent < 0.1 else f"{percent:.1f}%"
    return f"{text}\n({'<0.01%' if percent < 0.01 else chance})"


@style.as_svg
def disputed(groups: Sequence[tuple[str, Sequence[tuple[np.ndarray, str, str]]]]) -> Figure:
    """Draws a row of images per group under the group's title: of each its pixels, its label with
    how many seeds of one network get it right, and how many of the other."""
    figure = style.blank(1.62 * len(groups), left=0.06, right=0.06, top=0.28, bottom=0.4)
    gaps = {"wspace": 0.1, "hspace": 0.75}
    grid = figure.subplots(len(groups), ACROSS, squeeze=False, gridspec_kw=gaps)
    for (title, images), row in zip(groups, grid, strict=True):
        row[0].set_title(title, loc="left", fontweight="bold", fontsize=9)
        told = [
            (pixels, t("{ours}\nand {theirs}", ours=style.fit(ours, 0.95, 8), theirs=theirs))
            for pixels, ours, theirs in images
        ]
        _images(row, told)
    return figure


@style.as_svg
def predictions(target: np.ndarray, answers: np.ndarray, name: str) -> Figure:
    """Draws the predicted against the true numbers, and the residuals over the predictions. name:
    of the target."""
    figure = style.blank(3.2, left=0.7, right=0.1, bottom=0.5)
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(wspace=0.32)
    named = t("{name}, predicted", name=style.fit(name, NAME)) if name else t("Predicted")
    residuals = answers - target
    texts = [
        t("data {target:.5g}, predicted {answer:.5g}", target=y, answer=x)
        for y, x in zip(target, answers, strict=True)
    ]
    look = {"color": style.BLUE, "marker": "o", "ms": 3, "alpha": 0.5, "linestyle": ""}
    ends = [min(target.min(), answers.min()), max(target.max(), answers.max())]
    left.plot(ends, ends, color=style.DARK_GREY, linewidth=0.8)
    plot(left, target, answers, texts, **look)
    left.set(xlabel=t("in the data"), ylabel=named)
    right.axhline(0, color=style.DARK_GREY, linewidth=0.8)
    plot(right, answers, residuals, texts, **look)
    right.set(xlabel=named, ylabel=t("Predicted minus data"))
    return figure
