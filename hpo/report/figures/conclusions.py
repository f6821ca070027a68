"""Figures of what a grid concludes: disputed images and interactions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo.report.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    PURPLE,
    VERMILLION,
    blank,
    drawing,
    svg_text,
)
from hpo.report.figures.tooltips import tip

IMAGES_ACROSS = 8
LINES = ((BLUE, "o", "-"), (VERMILLION, "s", "--"), (GREEN, "^", "-."), (PURPLE, "D", ":"))


@dataclass(frozen=True, kw_only=True)
class Disputed:
    """An image that two networks disagree on. pixels: bytes (height, width), 255 is ink. ours and
    theirs: with how many seeds each network gets it right."""

    pixels: NDArray[np.uint8]
    label: int
    ours: str
    theirs: str


@dataclass(frozen=True, kw_only=True)
class InteractionPanel:
    """Test accuracies in percent over the levels of a factor. lines: {label: (levels, seeds)}."""

    title: str
    levels: Sequence[str]
    lines: dict[str, NDArray[np.float64]]


def disputed(groups: Sequence[tuple[str, Sequence[Disputed]]]) -> str:
    """Draws a row of images per group under the group's title."""
    with drawing(**{"axes.grid": False}):
        figure = blank(1.62 * len(groups), left=0.06, right=0.06, top=0.28, bottom=0.4)
        grid = figure.subplots(
            len(groups), IMAGES_ACROSS, squeeze=False, gridspec_kw={"wspace": 0.1, "hspace": 0.75}
        )
        for (title, images), row in zip(groups, grid, strict=True):
            row[0].set_title(title, loc="left", fontweight="bold", fontsize=9)
            for axes in row[max(len(images), 1) :]:
                axes.set_visible(False)
            for axes, image in zip(row, images, strict=False):
                axes.imshow(image.pixels, cmap="Greys", vmin=0, vmax=255, interpolation="none")
                axes.set_xlabel(f"{image.label}: {image.ours}\nand {image.theirs}", fontsize=8)
            for axes in row:
                axes.set(xticks=[], yticks=[])
                for spine in axes.spines.values():
                    spine.set(visible=bool(images), color="#BBBBBB")
        return svg_text(figure)


def interactions(panels: Sequence[InteractionPanel], factor: str) -> str:
    """Draws a panel per level of the other factors: a line per level of a second factor, the mean
    over seeds with a dot a seed. Lines that are not parallel are an interaction."""
    with drawing():
        figure = blank(2.9, left=0.6, right=0.1, top=0.55, bottom=0.5)
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(grid, panels, strict=True):
            axes.set_title(panel.title, loc="left", fontweight="bold")
            places = np.arange(len(panel.levels))
            for number, (label, values) in enumerate(panel.lines.items()):
                colour, marker, style = LINES[number % len(LINES)]
                shift = 0.06 * (number - (len(panel.lines) - 1) / 2)
                means = np.nanmean(values, axis=1)
                (line,) = axes.plot(
                    places + shift, means, color=colour, marker=marker, linestyle=style,
                    label=label, markersize=5,
                )  # fmt: skip
                known = zip(panel.levels, means, strict=True)
                tip(line, [f"{label}, {factor} {level}: {mean:.2f}%" for level, mean in known])
                axes.plot(
                    np.repeat(places, values.shape[1]) + shift, values.ravel(), ".", color=colour,
                    alpha=0.35, markersize=4, markeredgewidth=0,
                )  # fmt: skip
            axes.set_xticks(places, list(panel.levels))
            axes.set_xlabel(factor)
            axes.set_xlim(-0.3, len(panel.levels) - 0.7)
        grid[0].set_ylabel("Test accuracy (%)")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right", ncols=len(labels), labelcolor=BLACK)
        return svg_text(figure)
