"""The cells of one column: of which kind they are, and the column as numbers or as levels.

A gap is a cell that says nothing: blank, or a usual spelling such as "?" or "NA".
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpo.data.readers import SPELLINGS
from hpo.data.schema import CATEGORY, DATE_PARTS, Floats64
from hpo.errors import InputError
from hpo.text import quoted

if TYPE_CHECKING:
    import pandas as pd

NO_LABEL = ("", "?", "nan", "null", "n/a", "#n/a", "<na>")  # NA and None may be classes
DATE, IGNORE = "date", "ignore"
BOOLS = {"true": 1.0, "false": 0.0}
FEW_LEVELS = 10  # each of so many levels has a place of its own, even a rare one
RARE = 0.01  # of the rows
MOST_LEVELS = 1_000
EXACT = 2.0**53  # from here on, double precision leaves out whole numbers

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
ZEROS = re.compile(r"0\d+")  # of a code, such as a zip
MONTH = re.compile(r"\d{4}-\d{2}")
ISO = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?Z?")
WHOLE_FLOAT = re.compile(r"^(-?(?:0|[1-9]\d*))\.0+$")
COMMA = re.compile(r"[-+]?\d*,\d+|[-+]?\d+")  # 1,5
GROUPS = re.compile(r"[-+]?[1-9]\d{0,2}([,.' \u00a0’]\d{3})+([.,]\d+)?")  # 1,234 or 1.234,56
ODD = (  # how numbers and dates are written that cannot be read for certain, and the remedy
    (GROUPS, 'which may be a thousand or not; write it as "1234.5"'),
    (COMMA, 'write it with a decimal point, such as "1.5"'),
    (re.compile(r"[-+]?[\d.,]+ ?%"), "write it without the sign"),
    (re.compile(r"\d{1,2}([./])\d{1,2}\1\d{2,4}.*"), 'write dates as "2020-12-31"'),
)
# As amounts, times and dates begin.
AMOUNT = re.compile(r"(?:[A-Z]{3} ?|[$€£¥₩] ?)?[-+−(]?(?:[$€£¥₩] ?)?\d")


def texts_of(cells: "pd.Series") -> NDArray[Any]:
    """Returns the cells as text without blanks around it; "" for a gap."""
    return _by_value(cells, _level)


def plain_texts(cells: "pd.Series") -> NDArray[np.str_]:
    """Returns the cells as text without blanks around it; "" for what pandas calls missing."""
    return np.asarray(_by_value(cells, _text), dtype=str)


def _by_value(cells: "pd.Series", text: Callable[[Any], str]) -> NDArray[Any]:
    """Returns the text of each cell, made once for each value."""
    import pandas as pd

    places, values = pd.factorize(cells)  # -1 for what is missing
    texts: NDArray[Any] = np.array([*map(text, values), ""], dtype=object)[places]
    return texts


def _text(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer()  # whole numbers beside gaps
    return str(int(value) if whole else value).strip()


def _level(value: Any) -> str:
    text = WHOLE_FLOAT.sub(r"\1", _text(value))  # Parquet has 1.0 where CSV has 1
    lower = text.lower()
    return "" if lower in SPELLINGS else lower.title() if lower in BOOLS else text


# --- kinds -------------------------------------------------------------------------------------


def kind_of(cells: "pd.Series") -> str:
    """Returns the kind of a training column: int, float, bool, category, date or ignore. Raises
    InputError with the value at fault if it cannot be told."""
    letter = cells.dtype.kind
    if cells.dtype.name == CATEGORY:  # as Parquet says
        return level_kind(str(cells.name), texts_of(cells))
    if letter in "iub":
        return "bool" if letter == "b" else "int"
    if letter == "M":
        return DATE
    if letter == "f":
        there = cells.to_numpy(dtype=np.float64, na_value=np.nan)[cells.notna()]
        if not len(there):
            return IGNORE
        return "int" if len(there) < len(cells) and (there == np.floor(there)).all() else "float"
    texts = texts_of(cells)
    there = Counter(texts.tolist())
    del there[""]
    if not there:
        return IGNORE
    if any(map(ZEROS.fullmatch, there)) and all(map(_is_number, there)):
        return level_kind(str(cells.name), texts)
    for kind, matches in (("float", _is_number), ("bool", _is_bool), (DATE, ISO.fullmatch)):
        if all(map(matches, there)):
            return kind
    if decimal_commas(there):
        return "float"
    _refuse_odd(str(cells.name), texts, there)
    return level_kind(str(cells.name), texts)


def _is_number(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None


def _is_bool(text: str) -> bool:
    return text.lower() in BOOLS


def decimal_commas(texts: Collection[str]) -> bool:
    """Whether all texts are numbers with a decimal comma. "1,234" alone may be a thousand."""
    commas = all(map(COMMA.fullmatch, texts))
    return commas and any("," in text and not GROUPS.fullmatch(text) for text in texts)


def _refuse_odd(name: str, texts: NDArray[Any], there: Counter[str]) -> None:
    """Raises InputError for numbers that are written in a way of their own, or beside text. there:
    how often each text stands in the column."""
    plain = sum(number for text, number in there.items() if _is_plain(text))
    for pattern, remedy in ODD:
        odd = [text for text in there if pattern.fullmatch(text) and not _is_plain(text)]
        if odd and 2 * (sum(there[text] for text in odd) + plain) > there.total():
            raise InputError(f"{_at_fault(name, texts, odd[0])}; {remedy}")
    key = json.dumps(name, ensure_ascii=False)
    said = f'or say: columns = {{ {key} = "category" }}, or "ignore" in its place'
    if 2 * plain > there.total():
        wrong = next(text for text in there if not _is_plain(text))
        raise InputError(
            f"{_at_fault(name, texts, wrong)}, and {plain:,} of {there.total():,} cells are "
            f"numbers or dates; mend it, {said}"
        )
    amounts = [text for text in there if AMOUNT.match(text)]
    strange = next((text for text in amounts if not _is_plain(text)), "")
    if strange and len(there) > FEW_LEVELS and 2 * sum(there[t] for t in amounts) > there.total():
        raise InputError(
            f"{_at_fault(name, texts, strange)}, which may be a number or a time; write plain "
            f'numbers ("1234.5") or dates ("2020-12-31"), {said}'
        )


def _is_plain(text: str) -> bool:
    return _is_number(text) or ISO.fullmatch(text) is not None


def _at_fault(name: object, texts: NDArray[Any], text: str) -> str:
    row = int(np.flatnonzero(texts == text)[0])
    return f"column {quoted(name)} has {quoted(text)} in row {row}"


def level_kind(name: str, texts: NDArray[Any], *, asked: bool = False) -> str:
    """Returns "category", or "ignore" if all texts are rare, as names are. asked: whether the study
    file says that it is a category. Raises InputError for too many levels."""
    counts = Counter(texts.tolist())
    levels = sorted(counts)
    useless = len(levels) > FEW_LEVELS and max(counts.values()) < max(RARE * len(texts), 2)
    if len(levels) > MOST_LEVELS or (useless and asked):
        raise InputError(
            f"column {quoted(name)} has {len(levels):,} different texts, such as "
            f"{quoted(levels[-1])}, too many for a category; leave it out: ignore = "
            f"[{json.dumps(name, ensure_ascii=False)}], or merge some of them"
        )
    return IGNORE if useless else CATEGORY


# --- numbers and levels ------------------------------------------------------------------------


def numbers_of(cells: "pd.Series", kind: str) -> Floats64:
    """Returns a column as numbers, NaN for a gap. Raises InputError with the value at fault."""
    if cells.dtype.kind in "iu" and (cells.abs() > EXACT).any():
        raise InputError(
            f"column {quoted(cells.name)} has whole numbers above 2**53, which lose their last "
            "digits; leave it out (ignore)"
        )
    if cells.dtype.kind in "iufb":
        return np.asarray(cells.to_numpy(dtype=np.float64, na_value=np.nan))
    texts = texts_of(cells)
    there = dict.fromkeys(text for text in texts.tolist() if text)
    commas = decimal_commas(there)
    read = BOOLS.__getitem__ if kind == "bool" else float
    known = _is_bool if kind == "bool" else COMMA.fullmatch if commas else _is_number
    if wrong := next((text for text in there if not known(text)), ""):
        is_what = "neither true nor false" if kind == "bool" else "no number"
        remedy = next((r for p, r in ODD if p.fullmatch(wrong)), "mend it, or leave it blank")
        raise InputError(f"{_at_fault(cells.name, texts, wrong)}, {is_what}; {remedy}")
    cleaned = (t.lower() if kind == "bool" else t.replace(",", ".") for t in texts.tolist())
    return np.array([read(text) if text else np.nan for text in cleaned], np.float64)


def date_parts(cells: "pd.Series") -> dict[str, Floats64]:
    """Returns year, month, day and weekday, NaN for a gap. Raises InputError for other texts than
    ISO 8601 dates."""
    dates, found = _dates(cells, 10), {}
    for part in DATE_PARTS:
        values = getattr(dates.dt, "day_of_week" if part == "weekday" else part)
        found[part] = np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
    return found


def _dates(cells: "pd.Series", length: int | None = None) -> "pd.Series":
    """Returns a column as dates; of texts, their first `length` characters."""
    import pandas as pd

    if cells.dtype.kind == "M":
        return cells
    texts = texts_of(cells)
    given = pd.Series(texts).str[:length]
    dates = pd.to_datetime(given, format="ISO8601", errors="coerce", utc=True)
    good = dates.notna().to_numpy() & [bool(ISO.fullmatch(text)) for text in texts]
    if (wrong := (texts != "") & ~good).any():
        fault = _at_fault(cells.name, texts, texts[int(np.flatnonzero(wrong)[0])])
        raise InputError(f'{fault}, no date; write dates as "2020-12-31"')
    return dates


def times_of(cells: "pd.Series") -> Floats64:
    """Returns a column of dates, months or numbers as numbers that rise with time. Raises
    InputError for other texts, and for gaps."""
    import pandas as pd

    if any(map(MONTH.fullmatch, texts := texts_of(cells))):
        days = [f"{text}-01" if MONTH.fullmatch(text) else text for text in texts]
        cells = pd.Series(days, name=cells.name)
    if kind_of(cells) == DATE:
        dates = _dates(cells)
        times = np.array(dates.astype("int64"), np.float64)
        times[dates.isna().to_numpy()] = np.nan
    else:
        times = numbers_of(cells, "float")
    if (gaps := np.isnan(times)).any():
        row = int(np.flatnonzero(gaps)[0])
        raise InputError(f"column {quoted(cells.name)} has no time in row {row}; fill it in")
    return times


def check_commas(cells: Sequence["pd.Series"]) -> None:
    """Raises InputError if some columns of a file have a decimal comma and others a point, which
    may part thousands."""
    texts = [column for column in cells if column.dtype.kind not in "iufbM"]
    commas = [c for c in texts if decimal_commas({*texts_of(c)} - {""})]
    for column in cells if commas else ():
        if column.dtype.kind == "f" and (fractions := column[column % 1 > 0]).any():
            raise InputError(
                f"column {quoted(commas[0].name)} has decimal commas, and column "
                f"{quoted(column.name)} has {fractions.iloc[0]:g} with a point, which may be a "
                'thousand; write all numbers as "1234.5"'
            )


def codes_of(cells: "pd.Series", levels: Sequence[str]) -> NDArray[np.float64]:
    """Returns the place of each cell in the levels; their number for another text."""
    places = {level: place for place, level in enumerate(levels)}
    return np.array([places.get(text, len(levels)) for text in texts_of(cells)], np.float64)
