"""Passwords in storage URLs, kept out of all that people and logs get to see."""

import re
from urllib.parse import unquote

# user:password@host; SQLAlchemy takes all up to the last @ for the password, slashes too.
LOGIN = r"(://[^:/@]*):{any}*@"
# user:password whose @ was forgotten; what follows a colon is a port otherwise.
NO_HOST = r"(://[^:/@\s\[]*):(?!\d*(?:[/?:;,)\s]|$))(?![^/?\s]*@)[^/?\s]+"
# ?password=… as drivers and libpq know it, sslpassword, passwd and pwd; a whole ODBC string.
QUERY = r"([?&;](?:\w*passw(?:or)?d|pwd|odbc_connect)=)(?:(?!&){any})*"


def shown(url: str) -> str:
    """A storage URL, or an argument of a command with one in it, without its password."""
    return _hidden(url, r"[\s\S]")


def blotted(text: str, *urls: str) -> str:
    """A text of several lines, an error's or a driver's, without the passwords of these URLs, of
    which a driver may have taken a part for something else, and of those in the text."""
    for secret in sorted(_secrets(urls), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return _hidden(text, r"\S")


def _hidden(text: str, any_character: str) -> str:
    text = re.sub(LOGIN.replace("{any}", any_character), r"\1:***@", text)
    text = re.sub(NO_HOST, r"\1:***", text)
    return re.sub(QUERY.replace("{any}", any_character), r"\1***", text, flags=re.IGNORECASE)


def _secrets(urls: tuple[str, ...]) -> set[str]:
    """The passwords as they are written, decoded and quoted by Python, whole and in parts."""
    found: set[str] = set()
    for url in urls:
        for pattern in (LOGIN, NO_HOST, QUERY):
            pattern = pattern.replace("{any}", r"[\s\S]")
            for match in re.finditer(pattern, url, re.IGNORECASE):
                written = match[0].removeprefix(match[1]).removeprefix(":").removesuffix("@")
                found |= {written, *re.split(r"[@/:?#&=;,\s]", written)}
    found |= {unquote(secret) for secret in found}
    found |= {repr(secret)[1:-1] for secret in found}
    return found - {"", "***"}
