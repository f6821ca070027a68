"""A stored study, or two compared, as lines and tables for the terminal; without matplotlib."""

from collections.abc import Iterator, Sequence
from functools import partial

from rich.console import RenderableType

from hpo.analysis.claims import claim_verdicts, tally
from hpo.analysis.compare import Row, Stored, compare
from hpo.analysis.hypothesis_tests import Verdict
from hpo.analysis.statistics import estimate, summarize
from hpo.language import printed
from hpo.report.blocks.grid_tables import cells_table, most_accurate
from hpo.report.blocks.search_tables import (
    best_table,
    finalists_table,
    gain_sentence,
    states_text,
    test_metrics,
    unfinished,
    winner_sentence,
)
from hpo.report.blocks.table import Column, Table
from hpo.report.blocks.words import grid_states_text, interval_entry, p_text
from hpo.results.study import StoredGrid, StoredSearch
from hpo.results.trial import run_name
from hpo.study.finalists import noun_of
from hpo.study.metrics import Metric
from hpo.text import count, printable
from hpo.watch.fitted import Fitted

MOST_OPEN = 10  # unresolved conclusions that are listed


def terminal(study: StoredGrid | StoredSearch) -> Iterator[RenderableType]:
    """Yields the states of the study's trials and its results."""
    return _search(study) if isinstance(study, StoredSearch) else _grid(study)


def _grid(study: StoredGrid) -> Iterator[RenderableType]:
    """Yields the results of each cell and the states of the trials."""
    noun = noun_of(study.name)
    yield f"{study.name} on {study.data_name}: {grid_states_text(study) or f'no {noun}s'}"
    cells = most_accurate(study, study.file.cells)
    table = cells_table(study, [(cell, None) for cell in cells])
    figures = dict.fromkeys([study.metric.tested.name, *study.figures])
    yield Fitted(table.only(["name", "seeds", *figures, f"{study.result.name}.reported"]))
    if len(cells) < len(study.file.cells):
        most = "best" if study.regression else "most accurate"
        of_all = f"of {len(study.file.cells):,} cells"
        yield f"the {len(cells)} {most} {of_all}; the report has all"
    for _, best in study.ranked.head(1).iterrows():
        reached = study.metric.text(best[study.metric.name])
        yield f"best {noun}: {best['number']}, {run_name(best['cell'], best['seed'])}, {reached}"
    yield from _verdicts(study)


def _verdicts(study: StoredGrid) -> Iterator[RenderableType]:
    """Yields the tally, and a line per conclusion that does not hold."""
    if not study.file.claims or study.finished.empty:
        return
    judged = claim_verdicts(study)
    yield f"{tally(judged)}"
    still_open = sum(of.verdict is Verdict.UNRESOLVED for of in judged)
    for of in judged:
        listed = of.verdict is not Verdict.UNRESOLVED or still_open <= MOST_OPEN
        if of.verdict is not Verdict.HOLDS and listed:
            yield f"  {of.verdict.value}: {of.claim.says}"
    if still_open and study.until_resolved is None:
        yield "More seeds for the unresolved ones: --until-resolved"


def _search(study: StoredSearch) -> Iterator[RenderableType]:
    """Yields the states, the best trials and the finalists."""
    yield f"{study.name} on {study.data_name}: {states_text(study) or 'no trials'}"
    if sentence := unfinished(study):
        yield sentence
    if len(study.ranked):
        keys = ["trial", "network", "validation", "cost", "seconds"]
        yield Fitted(best_table(study, 5).only(keys))
    if study.tested is not None and len(study.tested.finished):
        tested = [metric.name for metric in test_metrics(study)]
        keys = ["finalist", "network", "selected", "fresh", "bias", *tested, "cost"]
        yield Fitted(finalists_table(study).only(keys))
        yield winner_sentence(study)
        if gained := gain_sentence(study):
            yield gained


# --- hpo compare -------------------------------------------------------------------------------


def comparison(first: Stored, second: Stored) -> Iterator[RenderableType]:
    """Yields a table with a row per network, and what the verdicts rest on."""
    rows, studies = compare(first, second), (first, second)
    metric = first.metric
    yield f"{metric.header} on {first.data_name}: mean (95% interval over seeds)"
    columns = [
        Column("network", "", lambda row: row.name),
        *(_side(place, each.name, metric, 1) for place, each in enumerate(studies)),
        Column("difference", "difference (95% interval)", partial(_difference, metric)),
        Column("by", "by", _test, priority=3),
        Column("p", "p", _p, priority=2),
        Column("verdict", "verdict", _verdict),
        *(_side(place, each.name, metric.tested, 4) for place, each in enumerate(studies)),
    ]
    yield Fitted(Table(columns=columns, rows=rows))
    for search in (study for study in studies if isinstance(study, StoredSearch)):
        spent, ends = count(len(search.ended), "trial"), count(len(search.winners), "winner")
        yield f"{search.name}: {spent}, {ends}."
    yield (
        "Validation decides. Paired where seeds are shared. p: two-sided, after Holm's correction "
        f"over {count(len(rows), 'comparison')}, for one look: not for adding seeds until it is "
        "small. Searches are tested only if both ran with --repeats, by their winners: with "
        "another sampler seed each may end elsewhere."
    )
    yield from _different(rows)


def _side(place: int, study: str, metric: Metric, priority: int) -> Column:
    """Returns the column of a study's values of a metric."""
    part = "test" if metric.name.startswith("test_") else "validation"

    def values(row: Row) -> str:
        side = row.sides[place]
        gains = side.runs[metric.name].to_list()
        found = summarize(gains)
        if found is None:
            return "no runs"
        if side.fails and found.n > 1:
            low, high = metric.ends(found.low, found.high).values()
            return f"median {metric.number(found.median)} ({low}–{high})"
        return interval_entry(estimate(gains), metric).text

    return Column(f"{part}.{place}", f"{study}: {part}", values, priority=priority)


def _difference(metric: Metric, row: Row) -> str | None:
    """Returns the first study's value minus the second's, with its interval."""
    if row.evidence is None:
        return None
    text = printed(f"{{:+.{metric.digits}f}}", metric.sign * row.evidence.effect)
    if row.evidence.low == row.evidence.low:
        ends = sorted(metric.sign * end for end in row.evidence.interval)
        low, high = (printed(f"{{:.{metric.digits}f}}", end) for end in ends)
        text += f" ({low} to {high})"
    return text


def _test(row: Row) -> str | None:
    return f"{row.evidence.test or 'none'}, n = {row.evidence.n}" if row.evidence else None


def _p(row: Row) -> str | None:
    if row.evidence is None or not row.evidence.test:
        return None
    return p_text(row.p)


def _verdict(row: Row) -> str:
    if row.evidence is None:
        return "not tested"
    better = {Verdict.HOLDS: row.sides[0].study, Verdict.REFUTED: row.sides[1].study}
    winner = better.get(row.verdict)
    return f"{winner} is better" if winner else row.verdict.value


def _different(rows: Sequence[Row]) -> Iterator[str]:
    """Yields a line for cells of one name that are different networks."""
    for row in rows:
        ours, theirs = (side.cell.config.as_dict() for side in row.sides)
        values = {key: (ours.get(key, "–"), theirs.get(key, "–")) for key in {**ours, **theirs}}
        parts = [f"{key} {_brief(a)} and {_brief(b)}" for key, (a, b) in values.items() if a != b]
        if parts:
            yield f"{row.name}: {', '.join(parts)}."


def _brief(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else printable(str(value))
