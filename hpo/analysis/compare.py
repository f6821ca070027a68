"""Two stored studies beside each other: where one is more accurate than the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.console import RenderableType
from rich.table import Table as RichTable

from hpo.analysis.hypothesis_tests import Evidence, Verdict, greater, greater_unpaired, judge
from hpo.analysis.statistics import summarize
from hpo.errors import InputError
from hpo.storage.results import StoredGrid, StoredSearch
from hpo.study.file import Cell

Stored = StoredGrid | StoredSearch


@dataclass(frozen=True, kw_only=True)
class Side:
    """One study's runs of a network. values: test accuracy in percent, by seed."""

    study: str
    cell: Cell
    values: pd.Series
    fails: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network in both studies. evidence is of the first one's lead, None without runs; p after
    Holm's correction over all rows."""

    name: str
    sides: tuple[Side, Side]
    evidence: Evidence | None
    verdict: Verdict
    p: float


def compare(first: Stored, second: Stored) -> list[Row]:
    """Two grids cell by cell (of one name, or else of one configuration), two searches by their
    winners on fresh seeds. In pairs where both have seeds in common, which then draw the same
    things; unpaired otherwise.

    Raises InputError for a grid and a search, for different data, and where there is nothing in
    common.
    """
    if first.name == second.name:
        raise InputError(f"study {first.name!r}: needs another one to be compared with")
    if first.data["checksum"] != second.data["checksum"]:
        raise InputError(
            f"study {first.name!r} is on {first.data_name}, {second.name!r} on {second.data_name}: "
            "their accuracies are of different images and cannot be compared"
        )
    pairs = _pairs(first, second)
    found = [_evidence(*sides) for _, sides in pairs]
    judged = judge([(f.p_for, f.p_against) if f else (1.0, 1.0) for f in found])
    return [
        Row(name=name, sides=sides, evidence=evidence, verdict=verdict, p=p)
        for (name, sides), evidence, (verdict, p) in zip(pairs, found, judged, strict=True)
    ]


def _pairs(first: Stored, second: Stored) -> list[tuple[str, tuple[Side, Side]]]:
    if isinstance(first, StoredSearch) and isinstance(second, StoredSearch):
        return [("the winner", (_winner(first), _winner(second)))]
    if isinstance(first, StoredSearch) or isinstance(second, StoredSearch):
        raise InputError(
            f"studies {first.name!r} and {second.name!r}: a grid and a search have nothing that "
            "corresponds; compare two of a kind"
        )
    pairs = _same_name(first, second) or _same_config(first, second)
    if not pairs:
        raise InputError(
            f"studies {first.name!r} and {second.name!r}: have no cell of one name or one "
            "configuration"
        )
    return [(ours.name, (_side(first, ours), _side(second, theirs))) for ours, theirs in pairs]


def _same_name(first: StoredGrid, second: StoredGrid) -> list[tuple[Cell, Cell]]:
    theirs = {cell.name: cell for cell in second.file.cells}
    return [(cell, theirs[cell.name]) for cell in first.file.cells if cell.name in theirs]


def _same_config(first: StoredGrid, second: StoredGrid) -> list[tuple[Cell, Cell]]:
    return [
        (ours, theirs)
        for ours in first.file.cells
        for theirs in second.file.cells
        if (ours.config, ours.varies) == (theirs.config, theirs.varies)
    ]


def _winner(search: StoredSearch) -> Side:
    if search.winner is None or search.tested is None:
        raise InputError(f"study {search.name!r}: has no winner yet; `hpo run` goes on with it")
    return _side(search.tested, search.winner, search.name)


def _side(study: StoredGrid, cell: Cell, name: str = "") -> Side:
    values = 100 * study.values(cell).dropna()
    return Side(study=name or study.name, cell=cell, values=values, fails=study.fails(cell))


def _evidence(ours: Side, theirs: Side) -> Evidence | None:
    """In pairs over two common seeds or more."""
    if ours.values.empty or theirs.values.empty:
        return None
    bimodal = ours.fails or theirs.fails
    common = ours.values.index.intersection(theirs.values.index)
    if len(common) > 1 and ours.cell.varies == theirs.cell.varies:
        return greater(np.asarray(ours.values[common] - theirs.values[common]), bimodal=bimodal)
    return greater_unpaired(ours.values.to_list(), theirs.values.to_list(), bimodal=bimodal)


# --- in the terminal ---------------------------------------------------------------------------


def terminal(first: Stored, second: Stored) -> Iterator[RenderableType]:
    """A row a network, and what the verdicts rest on."""
    rows = compare(first, second)
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    names = ("", first.name, second.name)
    for header in (*names, "difference (95% interval)", "test", "p", "verdict"):
        table.add_column(header, no_wrap=True)
    for row in rows:
        table.add_row(row.name, *map(_values, row.sides), *_figures(row))
    yield f"Test accuracy (%) on {first.data_name}"
    yield table
    yield (
        "Mean ± standard deviation (n). Paired where seeds are shared. p: two-sided, after Holm's "
        f"correction over {len(rows)} comparison{'' if len(rows) == 1 else 's'}."
    )
    yield from _different(rows)


def _values(side: Side) -> str:
    summary = summarize(side.values.to_list())
    if summary is None:
        return "no runs"
    if side.fails and summary.n > 1:
        return f"median {summary.median:.2f} ({summary.low:.2f}–{summary.high:.2f}; {summary.n})"
    spread = f" ± {summary.sd:.2f}" if summary.n > 1 else ""
    return f"{summary.mean:.2f}{spread} ({summary.n})"


def _figures(row: Row) -> Sequence[str]:
    found = row.evidence
    if found is None:
        return "–", "–", "–", Verdict.UNRESOLVED.value
    difference = f"{found.effect:+.2f}"
    if found.low == found.low:
        difference += f" ({found.low:.2f} to {found.high:.2f})"
    better = {Verdict.HOLDS: row.sides[0].study, Verdict.REFUTED: row.sides[1].study}
    said = f"{better[row.verdict]} is better" if row.verdict in better else row.verdict.value
    p = "–" if not found.test else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}"
    return difference.replace("-", "−"), f"{found.test or 'none'}, n = {found.n}", p, said


def _different(rows: Sequence[Row]) -> Iterator[str]:
    """Cells of one name that are not one network."""
    for row in rows:
        ours, theirs = (side.cell.config.as_dict() for side in row.sides)
        keys = [key for key in ours if ours[key] != theirs[key]]
        if keys:
            parts = [f"{key} {_brief(ours[key])} and {_brief(theirs[key])}" for key in keys]
            yield f"{row.name}: {', '.join(parts)}."


def _brief(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
