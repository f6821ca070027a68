"""Where a study's data come from: a known dataset, or files of the user's."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import Field, WrapValidator

from hpo.study.fields import Table, Text, explained, fault
from hpo.study.names import DATASETS, FORMS, ColumnKind, Scaling, TaskKind, label
from hpo.text import meant, quoted

FILES = (".npz", ".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True)
class Source:
    """Where data come from.

    name: a known dataset, or the path of a file or folder.
    test: the file with the test part; empty: the first file's own, or a part that is held out.
    label: the column with the labels, by its name, or by its number in a file without a header;
        empty: a usual name.
    ignore: columns to leave out.
    columns: (name, kind) of the columns whose kind is not left to hpo.
    scale: how the numbers of a table are normalized.
    valid: the file with the rows that all seeds validate on.
    time: the column that puts rows in order: the last ones are tested on, those before them
        validated on.
    group: the column whose rows of one value stand in one part: those of a patient.
    task: what is learned; None: fractions are numbers to predict, other labels are classes.
    """

    name: str
    test: str = ""
    label: str | int = ""
    ignore: tuple[str | int, ...] = ()
    columns: tuple[tuple[str, ColumnKind], ...] = ()
    scale: Scaling = "standard"
    valid: str = ""
    time: str | int = ""
    group: str | int = ""
    task: TaskKind | None = None

    @property
    def known(self) -> bool:
        return self.name in DATASETS

    @property
    def short(self) -> str:
        """Returns the name of the dataset: a known one, or the name of the file."""
        return self.name if self.known else Path(self.name).resolve().name

    @property
    def title(self) -> str:
        """Returns the name in reports."""
        return label(DATASETS, self.short)

    def within(self, folder: Path) -> "Source":
        """Returns the source with relative paths that start from `folder`."""
        if self.known:
            return self
        test, valid = (str(folder / name) if name else "" for name in (self.test, self.valid))
        return replace(self, name=str(folder / self.name), test=test, valid=valid)


def fault_in(name: str) -> str | None:
    """Returns what is wrong with the name of a dataset; None for a known one and for a path."""
    if name in DATASETS or name.lower().endswith(FILES) or "/" in name or "\\" in name:
        return None
    near = meant(name, DATASETS)
    return f"must be one of {', '.join(DATASETS)}, or {FORMS}, got {quoted(name)}{near}"


Column = Annotated[str | int, explained("must be a name or a whole number")]
_LISTED = explained("must be a list of names or whole numbers")
_KINDS = explained(f"must be a table of columns, each {', '.join(get_args(ColumnKind))}")


class SourceTable(Table):
    """The user's own data. file: the path of an .npz, .csv or .parquet file, or of a folder with a
    folder of images for each class. test, valid: other files with the rows to test on and to
    validate on. label: the column with the labels: its name, or its number in a file without a
    header (-1: the last one). ignore: columns to leave out. columns: the kinds of columns: number,
    category, date or ignore. time: the column that puts rows in order: the last are tested on.
    group: the column whose rows of one value stand in one part."""

    file: Text
    test: Text = ""
    valid: Text = ""
    label: Column = ""
    time: Column = ""
    group: Column = ""
    ignore: Annotated[tuple[Column, ...], Field(strict=False), _LISTED] = ()
    columns: Annotated[dict[str, ColumnKind], _KINDS] = Field(default_factory=dict)


def _read(value: Any, handler: Any) -> Source:
    if isinstance(value, dict):
        table = SourceTable.model_validate(value)
        kinds = tuple(table.columns.items())
        more: Any = {"columns": kinds, **{k: getattr(table, k) for k in ("valid", "time", "group")}}
        source = Source(table.file, table.test, table.label, table.ignore, **more)
        if table.valid and table.time != "":
            raise fault("time says which rows to validate on; leave out valid")
        if table.group != "" and (table.valid or table.time != ""):
            other = "valid" if table.valid else "time"
            raise fault(f"group draws the parts, and so does {other}; leave out one of them")
    elif isinstance(value, str):
        source = Source(value)
    else:
        known = ", ".join(DATASETS)
        raise fault(f"must be one of {known}, a path or a table with file, got {quoted(value)}")
    if wrong := fault_in(source.name):
        raise fault(wrong)
    return source


if TYPE_CHECKING:
    SourceField = Source  # what the field holds
else:
    _Name = Annotated[str, Field(examples=list(DATASETS))]
    SourceField = Annotated[_Name | SourceTable, WrapValidator(_read)]
