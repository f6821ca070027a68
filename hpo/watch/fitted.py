"""A table in a terminal of any width: no key and no value is cut."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from hpo.report.blocks.table import Column, Table
from hpo.text import legible

GAP = 2  # between columns
LEAST = 16  # characters of a column that breaks its lines


@dataclass(frozen=True)
class Fitted:
    """A table for the terminal.

    Where it is too wide, headers break into lines, then long texts; then columns leave by their
    priority, and a line names them. Where the rest is too wide, each row becomes a card with a line
    for each column.
    """

    table: Table

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        columns = list(self.table.columns)
        while _least(self.table.only(c.key for c in columns)) > options.max_width:
            highest = max(column.priority for column in columns)
            if highest == 0:
                yield from _cards(self.table)
                return
            columns = [column for column in columns if column.priority < highest]
        shown = self.table.only(column.key for column in columns)
        yield _rich_table(shown, options.max_width)
        left_out = [_header(c) for c in self.table.columns if c not in columns]
        if left_out:
            yield Text(f"not shown for want of width: {', '.join(left_out)}")


def _header(column: Column) -> str:
    return legible(column.short or column.header)


def _widths(table: Table) -> list[tuple[int, int]]:
    """Returns of each column the least and the natural width."""
    widths = []
    for column, texts in zip(table.columns, zip(*table.texts, strict=True), strict=True):
        header, content = _header(column), max(map(cell_len, texts), default=0)
        natural = max(cell_len(header), content)
        least = min(content, LEAST) if column.wraps else content
        words = [cell_len(word) for word in header.split()]
        widths.append((max([least, *words]), natural))
    return widths


def _least(table: Table) -> int:
    return sum(least for least, _ in _widths(table)) + GAP * (len(table.columns) - 1)


def _rich_table(table: Table, width: int) -> RichTable:
    widths = _widths(table)
    excess = sum(natural for _, natural in widths) + GAP * (len(widths) - 1) - width
    shown = RichTable(box=None, pad_edge=False, header_style="bold")
    order = sorted(range(len(widths)), key=lambda place: table.columns[place].wraps)
    final = [natural for _, natural in widths]
    for place in order:  # headers give way first
        cut = max(min(excess, widths[place][1] - widths[place][0]), 0)
        final[place] -= cut
        excess -= cut
    for column, wide in zip(table.columns, final, strict=True):
        shown.add_column(_header(column), width=wide, overflow="fold")
    for row in table.texts:
        shown.add_row(*(Text(legible(text)) for text in row))
    return shown


def _cards(table: Table) -> Iterator[RenderableType]:
    """Yields a row's key, and below it a line for each other column."""
    key, *others = table.columns
    for first, *texts in table.texts:
        yield Text(legible(" ".join(filter(None, (_header(key), first)))), style="bold")
        for column, text in zip(others, texts, strict=True):
            yield Text(f"  {_header(column)}: {legible(text)}")
