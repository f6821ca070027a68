"""The report's sections on noise: sources of the spread between runs, and what one run can tell."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from hpo.analysis.components import IMAGES, Component, Spread, crossed
from hpo.analysis.hypothesis_tests import prediction_interval
from hpo.analysis.statistics import ranked_right, seeds_needed
from hpo.language import marked, t
from hpo.report.blocks.grid_tables import DIGITS, SCALE, data_text
from hpo.report.blocks.page import Block, Header, Section, Table
from hpo.results.study import StoredGrid
from hpo.study.config import SOURCES
from hpo.study.file import BLOCK, COLUMNS, Cell
from hpo.text import bounded, minus

DIFFERENCES = (0.1, 0.2, 0.5, 1.0)  # points of test accuracy
RESULTS = ("test_accuracy", "test_loss")
PREDICTED = (marked("reported"), marked("one more run"), marked("reported is"))
NAMES = {
    "split": marked("split"),
    "weights": marked("initial weights"),
    "order": marked("batch order"),
}
RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """A cell with two complete blocks or more. accuracies: in percent, (blocks, 8)."""

    cell: Cell
    accuracies: np.ndarray
    spread: Spread


def sections(study: StoredGrid) -> list[Section]:
    """Returns the section on the sources of spread, for a grid with crossed cells."""
    found = _networks(study)
    if not found:
        return []
    blocks: list[Block] = [_spread_table(study, found)]
    std = float(np.sqrt(np.mean([network.spread.std**2 for network in found])))
    if std > 0:
        blocks.append(_power_table(study, std))
    sentences = [_chance(network) for network in found]
    for pair in combinations(found, 2):
        sentences += [_apart(*pair), _correlation(*pair)]
    blocks.append(list(filter(None, sentences)))
    return [Section(title=t("Where the spread comes from"), blocks=blocks)]


def lead(study: StoredGrid) -> list[str]:
    """Names the largest part of each network's spread in a sentence, if there are crossed cells."""
    parts = []
    for network in _networks(study):
        largest = max(network.spread.components, key=lambda component: component.share)
        share = f"{100 * largest.share:.0f}%"
        parts.append(f"{_name(study, largest).lower()}, {share} ({network.cell.config.brief})")
    if not parts:
        return []
    return [t("The largest part of the spread between runs: {parts}.", parts="; ".join(parts))]


@lru_cache(maxsize=1)  # the first sentence and the section need the same
def _networks(study: StoredGrid) -> list[Crossed]:
    asked = [cell for cell in study.file.cells if cell.crossed]
    return [network for cell in asked if (network := _crossed(study, cell)) is not None]


def _crossed(study: StoredGrid, cell: Cell) -> Crossed | None:
    """Analyses a cell's complete blocks; None for fewer than two, and if a run failed to learn: the
    spread would measure failures."""
    right = study.right(cell)
    if right.empty or study.fails(cell):
        return None
    starts = range(0, int(right.index.max()) + 1, BLOCK)
    seeds = set(right.index)
    whole = [list(range(b, b + BLOCK)) for b in starts if seeds >= set(range(b, b + BLOCK))]
    if len(whole) < 2:
        return None
    runs = right.loc[[seed for block in whole for seed in block]].to_numpy()
    # A run's bits are those of split, weights and order, the lowest first; the last axis varies
    # fastest, so the axes are order, weights, split before they are turned round.
    blocks = runs.reshape(len(whole), 2, 2, 2, -1).transpose(0, 3, 2, 1, 4)
    accuracies = 100 * runs.mean(axis=1).reshape(len(whole), BLOCK)
    return Crossed(cell=cell, accuracies=accuracies, spread=crossed(blocks))


def _spread_table(study: StoredGrid, networks: Sequence[Crossed]) -> Table:
    headers: list[Header] = [t("Drawn anew")]
    columns = (t("share"), t("95% interval"))
    headers += [(network.cell.config.brief, columns) for network in networks]
    parts = zip(*(network.spread.components for network in networks), strict=True)
    rows = [[_name(study, row[0]), *(text for c in row for text in _share(c))] for row in parts]
    total = [t("All, sd in points")]
    for network in networks:
        spread = network.spread
        low, high = 100 * spread.low, 100 * spread.high
        total += [f"{100 * spread.std:.2f}", t("{low:.2f} to {high:.2f}", low=low, high=high)]
    counts = ", ".join(t("{n} runs", n=network.accuracies.size) for network in networks)
    caption = marked(
        "{data}; {runs}. Shares of the variance of test accuracy between runs, which add up to "
        "100%. Runs are crossed: two splits, two initial weights and two batch orders in all "
        "combinations, in blocks with new draws each. A row of two or three sources: what they do "
        "only together. Test {things}: what would go with many more of them. Variance components "
        "by expected mean squares; intervals by generalized pivotal quantities."
    )
    caption = t(caption, data=data_text(study), runs=counts, things=t(study.things))
    return Table(headers=headers, rows=[*rows, total], caption=caption)


def _name(study: StoredGrid, component: Component) -> str:
    if component.of == IMAGES:
        return t("Test {things} (few)", things=t(study.things))
    if component.of == SOURCES:
        return t("All three together")
    text = " × ".join(t(NAMES[name]) for name in component.of)
    return text[0].upper() + text[1:]


def _share(component: Component) -> tuple[str, str]:
    share, low, high = (100 * v for v in (component.share, component.low, component.high))
    return f"{share:.0f}%", t("{low:.0f} to {high:.0f}%", low=low, high=high)


# --- what one seed tells -----------------------------------------------------------------------


def _power_table(study: StoredGrid, std: float) -> Table:
    std *= 100
    rows = [
        [
            t("{value} points", value=f"{difference:g}"),
            f"{100 * ranked_right(difference, std):.0f}%",
            str(seeds_needed(difference, std)),
        ]
        for difference in DIFFERENCES
    ]
    caption = marked(
        "{data}. For two networks whose runs spread by {std:.2f} points each, all three drawn "
        "anew. Seeds needed: of each network, without pairs, for a t-test at 5% that looks once to "
        "find the difference four times of five."
    )
    headers = [t("True difference"), t("One run each ranks them right"), t("Seeds needed")]
    return Table(headers=headers, rows=rows, caption=t(caption, data=data_text(study), std=std))


def _chance(network: Crossed) -> str:
    std = 100 * network.spread.std
    if not std > 0:
        return ""
    text = marked(
        "Two runs of {network} differ by more than {apart:.2f} points one time in twenty, by "
        "chance alone: a smaller difference between single runs of two networks tells nothing."
    )
    return t(text, network=network.cell.config.brief, apart=1.96 * math.sqrt(2) * std)


def _apart(a: Crossed, b: Crossed) -> str:
    """Says how often single runs of two networks would have ranked them correctly."""
    gap = a.accuracies.mean() - b.accuracies.mean()
    better, worse = (a, b) if gap > 0 else (b, a)
    spread = 100 * math.hypot(a.spread.std, b.spread.std) / math.sqrt(2)
    if not spread > 0:
        return ""
    text = marked(
        "{better} is {gap:.2f} points more accurate than {worse}; one run of each would have "
        "ranked them so with {right:.0f}%."
    )
    names = {"better": better.cell.config.brief, "worse": worse.cell.config.brief}
    return t(text, gap=abs(gap), right=100 * ranked_right(abs(gap), spread), **names)


def _correlation(a: Crossed, b: Crossed) -> str:
    """Says how many seeds pairs need, from the correlation of two networks over shared seeds."""
    blocks = min(len(a.accuracies), len(b.accuracies))
    ours, theirs = a.accuracies[:blocks], b.accuracies[:blocks]
    if not ours.std() or not theirs.std():
        return ""
    rng = np.random.default_rng(0)
    rows = rng.integers(blocks, size=(RESAMPLES, blocks))
    drawn = [_r(ours[row], theirs[row]) for row in rows]
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    r = _r(ours, theirs)
    found = marked(
        "Over the same seeds the accuracies of {a} and {b} correlate with r = {r:.2f} (95% "
        "interval {low} to {high})"
    )
    names = {"a": a.cell.config.brief, "b": b.cell.config.brief}
    found = t(found, r=r, low=minus(f"{low:.2f}"), high=minus(f"{high:.2f}"), **names)
    text = marked(
        "{found}, so comparisons in pairs of seeds need {share:.0f}% more seeds than the table "
        "says."
    )
    if low <= 0 <= high:
        text = marked(
            "{found}, so comparisons in pairs of seeds need about as many seeds as the table says."
        )
    elif r > 0:
        text = marked(
            "{found}, so comparisons in pairs of seeds need {share:.0f}% fewer seeds than the "
            "table says."
        )
    return t(text, found=found, share=100 * abs(r))


def _r(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


# --- what one more run would give --------------------------------------------------------------


def predictions(study: StoredGrid) -> list[Section]:
    """Returns the section on whether one more run would give what was reported, if it applies."""
    entries = [entry for cell in study.file.cells for entry in cell.reported]
    columns = [c for c in RESULTS if any(getattr(entry, c) is not None for entry in entries)]
    rows = [
        row
        for cell in study.file.cells
        for which in range(len(cell.reported))
        if (row := _prediction(study, cell, which, columns))
    ]
    if not rows:
        return []
    below = [t(header) for header in PREDICTED]
    caption = marked(
        "{data}. One more run: 95% prediction interval from the seeds (Student's t), as CORE-Bench "
        "grades replications (Siegel et al. 2024, arXiv:2409.11363); where runs fail to learn, "
        "their range, which holds one more of n + 1 runs with probability (n − 1)/(n + 1)."
    )
    headers: list[Header] = [(t(COLUMNS[column]), below) for column in columns]
    headers, caption = [t("Model"), *headers, t("Seeds")], t(caption, data=data_text(study))
    table = Table(headers=headers, rows=rows, caption=caption)
    return [Section(title=t("Would one more run give what was reported?"), blocks=[table])]


def _prediction(study: StoredGrid, cell: Cell, which: int, columns: Sequence[str]) -> list[str]:
    rows = study.of(cell)
    line = [cell.reported[which].label]
    for column in columns:
        value = getattr(cell.reported[which], column)
        values = (SCALE[column] * rows[column]).to_list()
        bounds = expected(values, collapsed=study.fails(cell))
        if value is None or bounds is None:
            line += ["–" if value is None else _number(SCALE[column] * value, column), "–", "–"]
            continue
        low, high = (round(bound, DIGITS[column]) for bound in bounds)  # as exact as is printed
        value = round(SCALE[column] * value, DIGITS[column])
        place = t("below") if value < low else t("above") if value > high else t("inside")
        if column == "test_accuracy":
            low, high = bounded(low), bounded(high)
        line += [_number(value, column), f"{_number(low, column)}–{_number(high, column)}", place]
    return [*line, str(len(rows))] if len(rows) else []


def _number(value: float, column: str) -> str:
    return f"{value:.{DIGITS[column]}f}"


def expected(values: Sequence[float], *, collapsed: bool) -> tuple[float, float] | None:
    """Returns where one more run is expected: the 95% prediction interval, or the range where runs
    fail to learn; None for fewer than two finite values."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return None
    return (min(finite), max(finite)) if collapsed else prediction_interval(finite)
