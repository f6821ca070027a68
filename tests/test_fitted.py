"""Tables in terminals of any width: no key and no value is cut, and nothing is left out."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from test_compare import stored_search, two
from test_report import store

from hpo.report.blocks.table import Column, Table
from hpo.watch import listing
from hpo.watch.fitted import INDENT, Fitted
from hpo.watch.terminal import comparison, terminal

WIDTHS = (200, 80, 60, 40)


def printed(table: Table, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(Fitted(table))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def check_whole(table: Table, width: int) -> None:
    """Every line fits; every text stands there whole, and each word does of one that is longer than
    a line or in a column that may break its lines."""
    lines = printed(table, width)
    assert max(map(len, lines)) <= width
    for place, column in enumerate(table.columns):
        header = column.short or column.header
        assert all(any(word in line for line in lines) for word in header.split())
        for texts in table.texts:
            text = texts[place]
            for part in text.split() if column.wraps or len(text) > width - INDENT else [text]:
                assert any(part in line for line in lines), (part, lines)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, ended_search) -> list[Table]:
    """The tables of `hpo show` and of `hpo compare`."""
    folders: list[Path] = [tmp_path_factory.mktemp(name) for name in ("grid", "two")]
    search = stored_search(ended_search)
    parts = [*terminal(store(folders[0])), *terminal(search), *comparison(*two(folders[1]))]
    return [part.table for part in parts if isinstance(part, Fitted)]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_list_of_studies_is_whole_at_any_width(width: int):
    names = ["tiny", "a-study-with-a-long-name.finalists"]
    rows = [
        listing.Listed(
            name=name,
            kind="finalists, running",
            finished="12 trainings",
            best="balanced validation accuracy 98.58%",
            dataset="mnist-5k",
            last_run="2026-01-31",
        )
        for name in names
    ]
    check_whole(listing.table_of(rows), width)
    check_whole(listing.study_files(dict.fromkeys(names, "Does width pay?")).table, width)
    held = "Biscoe, Dream, Torgersen; 11 gaps, filled with the median 44.9"
    columns = [("a column with a long name", "whole numbers", held)] * 2
    check_whole(listing.data_columns(columns).table, width)
    if width > 100:
        ends = [
            line.index("finalists, running") for line in printed(listing.table_of(rows), width)[1:]
        ]
        assert ends == [len(names[1]) + 2] * 2, "the column is as wide as the longest name"


@pytest.mark.parametrize("width", WIDTHS)
def test_what_show_and_compare_print_is_whole_at_any_width(tables: list[Table], width: int):
    assert len(tables) == 4
    for table in tables:
        check_whole(table, width)


def test_columns_move_below_their_rows_by_their_priority():
    columns = [
        Column("name", "name", lambda row: row),
        Column("value", "value (%)", lambda _: "98.54 (98.49 to 98.58)"),
        Column("loss", "loss", lambda _: 0.25, "{:.4f}", priority=1),
        Column("seconds", "seconds", lambda _: 12.0, "{:.1f}", priority=2),
    ]
    table = Table(columns=columns, rows=["a network", "another"])
    assert printed(table, 60)[0].split() == ["name", "value", "(%)", "loss", "seconds"]
    assert [line.rstrip() for line in printed(table, 45)] == [
        "name       value (%)               loss",
        "a network  98.54 (98.49 to 98.58)  0.2500",
        "    seconds: 12.0",
        "another    98.54 (98.49 to 98.58)  0.2500",
        "    seconds: 12.0",
    ]
    assert [line.rstrip() for line in printed(table, 30)[:5]] == [
        "name",
        "a network",
        "    value (%):",
        "    98.54 (98.49 to 98.58)",
        "    loss: 0.2500",
    ]


def test_long_texts_break_their_lines_after_columns_have_moved():
    network = Column("network", "network", lambda _: "3 × 512 relu, adam at 0.0012", wraps=True)
    last = Column("loss", "loss", lambda _: 0.25, priority=1)
    table = Table(columns=[network, last], rows=[0])
    for width, first in (
        (30, ["3 × 512 relu, adam at 0.0012"]),
        (25, ["3 × 512 relu, adam at", "0.0012"]),
    ):
        lines = [line.rstrip() for line in printed(table, width)]
        assert lines == ["network", *first, "    loss: 0.25"]
