"""Lines and tables in a terminal of any width: nothing is cut, and nothing is left out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from hpo.report.blocks.table import Column, Table
from hpo.text import broken, legible

GAP = 2  # between columns
LEAST = 16  # characters of a column that breaks its lines
INDENT = 4  # of what stands below a row


def print_line(out: Console, text: str) -> None:
    """Prints a line. A terminal or a notebook breaks it between words, but no path; elsewhere it
    stays whole."""
    text = legible(text)
    if out.is_terminal or out.is_jupyter:
        text = broken(text, out.width)
    out.print(text, soft_wrap=True, markup=False, emoji=False)


@dataclass(frozen=True)
class Fitted:
    """A table for the terminal.

    Where it is too wide, headers break into lines, then columns move below their rows by their
    priority, then long texts break. Where the rest is too wide, all columns but the first move.
    """

    table: Table

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        width = options.max_width
        shown = _fitting(self.table, width)
        widths = _widths(shown, width)
        below = self.table.but(*(column.key for column in shown.columns))
        if not below.columns:
            yield _rich_table(shown, shown.texts, widths)
            return
        yield _rich_table(shown, [], widths)
        for row, others in zip(shown.texts, below.texts, strict=True):
            yield _rich_table(shown, [row], widths, header=False)
            for line in _lines(below.columns, others, width - INDENT):
                yield Padding(Text(line, style="dim"), (0, 0, 0, INDENT))


def _fitting(table: Table, width: int) -> Table:
    """Returns the table with the columns that stand beside each other."""
    shown = table
    while True:
        highest = max(column.priority for column in shown.columns)
        if _total(_least(shown, breaks=highest == 0)) <= width:
            return shown
        if highest == 0:
            return table.only([table.columns[0].key])
        shown = shown.only(c.key for c in shown.columns if c.priority < highest)


def _lines(columns: Sequence[Column], texts: Sequence[str], width: int) -> Iterator[str]:
    """Yields "header: value" of each column, as many as fit into a line; or two lines where one
    does not fit."""
    line = ""
    for column, text in zip(columns, texts, strict=True):
        header, value = f"{_header(column)}:", legible(text)
        item = f"{header} {value}"
        for piece in [item] if cell_len(item) <= width else [header, value]:
            if line and cell_len(f"{line}; {piece}") > width:
                yield line
                line = piece
            else:
                line = f"{line}; {piece}" if line else piece
    yield line


def _header(column: Column) -> str:
    return legible(column.short or column.header)


def _natural(table: Table) -> list[int]:
    """Returns the width of each column's longest text."""
    rows = [[cell_len(legible(text)) for text in texts] for texts in table.texts]
    return [max(widths) for widths in zip(*rows, strict=True)] or [0] * len(table.columns)


def _least(table: Table, *, breaks: bool) -> list[int]:
    """Returns the least width of each column. breaks: whether long texts may break."""
    widths = []
    for column, content in zip(table.columns, _natural(table), strict=True):
        words = map(cell_len, _header(column).split())
        widths.append(max([min(content, LEAST) if column.wraps and breaks else content, *words]))
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _widths(table: Table, width: int) -> list[int]:
    """Returns the width of each column in a terminal of this width."""
    least = _least(table, breaks=True)
    headers = [cell_len(_header(column)) for column in table.columns]
    final = list(map(max, _natural(table), headers))
    for place in sorted(range(len(final)), key=lambda place: table.columns[place].wraps):
        excess = _total(final) - width  # headers break before texts do
        final[place] -= max(min(excess, final[place] - least[place]), 0)
    return final


def _rich_table(
    table: Table, rows: Sequence[Sequence[str]], widths: Sequence[int], *, header: bool = True
) -> RichTable:
    shown = RichTable(box=None, pad_edge=False, header_style="bold", show_header=header)
    for column, wide in zip(table.columns, widths, strict=True):
        shown.add_column(_header(column), width=wide, overflow="fold")
    for texts in rows:
        shown.add_row(*(Text(legible(text)) for text in texts))
    return shown
