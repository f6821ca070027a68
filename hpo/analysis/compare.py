"""Compares two stored studies: grids cell by cell, searches by their winners."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from hpo.analysis.evidence import Evidence
from hpo.analysis.hypothesis_tests import Verdict, greater, greater_unpaired, judge
from hpo.errors import InputError
from hpo.results.study import StoredGrid, StoredSearch
from hpo.study.file import Cell

Stored = StoredGrid | StoredSearch


@dataclass(frozen=True, kw_only=True)
class Side:
    """A network in one study. runs: gains of the objective, in validation and test, by seed."""

    study: str
    cell: Cell
    runs: pd.DataFrame
    fails: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network in both studies.

    evidence: of the first study's lead in the objective, None if nothing can be tested. p:
    after Holm's correction over all rows, for one look.
    """

    name: str
    sides: tuple[Side, Side]
    evidence: Evidence | None
    verdict: Verdict
    p: float


def compare(first: Stored, second: Stored) -> list[Row]:
    """Compares two grids cell by cell (equal names, else equal configurations), or two searches by
    their winners on fresh seeds, by their objective's validation.

    Cells are paired where both have common seeds. Two winners tell nothing about two searches, so
    these are tested only where both were repeated. Raises InputError for a grid and a search, for
    different data or objectives, and if nothing corresponds.
    """
    if first.name == second.name:
        raise InputError(f"study {first.name!r}: needs another one to be compared with")
    if first.data["checksum"] != second.data["checksum"]:
        raise InputError(
            f"study {first.name!r} is on {first.data_name}, {second.name!r} on {second.data_name}: "
            "their results are of different data and cannot be compared"
        )
    if first.metric != second.metric:
        raise InputError(
            f"study {first.name!r} seeks {first.metric.name}, {second.name!r} "
            f"{second.metric.name}: compare two studies of one objective"
        )
    pairs = _pairs(first, second)
    if isinstance(first, StoredSearch) and isinstance(second, StoredSearch):
        evidences = [_over_repeats(first, second)]
    else:
        evidences = [_evidence(*sides) for _, sides in pairs]
    # Two-sided: of two that are equal neither is better.
    judged = judge([(2 * f.p_for, 2 * f.p_against) if f else (1.0, 1.0) for f in evidences])
    return [
        Row(name=name, sides=sides, evidence=evidence, verdict=of.verdict, p=of.p)
        for (name, sides), evidence, of in zip(pairs, evidences, judged, strict=True)
    ]


def over_reference(search: StoredSearch) -> Evidence | None:
    """Tests the winner's gain over the reference in pairs of seeds; None without a common seed."""
    if search.winner is None or search.tested is None or search.reference is None:
        return None
    ours, theirs = (_side(search.tested, c) for c in (search.winner.cell, search.reference))
    gains = (ours.runs.iloc[:, 0] - theirs.runs.iloc[:, 0]).dropna()
    return greater(gains, bimodal=ours.fails or theirs.fails) if len(gains) else None


def _pairs(first: Stored, second: Stored) -> list[tuple[str, tuple[Side, Side]]]:
    if isinstance(first, StoredSearch) and isinstance(second, StoredSearch):
        return [("the winner", (_winner(first), _winner(second)))]
    if isinstance(first, StoredSearch) or isinstance(second, StoredSearch):
        raise InputError(
            f"studies {first.name!r} and {second.name!r}: a grid and a search have nothing that "
            "corresponds; compare two of a kind"
        )
    by_name = {cell.name: cell for cell in second.file.cells}
    pairs = [(cell, by_name[cell.name]) for cell in first.file.cells if cell.name in by_name]
    pairs = pairs or [
        (ours, theirs)
        for ours, theirs in product(first.file.cells, second.file.cells)
        if ours.config == theirs.config and _same_draws(ours, theirs)
    ]
    if not pairs:
        raise InputError(
            f"studies {first.name!r} and {second.name!r}: have no cell of one name or one "
            "configuration"
        )
    return [(ours.name, (_side(first, ours), _side(second, theirs))) for ours, theirs in pairs]


def _same_draws(ours: Cell, theirs: Cell) -> bool:
    """Whether a seed draws the same split, weights and order in both cells."""
    return (ours.varies, ours.crossed) == (theirs.varies, theirs.crossed)


def _winner(search: StoredSearch) -> Side:
    if search.winner is None or search.tested is None:
        raise InputError(f"study {search.name!r}: has no winner yet; `hpo run` goes on with it")
    return _side(search.tested, search.winner.cell, search.name)


def _side(study: StoredGrid, cell: Cell, name: str = "") -> Side:
    metric = study.metric
    runs = {each.name: study.gains(cell, each) for each in (metric, metric.tested)}
    frame = pd.DataFrame(runs).dropna(subset=[metric.name])  # a study may have no test part
    return Side(study=name or study.name, cell=cell, runs=frame, fails=study.fails(cell))


def _over_repeats(*searches: StoredSearch) -> Evidence | None:
    """Tests the winners of two repeated searches, a value for each: its mean over fresh seeds. None
    if one was not repeated, or is a repeat of the other."""
    ours, theirs = (
        [float(winner.gains(search.metric).mean()) for winner in search.winners]
        for search in searches
    )
    alike = searches[1].name in (search.name for search in searches[0].repeats)
    return None if alike or min(len(ours), len(theirs)) < 2 else greater_unpaired(ours, theirs)


def _evidence(ours: Side, theirs: Side) -> Evidence | None:
    """Tests in pairs over two common seeds or more, unpaired otherwise."""
    a, b = (side.runs.iloc[:, 0] for side in (ours, theirs))
    bimodal = ours.fails or theirs.fails
    if a.empty or b.empty:
        return None
    common = a.index.intersection(b.index)
    if len(common) > 1 and _same_draws(ours.cell, theirs.cell):
        return greater(np.asarray(a[common] - b[common]), bimodal=bimodal)
    return greater_unpaired(a.to_list(), b.to_list(), bimodal=bimodal)
