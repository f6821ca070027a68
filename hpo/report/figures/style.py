"""The style of all figures: colours, sizes of text, drawing and writing a figure."""

import io
import logging
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, wraps
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, findSystemFonts, fontManager, get_font

from hpo.errors import InputError
from hpo.language import current
from hpo.report.figures.svg import rasterize_crowds, with_titles
from hpo.text import printable

P = ParamSpec("P")

# Okabe and Ito (2008), "Color Universal Design", https://jfly.uni-koeln.de/color/
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY, DARK_GREY, BLACK = "#8A8A8A", "#555555", "#222222"
COLOURS = "viridis"
# Up to four lines of a figure, told apart also in print.
LINES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "linestyle": "-"},
    {"color": VERMILLION, "linestyle": "--"},
    {"color": GREEN, "linestyle": "-."},
    {"color": PURPLE, "linestyle": ":"},
)
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.titlesize": 10,
    "axes.titley": 1.0,  # else matplotlib measures all labels for it, a tenth of a figure's time
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "hpo",
    "text.parse_math": False,  # a label is text, dollars and all
}
LATIN = "DejaVu Sans"  # comes with matplotlib
# Fonts with the letters of a language, of Linux, Windows and macOS; the first found is used.
FONTS = {
    "ko": (
        "NanumGothic", "Noto Sans CJK KR", "Noto Sans KR", "Noto Sans CJK JP", "Malgun Gothic",
        "Apple SD Gothic Neo", "AppleGothic", "UnDotum", "Baekmuk Gulim",
    ),
}  # fmt: skip
BACKEND = ("backend", "backend_fallback")  # not part of the style, and slow to set
DEFAULTS = {key: value for key, value in mpl.rcParamsDefault.items() if key not in BACKEND}
PIXELS = 130  # per inch, where marks are too many for vectors


def blank(
    height: float, *, left: float, right: float = 0.15, top: float = 0.35, bottom: float = 0.5
) -> Figure:
    """Returns a figure of 8 inches with margins in inches; a solved layout would take twice the
    time."""
    figure = Figure(figsize=(8, height))
    figure.subplots_adjust(
        left=left / 8, right=1 - right / 8, top=1 - top / height, bottom=bottom / height, wspace=0.2
    )
    return figure


@contextmanager
def drawing() -> Iterator[None]:
    """Draws everything within the block in STYLE, not in the user's matplotlibrc."""
    with mpl.rc_context(DEFAULTS | STYLE | {"font.family": fonts(current())}):
        yield


@cache
def fonts(language: str) -> list[str]:
    """Returns the names of the fonts for a language, the first one preferred. Raises InputError if
    this machine has none with its letters."""
    if language not in FONTS:
        return [LATIN]
    names = {font.name for font in fontManager.ttflist}
    if names.isdisjoint(FONTS[language]):  # matplotlib's list may be older than a font
        for path in set(findSystemFonts()) - {font.fname for font in fontManager.ttflist}:
            with suppress(OSError, RuntimeError):  # not a font that matplotlib reads
                fontManager.addfont(path)
        names = {font.name for font in fontManager.ttflist}
    # Not each of them has all weights: matplotlib would say so at every bold letter.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    known = [name for name in FONTS[language] if name in names]
    if not known:
        raise InputError(
            f"--lang {language}: no font with its letters is installed; install one of "
            f"{', '.join(FONTS[language])} (Debian, Ubuntu: apt install fonts-nanum)"
        )
    return [known[0], LATIN]


def short(label: str) -> str:
    """Returns the label as a figure can show it, at most 40 characters."""
    label = printable(label)
    return label if len(label) <= 40 else f"{label[:39]}…"


def as_svg(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Makes a function that draws a figure one that returns its SVG file, in STYLE."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        with drawing():
            return svg_text(draw(*args, **kwargs))

    return drawn


def svg_text(figure: Figure) -> str:
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    rasterize_crowds(figure)
    figure.savefig(buffer, format="svg", metadata=nothing, dpi=PIXELS)
    return with_titles(buffer.getvalue(), figure)


def width(labels: Sequence[str], size: float = 9) -> float:
    """Returns the inches of the widest label in a row."""
    return max((_advance(label, size, current()) for label in labels), default=0.0)


@cache
def _advance(label: str, size: float, language: str) -> float:
    font = get_font([findfont(name) for name in fonts(language)])
    font.set_size(size, 72)
    font.set_text(label)
    return float(font.get_width_height()[0]) / 64 / 72


def fit(label: str, inches: float, size: float = 9) -> str:
    """Returns the label, or as much of its beginning as has room."""
    label = printable(label)
    if width([label], size) <= inches:
        return label
    ends = range(1, len(label))
    end = bisect(ends, inches, key=lambda end: width([f"{label[:end]}…"], size))
    return f"{label[:end]}…"


def head(axes: Axes, title: str, note: str = "") -> None:
    """Writes a title at the left and a note in small type below it."""
    if title:
        axes.set_title(title, loc="left", fontweight="bold", pad=17 if note else 6)
    axes.annotate(
        note, (0, 1), xytext=(0, 4), xycoords="axes fraction", textcoords="offset points",
        color=DARK_GREY, fontsize=8,
    )  # fmt: skip
