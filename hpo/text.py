"""Text for people: values quoted short and printable, counts and times in words."""

import difflib
import os
import re
import textwrap
from collections.abc import Iterable, Sequence

from hpo.language import nt, t
from hpo.passwords import without_password

MOST = 120  # characters of a quoted value
DASHBOARD = "127.0.0.1", 8080  # host and port of `hpo dashboard`, unless others are asked for
# Control characters and lone surrogates: XML does not allow them, terminals obey some of them. The
# marks that turn the direction of writing show another text than there is.
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def quoted(value: object) -> str:
    """Returns the value as Python writes it, printable, shortened, without passwords."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # over 4,300 digits; tables in tables
        return f"a {type(value).__name__} too long to print"
    return shortened(without_password(text))  # in this order: shown() needs the whole URL


def shortened(text: str, most: int = MOST) -> str:
    """Returns the beginning and the end of a text that is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 20]} … {text[-16:]}"


def printable(text: str) -> str:
    """Returns the text in one line, with characters that are not printable escaped."""
    return text if text.isprintable() else repr(text)[1:-1]


def printable_path(path: str) -> str:
    """Returns the path as printable() does; bytes that are no text stay as they are."""
    text = os.fsencode(path).decode(errors="ignore")
    return path if text.isprintable() else printable(path)


def legible(text: str) -> str:
    """Replaces each character that is FORBIDDEN by U+FFFD."""
    return FORBIDDEN.sub("\ufffd", text)


def broken(text: str, width: int) -> str:
    """Returns a line as a terminal of this width shows it best: broken between words, but no path
    in two."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def error_text(error: BaseException) -> str:
    """Returns an error's text in one line: its first line and, where it has more, its last, which
    often says the cause; the name of its class if it has no text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " … ".join(dict.fromkeys([*lines[:1], *lines[-1:]])) or type(error).__name__


def error_line(error: BaseException) -> str:
    """Returns the name of an error's class and its text, see error_text."""
    name, text = type(error).__name__, error_text(error)
    return name if text == name else f"{name}: {text}"


def count(number: int, noun: str) -> str:
    """1 trial, 2 trials. The noun is translated, see hpo.language."""
    return nt(f"{{n}} {noun}", f"{{n}} {noun}s", number)


def seconds_text(seconds: float) -> str:
    """45 s, 2 min 05 s, 1 h 20 min."""
    rounded = round(seconds)
    if rounded < 60:
        return t("{s} s", s=rounded)
    if rounded < 3600:
        return t("{min} min {s:02d} s", min=rounded // 60, s=rounded % 60)
    return t("{h} h {min:02d} min", h=rounded // 3600, min=rounded % 3600 // 60)


def limit_text(seconds: float) -> str:
    """0.09 s, 1.5 s, 5 min 00 s: exact below a minute, as the user gave it."""
    return t("{s} s", s=f"{seconds:g}") if seconds < 60 else seconds_text(seconds)


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    *others, last = names
    return t("{first} and {last}", first=", ".join(others), last=last) if others else last


def meant(given: str, known: Iterable[str]) -> str:
    """; did you mean 'search'? Empty if nothing that is known is near."""
    near = difflib.get_close_matches(given, list(known), 1)
    return f"; did you mean {quoted(near[0])}?" if near else ""


def same_command(*, fresh: bool, trials: str = "") -> str:
    """Names the command that goes on with a run. fresh: the run was given --fresh. trials: how many
    trials it was to end with, if it was given --more, which would count anew."""
    changes = ["without --fresh"] if fresh else []
    changes += [f"with --trials {trials} in the place of --more"] if trials else []
    return " ".join(["the same command", " and ".join(changes)]).rstrip()
