"""A stored study, or two compared, as lines and tables for the terminal; without matplotlib."""

from collections.abc import Iterator, Sequence

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
    states_text,
    unfinished,
    winner_sentence,
)
from hpo.report.blocks.table import Column, Table
from hpo.report.blocks.words import interval_entry, p_text
from hpo.results.study import StoredGrid, StoredSearch
from hpo.results.trial import run_name
from hpo.study.file import FIGURES
from hpo.text import count, printable
from hpo.watch.fitted import Fitted

MOST_OPEN = 10  # unresolved conclusions that are listed


def terminal(study: StoredGrid | StoredSearch) -> Iterator[RenderableType]:
    """Yields the states of the study's trials and its results."""
    return _search(study) if isinstance(study, StoredSearch) else _grid(study)


def _grid(study: StoredGrid) -> Iterator[RenderableType]:
    """Yields the results of each cell and the states of the trials."""
    counts = study.trials["state"].value_counts()
    states = ", ".join(f"{n} {state}" for state, n in counts.items()) or "no trials"
    yield f"{study.name} on {study.data_name}: {states}"
    cells = most_accurate(study, study.file.cells)
    table = cells_table(study, [(cell, None) for cell in cells])
    yield Fitted(table.only(["name", "seeds", *FIGURES, "test_accuracy.reported"]))
    if len(cells) < len(study.file.cells):
        of_all = f"of {len(study.file.cells):,} cells"
        yield f"the {len(cells)} most accurate {of_all}; the report has all"
    for _, best in study.ranked.head(1).iterrows():
        accuracy = f"validation accuracy {100 * best['valid_accuracy']:.2f}%"
        yield f"best trial: {best['number']}, {run_name(best['cell'], best['seed'])}, {accuracy}"
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
        yield Fitted(best_table(study, 5).only(["trial", "network", "validation", "seconds"]))
    if study.tested is not None and len(study.tested.finished):
        keys = ["finalist", "network", "selected", "fresh", "bias", "test"]
        yield Fitted(finalists_table(study).only(keys))
        yield winner_sentence(study)


# --- hpo compare -------------------------------------------------------------------------------


def comparison(first: Stored, second: Stored) -> Iterator[RenderableType]:
    """Yields a table with a row per network, and what the verdicts rest on."""
    rows, studies = compare(first, second), (first, second)
    yield f"Accuracies (%) on {first.data_name}: mean (95% interval over seeds)"
    columns = [
        Column("network", "", lambda row: row.name),
        *(_side(place, study.name, "validation", 1) for place, study in enumerate(studies)),
        Column("difference", "difference (95% interval)", _difference),
        Column("by", "by", _test, priority=3),
        Column("p", "p", _p, priority=2),
        Column("verdict", "verdict", _verdict),
        *(_side(place, study.name, "test", 4) for place, study in enumerate(studies)),
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


def _side(place: int, study: str, part: str, priority: int) -> Column:
    """Returns the column of a study's accuracies. part: validation or test."""

    def values(row: Row) -> str:
        side, metric = row.sides[place], {"validation": "valid_accuracy", "test": "test_accuracy"}
        found = summarize(side.runs[metric[part]].to_list())
        if found is None:
            return "no runs"
        if side.fails and found.n > 1:
            return f"median {found.median:.2f} ({found.low:.2f}–{found.high:.2f})"
        return interval_entry(estimate(side.runs[metric[part]].to_list())).text

    return Column(f"{part}.{place}", f"{study}: {part}", values, priority=priority)


def _difference(row: Row) -> str | None:
    if row.evidence is None:
        return None
    text = printed("{:+.2f}", row.evidence.effect)
    if row.evidence.low == row.evidence.low:
        low, high = (printed("{:.2f}", end) for end in (row.evidence.low, row.evidence.high))
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
