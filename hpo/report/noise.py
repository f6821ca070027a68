"""The report's sections on noise: sources of the spread between runs, and what one run can tell."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from hpo.analysis.hypothesis_tests import prediction_interval
from hpo.analysis.statistics import (
    paired_difference,
    ranked_right,
    seeds_needed,
    std_interval,
    summarize,
)
from hpo.report.grid_tables import DIGITS, SCALE, data_text
from hpo.report.page import Block, Section, Table
from hpo.storage.results import StoredGrid
from hpo.study.config import SOURCES
from hpo.study.file import COLUMNS, Cell

DIFFERENCES = (0.1, 0.2, 0.5, 1.0)  # points of test accuracy
RESULTS = ("test_accuracy", "test_loss")
PREDICTED = ("reported", "one more run", "reported is")
NAMES = {"split": "the split", "weights": "the initial weights", "order": "the batch order"}


def sections(study: StoredGrid) -> list[Section]:
    """Returns the section on the sources of spread, for a grid whose cells vary different
    sources."""
    networks = _networks(study)
    if not networks:
        return []
    blocks: list[Block] = [_spread_table(study, networks)]
    blocks.append(
        "The shares need not add up to 100%: sources also act together, and so few seeds give a "
        "standard deviation only as exactly as its interval shows."
    )
    complete = [cell for cells in networks if (cell := _all_vary(cells))]
    stds = [std for cell in complete if (std := _std(study, cell)) > 0]
    if stds:
        blocks.append(_power_table(study, float(np.sqrt(np.mean(np.square(stds))))))
        blocks.append(_sentences(study, complete))
    return [Section(title="Where the spread comes from", blocks=blocks)]


def _networks(study: StoredGrid) -> list[list[Cell]]:
    """Returns a list of cells per network: one configuration, different sources that vary."""
    keyed = [(tuple(cell.config.as_dict().items()), cell) for cell in study.file.cells]
    order = list(dict.fromkeys(key for key, _ in keyed))
    groups = [[cell for key, cell in keyed if key == wanted] for wanted in order]
    return [cells for cells in groups if len({cell.varies for cell in cells}) > 1]


def _all_vary(cells: Sequence[Cell]) -> Cell | None:
    """Returns the cell in which all sources vary."""
    return next((cell for cell in cells if cell.varies == SOURCES), None)


def _accuracies(study: StoredGrid, cell: Cell, metric: str = "test_accuracy") -> pd.Series:
    """Returns accuracies in percent by seed. Empty if any run failed to learn: its spread would
    measure failures."""
    values = 100 * study.values(cell, metric)
    return values[:0] if study.fails(cell) else values.dropna()


def _std(study: StoredGrid, cell: Cell, metric: str = "test_accuracy") -> float:
    """Returns the sample standard deviation in points; NaN for fewer than two runs."""
    values = _accuracies(study, cell, metric)
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def drawn(cell: Cell) -> str:
    """the split; the split and the batch order; all three."""
    if cell.varies == SOURCES:
        return "all three"
    return " and ".join(NAMES[name] for name in cell.varies)


def _spread_table(study: StoredGrid, networks: Sequence[Sequence[Cell]]) -> Table:
    rows = [_spread_row(study, cell, _all_vary(cells)) for cells in networks for cell in cells]
    return Table(
        headers=[
            "Network", "Drawn anew",
            ("Test accuracy, sd (points)", ("95% interval", "variance, share of all")),
            ("Validation accuracy, sd (points)", ("95% interval",)), "Seeds",
        ],
        rows=rows,
        caption=f"{data_text(study)}. Standard deviation over the seeds, with the interval of the "
        "chi-squared distribution; share: the variance over that with all three drawn anew.",
    )  # fmt: skip


def _spread_row(study: StoredGrid, cell: Cell, total: Cell | None) -> list[str]:
    std = _std(study, cell)
    all_three = _std(study, total) if total else math.nan
    share = f"{100 * (std / all_three) ** 2:.0f}%" if all_three > 0 else "–"
    return [
        cell.config.brief,
        drawn(cell),
        _spread_text(study, cell, "test_accuracy"),
        "–" if math.isnan(std) else share,
        _spread_text(study, cell, "valid_accuracy"),
        str(len(study.of(cell))),
    ]


def _spread_text(study: StoredGrid, cell: Cell, metric: str) -> str:
    std, n = _std(study, cell, metric), len(_accuracies(study, cell, metric))
    if math.isnan(std):
        return "–"
    low, high = std_interval(std, n)
    return f"{std:.2f} ({low:.2f} to {high:.2f})"


# --- what one seed tells -----------------------------------------------------------------------


def _power_table(study: StoredGrid, std: float) -> Table:
    rows = [
        [
            f"{difference:g} points",
            f"{100 * ranked_right(difference, std):.0f}%",
            str(seeds_needed(difference, std)),
        ]
        for difference in DIFFERENCES
    ]
    return Table(
        headers=["True difference", "One run each ranks them right", "Seeds needed"],
        rows=rows,
        caption=f"{data_text(study)}. For two networks whose runs spread by {std:.2f} points "
        "each, all three drawn anew. Seeds needed: of each network, for a t-test at 5% to find the "
        "difference four times of five; fewer where seeds are shared and runs go in pairs.",
    )


def _sentences(study: StoredGrid, cells: Sequence[Cell]) -> list[str]:
    chances = [_chance(study, cell) for cell in cells]
    return [
        *filter(None, chances),
        *filter(None, (_apart(study, *p) for p in combinations(cells, 2))),
    ]


def _chance(study: StoredGrid, cell: Cell) -> str:
    std = _std(study, cell)
    if not std > 0:
        return ""
    apart = 1.96 * math.sqrt(2) * std
    return (
        f"Two runs of {cell.config.brief} differ by more than {apart:.2f} points one time in "
        "twenty, by chance alone: a smaller difference between single runs of two networks tells "
        "nothing."
    )


def _apart(study: StoredGrid, a: Cell, b: Cell) -> str:
    """Says how often single runs of two networks would have ranked them correctly."""
    ours, theirs = (_accuracies(study, cell) for cell in (a, b))
    common = ours.index.intersection(theirs.index)
    if len(common) < 2:
        return ""
    gap = paired_difference(ours[common].to_list(), theirs[common].to_list())
    better, worse = (a, b) if gap.mean > 0 else (b, a)
    spread = math.hypot(ours.std(ddof=1), theirs.std(ddof=1)) / math.sqrt(2)
    if not spread > 0:
        return ""
    right = 100 * ranked_right(abs(gap.mean), spread)
    return (
        f"{better.config.brief} is {abs(gap.mean):.2f} points more accurate than "
        f"{worse.config.brief}; one run of each would have ranked them so with {right:.0f}%."
    )


# --- what one more run would give --------------------------------------------------------------


def predictions(study: StoredGrid) -> list[Section]:
    """Returns the section on whether one more run would give what was reported, if it applies."""
    columns = [c for c in RESULTS if any(_reports(cell, c) for cell in study.file.cells)]
    rows = [
        row
        for cell in study.file.cells
        for which in range(len(cell.reported))
        if (row := _prediction(study, cell, which, columns))
    ]
    if not rows:
        return []
    table = Table(
        headers=["Model", *((COLUMNS[column], PREDICTED) for column in columns), "Seeds"],
        rows=rows,
        caption=f"{data_text(study)}. One more run: 95% prediction interval from the seeds "
        "(Student's t); where runs fail to learn, their range, which holds one more of n + 1 runs "
        "with probability (n − 1)/(n + 1).",
    )
    return [Section(title="Would one more run give what was reported?", blocks=[table])]


def _reports(cell: Cell, column: str) -> bool:
    return any(getattr(entry, column) is not None for entry in cell.reported)


def _prediction(study: StoredGrid, cell: Cell, which: int, columns: Sequence[str]) -> list[str]:
    rows = study.of(cell)
    line = [cell.reported[which].label]
    for column in columns:
        value = getattr(cell.reported[which], column)
        values = (SCALE[column] * rows[column]).to_list()
        bounds = _expected(values, collapsed=study.fails(cell))
        if value is None or bounds is None:
            line += ["–" if value is None else _number(SCALE[column] * value, column), "–", "–"]
            continue
        low, high = (round(bound, DIGITS[column]) for bound in bounds)  # as exact as is printed
        value = round(SCALE[column] * value, DIGITS[column])
        place = "below" if value < low else "above" if value > high else "inside"
        line += [_number(value, column), f"{_number(low, column)}–{_number(high, column)}", place]
    return [*line, str(len(rows))] if len(rows) else []


def _number(value: float, column: str) -> str:
    return f"{value:.{DIGITS[column]}f}"


def _expected(values: Sequence[float], *, collapsed: bool) -> tuple[float, float] | None:
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return None
    if not collapsed:
        return prediction_interval(finite)
    summary = summarize(finite)
    assert summary is not None
    return summary.low, summary.high
