"""Tables of the user's own: which column is what, and the columns as numbers and labels.

A schema says which column is what. `table_schema` finds it for a training file, `schema_like` for a
file that goes with it; `part_of` reads both.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpo.data import readers
from hpo.data.readers import Table
from hpo.data.schema import Array, Schema, brief_names, square
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
KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float"}  # of columns, by numpy's letters


NO_LABELS = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Examples as a file holds them."""

    x: Array  # features (N, …)
    y: Array = field(default_factory=lambda: NO_LABELS)  # (N,)
    where: str  # the file
    what: str = "x"  # a value's name in errors
    pixels: bool = False  # whether features are brightness
    about: Mapping[str, Any] = field(default_factory=dict)  # of a training file, see data.card
    notes: tuple[str, ...] = ()  # what is to be said of a file to predict


# --- which column is what ----------------------------------------------------------------------


def table_schema(table: Table, source: Source) -> Schema:
    """Returns which column of a training file is what. Raises InputError, with the columns, if the
    file does not say it."""
    header = not isinstance(source.label, int) and not all(table.numbers())
    names = table.names(header=header)
    label = _label(table, source.label, names, header=header)
    check_names(names)
    ignored = [_name_of(wanted, names) for wanted in source.ignore]
    if label in ignored:
        raise InputError(f"column {quoted(label)} has the labels; take it out of ignore")
    columns = tuple(n for n in names if n and n != label and n not in ignored)
    return Schema().replace(columns=columns, header=header, label=label, left_out=tuple(ignored))


def _label(table: Table, label: str | int, names: list[str], *, header: bool) -> str:
    """Returns the column with the labels: by its name, its number, or a usual name."""
    there = f"there are {brief_names([name or '(no name)' for name in table.first])}"
    remedy = f'dataset = {{ file = "{table.path.name}", label = … }}'
    if isinstance(label, int):
        if table.stored is not None:
            raise InputError(f"has column names, so label must be one of them; {there}")
        if not -len(names) <= label < len(names):
            raise InputError(f"has no column {label}; it has {len(names)}, 0 to {len(names) - 1}")
        return names[label]
    if header:
        if label and label not in names:
            raise InputError(f"has no column {quoted(label)}; {there}")
        return label or _guessed_label(names, table.numbers(), remedy, there)
    if label:
        raise InputError(
            "has no header, so label must be a column's number, such as -1 for the last one; there "
            f"are {len(names)} columns"
        )
    if len(names) != MNIST_PIXELS + 1:
        raise InputError(
            "has no header; say which column has the labels by its number, -1 for the last one: "
            f"{remedy}; its first row is {brief_names(table.first)}"
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
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise InputError(f"has two columns named {quoted(twice[0])}; give each another name")


def _name_of(wanted: str | int, names: Sequence[str]) -> str:
    """Returns the column that `ignore` names, by its name or its number."""
    if isinstance(wanted, int) and -len(names) <= wanted < len(names):
        return names[wanted]
    if wanted not in names:
        raise InputError(f"ignore: has no column {quoted(wanted)}; there are {brief_names(names)}")
    return str(wanted)


def schema_like(table: Table, schema: Schema) -> tuple[Schema, tuple[str, ...]]:
    """Returns which column of a file to predict is what, and what is to be said of it: the columns
    of the schema by their names; without names, by their order."""
    if schema.columns and schema.header:
        return schema, _left_out(table, schema)
    header = not schema.columns and not all(table.numbers())
    names, label = table.names(header=header), ""
    wanted = len(schema.columns) or schema.features
    if header:
        usual = [n for n in {names[0], names[-1]} if n.lower() in LABELS]
        label = usual[0] if len(usual) == 1 and len(names) == wanted + 1 else ""
    elif not schema.columns and wanted == MNIST_PIXELS == len(names) - 1:
        label = names[0]
    elif schema.columns and len(names) == wanted + len(schema.left_out) + 1:
        return schema, ()  # all columns of the training file
    columns = tuple(name for name in names if name != label)
    if len(columns) != wanted:
        raise InputError(
            f"has {len(columns)} columns of features ({brief_names(columns)}), and the network "
            f"takes {wanted}; give those of its training"
        )
    check_names(columns)
    notes = ("its columns are taken in their order: the network knows no names",) if header else ()
    return schema.replace(columns=columns, label=label, header=header), notes


def _left_out(table: Table, schema: Schema) -> tuple[str, ...]:
    """Says which columns are not the schema's. Raises InputError if it has others."""
    names, known = table.first, {*schema.columns, schema.label}
    missing = [name for name in schema.columns if name not in names]
    if missing and all(table.numbers()):
        raise InputError(
            f"has no header; the network takes columns named {brief_names(schema.columns)}"
        )
    if missing:
        raise InputError(
            f"has no column {', '.join(quoted(name) for name in missing[:5])}; the network takes "
            f"{brief_names(schema.columns)}, and there are {brief_names(names)}"
        )
    check_names([name for name in names if name in known])
    others = [name or "(no name)" for name in names if name not in known]
    return (f"left out: {brief_names(others)}",) if others else ()


# --- columns as numbers and labels -------------------------------------------------------------


def table_part(table: Table, schema: Schema) -> tuple[Part, Schema]:
    """Reads a training table, without the columns that count its rows."""
    frame = table.read(header=schema.header, label=schema.label)
    counted = [n for n in schema.columns if n.lower() in ROW_NAMES and _counts(frame[n])]
    columns = tuple(n for n in schema.columns if n not in counted)
    if not columns:
        raise InputError("has no columns of features beside the labels; give some")
    named_pixels = schema.header and all(map(PIXELS.fullmatch, columns))
    if named_pixels:  # row by row, as pictures are
        columns = tuple(sorted(columns, key=lambda n: list(map(int, re.findall(r"\d+", n)))))
    about = {
        "index": [table.index] if table.index else [],
        "unnamed": table.names(header=schema.header).count(""),
        "ignored": list(schema.left_out),
        "counted": counted,
    }
    schema = schema.replace(columns=columns, left_out=(*schema.left_out, *counted))
    part = replace(part_of(table, frame, schema), about=about)
    is_mnist = len(columns) == MNIST_PIXELS and not schema.header
    shape = square(len(columns)) if named_pixels or is_mnist else ()
    if shape and (pixels := as_pixels(part.x, shape)) is not None:
        return replace(part, x=pixels, pixels=True), schema
    return part, schema.replace(kinds=tuple(KINDS[frame[n].dtype.kind] for n in columns))


def part_of(table: Table, frame: "pd.DataFrame", schema: Schema, *, gaps: bool = False) -> Part:
    """Returns the columns of the schema as numbers, and the labels if they are there. gaps: whether
    some labels may lack."""
    if not len(frame):
        raise InputError("holds 0 rows; give some")
    part = Part(x=_numbers(frame, schema.columns), where=str(table.path), what="a value")
    labelled = schema.label and schema.label in frame
    return replace(part, y=_labels(frame[schema.label], gaps=gaps)) if labelled else part


def as_pixels(x: Array, shape: Sequence[int]) -> Array | None:
    """Returns rows as pictures of bytes; None if some number is no byte."""
    whole = (x == np.floor(x)) & (x >= 0) & (x <= 255)
    return x.astype(np.uint8).reshape(-1, *shape) if whole.all() else None


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
        listed = ", ".join(map(quoted, text[:5]))
        given = ", ".join(n if n.isdecimal() else quoted(n).replace("'", '"') for n in text[:5])
        rest = " …" if len(text) > 5 else ""
        is_no = "are no numbers" if len(text) > 1 else "is no number"
        raise InputError(
            f"column{'s' * (len(text) > 1)} {listed}{rest} {is_no}, such as {word}; leave out "
            f"(ignore = [{given}{rest}]), or turn text into numbers (pandas.get_dummies)"
        )
    whole = [name for name in columns if frame[name].dtype.kind in "iu"]
    if large := [name for name in whole if (frame[name].abs() > EXACT).any()]:
        raise InputError(
            f"column {quoted(large[0])} has whole numbers above 2**53, which lose their last "
            "digits; leave it out (ignore)"
        )
    numbers: Array = frame[list(columns)].to_numpy(dtype=np.float64, na_value=np.nan)
    return numbers


def _counts(column: Any) -> bool:
    """Whether a column counts: whole numbers that rise from row to row."""
    whole = column.dtype.kind in "iu" and len(column) > 2
    return whole and bool((np.diff(column.to_numpy(dtype=np.float64)) > 0).all())


def suspects(x: Array, labels: NDArray[np.int64], schema: Schema) -> dict[str, Any]:
    """Returns the columns of a table that count its rows, determine the label alone, or never
    change."""
    found: dict[str, list[str]] = {"counting": [], "telling": [], "constant": []}
    for name, kind, values in zip(schema.columns, schema.kinds, x.T, strict=True):
        if kind == "int" and len(values) > 2 and (np.diff(values) == 1).all():
            found["counting"].append(name)
        elif (values == values[0]).all():
            found["constant"].append(name)
        elif _determines(values, labels):
            found["telling"].append(name)
    return found


def _determines(values: Array, labels: NDArray[np.int64]) -> bool:
    """Whether each value of a column stands beside one label alone, and most rows share theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(counts) < 2 or counts[places].mean() < 2 or (counts == 1).sum() > len(values) / 2:
        return False
    pairs = np.unique(np.stack([places, labels]), axis=1)
    return bool(pairs.shape[1] == len(counts))
