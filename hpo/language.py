"""The language of reports: English texts in the code, translations by gettext in hpo/locale/."""

import gettext
import re
import string
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Number
from pathlib import Path
from typing import Any

from hpo.errors import InputError

ENGLISH = "en"
LOCALE = Path(__file__).parent / "locale"
LANGUAGES = (ENGLISH, *sorted(path.name for path in LOCALE.iterdir() if path.is_dir()))

_current: ContextVar[tuple[str, gettext.NullTranslations]] = ContextVar(
    "language", default=(ENGLISH, gettext.NullTranslations())
)


@contextmanager
def use(code: str) -> Iterator[None]:
    """Translates texts within the block into this language. Raises InputError if it is unknown."""
    if code not in LANGUAGES:
        raise InputError(f"--lang: must be one of {', '.join(LANGUAGES)}, got {code!r}")
    translations = gettext.NullTranslations()
    if code != ENGLISH:
        translations = gettext.translation("hpo", LOCALE, [code])
    token = _current.set((code, translations))
    try:
        yield
    finally:
        _current.reset(token)


def current() -> str:
    """Returns the code of the language in use: "en", "ko"."""
    return _current.get()[0]


def t(message: str, /, **values: object) -> str:
    """Returns the message in the language in use, with the values in the places of their names.

    t("{n} trials on {data}", n=3, data="mnist"). Places may have a format: "{share:.1f}%". A
    negative number has the sign of print. A message without a translation stays as it is.
    """
    text = _current.get()[1].gettext(message) if message else ""
    return _filled(text, **values) if values else text


def nt(singular: str, plural: str, n: int, /, **values: object) -> str:
    """Returns the singular or the plural for n in the language in use, with {n} and the values."""
    return _filled(_current.get()[1].ngettext(singular, plural, n), n=n, **values)


def marked(message: str) -> str:
    """Returns the message as it is; marks a constant for the catalogue that t() translates when it
    is shown."""
    return message


# --- values in their places --------------------------------------------------------------------


def printed(form: str, number: Any) -> str:
    """Returns the number in this format, such as "{:+.2f}", with the signs of print: −, ∞."""
    return re.sub("^-", "−", form.format(number)).replace("inf", "∞")


class _Formatter(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, Number):
            return printed(f"{{:{format_spec}}}", value)
        return str(super().format_field(value, format_spec))


def _filled(text: str, /, **values: object) -> str:
    """Returns the text with the values in its places; chooses its Korean particles."""
    filled = _Formatter().vformat(text, (), values)
    return PARTICLE.sub(_particle, filled) if current() == "ko" else filled


# A translation that has a particle after a place writes both of its forms.
PARTICLE = re.compile(r"(\S*)(을\(를\)|이\(가\)|은\(는\)|과\(와\)|\(으\)로)")
CLOSING = ")]}>\"'”’"
# How words in Latin letters mostly end when they are read: with a consonant, with ㄹ.
CONSONANT = re.compile(r"(?:[036]|[lmn178]|ng|[aeiou][ckpt]|\blr)$", re.IGNORECASE)
LIQUID = re.compile(r"(?:[178l]|\blr)$", re.IGNORECASE)


def _particle(found: re.Match[str]) -> str:
    """Returns the word and the form of its particle that its last sound asks for."""
    word, both = found.groups()
    read = word.rstrip(CLOSING)
    last = ord(read[-1]) - ord("가") if read else -1
    if 0 <= last < 11_172:  # a Hangul syllable: 28 for each vowel, the first without a consonant
        closed, liquid = last % 28 > 0, last % 28 == 8
    else:
        closed, liquid = bool(CONSONANT.search(read)), bool(LIQUID.search(read))
    if both == "(으)로":
        return f"{word}{'으로' if closed and not liquid else '로'}"
    return word + both[0 if closed else 2]
