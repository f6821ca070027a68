"""What came out of a grid, in sentences."""

from collections.abc import Sequence
from itertools import pairwise

from hpo.analysis.statistics import Summary, paired_difference, summarize
from hpo.report.grid_tables import FAILS_BELOW, fails
from hpo.storage.results import StoredGrid
from hpo.study.file import Cell


def finding(study: StoredGrid, cell: Cell) -> str:
    """What came out for one cell, in a sentence or two."""
    rows = study.of(cell)
    values = (100 * rows["test_accuracy"]).to_list()
    summary = summarize(values)
    if summary is None:
        return f"{cell.label} has no finished run yet."
    published = [100 * r.test_accuracy for r in cell.reported if r.test_accuracy is not None]
    seeds = f"{summary.n} seed{'' if summary.n == 1 else 's'}"
    if fails(study, cell):
        lost = rows["diverged"].astype(bool)
        failing = int((lost | (rows["test_accuracy"] < FAILS_BELOW)).sum())
        diverged = int(lost.sum())
        text = f"{cell.label} fails to learn in {_share(failing, summary.n)}: "
        text += f"test accuracy {summary.mean:.2f}%" if summary.n == 1 else (
            f"median test accuracy {summary.median:.2f}%, "
            f"range {summary.low:.2f}–{summary.high:.2f}%"
        )  # fmt: skip
        text += f"; in {_share(diverged, summary.n)} its loss was not finite" if diverged else ""
        return f"{text}. {_published_text(published)}".strip()
    if summary.n == 1:
        return (
            f"{cell.label} reaches {summary.mean:.2f}% with one seed. {_published_text(published)}"
        )
    text = f"{cell.label} reaches {summary.mean:.2f} ± {summary.sd:.2f}% over {seeds}"
    text += f", between {summary.low:.2f}% and {summary.high:.2f}%. "
    return (text + _placed(published, summary)).strip()


def _share(count: int, n: int) -> str:
    if count == n:
        return f"all {n} seeds" if n > 1 else "its one seed"
    return f"{count} of {n} seeds"


def _published_text(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"The report has {' and '.join(f'{v:.2f}%' for v in values)}."


def _placed(values: Sequence[float], summary: Summary) -> str:
    """Where the reported figures lie among the seeds."""
    parts = []
    for value in values:
        below, above = value < summary.low, value > summary.high
        place = "below all seeds" if below else "above all seeds" if above else "inside that range"
        parts.append(f"{value:.2f}%, {place}")
    return f"The report has {'; and '.join(parts)}." if parts else ""


def comparisons(study: StoredGrid, cells: Sequence[Cell]) -> list[str]:
    """The cells that learn, ranked by mean test accuracy, each against the next, seed by seed."""
    learned = [cell for cell in cells if len(study.of(cell)) and not fails(study, cell)]
    learned.sort(key=lambda cell: -study.of(cell)["test_accuracy"].mean())
    return [_comparison(study, a, b) for a, b in pairwise(learned)]


def _comparison(study: StoredGrid, better: Cell, worse: Cell) -> str:
    a, b = (study.of(c).set_index("seed")["test_accuracy"] * 100 for c in (better, worse))
    common = a.index.intersection(b.index)
    if common.empty:
        return f"{better.label} and {worse.label} have no seed in common yet."
    difference = paired_difference(a[common].to_list(), b[common].to_list())
    if difference.mean < 0:  # ranked by all seeds, compared on those in common
        return _comparison(study, worse, better)
    published = _published_differences(better, worse)
    if difference.n == 1:
        return (
            f"{better.label} is {difference.mean:+.2f} points from {worse.label} in a single pair "
            f"of runs, which says nothing about other seeds{published}."
        )
    interval = f"95% interval {difference.low:.2f} to {difference.high:.2f}"
    basis = f"{interval}, {difference.n} pairs of seeds{published}"
    if difference.resolved:
        return (
            f"{better.label} is {difference.mean:.2f} points more accurate than {worse.label} "
            f"({basis})."
        )
    return (
        f"Between {better.label} and {worse.label} these seeds do not decide: "
        f"{difference.mean:+.2f} points ({basis})."
    )


def _published_differences(better: Cell, worse: Cell) -> str:
    pairs = [
        100 * (a.test_accuracy - b.test_accuracy)
        for a in better.reported
        for b in worse.reported
        if a.test_accuracy is not None and b.test_accuracy is not None
    ]
    return f"; reported: {' and '.join(f'{d:+.2f}' for d in pairs)}" if pairs else ""
