"""The language of reports: English texts in the code, translations by gettext in hpo/locale/."""

import gettext
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

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
    message without a translation stays as it is.
    """
    text = _current.get()[1].gettext(message) if message else ""
    return text.format(**values) if values else text


def nt(singular: str, plural: str, n: int, /, **values: object) -> str:
    """Returns the singular or the plural for n in the language in use, with {n} and the values."""
    return _current.get()[1].ngettext(singular, plural, n).format(n=n, **values)


def marked(message: str) -> str:
    """Returns the message as it is; marks a constant for the catalogue that t() translates when it
    is shown."""
    return message
