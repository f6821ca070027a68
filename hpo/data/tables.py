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

from hpo.data.cells import (
    DATE,
    EXACT,
    IGNORE,
    NO_LABEL,
    check_commas,
    codes_of,
    date_parts,
    decimal_commas,
    kind_of,
    level_kind,
    numbers_of,
    plain_texts,
    texts_of,
    times_of,
)
from hpo.data.readers import SPELLINGS, Table, each
from hpo.data.schema import (
    CATEGORY,
    DATE_PARTS,
    FEW,
    Array,
    Floats64,
    Schema,
    brief_names,
    square,
)
from hpo.errors import InputError
from hpo.study.names import ColumnKind
from hpo.study.source import Source
from hpo.text import meant, quoted

if TYPE_CHECKING:
    import pandas as pd

LABELS = ("label", "class", "target", "y")  # usual names of the column with the labels
ROW_NAMES = ("id", "index", "rownames", "row")  # columns that name a row
PIXELS = re.compile(r"pixel_?\d+|\d+x\d+", re.IGNORECASE)  # columns of MNIST's CSV files
MNIST_PIXELS = 784
WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")  # 01 and +1 are text
NUMBER = re.compile(r"-?((0|[1-9]\d*)(\.\d*)?|\.\d+)(e[+-]?\d+)?")

NO_LABELS = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Examples as a file holds them."""

    x: Array  # features (N, …)
    y: Array = field(default_factory=lambda: NO_LABELS)  # (N,)
    where: str  # the file
    what: str = "x"  # a value's name in errors
    pixels: bool = False  # whether features are brightness
    times: Floats64 | None = None  # (N,), rising, if a column says the time
    groups: NDArray[np.int64] | None = None  # (N,), if a column says which rows stand together
    validates: bool = False  # whether all seeds validate on it
    about: Mapping[str, Any] = field(default_factory=dict)  # of a training file, see data.card
    notes: tuple[str, ...] = ()  # what is to be said of a file to predict


# --- which column is what ----------------------------------------------------------------------


def table_schema(table: Table, source: Source) -> Schema:
    """Returns which column of a training file is what. Raises InputError, with the columns, if the
    file does not say it."""
    wanted, numbers = source.label, all(table.numbers())
    if isinstance(wanted, int) and str(wanted) in table.first and not numbers:
        wanted = str(wanted)  # the name of a column, such as 2021
    header = not isinstance(wanted, int) and not numbers
    counting = tuple(map(str, range(len(table.first))))
    if not header and len(counting) > 2 and table.first == counting:
        raise InputError(
            "its first row counts the columns, 0, 1, 2 and so on, as pandas writes it; write the "
            "file again with header=False, or with names"
        )
    names = table.names(header=header)
    label = _label(table, wanted, names, header=header)
    check_names(names)
    ignored = [_name_of(each, names) for each in source.ignore]
    for key in ("time", "group"):
        if (given := getattr(source, key)) != "":
            ignored.append(_name_of(given, names, key))
    if label in ignored:
        raise InputError(
            f"column {quoted(label)} has the labels; take it out of ignore, time and group"
        )
    columns = tuple(n for n in names if n and n != label and n not in ignored)
    return Schema().replace(
        columns=columns, header=header, label=label, left_out=tuple(ignored), pixels=False,
        scale=source.scale,
    )  # fmt: skip


def _asked_kinds(source: Source, schema: Schema, names: Sequence[str]) -> dict[str, ColumnKind]:
    """Returns the kinds that the study file gives, by the columns' names."""
    asked: dict[str, ColumnKind] = {}
    for given, kind in source.columns:
        number = given not in names and given.lstrip("-").isdecimal() and not schema.header
        name = _name_of(int(given) if number else given, names, "columns")
        if name == schema.label:
            raise InputError(f"column {quoted(name)} has the labels; take it out of columns")
        asked[name] = kind
    return asked


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
        label = label.strip()
        if label and label not in names:
            raise InputError(f"has no column {quoted(label)}; {there}{meant(label, names)}")
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


def _name_of(wanted: str | int, names: Sequence[str], key: str = "ignore") -> str:
    """Returns the column that `ignore` or `columns` names, by its name or its number."""
    if isinstance(wanted, int) and -len(names) <= wanted < len(names):
        return names[wanted]
    if wanted not in names:
        there = f"there are {brief_names(names)}{meant(str(wanted), names)}"
        raise InputError(f"{key}: has no column {quoted(wanted)}; {there}")
    return str(wanted)


def read_as(table: Table, schema: Schema) -> tuple["pd.DataFrame", Schema, tuple[str, ...]]:
    """Reads a file as the training data of a schema: the columns of the schema by their names;
    without names, by their order. Returns the schema with these names, and what is to be said."""
    if schema.columns and schema.header:
        notes, names, label = _left_out(table, schema), list(table.first), schema.label
        return _frame(table, names, schema, label), schema, notes
    header = not schema.columns and not all(table.numbers())
    names, label = table.names(header=header), ""
    wanted = len(schema.asked) or schema.features
    if header:
        usual = [n for n in {names[0], names[-1]} if n.lower() in LABELS]
        label = usual[0] if len(usual) == 1 and len(names) == wanted + 1 else ""
    elif not schema.columns and wanted == MNIST_PIXELS == len(names) - 1:
        label = names[0]
    elif schema.columns and len(names) == wanted + len(schema.left_out) + 1:
        return _frame(table, names, schema, schema.label), schema, ()  # all columns of training
    columns = tuple(name for name in names if name != label)
    if len(columns) != wanted:
        raise InputError(
            f"has {len(columns)} columns of features ({brief_names(columns)}), and the network "
            f"takes {wanted}; give those of its training"
        )
    check_names(columns)
    if schema.columns:
        return _frame(table, list(schema.asked), schema, ""), schema, ()
    notes = ("its columns are taken in their order: the network knows no names",) if header else ()
    schema = schema.replace(columns=columns, label=label, header=header)
    return _frame(table, names, schema, label), schema, notes


def _frame(table: Table, names: list[str], schema: Schema, label: str) -> "pd.DataFrame":
    """Reads the rows, categories and dates as text. names: of the file's columns."""
    texts = {*schema.levels, *schema.dates}
    return table.read(header=schema.header, names=names, label=label, texts=texts)


def _left_out(table: Table, schema: Schema) -> tuple[str, ...]:
    """Says which columns are not the schema's. Raises InputError if it has others."""
    names, known = table.first, {*schema.asked, schema.label}
    missing = [name for name in schema.asked if name not in names]
    if missing and all(table.numbers()):
        raise InputError(
            f"has no header; the network takes columns named {brief_names(schema.asked)}"
        )
    if missing:
        raise InputError(
            f"has no column {', '.join(quoted(name) for name in missing[:5])}; the network takes "
            f"{brief_names(schema.asked)}, and there are {brief_names(names)}"
        )
    check_names([name for name in names if name in known])
    others = [name or "(no name)" for name in names if name not in known]
    return (f"left out: {brief_names(others)}",) if others else ()


# --- columns as numbers and labels -------------------------------------------------------------


def table_part(table: Table, source: Source) -> tuple[Part, Schema]:
    """Reads a training table: rows with a label, columns that may tell something."""
    schema = table_schema(table, source)
    names = table.names(header=schema.header)
    asked = _asked_kinds(source, schema, names)
    texts = {name for name, kind in asked.items() if kind in (CATEGORY, DATE)}
    texts |= table.codes(names)
    frame = table.read(header=schema.header, names=names, label=schema.label, texts=texts)
    if not len(frame):
        raise InputError("holds 0 rows; give some")
    frame, unlabelled = _labelled(frame, schema.label)
    frame, times = _in_order(frame, schema, source)
    counted = [n for n in schema.columns if n not in asked and _names_rows(frame, n)]
    columns = [n for n in schema.columns if n not in counted]
    kinds = dict(zip(columns, each(lambda n: _kind(frame[n], asked.get(n)), columns), strict=True))
    ignored = [name for name, kind in kinds.items() if kind == IGNORE and name not in asked]
    about = {
        "index": [table.index] if table.index else [],
        "unnamed": names.count(""),
        "ignored": [*schema.left_out, *(n for n in columns if asked.get(n) == IGNORE)],
        "counted": counted,
        "empty": [n for n in ignored if not any(texts_of(frame[n]))],
        "rare": [n for n in ignored if any(texts_of(frame[n]))],
        "unlabelled": unlabelled,
    }
    left_out = (*schema.left_out, *counted, *(n for n in columns if kinds[n] == IGNORE))
    schema = _with_columns(schema.replace(left_out=left_out), frame, kinds)
    part = replace(part_of(table, frame, schema), times=times, groups=_groups(frame, source))
    gaps = _gaps(part.x, schema)
    part = replace(part, about={**about, "gaps": gaps})
    schema = schema.replace(gaps=tuple(name for name in gaps if name not in schema.levels))
    shape = _picture_shape(schema)
    if shape and (pixels := as_pixels(part.x, shape)) is not None:
        return replace(part, x=pixels, pixels=True), schema.replace(kinds=(), median=None)
    return part, schema


def _in_order(
    frame: "pd.DataFrame", schema: Schema, source: Source
) -> tuple["pd.DataFrame", Floats64 | None]:
    """Returns the rows in the order of their times, and the times, if the study file names them."""
    if source.time == "":
        return frame, None
    cells = frame[_name_of(source.time, list(frame.columns), "time")]
    times = times_of(cells)
    order = np.argsort(times, kind="stable")
    return frame.iloc[order].reset_index(drop=True), times[order]


def _groups(frame: "pd.DataFrame", source: Source) -> NDArray[np.int64] | None:
    """Returns the number of each row's group, if the study file names their column. Raises
    InputError for a gap: hpo cannot tell which rows stand together."""
    if source.group == "":
        return None
    name = _name_of(source.group, list(frame.columns), "group")
    texts = texts_of(frame[name])
    if (texts == "").any():
        row = int(np.flatnonzero(texts == "")[0])
        raise InputError(f"group: row {row} has no value in column {quoted(name)}; fill it in")
    return np.unique(texts.astype(str), return_inverse=True)[1].astype(np.int64)


def _gaps(x: Array, schema: Schema) -> dict[str, int]:
    """Returns how many gaps each column has that has some."""
    found = {}
    for name, values in zip(schema.columns, x.T, strict=True):
        levels = schema.levels.get(name, ())
        gaps = values == levels.index("") if "" in levels else np.isnan(values)
        found[name] = int(gaps.sum())
    return {name: count for name, count in found.items() if count}


def _picture_shape(schema: Schema) -> tuple[int, ...]:
    """Returns the shape of the pictures that the columns are, by their names; () if none."""
    named_pixels = schema.header and all(map(PIXELS.fullmatch, schema.columns))
    is_mnist = len(schema.columns) == MNIST_PIXELS and not schema.header
    return square(len(schema.columns)) if named_pixels or is_mnist else ()


def _kind(cells: "pd.Series", asked: ColumnKind | None) -> str:
    """Returns the kind of a training column, as Schema.kinds has it, or "date" or "ignore"."""
    if asked == CATEGORY:
        return level_kind(str(cells.name), texts_of(cells), asked=True)
    if asked == "number":
        return kind_of(cells) if cells.dtype.kind in "iufb" else "float"
    return asked or kind_of(cells)


def _with_columns(schema: Schema, frame: "pd.DataFrame", kinds: Mapping[str, str]) -> Schema:
    """Returns the schema of columns of these kinds; the levels are all that the frame has."""
    dates = tuple(name for name, kind in kinds.items() if kind == DATE)
    columns = [name for name, kind in kinds.items() if kind not in (DATE, IGNORE)]
    if schema.header and all(map(PIXELS.fullmatch, columns)):  # row by row, as pictures are
        columns.sort(key=lambda n: list(map(int, re.findall(r"\d+", n))))
    made = [f"{date} {part}" for date in dates for part in DATE_PARTS]
    if not columns and not made:
        raise InputError("has no columns of features beside the labels; give some")
    check_names([*columns, *made])
    categories = [name for name in columns if kinds[name] == CATEGORY]
    return schema.replace(
        columns=(*columns, *made),
        kinds=(*(kinds[name] for name in columns), *["int"] * len(made)),
        levels={name: tuple(sorted(set(texts_of(frame[name])))) for name in categories},
        dates=dates,
        median=0.0,  # until it is measured
    )


def part_of(table: Table, frame: "pd.DataFrame", schema: Schema) -> Part:
    """Returns the columns of the schema as numbers, and the labels if they are there, "" where one
    lacks."""
    if not len(frame):
        raise InputError("holds 0 rows; give some")
    check_commas([frame[n] for n in schema.columns if n in frame and n not in schema.levels])
    parts = {f"{date} {p}": v for date in schema.dates for p, v in date_parts(frame[date]).items()}

    def column(name: str) -> Array:
        if name in schema.levels:
            return codes_of(frame[name], schema.levels[name])
        kind = schema.kinds[schema.columns.index(name)] if schema.kinds else ""
        return parts[name] if name in parts else numbers_of(frame[name], kind)

    x = np.stack(each(column, schema.columns), axis=1)
    part = Part(x=x, where=str(table.path), what="a value")
    labelled = schema.label and schema.label in frame
    return replace(part, y=_labels(frame[schema.label])) if labelled else part


def _labelled(frame: "pd.DataFrame", label: str) -> tuple["pd.DataFrame", int]:
    """Returns the rows that have a label, and how many have none."""
    labels = _labels(frame[label])
    there = labels != "" if labels.dtype.kind == "U" else np.ones(len(labels), bool)
    if len(frame) and not there.any():
        raise InputError(f"no row has a label in column {quoted(label)}; fill them in")
    if there.all():
        return frame, 0
    return frame[there].reset_index(drop=True), int((~there).sum())


def with_labels(part: Part) -> tuple[Part, int]:
    """Returns the rows that have a label, and how many have none."""
    if part.y.dtype.kind != "U" or not (absent := part.y == "").any():
        return part, 0
    if absent.all():
        raise InputError("no row has a label; fill them in")
    return replace(part, x=part.x[~absent], y=_typed(part.y[~absent])), int(absent.sum())


def remarks(part: Part, schema: Schema) -> tuple[str, ...]:
    """Says what rows have that training lacks: gaps and levels. Raises InputError for a category
    of which no row has a known level."""
    said = []
    for name, values in zip(schema.columns, part.x.T, strict=True):
        if name not in schema.levels:
            absent = int(np.isnan(values).sum()) if name not in schema.gaps else 0
            text = "gaps in {}, which training lacks; the median stands in them: {}"
        else:
            unseen = values == len(schema.levels[name])
            absent = int(unseen.sum()) if name not in schema.merged else 0
            text = "rows with a text in {} that training lacks: {}"
            if absent == len(values) >= FEW:
                raise InputError(
                    f"column {quoted(name)} has no level that training knows "
                    f"({brief_names(schema.levels[name])}); give it as in training"
                )
        said += [text.format(quoted(name), f"{absent:,}")] * (absent > 0)
    return tuple(said)


def as_pixels(x: Array, shape: Sequence[int]) -> Array | None:
    """Returns rows as pictures of bytes; None if some number is no byte."""
    whole = (x == np.floor(x)) & (x >= 0) & (x <= 255)
    return x.astype(np.uint8).reshape(-1, *shape) if whole.all() else None


def _labels(cells: "pd.Series") -> Array:
    """Returns labels as they are written, whole numbers or text; as text if some lack, "" there."""
    if cells.dtype.kind in "iuf" and not cells.isna().any():
        return np.asarray(cells)
    text = plain_texts(cells)
    lower = np.char.lower(text)
    words = set(lower.tolist()) - {*SPELLINGS}
    numbers = bool(words) and (all(map(NUMBER.fullmatch, words)) or decimal_commas(words))
    # "NA" and "None" may be names of classes.
    absent = np.isin(lower, SPELLINGS if numbers else NO_LABEL)
    text[absent] = ""
    return text if absent.any() else _typed(text)


def _typed(text: Array) -> Array:
    """Returns labels as whole numbers or numbers if all are, else as text."""
    if decimal_commas(found := set(text.tolist())):
        return np.char.replace(text, ",", ".").astype(np.float64)
    if all(map(WHOLE.fullmatch, found)):
        return text.astype(np.int64)
    if not all(NUMBER.fullmatch(word.lower()) for word in found):
        return text
    numbers = text.astype(np.float64)
    whole = bool((numbers == np.floor(numbers)).all() and (np.abs(numbers) < EXACT).all())
    return numbers.astype(np.int64) if whole else numbers


def _names_rows(frame: "pd.DataFrame", name: str) -> bool:
    """Whether a column of a usual name counts: whole numbers that rise from row to row."""
    column = frame[name]
    whole = name.lower() in ROW_NAMES and column.dtype.kind in "iu" and len(column) > 2
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
    _, firsts, places, counts = np.unique(
        values, return_index=True, return_inverse=True, return_counts=True
    )
    if len(counts) < 2 or counts[places].mean() < 2 or (counts == 1).sum() > len(values) / 2:
        return False
    return bool((labels[firsts][places] == labels).all())
