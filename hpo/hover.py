"""What a pointer over a picture shows: SVG titles for a plot's lines, marks and bars."""

import json
import re
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
DECIMALS = re.compile(r"(\.\d{3})\d+")
SHOWN = 4  # texts of marks at one place
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # which no XML may hold

ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


def tip(artist: Artist, texts: Sequence[str]) -> None:
    """Has the pointer show a text: one for the whole artist, or one for each mark of a line."""
    artist.set_gid(f"{TIP}{id(artist)} {json.dumps(list(texts))}")


def with_titles(text: str, figure: Figure) -> str:
    """The figure's SVG file as an <svg> element, its tips as <title> elements."""
    text = CONTROL.sub("", text)
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
    _share_styles(root)
    _round(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _round(root: ElementTree.Element) -> None:
    """Places to a thousandth of a point."""
    for element in root.iter():
        for name in {"x", "y", "d"} & element.attrib.keys():
            element.set(name, DECIMALS.sub(r"\1", element.attrib[name]))


def _share_styles(root: ElementTree.Element) -> None:
    """Marks that look alike say so once, in their group: thousands of them stay small."""
    for group in root.iter(f"{{{SVG}}}g"):
        marks = group.findall(f"{{{SVG}}}use")
        styles = {mark.get("style") for mark in marks}
        if len(marks) > 1 and len(styles) == 1 and "style" not in group.attrib:
            group.set("style", styles.pop() or "")
            for mark in marks:
                mark.attrib.pop("style", None)


def _add(group: ElementTree.Element, artist: Artist, texts: list[str], figure: Figure) -> None:
    if len(texts) == 1 or not isinstance(artist, Line2D):
        _title(group, "; ".join(texts))
        _reachable(group)
        return
    uppermost = {tuple(places): mark for mark, places in _marks(group, artist, figure)}
    for places, mark in uppermost.items():
        found = list(dict.fromkeys(texts[place] for place in places))
        more = f"; {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        _title(mark, "; ".join(found[:SHOWN]) + more)
    for holder in group.iter(f"{{{SVG}}}g"):
        if holder.find(f"{{{SVG}}}use") is not None:
            _reachable(holder)


def _marks(
    group: ElementTree.Element, line: Line2D, figure: Figure
) -> Iterator[tuple[ElementTree.Element, list[int]]]:
    """A line's marks, and the values that lie where each does: those outside the picture are not
    drawn, and one hides another at its place, so places decide."""
    pixels = line.get_transform().transform(line.get_xydata())
    places = pixels * POINTS / figure.dpi
    places[:, 1] = figure.get_figheight() * POINTS - places[:, 1]
    for mark in group.iter(f"{{{SVG}}}use"):
        at = (float(mark.get("x", "nan")), float(mark.get("y", "nan")))
        distances = np.abs(places - at).max(axis=1)
        if places_there := np.flatnonzero(distances < NEAR).tolist():
            yield mark, places_there


def _reachable(element: ElementTree.Element) -> None:
    element.set("pointer-events", "visiblePainted")


def _title(element: ElementTree.Element, text: str) -> None:
    title = ElementTree.Element(f"{{{SVG}}}title")
    title.text = CONTROL.sub("", text)
    element.insert(0, title)
