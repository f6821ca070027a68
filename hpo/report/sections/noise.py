"""The report's sections on noise: sources of the spread between runs, and what one run can tell."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from operator import itemgetter

import numpy as np

from hpo.analysis.components import IMAGES, Component, Spread, crossed
from hpo.analysis.hypothesis_tests import one_more
from hpo.analysis.statistics import ranked_right, seeds_needed
from hpo.language import marked, t
from hpo.report.blocks.grid_tables import data_text
from hpo.report.blocks.page import Block, Section
from hpo.report.blocks.table import NOTHING, Column, Entry, Table
from hpo.report.blocks.words import ends_entry
from hpo.results.study import StoredGrid
from hpo.study.claims import RATIOS, SECONDS
from hpo.study.config import SOURCES
from hpo.study.file import BLOCK, COLUMNS, Cell, Reported
from hpo.study.metrics import Metric

DIFFERENCES = (0.1, 0.2, 0.5, 1.0)  # points of test accuracy; of others in a unit of their spread
NAMES = {
    "split": marked("split"),
    "weights": marked("initial weights"),
    "order": marked("batch order within the split"),
}
RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """A cell with two complete blocks or more. gains: of the results, (blocks, 8). spread: of the
    results' values."""

    cell: Cell
    gains: np.ndarray
    spread: Spread

    @property
    def name(self) -> str:
        return self.cell.config.brief  # in the language of this moment


def sections(study: StoredGrid) -> list[Section]:
    """Returns the section on the sources of spread, for a grid with crossed cells."""
    found = _networks(study)
    if not found:
        return []
    blocks: list[Block] = [_spread_table(study, found)]
    std = float(np.sqrt(np.mean([network.spread.std**2 for network in found])))
    if std > 0:
        blocks.append(_power_table(study, std))
    sentences = [_chance(study.result, network) for network in found]
    for pair in combinations(found, 2):
        sentences += [_apart(study.result, *pair), _correlation(study.result, *pair)]
    blocks.append(list(filter(None, sentences)))
    return [Section(title=t("Where the spread comes from"), blocks=blocks)]


def lead(study: StoredGrid, guess: str) -> list[str]:
    """Names the largest part of each network's spread in a sentence, with its interval, if there
    are crossed cells. guess: ends the sentence."""
    parts = []
    for network in _networks(study):
        largest = max(network.spread.components, key=lambda component: component.share)
        name = _name(study, largest).lower()
        text = marked("{name}, {share:.0f}% (95% interval {low:.0f} to {high:.0f}%; {network})")
        ends = {"low": 100 * largest.low, "high": 100 * largest.high}
        parts.append(t(text, name=name, share=100 * largest.share, network=network.name, **ends))
    text = marked("The largest part of the spread between runs: {parts}{guess}.")
    return [t(text, parts="; ".join(parts), guess=guess)] if parts else []


@lru_cache(maxsize=1)  # the first sentence and the section need the same
def _networks(study: StoredGrid) -> list[Crossed]:
    found = [_crossed(study, cell) for cell in study.file.cells if cell.crossed]
    return [network for network in found if network]


def _crossed(study: StoredGrid, cell: Cell) -> Crossed | None:
    """Analyses a cell's complete blocks; None for fewer than two, and if a run failed to learn: the
    spread would measure failures."""
    right = study.values(cell).dropna().to_frame() if study.regression else study.right(cell)
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
    gains = study.result.gain(runs.mean(axis=1)).reshape(len(whole), BLOCK)
    return Crossed(cell=cell, gains=gains, spread=crossed(blocks))


def _spread_table(study: StoredGrid, networks: Sequence[Crossed]) -> Table:
    counts = ", ".join(t("{n} runs", n=network.gains.size) for network in networks)
    caption = marked(
        "{data}; {runs}. Shares of the variance of {metric} between runs, which add up to 100%. "
        "Runs are crossed: two splits, two initial weights and two batch orders in all "
        "combinations, in blocks with new draws each. A batch order permutes the {things} of a "
        "split, so its effect is one within the split. A row of two sources: what they do only "
        "together. {images}Share: variance components by REML, at least 0; raw: by expected mean "
        "squares, which may fall below 0. Intervals: generalized pivotal quantities of the raw "
        "shares, cut at 0 and 100%."
    )
    metric, things, images = study.result, t(study.things), ""
    if not study.regression:
        images = t("Test {things}: what would go with many more of them.", things=things) + " "
    known = {"metric": t(metric.words), "things": things, "images": images}
    caption = t(caption, data=data_text(study), runs=counts, **known)
    spreads = [network.spread for network in networks]
    rows = [
        [Entry(_name(study, row[0])), *(entry for part in row for entry in _entries(part))]
        for row in zip(*(spread.components for spread in spreads), strict=True)
    ]
    text = t("All, sd in points") if metric.mark else t("All, sd of {metric}", **known)
    rows.append([Entry(text), *(entry for part in spreads for entry in _whole(metric, part))])
    columns = [Column("of", t("Drawn anew"), itemgetter(0))]
    for i, network in enumerate(networks):
        share, interval = itemgetter(2 * i + 1), itemgetter(2 * i + 2)
        columns.append(Column(f"share.{i}", t("share (raw)"), share, group=network.name))
        columns.append(Column(f"interval.{i}", t("95% interval"), interval, group=network.name))
    return Table(columns=columns, rows=rows, caption=caption)


def _whole(metric: Metric, spread: Spread) -> list[Entry]:
    """Returns the standard deviation, and its interval."""
    numbers = (spread.std, spread.low, spread.high)
    std, low, high = (f"{metric.scale * number:.{metric.digits}f}" for number in numbers)
    ends = Entry(t("{first} to {last}", first=low, last=high), metric.scale * spread.low)
    return [Entry(std, metric.scale * spread.std), ends]


def _entries(part: Component) -> list[Entry]:
    """Returns a share with the raw one, and its interval."""
    low, high = 100 * part.low, 100 * part.high
    share, raw = 100 * part.share, 100 * part.raw
    ends = ends_entry(marked("{low:.0f} to {high:.0f}%"), low, high)
    return [Entry(t("{share:.0f}% ({raw:.0f}%)", share=share, raw=raw), share), ends]


def _name(study: StoredGrid, component: Component) -> str:
    if component.effect == IMAGES:
        return t("Test {things} (few)", things=t(study.things))
    names = [name for name in SOURCES if name in component.effect]
    if "order" in names:  # it is nested in the split
        names.remove("split")
    text = " × ".join(t(NAMES[name]) for name in names)
    return text[0].upper() + text[1:]


# --- what one seed tells -----------------------------------------------------------------------


def _power_table(study: StoredGrid, std: float) -> Table:
    metric = study.result
    std *= metric.scale
    caption = marked(
        "{data}. For two networks whose runs spread by {std} each, all three drawn anew. Seeds "
        "needed: of each network, without pairs, for a single t-test at 5% that looks once to find "
        "the difference four times of five; conclusions that are tested together need more."
    )
    unit = 1.0 if metric.mark else 10.0 ** (1 + math.floor(math.log10(std)))
    columns = [
        Column(
            "difference", t("True difference"),
            lambda row: Entry(t(metric.unit, value=f"{row:g}"), row),
        ),
        Column(
            "right", t("One run each ranks them right"),
            lambda row: 100 * ranked_right(row, std), "{:.0f}%",
        ),
        Column("seeds", t("Seeds needed"), lambda row: seeds_needed(row, std)),
    ]  # fmt: skip
    caption = t(caption, data=data_text(study), std=metric.difference(std))
    rows = [float(f"{unit * difference:.3g}") for difference in DIFFERENCES]
    return Table(columns=columns, rows=rows, caption=caption)


def _chance(metric: Metric, network: Crossed) -> str:
    std = metric.scale * network.spread.std
    if not std > 0:
        return ""
    text = marked(
        "Two runs of {network} differ by more than {apart} one time in twenty, by chance alone: a "
        "smaller difference between single runs of two networks tells nothing."
    )
    return t(text, network=network.name, apart=metric.difference(1.96 * math.sqrt(2) * std))


def _apart(metric: Metric, a: Crossed, b: Crossed) -> str:
    """Says how often single runs of two networks would have ranked them correctly."""
    gap = a.gains.mean() - b.gains.mean()
    better, worse = (a, b) if gap > 0 else (b, a)
    spread = metric.scale * math.hypot(a.spread.std, b.spread.std) / math.sqrt(2)
    if not spread > 0:
        return ""
    text = marked(
        "{better} is {gap} more accurate than {worse}; one run of each would have ranked them so "
        "with {right:.0f}%."
    )
    if not metric.mark:
        text = marked(
            "{better} is better than {worse}, by {gap} in {metric}; one run of each would have "
            "ranked them so with {right:.0f}%."
        )
    names = {"better": better.name, "worse": worse.name, "metric": t(metric.words)}
    known = {"gap": metric.difference(abs(gap)), "right": 100 * ranked_right(abs(gap), spread)}
    return t(text, **known, **names)


def _correlation(metric: Metric, a: Crossed, b: Crossed) -> str:
    """Says how many seeds pairs need, from the correlation of two networks over shared seeds."""
    blocks = min(len(a.gains), len(b.gains))
    ours, theirs = a.gains[:blocks], b.gains[:blocks]
    if not ours.std() or not theirs.std():
        return ""
    rows = np.random.default_rng(0).integers(blocks, size=(RESAMPLES, blocks))
    low, high = np.nanpercentile([_r(ours[row], theirs[row]) for row in rows], (2.5, 97.5))
    r = _r(ours, theirs)
    text = marked(
        "Over the same seeds the {results} of {a} and {b} correlate with r = {r:.2f} (95% "
        "interval {low:.2f} to {high:.2f}), so comparisons in pairs of seeds need {times:.2f} "
        "times as many seeds as the table says ({least:.2f} to {most:.2f})."
    )
    names, times = {"a": a.name, "b": b.name}, {"least": 1 - high, "most": 1 - low}
    names["results"] = t("accuracies") if metric.mark else t(metric.words)
    return t(text, r=r, low=low, high=high, times=1 - r, **names, **times)


def _r(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


# --- what one more run would give --------------------------------------------------------------


def predictions(study: StoredGrid) -> list[Section]:
    """Returns the section on whether one more run would give what was reported, if it applies."""
    cells = [cell for cell in study.file.cells if len(study.of(cell))]
    entries = [(cell, entry) for cell in cells for entry in study.reported(cell)]
    if not entries:
        return []
    caption = marked(
        "{data}. One more run: 95% prediction interval from five seeds or more (Student's t; of "
        "the logarithm of {errors}), as CORE-Bench grades replications (Siegel et al. 2024, "
        "arXiv:2409.11363); where runs fail to learn, their range, which holds one more of n + 1 "
        "runs with probability (n − 1)/(n + 1). Of {checks} checks, {outside:.1f} fall outside by "
        "chance."
    )
    results = [figure for figure in study.figures if figure != SECONDS]
    shown = [c for c in results if any(getattr(entry, c) is not None for _, entry in entries)]
    columns = [
        Column("model", t("Model"), lambda row: row[1].label),
        *(column for metric in shown for column in _predicted(study, metric)),
        Column("seeds", t("Seeds"), lambda row: len(study.of(row[0]))),
    ]
    checks = sum(getattr(entry, column) is not None for _, entry in entries for column in shown)
    errors = t("a loss, RMSE or MAE") if study.regression else t("a loss")
    known = {"errors": errors, "checks": checks, "outside": 0.05 * checks}
    caption = t(caption, data=data_text(study), **known)
    table = Table(columns=columns, rows=entries, caption=caption)
    return [Section(title=t("Would one more run give what was reported?"), blocks=[table])]


def _predicted(study: StoredGrid, metric: str) -> list[Column]:
    """Returns the columns of a reported number, of where one more run would fall, and of whether
    the reported one lies there. Rows: a cell and what was reported of it."""
    of = study.named(metric)
    scale, digits = of.scale, of.digits
    group = t(COLUMNS[metric])

    def reported(row: tuple[Cell, Reported]) -> float:
        value = getattr(row[1], metric)
        return math.nan if value is None else scale * value

    def bounds(row: tuple[Cell, Reported]) -> tuple[float, float]:
        """Returns the bounds, as exact as is printed; NaN without them or a reported number."""
        values = (scale * study.of(row[0])[metric]).to_list()
        low, high = one_more(values, collapsed=study.fails(row[0]), logs=metric in RATIOS)
        unknown = math.isnan(reported(row))
        return (math.nan, math.nan) if unknown else (round(low, digits), round(high, digits))

    def interval(row: tuple[Cell, Reported]) -> Entry:
        low, high = bounds(row)
        if math.isnan(low):
            return Entry(NOTHING)
        if not of.minimized:  # a loss below 0 has no logarithm
            low, high = max(low, of.gain(of.worst)), min(high, of.most)
        return Entry(f"{low:.{digits}f}–{high:.{digits}f}", low)

    def place(row: tuple[Cell, Reported]) -> str | None:
        (low, high), value = bounds(row), round(reported(row), digits)
        if math.isnan(low):
            return None
        return t("below") if value < low else t("above") if value > high else t("inside")

    return [
        Column(f"{metric}.reported", t("reported"), reported, f"{{:.{digits}f}}", group=group),
        Column(f"{metric}.expected", t("one more run"), interval, group=group),
        Column(f"{metric}.place", t("reported is"), place, group=group),
    ]
