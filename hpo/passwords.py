"""Removes passwords of storage URLs from everything that people and logs see."""

import re
from urllib.parse import unquote

# user:password@host; SQLAlchemy takes all up to the last @ for the password, slashes too.
LOGIN = r"(://[^:/@]*):{any}*@"
# user:password whose @ was forgotten; what follows a colon is a port otherwise.
NO_HOST = r"(://[^:/@\s\[]*):(?!\d*(?:[/?:;,)\s]|$))(?![^/?\s]*@)[^/?\s]+"
# ?password=… as drivers and libpq know it, sslpassword, passwd and pwd; a whole ODBC string.
QUERY = r"([?&;](?:\w*passw(?:or)?d|pwd|odbc_connect)=)(?:(?!&){any})*"


def without_password(url: str) -> str:
    """Returns a storage URL, or a command's argument that holds one, without its password."""
    return _hidden(url, r"[\s\S]")


def remove_passwords(text: str, *urls: str) -> str:
    """Removes the passwords of these URLs, and of URLs in the text, from a text of several lines. A
    driver may quote only a part of a URL."""
    for secret in sorted(_secrets(urls), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return _hidden(text, r"\S")


def _hidden(text: str, any_character: str) -> str:
    text = re.sub(LOGIN.replace("{any}", any_character), r"\1:***@", text)
    text = re.sub(NO_HOST, r"\1:***", text)
    return re.sub(QUERY.replace("{any}", any_character), r"\1***", text, flags=re.IGNORECASE)


def _secrets(urls: tuple[str, ...]) -> set[str]:
    """Returns the passwords as written, decoded and quoted by Python, complete and in parts."""
    secrets: set[str] = set()
    for url in urls:
        for pattern in (LOGIN, NO_HOST, QUERY):
            pattern = pattern.replace("{any}", r"[\s\S]")
            for match in re.finditer(pattern, url, re.IGNORECASE):
                written = match[0].removeprefix(match[1]).removeprefix(":").removesuffix("@")
                secrets |= {written, *re.split(r"[@/:?#&=;,\s]", written)}
    secrets |= {unquote(secret) for secret in secrets}
    secrets |= {repr(secret)[1:-1] for secret in secrets}
    return secrets - {"", "***"}
