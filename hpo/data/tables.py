"""Tables of the user's own: which column is what, and the columns as numbers and labels."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpo.data import readers
from hpo.data.readers import TableFile
from hpo.data.schema import Array, Schema, brief_names
from hpo.errors import InputError
from hpo.study.source import Source
from hpo.text import quoted

if TYPE_CHECKING:
    import pandas as pd

LABELS = ("label", "class", "target", "y")  # usual names of the column with the labels
ROW_NAMES = ("id", "index", "rownames", "row")  # columns that name a row
PIXELS = re.compile(r"pixel_?\d+|\d+x\d+", re.IGNORECASE)  # columns of MNIST's CSV files
MNIST_PIXELS = 784
WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")  # 01 and +1 are text
NUMBER = re.compile(r"-?((0|[1-9]\d*)(\.\d*)?|\.\d+)(e[+-]?\d+)?")
EXACT = 2.0**53  # from here on, double precision leaves out whole numbers


@dataclass(frozen=True, kw_only=True)
class Part:
    """Examples as a file holds them: features (N, …) and labels (N,), empty without labels.

    where: the file. what: a value's name in errors. pixels: whether features are brightness. about:
    what was left out of a training file, see data.card. notes: the same of a file to predict.
    """

    x: Array
    y: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    where: str
    what: str = "x"
    pixels: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def check_values(part: Part, schema: Schema) -> None:
    """Raises InputError for a value that is no number, or that float32 does not hold."""
    if part.x.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        wrong = ~np.isfinite(part.x.astype(np.float32))
    if wrong.any():
        row, *place = (int(i) for i in np.argwhere(wrong)[0])
        column = f", column {quoted(schema.columns[place[0]])}" if schema.columns else ""
        value = part.x[row, *place]
        kind = "" if not np.isfinite(value) else ", more than a network's float32 holds"
        raise InputError(
            f"{part.where}: {part.what} is {value:g}{kind} in row {row}{column}; remove the row or "
            "fill in a number"
        )


def table_schema(opened: TableFile, source: Source) -> Schema:
    """Returns which column of a training file is what. Raises InputError, with the columns, if the
    file does not say it."""
    header = not isinstance(source.label, int) and not all(opened.numbers())
    names = list(opened.first) if header else list(map(str, range(len(opened.first))))
    label = _label(opened, source.label, names, header=header)
    check_names(names)
    ignored = [_name_of(wanted, names) for wanted in source.ignore]
    if label in ignored:
        raise InputError(f"column {quoted(label)} has the labels; take it out of ignore")
    columns = tuple(n for n in names if n and n != label and n not in ignored)
    return Schema(columns=columns, header=header, label=label, left_out=tuple(ignored))


def _label(opened: TableFile, label: str | int, names: list[str], *, header: bool) -> str:
    """Returns the column with the labels: by its name, its number, or a usual name."""
    there = f"there are {brief_names([name or '(no name)' for name in names])}"
    if isinstance(label, int):
        if opened.stored is not None:
            stored = brief_names(opened.first)
            raise InputError(f"has column names, so label must be one of them; there are {stored}")
        if not -len(names) <= label < len(names):
            raise InputError(f"has no column {label}; it has {len(names)}, 0 to {len(names) - 1}")
        return names[label]
    if label and header and label not in names:
        raise InputError(f"has no column {quoted(label)}; {there}")
    if label and not header:
        raise InputError(
            "has no header, so label must be a column's number, such as -1 for the last one; there "
            f"are {len(names)} columns"
        )
    remedy = f'dataset = {{ file = "{opened.path.name}", label = … }}'
    if header:
        return label or _guessed_label(names, opened.numbers(), remedy, there)
    if len(names) != MNIST_PIXELS + 1:
        raise InputError(
            "has no header; say which column has the labels by its number, -1 for the last one: "
            f"{remedy}; its first row is {brief_names(opened.first)}"
        )
    return names[0]


def _guessed_label(names: list[str], numbers: Sequence[bool], remedy: str, there: str) -> str:
    """Returns the only column of a usual name, if it is the first or the last column."""
    if any(numbers):
        cell = names[list(numbers).index(True)]
        raise InputError(
            f"its first line holds {quoted(cell)}, a number, so it may be no header; name the "
            f"column with the labels, or give its number if there is no header: {remedy}; {there}"
        )
    usual = [name for name in names if name.lower() in LABELS]
    if len(usual) == 1 and usual[0] in (names[0], names[-1]):
        return usual[0]
    why = f"has no column named {', '.join(LABELS)}"
    if usual:
        many = f"has several columns that may have the labels, {', '.join(usual)}"
        why = many if len(usual) > 1 else f"has the column {quoted(usual[0])} in the middle"
    raise InputError(f"{why}; say which has the labels, in the study file: {remedy}; {there}")


def check_names(names: Sequence[str]) -> None:
    twice = next((name for name in names if name and list(names).count(name) > 1), None)
    if twice is not None:
        raise InputError(f"has two columns named {quoted(twice)}; give each another name")


def _name_of(wanted: str | int, names: Sequence[str]) -> str:
    """Returns the column that `ignore` names, by its name or its number."""
    if isinstance(wanted, int) and -len(names) <= wanted < len(names):
        return names[wanted]
    if wanted not in names:
        raise InputError(f"ignore: has no column {quoted(wanted)}; there are {brief_names(names)}")
    return str(wanted)


def table_part(opened: TableFile, schema: Schema) -> tuple[Part, Schema]:
    """Reads a training table, without the columns that count its rows."""
    frame = frame_of(opened, schema.header, schema.label)
    about: dict[str, Any] = {"index": [opened.index] if opened.index else []}
    about |= {"unnamed": opened.first.count(""), "ignored": list(schema.left_out)}
    about["counted"] = [n for n in schema.columns if n.lower() in ROW_NAMES and _counts(frame[n])]
    columns = tuple(n for n in schema.columns if n not in about["counted"])
    if schema.header and all(map(PIXELS.fullmatch, columns)):  # row by row, as pictures are
        columns = tuple(sorted(columns, key=_place))
    schema = replace(schema, columns=columns, left_out=(*schema.left_out, *about["counted"]))
    if not columns:
        raise InputError("has no columns of features beside the labels; give some")
    part = replace(part_of(frame, schema, opened.path), about=about)
    mnists = len(columns) == MNIST_PIXELS and not schema.header
    named = mnists or (schema.header and all(map(PIXELS.fullmatch, columns)))
    if named and (side := _side(part.x)):
        pixels = part.x.astype(np.uint8).reshape(-1, side, side)
        part = replace(part, x=pixels, pixels=True)
    kinds = tuple(KINDS[frame[n].dtype.kind] for n in columns)
    return part, replace(schema, kinds=() if part.pixels else kinds)


KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float"}


def _place(name: str) -> list[int]:
    """Returns the numbers in the name of a pixel's column: 7 in pixel7, 2 and 3 in 2x3."""
    return [int(number) for number in re.findall(r"\d+", name)]


def frame_of(opened: TableFile, header: bool, label: str) -> "pd.DataFrame":
    """Returns the rows with the columns' names; without a header these are positions."""
    names = list(opened.first) if header else list(map(str, range(len(opened.first))))
    place = names.index(label) if label in names else None
    frame = opened.read(header=header, label=place)
    if not header and opened.stored is None and readers.is_header(frame):
        raise InputError(
            "has a header, and its columns are asked for by number; give the label's name, or "
            f"leave out the header; there are {brief_names(opened.first)}"
        )
    return frame.set_axis(names, axis=1)


def part_of(frame: "pd.DataFrame", schema: Schema, path: Path, *, gaps: bool = False) -> Part:
    """Returns the columns of the schema as numbers, and the labels if they are there. gaps: whether
    some labels may lack."""
    if not len(frame):
        raise InputError("holds 0 rows; give some")
    x = _numbers(frame, schema.columns)
    labels: Any = {"y": _labels(frame[schema.label], gaps=gaps)} if schema.label in frame else {}
    return Part(x=x, where=str(path), what="a value", **labels)


def _labels(cells: "pd.Series", *, gaps: bool) -> Array:
    """Returns labels as they are written: whole numbers, or text. gaps: whether some may lack."""
    if cells.dtype.kind in "iuf" and not cells.isna().any():
        return np.asarray(cells)
    text = cells.astype(object).where(cells.notna(), "").astype(str)
    if (text == "").any() and not gaps:
        row = int(np.flatnonzero(text == "")[0])
        raise InputError(f"column {quoted(cells.name)} has no label in row {row}; fill it in")
    if all(map(WHOLE.fullmatch, text)):
        return np.asarray(text.astype(np.int64))
    numbers = all(map(NUMBER.fullmatch, text.str.lower()))
    return np.asarray(text.astype(float)) if numbers else np.asarray(text, dtype=str)


def _numbers(frame: "pd.DataFrame", columns: Sequence[str]) -> Array:
    """Returns the columns as numbers. Raises InputError that names columns of text or with gaps."""
    text = [name for name in columns if frame[name].dtype.kind not in "iufb"]
    if text:
        cells = frame[text[0]]
        words = [str(v) for v in cells if not readers.is_number(str(v)) and v == v]
        word = quoted(words[0] if words else str(cells.iloc[0]))
        listed, given = (", ".join(map(of, text[:5])) for of in (quoted, _toml))
        rest = " …" if len(text) > 5 else ""
        is_no = "are no numbers" if len(text) > 1 else "is no number"
        raise InputError(
            f"column{'s' * (len(text) > 1)} {listed}{rest} {is_no}, such as {word}; leave out "
            f"(ignore = [{given}{rest}]), or turn text into numbers (pandas.get_dummies)"
        )
    large = [n for n in columns if frame[n].dtype.kind in "iu" and (frame[n].abs() > EXACT).any()]
    if large:
        raise InputError(
            f"column {quoted(large[0])} has whole numbers above 2**53, which lose their last "
            "digits; leave it out (ignore)"
        )
    numbers: Array = frame[list(columns)].to_numpy(dtype=np.float64, na_value=np.nan)
    return numbers


def _toml(name: str) -> str:
    return name if name.isdecimal() else quoted(name).replace("'", '"')


def _side(x: Array) -> int:
    """Returns the side of square pictures whose pixels the rows may be; 0 if they are none."""
    side = round(np.sqrt(x.shape[1]))
    square = side**2 == x.shape[1] and side > 1 and np.isfinite(x).all()
    whole = square and bool((x == np.floor(x)).all() and x.min() >= 0 and x.max() <= 255)
    return side if whole else 0


def _counts(column: Any) -> bool:
    """Whether a column counts: whole numbers that rise from row to row."""
    if column.dtype.kind not in "iu" or len(column) < 3:
        return False
    return bool((np.diff(column.to_numpy(dtype=np.float64)) > 0).all())


def suspects(part: Part, labels: NDArray[np.int64], schema: Schema) -> dict[str, Any]:
    """Returns the columns of a table that count its rows, determine the label alone, or never
    change."""
    rows = part.x.reshape(len(part.x), -1)
    if part.pixels:
        return {}
    counting, telling, constant = [], [], []
    for name, kind, values in zip(schema.columns, schema.kinds, rows.T, strict=True):
        if kind == "int" and len(values) > 2 and (np.diff(values) == 1).all():
            counting.append(name)
        elif (values == values[0]).all():
            constant.append(name)
        elif _determines(values, labels):
            telling.append(name)
    return {"counting": counting, "telling": telling, "constant": constant}


def _determines(values: Array, labels: NDArray[np.int64]) -> bool:
    """Whether each value of a column stands beside one label alone, and most rows share theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(counts) < 2 or counts[places].mean() < 2 or (counts == 1).sum() > len(values) / 2:
        return False
    pairs = np.unique(np.stack([places, labels]), axis=1)
    return bool(pairs.shape[1] == len(counts))
