"""Makes matplotlib's SVG files safe and small."""

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
GROUP, USE, PATH = f"{{{SVG}}}g", f"{{{SVG}}}use", f"{{{SVG}}}path"
SHARED = ("style", "clip-path")
MARKER = re.compile("m[0-9a-f]{10}")  # a marker's id
DIGITS = re.compile(r"(\.\d\d)\d+")  # beyond a hundredth of a point

ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


def parsed(text: str) -> Element:
    """Returns the <svg> element of a file. Raises ElementTree.ParseError if it is not XML."""
    # Comments hold the texts of outlined labels.
    keeping = ElementTree.TreeBuilder(insert_comments=True)
    root = ElementTree.fromstring(text, ElementTree.XMLParser(target=keeping))
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    for path in root.iter(PATH):  # a line without values, the glyph of a space
        path.attrib.setdefault("d", "M 0 0")
    return root


def written(root: Element) -> str:
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def shrink(root: Element) -> None:
    """Removes indents, places finer than a hundredth of a point, and styles that marks repeat."""
    for element in root.iter():
        element.text, element.tail = _unindented(element.text), _unindented(element.tail)
    defined = set(root.iterfind(f".//{{{SVG}}}defs/{PATH}"))
    for path in defined:
        if MARKER.fullmatch(path.get("id", "")):
            path.attrib.pop("style", None)  # each use says it, too
    for element in (*root.iter(USE), *root.iter(PATH)):
        for key in {"x", "y", "d"} & element.attrib.keys() if element not in defined else ():
            element.set(key, DIGITS.sub(r"\1", element.attrib[key]))
    for group in root.iter(GROUP):
        _share(group)


def _unindented(text: str | None) -> str | None:
    return text if text is None or text.strip() else "\n"


def _share(group: Element) -> None:
    """Moves attributes that all marks of a group share to the group; not opacity, which groups have
    as well."""
    drawn = [child for child in group if child.tag in (USE, PATH)]
    if len(drawn) < 2 or len(drawn) != len(group):
        return
    for key in SHARED:
        values = {child.get(key) for child in drawn}
        (value, *others) = values
        if value and not others and key not in group.attrib and " opacity:" not in f" {value}":
            group.set(key, value)
            for child in drawn:
                del child.attrib[key]
