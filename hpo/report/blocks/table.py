"""Tables of typed entries: one definition for pages, Markdown, the terminal and programs."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple

from hpo.language import printed

NOTHING = "–"  # what an entry without a value shows


class Entry(NamedTuple):
    """What a person reads, and the number that it is sorted by; None: a text, or no value."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    key: its name in code.
    header: its name for people.
    value: the number or the text of a row, None or NaN without one; or the whole entry.
    text: how a person reads the value, as a format.
    group: the header above this column and its neighbours of the same group.
    short: its header in the terminal, where that is another one.
    priority: a narrow terminal leaves out the columns of the highest priority first, 0 never.
    wraps: whether a narrow terminal may break its entries into lines.
    """

    key: str
    header: str
    value: Callable[[Any], float | str | Entry | None]
    text: str = "{}"
    _: KW_ONLY
    group: str = ""
    short: str = ""
    priority: int = 0
    wraps: bool = False

    def entry(self, row: Any) -> Entry:
        """Returns the column's entry of a row."""
        value = self.value(row)
        if isinstance(value, Entry):
            return value
        if isinstance(value, str):
            return Entry(self.text.format(value))
        if value is None or math.isnan(value):
            return Entry(NOTHING)
        return Entry(printed(self.text, value), float(value))


@dataclass(kw_only=True)
class HeaderCell:
    """A cell of a table's header. across, down: columns and rows that it spans. column: the only
    column below it. sub: whether a group stands above it."""

    text: str
    across: int = 1
    down: int = 1
    column: int | None = None
    sub: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table. rows: whatever its columns know how to read."""

    columns: Sequence[Column]
    rows: Sequence[Any]
    caption: str = ""

    def only(self, keys: Iterable[str]) -> "Table":
        """Returns the table with these columns in this order; keys without a column do not
        matter."""
        by_key = {column.key: column for column in self.columns}
        return replace(self, columns=[by_key[key] for key in keys if key in by_key])

    def but(self, *keys: str) -> "Table":
        """Returns the table without these columns."""
        return replace(self, columns=[c for c in self.columns if c.key not in keys])

    @cached_property
    def entries(self) -> list[list[Entry]]:
        """Returns the entries row by row, in the language of the first call."""
        return [[column.entry(row) for column in self.columns] for row in self.rows]

    @property
    def texts(self) -> list[list[str]]:
        """Returns what a person reads, row by row."""
        return [[entry.text for entry in row] for row in self.entries]

    @property
    def flat_headers(self) -> list[str]:
        """Returns one header per column, for Markdown: "Test loss, reported"."""
        return [f"{c.group}, {c.header}" if c.group else c.header for c in self.columns]

    @property
    def header_rows(self) -> list[list[HeaderCell]]:
        """Returns the header's cells in one row, or in two if there are groups."""
        grouped = any(column.group for column in self.columns)
        first: list[HeaderCell] = []
        second: list[HeaderCell] = []
        below: list[str] = []  # the headers of the group so far
        for number, column in enumerate(self.columns):
            if not column.group:
                down = 2 if grouped else 1
                first.append(HeaderCell(text=column.header, down=down, column=number))
                below = []
                continue
            # Two groups may have one name: then the second begins where a header comes again.
            if below and first[-1].text == column.group and column.header not in below:
                first[-1].across += 1
            else:
                first.append(HeaderCell(text=column.group))
                below = []
            below.append(column.header)
            second.append(HeaderCell(text=column.header, column=number, sub=True))
        return [first, second] if second else [first]


def facts(headers: tuple[str, str], rows: Sequence[Sequence[str]]) -> Table:
    """Returns a table of two columns of text."""
    columns = [
        Column(key, header, itemgetter(place))
        for place, (key, header) in enumerate(zip(("what", "value"), headers, strict=True))
    ]
    return Table(columns=columns, rows=rows)
