"""What a pointer over a picture shows: SVG titles for a plot's lines, marks and bars."""

import json
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
POINTS = 72  # an inch, in SVG files of matplotlib
NEAR = 0.01  # points between a mark and the value that it stands for
TIP = "tip "

ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


def tip(artist: Artist, texts: Sequence[str]) -> None:
    """Has the pointer show a text: one for the whole artist, or one for each mark of a line."""
    artist.set_gid(f"{TIP}{id(artist)} {json.dumps(list(texts))}")


def with_titles(text: str, figure: Figure) -> str:
    """The figure's SVG file as an <svg> element, its tips as <title> elements."""
    # Comments hold the texts of outlined labels.
    keeping = ElementTree.TreeBuilder(insert_comments=True)
    root = ElementTree.fromstring(text, ElementTree.XMLParser(target=keeping))
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    for path in root.iter(f"{{{SVG}}}path"):  # a line without values, the glyph of a space
        path.attrib.setdefault("d", "M 0 0")
    root.set("pointer-events", "none")  # or a line would hide the marks that lie beneath it
    groups = {group.get("id"): group for group in root.iter(f"{{{SVG}}}g")}
    for artist in figure.findobj(lambda found: (found.get_gid() or "").startswith(TIP)):
        group = groups.get(artist.get_gid())
        if group is not None:
            del group.attrib["id"]
            texts = json.loads(str(artist.get_gid()).split(" ", 2)[2])
            _add(group, artist, texts, figure)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(group: ElementTree.Element, artist: Artist, texts: list[str], figure: Figure) -> None:
    if len(texts) == 1 or not isinstance(artist, Line2D):
        _title(group, "; ".join(texts))
        return
    for mark, index in _marks(group, artist, figure):
        _title(mark, texts[index])


def _marks(
    group: ElementTree.Element, line: Line2D, figure: Figure
) -> Iterator[tuple[ElementTree.Element, int]]:
    """A line's marks, and which of its values each stands for: those outside the picture are not
    drawn, so places decide."""
    pixels = line.get_transform().transform(line.get_xydata())
    places = pixels * POINTS / figure.dpi
    places[:, 1] = figure.get_figheight() * POINTS - places[:, 1]
    for mark in group.iter(f"{{{SVG}}}use"):
        at = (float(mark.get("x", "nan")), float(mark.get("y", "nan")))
        distances = np.abs(places - at).max(axis=1)
        if np.nanmin(distances, initial=np.inf) < NEAR:
            yield mark, int(np.nanargmin(distances))


def _title(element: ElementTree.Element, text: str) -> None:
    element.set("pointer-events", "visiblePainted")
    title = ElementTree.Element(f"{{{SVG}}}title")
    title.text = text
    element.insert(0, title)
