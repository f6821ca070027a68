"""Tooltips of figures: SVG titles for lines, marks and bars."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpo.language import t
from hpo.report.figures.svg import GROUP, PATH, SVG, USE, parsed, shrink, written
from hpo.text import legible

POINTS = 72  # an inch, in SVG files of matplotlib
NEAR = 0.02  # points between a mark and the value that it stands for
TOGETHER = 1.0  # points between marks that no pointer tells apart
MOST = 6  # lines of a title
CROWD, CROWDS = 3_000, 12_000  # marks of an artist, of a picture; a page is to stay under 3 MB
TIP = "tip "


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A mark in a figure, the group that holds it, its place in points, and its text."""

    element: Element
    group: Element
    place: tuple[float, float]
    text: str


def tip(artist: Artist, texts: Sequence[str]) -> None:
    """Sets the text that the pointer shows: one for the artist, or one per mark or line."""
    artist.set_gid(f"{TIP}{id(artist)} {json.dumps([legible(text) for text in texts])}")


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


def with_titles(text: str, figure: Figure) -> str:
    """Returns the figure's SVG file as an <svg> element with its tooltips as <title> elements."""
    root = parsed(text)
    shrink(root)
    root.set("pointer-events", "none")  # or a line would hide the marks that lie beneath it
    groups = {group.get("id"): group for group in root.iter(GROUP)}
    marks: list[Mark] = []
    for artist in _tipped(figure):
        group = groups.get(artist.get_gid())
        if group is not None:
            del group.attrib["id"]
            marks += _titled(group, artist, figure)
    for together in _together(marks):
        _title_marks(together)
    return written(root)


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


def _together(marks: Sequence[Mark]) -> list[list[Mark]]:
    """Groups marks that a pointer cannot tell apart."""
    groups: list[list[Mark]] = []
    by_field: dict[tuple[int, int], list[list[Mark]]] = {}  # of a plane in squares
    for mark in marks:
        column, row = (int(at // TOGETHER) for at in mark.place)
        fields = [(column + i, row + j) for i in (0, -1, 1) for j in (0, -1, 1)]
        around = (those for field in fields for those in by_field.get(field, ()))
        near = next((those for those in around if _is_near(those[0], mark)), None)
        if near is None:
            near = []
            groups.append(near)
            by_field.setdefault((column, row), []).append(near)
        near.append(mark)
    return groups


def _is_near(one: Mark, other: Mark) -> bool:
    return all(abs(a - b) <= TOGETHER for a, b in zip(one.place, other.place, strict=True))


def _title_marks(marks: Sequence[Mark]) -> None:
    """Adds one title for all these marks, in each group that holds some of them."""
    texts = list(dict.fromkeys(mark.text for mark in marks))
    for group in {id(mark.group): mark.group for mark in marks}.values():
        group.set("pointer-events", "visiblePainted")
        inside = [mark.element for mark in marks if mark.group is group]
        _title(inside[0] if len(inside) == 1 else _wrapped(group, inside), texts)


def _wrapped(group: Element, marks: Sequence[Element]) -> Element:
    """Puts the marks into a group of their own, at the place of the last one."""
    place = list(group).index(marks[-1])
    around = Element(GROUP)
    around.tail = "\n"
    group.insert(place, around)
    for mark in marks:
        group.remove(mark)
        around.append(mark)
    return around


def _title(element: Element, texts: Sequence[str]) -> None:
    """Inserts a title before all else; of many texts, the first ones."""
    shown = list(texts)
    if len(texts) > MOST:
        shown[MOST - 1 :] = [t("… and {n} more", n=len(texts) - MOST + 1)]
    if element.tag != USE:
        element.set("pointer-events", "visiblePainted")
    title = Element(f"{{{SVG}}}title")
    title.text = "\n".join(shown)
    element.insert(0, title)
