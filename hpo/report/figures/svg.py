"""Makes matplotlib's SVG files safe and small, and gives lines, marks and bars tooltips."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpo.language import t
from hpo.text import legible

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
GROUP, USE, PATH = f"{{{SVG}}}g", f"{{{SVG}}}use", f"{{{SVG}}}path"
SHARED = ("style", "clip-path")
MARKER = re.compile("m[0-9a-f]{10}")  # a marker's id
DIGITS = re.compile(r"(\.\d\d)\d+")  # beyond a hundredth of a point
POINTS = 72  # an inch, in SVG files of matplotlib
NEAR = 0.02  # points between a mark and the value that it stands for
POINTER = 1.0  # points between marks that no pointer tells apart
LINES = 6  # of a title, at most
CROWD, CROWDS = 3_000, 12_000  # marks of an artist, of a picture; a page is to stay under 3 MB
TIP = "tip "

ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)

# --- before matplotlib writes the file ---------------------------------------------------------


def tip(artist: Artist, texts: Sequence[str]) -> None:
    """Sets the text that the pointer shows: one for the artist, or one per mark or line."""
    artist.set_gid(f"{TIP}{id(artist)} {json.dumps([legible(text) for text in texts])}")


def plot(
    axes: Axes, x: Any, y: Any, texts: Sequence[str], *, shown: Any = slice(None), **look: Any
) -> Line2D:
    """Plots a line, or marks, with tooltips. shown: which of the values and texts, all by
    default."""
    (line,) = axes.plot(np.asarray(x)[shown], np.asarray(y)[shown], **look)
    tip(line, np.array(texts, object)[shown].tolist())
    return line


def plot_above_edge(
    axes: Axes, x: Any, y: np.ndarray, texts: Sequence[str], edge: float, size: float, **look: Any
) -> None:
    """Plots marks with tooltips; those below the axis as triangles of this size at its edge. edge:
    where, as a share of the axis."""
    below = y < axes.get_ylim()[0]
    plot(axes, x, y, texts, shown=~below, linestyle="", **look)
    look |= {"marker": "v", "markersize": size, "transform": axes.get_xaxis_transform()}
    plot(axes, x, np.full(len(below), edge), texts, shown=below, linestyle="", **look)


def rasterize_crowds(figure: Figure) -> None:
    """Turns marks that are too many for a page into pixels, without texts."""
    sizes = {artist: len(_texts(artist)) for artist in _tipped(figure)}
    for artist, size in sizes.items():
        if size > CROWD or (size > 1 and sum(sizes.values()) > CROWDS):
            artist.set_gid(None)
            artist.set_rasterized(True)


def _tipped(figure: Figure) -> list[Artist]:
    """Returns the artists with a tip. All are axes' own children; matplotlib's findobj would make
    and visit every tick."""
    artists = [artist for axes in figure.axes for artist in axes.get_children()]
    return [artist for artist in artists if (artist.get_gid() or "").startswith(TIP)]


def _texts(artist: Artist) -> list[str]:
    texts: list[str] = json.loads(str(artist.get_gid()).split(" ", 2)[2])
    return texts


# --- the file ----------------------------------------------------------------------------------


def with_titles(text: str, figure: Figure) -> str:
    """Returns the figure's SVG file as an <svg> element, small, with its tooltips as <title>
    elements. Raises ElementTree.ParseError if the file is not XML."""
    # Comments hold the texts of outlined labels.
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.fromstring(text, parser)
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    _shrink(root)
    root.set("pointer-events", "none")  # or a line would hide the marks that lie beneath it
    groups = {group.get("id"): group for group in root.iter(GROUP)}
    marks: list[Mark] = []
    for artist in _tipped(figure):
        group = groups.get(artist.get_gid())
        if group is not None:
            del group.attrib["id"]
            marks += _titled(group, artist, figure)
    for near in _near_marks(marks):
        _title_marks(near)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _shrink(root: Element) -> None:
    """Removes indents, places finer than a hundredth of a point, and styles that marks repeat."""
    for element in root.iter():
        for key in ("text", "tail"):
            if getattr(element, key) and not getattr(element, key).strip():
                setattr(element, key, "\n")
    defined = set(root.iterfind(f".//{{{SVG}}}defs/{PATH}"))
    for path in defined:
        if MARKER.fullmatch(path.get("id", "")):
            path.attrib.pop("style", None)  # each use says it, too
    for element in (*root.iter(USE), *root.iter(PATH)):
        if element.tag == PATH:  # a line without values, the glyph of a space
            element.attrib.setdefault("d", "M 0 0")
        for key in {"x", "y", "d"} & element.attrib.keys() if element not in defined else ():
            element.set(key, DIGITS.sub(r"\1", element.attrib[key]))
    for group in root.iter(GROUP):
        _share(group)


def _share(group: Element) -> None:
    """Moves attributes that all marks of a group share to the group; not opacity, which groups have
    as well."""
    drawn = [child for child in group if child.tag in (USE, PATH)]
    if len(drawn) < 2 or len(drawn) != len(group):
        return
    for key in SHARED:
        (value, *others) = {child.get(key) for child in drawn}
        if value and not others and key not in group.attrib and " opacity:" not in f" {value}":
            group.set(key, value)
            for child in drawn:
                del child.attrib[key]


# --- its tooltips ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A mark in a figure, the group that holds it, its place in points, and its text."""

    element: Element
    group: Element
    place: tuple[float, float]
    text: str


def _titled(group: Element, artist: Artist, figure: Figure) -> list[Mark]:
    """Returns the artist's marks that still need titles; empty if the artist has one title."""
    texts = _texts(artist)
    if isinstance(artist, LineCollection):
        for path, text in zip(group.iter(PATH), texts, strict=False):
            _title(path, [text])
    elif isinstance(artist, Line2D | PathCollection):
        places = _places(artist, figure)
        if len(places) == len(texts) and group.find(f".//{USE}") is not None:
            return list(_marks(group, places, texts))
    if len(texts) == 1:
        _title(group, texts)
    return []


def _places(artist: Line2D | PathCollection, figure: Figure) -> np.ndarray:
    """Returns the places of the artist's values in the SVG file, in points from the top left."""
    if isinstance(artist, Line2D):
        pixels = artist.get_transform().transform(artist.get_xydata())
    else:
        pixels = artist.get_offset_transform().transform(artist.get_offsets())
    places = np.ma.filled(np.ma.asarray(pixels, float), np.nan) * POINTS / figure.dpi
    places[:, 1] = figure.get_figheight() * POINTS - places[:, 1]
    return np.asarray(places)


def _marks(group: Element, places: np.ndarray, texts: Sequence[str]) -> Iterator[Mark]:
    """Assigns texts to marks by place: marks have the order of the values, but those outside are
    not drawn."""
    values = iter(zip(places.tolist(), texts, strict=True))
    for parent in group.iter(GROUP):
        for use in parent.findall(USE):
            x, y = float(use.get("x", "nan")), float(use.get("y", "nan"))
            here = (text for (a, b), text in values if max(abs(a - x), abs(b - y)) < NEAR)
            if text := next(here, ""):
                yield Mark(element=use, group=parent, place=(x, y), text=text)


def _near_marks(marks: Sequence[Mark]) -> list[list[Mark]]:
    """Groups marks that a pointer cannot tell apart."""
    groups: list[list[Mark]] = []
    by_field: dict[tuple[int, int], list[list[Mark]]] = {}  # of a plane in squares
    for mark in marks:
        x, y = mark.place
        column, row = int(x // POINTER), int(y // POINTER)
        fields = [(column + i, row + j) for i in (0, -1, 1) for j in (0, -1, 1)]
        for group in (group for field in fields for group in by_field.get(field, ())):
            a, b = group[0].place
            if abs(a - x) <= POINTER and abs(b - y) <= POINTER:
                group.append(mark)
                break
        else:
            groups.append([mark])
            by_field.setdefault((column, row), []).append(groups[-1])
    return groups


def _title_marks(marks: Sequence[Mark]) -> None:
    """Adds one title for all these marks, in each group that holds some of them: to the mark, or to
    a new group of the marks, at the place of the last one."""
    texts = list(dict.fromkeys(mark.text for mark in marks))
    for group in {id(mark.group): mark.group for mark in marks}.values():
        group.set("pointer-events", "visiblePainted")
        inside = [mark.element for mark in marks if mark.group is group]
        titled = inside[0]
        if len(inside) > 1:
            titled = Element(GROUP)
            titled.tail = "\n"
            group.insert(list(group).index(inside[-1]), titled)
            for element in inside:
                group.remove(element)
                titled.append(element)
        _title(titled, texts)


def _title(element: Element, texts: Sequence[str]) -> None:
    """Inserts a title before all else; of many texts, the first ones."""
    shown = list(texts)
    if len(texts) > LINES:
        shown[LINES - 1 :] = [t("… and {n} more", n=len(texts) - LINES + 1)]
    if element.tag != USE:
        element.set("pointer-events", "visiblePainted")
    title = Element(f"{{{SVG}}}title")
    title.text = "\n".join(shown)
    element.insert(0, title)
