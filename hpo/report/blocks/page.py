"""The blocks of a report's pages, and their rendering as HTML and Markdown."""

import html
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jinja2
from markupsafe import Markup, escape

from hpo.language import current, t
from hpo.report.blocks.table import NOTHING, Table
from hpo.text import legible

GLYPH = r"[A-Z]\w*(?:-\w+)?-[0-9a-f]+"  # the ids of letters in matplotlib's pictures: font and code
# What Markdown does not show as it is, after a pair of brackets that is no link, task or footnote.
SIGNS = re.compile(
    r"(\[(?![xX]\])[^\W_][\w ,.-]*\](?![\[(:]))"
    r"|[\\`*|$\[\]]|(?<![^\W_])_|_(?![^\W_])|(?<!\s)~|~(?!\s)|<(?=[A-Za-z/!?])|^>|&(?=#?\w+;)"
)
BLOCK = re.compile(r"^(\d*)([-#+=.)])(?=[-#=]*( |$))")  # makes a paragraph a heading, list or line


@dataclass(frozen=True, kw_only=True)
class Picture:
    """draw: draws it as SVG, in the language and the style of that moment."""

    file: str
    draw: Callable[[], str]
    alt: str
    caption: str

    @cached_property
    def svg(self) -> str:
        """Returns the picture; it is drawn once."""
        return self.draw()


@dataclass(frozen=True, kw_only=True)
class Code:
    """Lines of code to copy."""

    text: str

    @property
    def fence(self) -> str:
        """Returns what stands around it in Markdown: more backticks than it holds in a row."""
        return "`" * max([3, *(len(run) + 1 for run in re.findall("`+", self.text))])


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """A table of conclusions. rows: of each its claim, where it stands, verdict and test as texts,
    effect and p as entries; basis: what the verdict rests on; drawing: the interval as SVG; path:
    the evidence by the number of seeds as SVG."""

    rows: list[dict[str, Any]]
    caption: str

    @property
    def placed(self) -> bool:
        """Whether any conclusion says where it stands in a publication."""
        return any(row["where"] != NOTHING for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Trials:
    """All trials of a search for the page's script, as JSON. text: says where they are, for a
    reader without the script."""

    json: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """The answer at a glance. rows: (what, value, sentences on it). toml: to copy, empty without.
    links: (text, path beside the page)."""

    rows: Sequence[tuple[str, str, Sequence[str]]]
    links: Sequence[tuple[str, str]]
    toml: str = ""


Block = str | list[str] | Table | Verdicts | Picture | Code | Trials | Card


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and its blocks: paragraphs (text), lists of sentences, tables, pictures, code. The
    front of a page has no heading."""

    title: str
    blocks: list[Block]


def render(
    template: str, title: str, lead: list[str], sections: Sequence[Section] = (), **more: object
) -> str:
    """Renders a template of hpo/report/templates/. more: what the template asks for besides."""
    page = _environment().get_template(template)
    return legible(_share_glyphs(page.render(title=title, lead=lead, sections=sections, **more)))


def _share_glyphs(text: str) -> str:
    """Removes the outlines of letters that an earlier picture of the page has defined."""
    seen: set[str] = set()

    def first(found: re.Match[str]) -> str:
        again = found[1] in seen
        seen.add(found[1])
        return "" if again else found[0]

    return re.sub(rf'<path id="({GLYPH})"[^>]*/>\n?', first, text)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hpo.report"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"t": t, "language": current()}
    environment.filters |= {
        "t": t,
        "inline": _inline,
        "md": markdown,
        "data": _data,
        "options": _options,
    }
    kinds = {
        "table": Table,
        "findings": list,
        "code": Code,
        "verdicts": Verdicts,
        "trials": Trials,
        "card": Card,
    }
    for name, kind in {**kinds, "picture": Picture}.items():
        environment.tests[name] = lambda block, kind=kind: isinstance(block, kind)
    return environment


def interval_svg(low: float, middle: float, high: float, end: str, margin: float = 0.0) -> str:
    """Draws an interval on a scale from -1 to 1 with a line at 0; arrows where it is infinite.

    low and high: NaN if there is no interval. end: the label of the scale's end. margin: half the
    width of a band around 0.
    """
    half, edge = 66, 8

    def x(value: float) -> float:
        return round(half + max(-1.0, min(1.0, value)) * (half - edge), 1)

    parts = [f'<path class="margin" d="M{x(-margin)} 9H{x(margin)}"/>'] if margin else []
    parts.append(f'<path class="axis" d="M{edge} 9H{2 * half - edge}M{half} 1V17"/>')
    if low == low:
        parts.append(f'<path class="interval" d="M{x(low)} 9H{x(high)}"/>')
    if low < -1:
        parts.append(f'<path class="arrow" d="M1 9l{edge} -4v8z"/>')
    if high > 1:
        parts.append(f'<path class="arrow" d="M{2 * half - 1} 9l-{edge} -4v8z"/>')
    parts.append(f'<circle cx="{x(middle)}" cy="9" r="2.5"/>')
    parts.append(f'<text x="{2 * half + 2}" y="13">{end}</text>')
    size = 'viewBox="0 0 170 18" width="170" height="18"'
    return f'<svg class="forest" {size} aria-hidden="true">{"".join(parts)}</svg>'


def path_svg(lines: Sequence[tuple[str, Sequence[float]]], needed: float) -> str:
    """Draws evidence over the number of seeds on a logarithmic scale, with a line at what a verdict
    needs. lines: (class, evidence by n)."""
    width, height, edge = 150, 44, 3
    most = max([needed, *(min(value, 1e9) for _, values in lines for value in values)])
    top, bottom = math.log10(most) + 0.2, -1.0
    count = max(len(values) for _, values in lines)

    def x(n: int) -> float:
        return round(edge + (width - 2 * edge) * (n / max(count - 1, 1)), 1)

    def y(value: float) -> float:
        level = math.log10(min(max(value, 0.1), 1e9))
        return round(edge + (height - 2 * edge) * (top - level) / (top - bottom), 1)

    parts = [f'<path class="needed" d="M{edge} {y(needed)}H{width - edge}"/>']
    for name, values in lines:
        points = " ".join(f"{x(n)} {y(value)}" for n, value in enumerate(values))
        parts.append(f'<path class="{name}" d="M{points}"/>')
    needs = t("needs {evidence:,.0f}", evidence=needed)
    parts.append(f'<text x="{width + 2}" y="{y(needed) + 3}">{needs}</text>')
    size = f'viewBox="0 0 230 {height}" width="230" height="{height}"'
    return f'<svg class="path" {size} aria-hidden="true">{"".join(parts)}</svg>'


def _inline(picture: Picture) -> str:
    """Returns the picture as a part of the page, with its own ids, but for letters, and the page's
    width."""
    prefix = f"{picture.file.removesuffix('.svg')}-"
    svg = re.sub(rf'\b(id="|href="#|url\(#)(?!{GLYPH}[")])', rf"\g<1>{prefix}", picture.svg)
    size = re.search(r'viewBox="0 0 (\S+) \S+"', svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    label = html.escape(picture.alt)
    wide = f' style="max-width: {size[1]}pt"' if size else ""
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"{wide}', 1)


def _data(value: float | None) -> Markup:
    """Returns the attribute by which the page's script sorts a number; nothing for a text."""
    return Markup("" if value is None else f' data-value="{value:.10g}"')


def _options(text: str) -> Markup:
    """Returns a text with the options in it, such as --repeats 3, as code, which no line breaks."""
    return Markup(re.sub(r"--[a-z][a-z-]*(?: \d+)?", r"<code>\g<0></code>", str(escape(text))))


def markdown(text: str) -> str:
    """Escapes text for a Markdown table or paragraph."""
    text = SIGNS.sub(lambda found: found[1] or f"\\{found[0]}", " ".join(text.split()))
    return BLOCK.sub(r"\1\\\2", text)
