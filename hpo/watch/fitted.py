"""A table in a terminal of any width: no key and no value is cut."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
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
        shown, width = self.table, options.max_width
        while _total(least for least, _ in _widths(shown)) > width:
            highest = max(column.priority for column in shown.columns)
            if highest == 0:
                yield from _cards(self.table, width)
                return
            shown = shown.only(c.key for c in shown.columns if c.priority < highest)
        yield _rich_table(shown, width)
        left_out = [_header(c) for c in self.table.columns if c not in shown.columns]
        if left_out:
            yield Text(f"not shown for want of width: {', '.join(left_out)}")


def _header(column: Column) -> str:
    return legible(column.short or column.header)


def _widths(table: Table) -> list[tuple[int, int]]:
    """Returns of each column the least and the natural width."""
    widths = []
    for place, column in enumerate(table.columns):
        header = _header(column)
        content = max((cell_len(texts[place]) for texts in table.texts), default=0)
        words = map(cell_len, header.split())
        least = max([min(content, LEAST) if column.wraps else content, *words])
        widths.append((least, max(content, cell_len(header))))
    return widths


def _total(widths: Iterable[int]) -> int:
    known = list(widths)
    return sum(known) + GAP * (len(known) - 1)


def _rich_table(table: Table, width: int) -> RichTable:
    widths = _widths(table)
    final = [natural for _, natural in widths]
    for place in sorted(range(len(final)), key=lambda place: table.columns[place].wraps):
        excess = _total(final) - width  # headers break before texts do
        final[place] -= max(min(excess, final[place] - widths[place][0]), 0)
    shown = RichTable(box=None, pad_edge=False, header_style="bold")
    for column, wide in zip(table.columns, final, strict=True):
        shown.add_column(_header(column), width=wide, overflow="fold")
    for texts in table.texts:
        shown.add_row(*(Text(legible(text)) for text in texts))
    return shown


def _cards(table: Table, width: int) -> Iterator[RenderableType]:
    """Yields a row's key, and below it a line for each other column, or two where one is too
    long."""
    key, *others = table.columns
    for first, *texts in table.texts:
        yield Text(legible(" ".join(filter(None, (_header(key), first)))), style="bold")
        for column, text in zip(others, texts, strict=True):
            line = f"  {_header(column)}: {legible(text)}"
            if cell_len(line) <= width:
                yield Text(line)
            else:
                yield Text(f"  {_header(column)}:")
                yield Padding(Text(legible(text)), (0, 0, 0, 4))
