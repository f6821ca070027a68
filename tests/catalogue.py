"""The catalogue of translations: which texts the program has, and hpo/locale/ brought up to them.

python tests/catalogue.py adds new texts to each hpo.po, removes those that are gone, compiles
hpo.mo, and prints what has no translation.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from jinja2 import Environment

import hpo
from hpo.language import ENGLISH, LANGUAGES, LOCALE
from hpo.study.file import shipped

PACKAGE = Path(hpo.__file__).parent
CALLS = {"t", "marked", "nt", "count"}
# What a shipped study file says to a reader: its translations are in the catalogue as well.
SAID = {"title", "text", "source", "says", "quote", "untestable", "presumes", "what", "chosen"}


def texts() -> dict[str | tuple[str, str], set[str]]:
    """Returns {text, or (singular, plural): the files that have it}."""
    found: dict[str | tuple[str, str], set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for text in _calls(path.read_text("utf-8")):
            found.setdefault(text, set()).add(path.relative_to(PACKAGE.parent).as_posix())
    for path in sorted((PACKAGE / "report/templates").glob("*.j2")):
        for _, function, text in Environment(extensions=["jinja2.ext.i18n"]).extract_translations(
            path.read_text("utf-8"), gettext_functions=("t",)
        ):
            assert function == "t"
            found.setdefault(text, set()).add(path.relative_to(PACKAGE.parent).as_posix())
    for name, path in shipped().items():
        for text in _said(tomllib.loads(path.read_text("utf-8"))):
            found.setdefault(" ".join(text.split()), set()).add(f"studies/{name}.toml")
    return found


def _calls(source: str) -> Iterator[str | tuple[str, str]]:
    """Yields the texts of calls of hpo.language; of count() the noun as singular and plural."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        name, given = node.func.id, [a.value for a in node.args if isinstance(a, ast.Constant)]
        words = [text for text in given if isinstance(text, str) and text]
        if name in ("t", "marked") and words:
            yield words[0]
        elif name == "nt" and len(words) == 2:
            yield words[0], words[1]
        elif name == "count" and words:
            yield f"{{n}} {words[-1]}", f"{{n}} {words[-1]}s"


def _said(entry: object) -> Iterator[str]:
    if isinstance(entry, dict):
        for key, value in entry.items():
            if isinstance(value, str) and key in SAID:
                yield value
            else:
                yield from _said(value)
    elif isinstance(entry, list):
        for each in entry:
            yield from _said(each)


def catalogue(code: str) -> Catalog:
    with (LOCALE / code / "LC_MESSAGES/hpo.po").open("rb") as file:
        return read_po(file, locale=code)


def update(code: str) -> Catalog:
    """Brings a language's hpo.po up to the program's texts and compiles hpo.mo."""
    old, folder = catalogue(code), LOCALE / code / "LC_MESSAGES"
    new = Catalog(locale=code, project="hpo", charset="utf-8", fuzzy=False, header_comment="")
    for text, files in sorted(texts().items(), key=lambda entry: (sorted(entry[1]), str(entry[0]))):
        known = old.get(text if isinstance(text, str) else text[0])
        places = [(file, None) for file in sorted(files)]
        new.add(text, known.string if known else None, locations=places)
    for header in ("creation_date", "revision_date"):
        setattr(new, header, old.creation_date)
    with (folder / "hpo.po").open("wb") as file:
        write_po(file, new, width=100, omit_header=False)
    with (folder / "hpo.mo").open("wb") as file:
        write_mo(file, new)
    return new


if __name__ == "__main__":
    for language in LANGUAGES:
        if language != ENGLISH:
            for message in update(language):
                if message.id and not (
                    all(message.string) if message.pluralizable else message.string
                ):
                    print(f"{language}: no translation: {message.id!r}")
