"""The one exception for what the user gave, and how that is quoted."""

from hpo.passwords import shown


class InputError(ValueError):
    """A study file, option, dataset or storage is at fault; its text is for the user, a line each.

    `hpo` prints it without a traceback and exits with 2.
    """


MOST = 120  # characters


def quoted(value: object) -> str:
    """The value as it is written, in printable characters, shortened where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # over 4,300 digits; tables in tables
        return f"a {type(value).__name__} too long to print"
    return shortened(shown(text))  # in this order: an end alone is not known for a password's


def shortened(text: str, most: int = MOST) -> str:
    """Its beginning and its end."""
    return text if len(text) <= most else f"{text[: most - 20]} … {text[-16:]}"


def printable(text: str) -> str:
    """In one line, what is no printable character escaped."""
    return text if text.isprintable() else repr(text)[1:-1]
