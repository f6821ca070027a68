"""A stored study for a terminal. No pictures are loaded here: who looks is not to wait."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table as RichTable

from hpo.analysis.claims import judge_all
from hpo.analysis.hypothesis_tests import Verdict
from hpo.report.claims import tally
from hpo.report.grid_tables import most_accurate, published, reported, reproduced
from hpo.report.search_tables import best_rows, fates, finalists_rows, unfinished, winner_sentence
from hpo.storage.results import StoredGrid, StoredSearch
from hpo.study.file import FIGURES


def terminal(study: StoredGrid | StoredSearch) -> Iterator[RenderableType]:
    """What became of its trials, and what came out."""
    return _search(study) if isinstance(study, StoredSearch) else _grid(study)


def _grid(study: StoredGrid) -> Iterator[RenderableType]:
    """The overview for a terminal: what is there of each cell, and what became of the trials."""
    counts = study.trials["state"].value_counts()
    states = ", ".join(f"{n} {state}" for state, n in counts.items()) or "no trials"
    yield f"{study.name} on {study.data_name}: {states}"
    with_reported = published(study.file)
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    table.add_column("cell")
    table.add_column("seeds", justify="right")
    table.add_column("test accuracy (%)", no_wrap=True)
    table.add_column("test loss", no_wrap=True)
    table.add_column("seconds", no_wrap=True)
    if with_reported:
        table.add_column("reported (%)", no_wrap=True)
    cells = most_accurate(study, study.file.cells)
    for cell in cells:
        row = [cell.name, str(len(study.of(cell)))]
        row += [reproduced(study, cell, figure) for figure in FIGURES]
        table.add_row(*row, *([reported(cell, "test_accuracy")] if with_reported else []))
    yield table
    if len(cells) < len(study.file.cells):
        of_all = f"of {len(study.file.cells):,} cells"
        yield f"the {len(cells)} most accurate {of_all}; the report has all"
    for _, best in study.finished.nlargest(1, "valid_accuracy").iterrows():
        accuracy = f"validation accuracy {100 * best['valid_accuracy']:.2f}%"
        yield f"best trial: {best['number']}, {best['cell']} seed {best['seed']}, {accuracy}"
    yield from _verdicts(study)


def _verdicts(study: StoredGrid) -> Iterator[RenderableType]:
    """The tally, and a line for each conclusion that does not hold."""
    if not study.file.claims or study.finished.empty:
        return
    judged = judge_all(study)
    yield f"{tally(judged)}"
    for of in judged:
        if of.verdict is not Verdict.HOLDS:
            yield f"  {of.verdict.value}: {of.claim.says}"


def _search(study: StoredSearch) -> Iterator[RenderableType]:
    """The search for a terminal: fates, the best trials, the finalists."""
    counts = ", ".join(f"{len(of)} {fate}" for fate, of in fates(study).items() if len(of))
    yield f"{study.name} on {study.data_name}: {counts or 'no trials'}"
    if sentence := unfinished(study):
        yield sentence
    if len(study.ranked):
        yield _rich(best_rows(study))
    if study.tested is not None and len(study.tested.finished):
        yield _rich(finalists_rows(study, study.tested))
        yield winner_sentence(study)


def _rich(rows: Sequence[Sequence[str]]) -> RichTable:
    """The first row is the header."""
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for header in rows[0]:
        table.add_column(header, no_wrap=True)
    for row in rows[1:]:
        table.add_row(*row)
    return table
