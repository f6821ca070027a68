"""What a report's pages are made of, and how they become HTML and Markdown."""

import base64
from dataclasses import dataclass

import jinja2


@dataclass(frozen=True, kw_only=True)
class Table:
    """headers: (text, columns it spans); subheaders: one a column, or none. rows: cells as text."""

    headers: list[tuple[str, int]]
    subheaders: list[str]
    rows: list[list[str]]
    caption: str

    @property
    def flat_headers(self) -> list[str]:
        """One header a column, for Markdown: "Test loss, reported"."""
        spread = [text for text, span in self.headers for _ in range(span)]
        pairs = zip(spread, self.subheaders, strict=True)
        return [f"{text}, {sub}" if sub else text for text, sub in pairs]


@dataclass(frozen=True, kw_only=True)
class Picture:
    file: str
    svg: str
    alt: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Code:
    """Lines to copy, word for word."""

    text: str


Block = str | list[str] | Table | Picture | Code


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with blocks below it: paragraphs (text), lists of sentences, and the others."""

    title: str
    blocks: list[Block]


def render(template: str, title: str, lead: list[str], sections: list[Section]) -> str:
    """The page that one of hpo/templates/ makes of the sections."""
    environment = _environment()
    return environment.get_template(template).render(title=title, lead=lead, sections=sections)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hpo"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["md"] = _markdown
    environment.tests["table"] = lambda block: isinstance(block, Table)
    environment.tests["findings"] = lambda block: isinstance(block, list)
    environment.tests["code"] = lambda block: isinstance(block, Code)
    environment.tests["picture"] = lambda block: isinstance(block, Picture)
    return environment


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _markdown(text: str) -> str:
    """Text of the user's or of a machine, safe in a Markdown table and paragraph."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
