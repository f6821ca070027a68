"""A grid's report at a glance: the picture and the card of its first screen, and all networks."""

from collections.abc import Sequence
from functools import partial
from itertools import product

import pandas as pd

from hpo.analysis.claims import claim_verdicts
from hpo.analysis.hypothesis_tests import Verdict
from hpo.analysis.selection import lead, rivals
from hpo.language import marked, nt, printed, t
from hpo.report.blocks import grid_tables as tables
from hpo.report.blocks.page import Block, Card, Picture, Section
from hpo.report.blocks.table import Table
from hpo.report.figures import grid as figures
from hpo.report.sections.course import curve_cells
from hpo.results.study import StoredGrid
from hpo.study.file import Cell
from hpo.study.metrics import capital
from hpo.text import listed


def sections(study: StoredGrid) -> list[Section]:
    """Returns the section with the tables of all networks."""
    blocks: list[Block] = [main_table(study)]
    blocks += [table] if (table := tables.recall_table(study)) else []
    blocks += [
        t(
            "{labels} are one configuration, published more than once: its seeds were trained once "
            "and stand in each of its rows.",
            labels=t(" and ").join(entry.label for entry in study.reported(cell)),
        )
        for cell in study.file.cells
        if len(study.reported(cell)) > 1
    ]
    return [Section(title=t("All networks at a glance"), blocks=blocks)]


def picture(study: StoredGrid) -> Picture | None:
    """Returns the picture of all networks' results; None before one has any."""
    shown, result = tables.most_accurate(study, study.file.cells), study.result
    said = capital(t(result.words))
    rows = [row for row in overview_rows(study) if row[0] in shown]
    dots = [_dots(study, cell, which) for cell, which in rows]
    if not any(row.values for row in dots):
        return None
    caption = t("{metric}, a dot a seed. {data}.", metric=said, data=tables.data_text(study))
    more = tables.of_many(study, shown, study.file.cells) + tables.at_worst(study)
    return Picture(
        file="overview.svg",
        draw=partial(figures.overview, dots, result.gain(study.line), result, study.floor),
        alt=t("{metric} of every network: a dot for each seed, a bar at their mean.", metric=said),
        caption=caption + more,
    )


def _dots(study: StoredGrid, cell: Cell, which: int | None) -> figures.Dots:
    entry, result = None if which is None else cell.reported[which], study.result
    reported = getattr(entry, result.name) if entry else None
    return figures.Dots(
        label=entry.label if entry else cell.label,
        fails=study.fails(cell),
        values=study.gains(cell, result).to_list(),
        reported=None if reported is None else result.gain(reported),
    )


def main_table(study: StoredGrid) -> Table:
    """Returns a row per network: its settings, reported and reproduced results."""
    caption = f"{tables.basis(study)}. {tables.results_key(study, study.file.cells)}."
    return tables.cells_table(study, overview_rows(study), caption).but("name")


def overview_rows(study: StoredGrid) -> list[tuple[Cell, int | None]]:
    """Returns a row per published network, in the order of the experiments."""
    file, by_name = study.file, {cell.name: cell for cell in study.file.cells}
    published = {name: len(study.reported(cell)) for name, cell in by_name.items()}
    visits = [name for e in file.experiments for name in curve_cells(file, e)]
    rest = [name for name in by_name for _ in range(max(published[name], 1))]
    rows: list[tuple[Cell, int | None]] = []
    for name in [*visits, *rest]:  # the rest: what no experiment came to, or not often enough
        cell = by_name[name]
        before = sum(shown is cell for shown, _ in rows)
        if before < max(published[name], 1):
            rows.append((cell, before if published[name] else None))
    return rows


# --- the card -----------------------------------------------------------------------------------

Row = tuple[str, str, Sequence[str]]  # see page.Card
MOST = 2  # conclusions of a kind that the card names; the table has all
LEAST_SEEDS = 3  # that networks are compared on
MORE = 5  # seeds that are asked for, at least
VERDICTS = {
    Verdict.HOLDS: marked("What holds"),
    Verdict.REFUTED: marked("What does not"),
    Verdict.TOO_SMALL: marked("What is too small to matter"),
    Verdict.UNRESOLVED: marked("What is open"),
    Verdict.UNTESTABLE: marked("What this grid cannot test"),
}


def card(study: StoredGrid) -> Card | None:
    """Returns what the grid says, what it leaves open and what to do next; None before the first
    result."""
    if study.finished.empty:
        return None
    rows = _verdict_rows(study) if study.file.claims else _network_rows(study)
    files = ["trials.csv", "curves.csv", "provenance.json"]
    files[:0] = ["verdicts.json"] * bool(study.file.claims)
    files[-1:-1] = ["times.csv"] * bool(study.timings)
    rows.append((t("What to do next"), _next(study, rows), ()))
    return Card(rows=rows, links=[(name, name) for name in files])


def _verdict_rows(study: StoredGrid) -> list[Row]:
    """Returns a row per verdict that conclusions have, with the first of these."""
    judged = claim_verdicts(study)
    rows: list[Row] = []
    for verdict, what in VERDICTS.items():
        says = [t(of.claim.says) for of in judged if of.verdict is verdict]
        more = len(says) - MOST
        named = [*says[:MOST], *([t("and {n} more", n=more)] if more > 0 else [])]
        value = nt("{k} of {n} conclusion", "{k} of {n} conclusions", len(judged), k=len(says))
        rows += [(t(what), value, named)] if says else []
    return rows


def answer(study: StoredGrid, guess: str) -> list[str]:
    """Says which network is the best, and whether it leads, of a grid without conclusions to test;
    nothing if fewer than two can be compared. guess: ends the first sentence."""
    best, gains = _best(study)
    if best is None or not _comparable(study, gains):
        return []
    what, value, [basis] = _lead(study, gains)
    leads = f"{value} ({basis})." if what == t(VERDICTS[Verdict.HOLDS]) else basis
    text = marked("The best of {n} networks is {network}: mean {metric} {value}{guess}. {leads}")
    metric = study.result
    known = {"metric": t(metric.words), "value": metric.spelled(study.results(best).mean())}
    return [t(text, n=len(study.file.cells), network=best.label, guess=guess, leads=leads, **known)]


def _best(study: StoredGrid) -> tuple[Cell | None, pd.DataFrame]:
    """Returns the best of the networks that learn, None if none does, and the results of all of
    these: a row per seed that they have in common, a column per network."""
    learn = [cell for cell in study.file.cells if len(study.of(cell)) and not study.fails(cell)]
    gains = pd.DataFrame({cell.name: study.results(cell) for cell in learn})
    common = gains.dropna()
    if gains.empty:
        return None, common
    return study.cell((gains if common.empty else common).mean().idxmax()), common


def _comparable(study: StoredGrid, gains: pd.DataFrame) -> bool:
    """Whether there are two networks or more, over seeds that are independent: crossed ones share
    splits, weights and orders."""
    return len(gains.columns) > 1 and not any(cell.crossed for cell in study.file.cells)


def _network_rows(study: StoredGrid) -> list[Row]:
    """Returns the best network, whether it leads, and which networks fail, of a grid without
    conclusions to test."""
    failed = [cell.label for cell in study.file.cells if study.fails(cell)]
    rows: list[Row] = [(t("What fails to learn"), listed(failed), ())] if failed else []
    best, gains = _best(study)
    if best is None:
        return rows
    found = tables.reproduced(study, best, study.result.name).text
    leads = [_lead(study, gains)] if _comparable(study, gains) else []
    return [(t("Best network"), best.label, [f"{study.result.header}: {found}"]), *leads, *rows]


def _lead(study: StoredGrid, gains: pd.DataFrame) -> Row:
    """Says whether the best network really leads, and if not, which others may be the best. gains:
    a row per seed that all have, a column per network."""
    open_, whether = t(VERDICTS[Verdict.UNRESOLVED]), t("Whether it is the best")
    if len(gains) < LEAST_SEEDS:
        few = t("There are too few common seeds to tell whether it is really the best.")
        return open_, whether, [few]
    values, metric = gains.to_numpy(), study.result
    found, near = lead(values, metric.most), rivals(values, metric.most)
    names = [study.cell(gains.columns[place]).label for place in near[1:]]
    if found.low <= 0:
        text = marked("{names} may be the best as well (95%, {n} seeds).")
        return open_, whether, [t(text, names=listed(names), n=found.n)]
    low, high = (printed(f"{{:.{metric.digits}f}}", end) for end in (found.low, found.high))
    text = marked("95% interval {low} to {high}, paired t-test, {n} seeds")
    value = t("It leads {second} by {lead}", second=names[0], lead=metric.difference(found.mean))
    return t(VERDICTS[Verdict.HOLDS]), value, [t(text, low=low, high=high, n=found.n)]


def _next(study: StoredGrid, rows: Sequence[Row]) -> str:
    """Says what to do next. rows: of the card, which say what is open."""
    first, names = study.file.first, [cell.name for cell in study.file.cells]
    planned = {*product(names, range(first, first + study.seeds))}
    if left := len(planned - study.ended_seeds):
        return nt(
            "The same command goes on: {n} training is left",
            "The same command goes on: {n} trainings are left",
            left,
        )
    if all(what != t(VERDICTS[Verdict.UNRESOLVED]) for what, *_ in rows):
        text = marked(
            "The same on seeds that had no part in it: --first-seed {n}, with another --name"
        )
        return t(text, n=first + study.seeds)
    if not study.file.claims:
        return t("More seeds: the same command with --seeds {n}", n=max(2 * study.seeds, MORE))
    rounds, most = study.until_resolved or {}, study.file.rounds.most
    if rounds.get("end") == "complete" or study.seeds >= most:
        text = marked(
            "More than {n} seeds where conclusions are open: raise seeds in the study file"
        )
        return t(text, n=most)
    return t("More seeds where conclusions are open: the same command with --until-resolved")
