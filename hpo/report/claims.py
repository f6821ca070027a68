"""The report's part on claims: what holds, what does not, and whether reported values were luck."""

import math
from collections.abc import Sequence

from hpo.analysis.claims import SECONDS, Judged, Part, judge_all
from hpo.analysis.hypothesis_tests import LEVEL, Verdict, prediction_interval
from hpo.analysis.statistics import summarize
from hpo.report.grid_tables import DIGITS, SCALE, stands_on
from hpo.report.page import Block, Section, Table
from hpo.storage.results import StoredGrid
from hpo.study.claims import Form, Term
from hpo.study.file import COLUMNS, Cell

# metric: (its name in a sentence, what its values are multiplied by, digits, unit)
WORDS = {
    "test_accuracy": ("test accuracy", 100.0, 2, " points"),
    "valid_accuracy": ("validation accuracy", 100.0, 2, " points"),
    "train_accuracy": ("training accuracy", 100.0, 2, " points"),
    "gap": ("gap between training and validation accuracy", 100.0, 2, " points"),
    "test_loss": ("test loss", 1.0, 4, ""),
    "valid_loss": ("validation loss", 1.0, 4, ""),
    "train_loss": ("training loss", 1.0, 4, ""),
    "train_seconds": ("training time", 1.0, 2, " s"),
}
PREDICTED = ("test_accuracy", "test_loss")
CAVEATS = """
A conclusion holds where the seeds support it and chance alone would hardly do so, is refuted where
they contradict it as clearly, and is unresolved otherwise. Cells are compared in pairs of seeds by
Student's t, or by flipping signs at random where runs of a cell fail to learn; training times,
which seeds have no part in, by Student's t for two samples of logarithms, over trainings that were
clocked apart; failing to learn
by the exact binomial test against one half. Holm's correction keeps the chance of any false verdict
among all of them at 5% or less. Intervals are 95% each, uncorrected. All this speaks of the
randomness of split, initial weights and batch order in this protocol; of times on this machine
alone; and not of other data.
"""


def sections(study: StoredGrid) -> list[Section]:
    """What became of the study's claims and of the values that were reported, if there are any."""
    found = [_verdicts(study)] if study.file.claims else []
    predicted = _predictions(study)
    return [*found, predicted] if predicted else found


def _verdicts(study: StoredGrid) -> Section:
    judged = judge_all(study)
    blocks: list[Block] = [tally(judged) + ".", _table(study, judged)]
    blocks += [[sentence(study, of) for of in judged], " ".join(CAVEATS.split())]
    return Section(title="Which conclusions hold", blocks=blocks)


def tally(judged: Sequence[Judged]) -> str:
    """Of 20 conclusions 15 hold, 3 are unresolved, 2 are refuted."""
    counts = {verdict: sum(of.verdict is verdict for of in judged) for verdict in Verdict}
    held, refuted = counts[Verdict.HOLDS], counts[Verdict.REFUTED]
    parts = [f"{held} hold{'s' if held == 1 else ''}"]
    for count, word in ((counts[Verdict.UNRESOLVED], "unresolved"), (refuted, "refuted")):
        parts += [f"{count} {'is' if count == 1 else 'are'} {word}"] if count else []
    return f"Of {len(judged)} conclusion{'' if len(judged) == 1 else 's'} {', '.join(parts)}"


def _table(study: StoredGrid, judged: Sequence[Judged]) -> Table:
    rows = [
        [of.claim.says, of.claim.where or "–", of.verdict.value, *_figures(of)] for of in judged
    ]
    headers = ["Conclusion", "Stands in", "Verdict", "Effect (95% interval)", "Test", "p"]
    return Table(
        headers=[(text, 1) for text in headers],
        subheaders=[""] * len(headers),
        rows=rows,
        caption=f"{stands_on(study)}. Effect: the first side minus the second; where a "
        "conclusion has several parts, that of the closest, weakest or clearest. p: two-sided, "
        "after Holm's correction over all conclusions.",
    )


def _figures(judged: Judged) -> list[str]:
    """Effect, test with n, and p, as text."""
    part = judged.decisive
    if part.evidence is None:
        return ["–", "no runs", "–"]
    basis = f"{part.evidence.test or 'none'}, n = {part.evidence.n}"
    return [effect(judged, part), basis, _p(judged.p) if part.evidence.test else "–"]


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else "1" if p == 1 else f"{p:.3f}"


def effect(judged: Judged, part: Part) -> str:
    """+0.76 points (0.61 to 0.91); ratios as × 1.03 (0.98 to 1.08); shares in percent."""
    found = part.evidence
    assert found is not None
    if judged.claim.form is Form.FAILS:
        low, high = (f"{100 * bound:.0f}" for bound in (found.low, found.high))
        return f"{100 * found.effect:.0f}% of runs ({low} to {high})"
    if part.logs:
        ratio, low, high = (f"{_exp(v):.2f}" for v in (found.effect, found.low, found.high))
        return f"× {ratio}" + ("" if math.isnan(found.low) else f" ({low} to {high})")
    _, scale, digits, unit = WORDS[judged.claim.metric]
    value = _signed(scale * found.effect, digits)
    if math.isnan(found.low):
        return f"{value}{unit}"
    low, high = (_bound(scale * bound, digits) for bound in (found.low, found.high))
    return f"{value}{unit} ({low} to {high})"


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _bound(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−").replace("inf", "∞")


# --- sentences ---------------------------------------------------------------------------------


def sentence(study: StoredGrid, judged: Judged) -> str:
    """The conclusion in the publication's words, its verdict, and what it rests on."""
    claim = judged.claim
    said = f"“{claim.quote}”" if claim.quote else claim.says
    said += f" ({claim.where})" if claim.where else ""
    word = judged.verdict.value.capitalize()
    return f"{said} {word}: {_basis(study, judged)}"


def _basis(study: StoredGrid, judged: Judged) -> str:
    part = judged.decisive
    if part.evidence is None:
        names = " and ".join(_labels(study, part))
        return f"{names} have no finite figures in common, so nothing can be said."
    text = _comparison(study, judged, part)
    if len(judged.parts) > 1:
        which = {Verdict.HOLDS: "the closest", Verdict.REFUTED: "the clearest"}
        text = f"{which.get(judged.verdict, 'the weakest')} of {len(judged.parts)}: {text}"
    if part.lost:
        text += f"; {part.lost} seed{'' if part.lost == 1 else 's'} left out, not finite"
    return f"{text}. {_reservation(judged, part)}".strip()


def _labels(study: StoredGrid, part: Part) -> list[str]:
    return list(dict.fromkeys(study.cell(side.cell).label for side in part.sides if side.cell))


def _comparison(study: StoredGrid, judged: Judged, part: Part) -> str:
    found, form = part.evidence, judged.claim.form
    assert found is not None
    if form is Form.FAILS:
        label = study.cell(part.sides[0].cell).label
        return f"{label} fails to learn with {round(found.effect * found.n)} of {found.n} seeds"
    name, scale, digits, unit = WORDS[judged.claim.metric]
    first, second = part.sides
    difference = scale * found.effect
    if first.cell is None and not part.logs:  # the cell is what a sentence is about
        first, second, difference = second, first, -difference
    subject = f"the {name} of {_side(study, first)}"
    if form is Form.SIMILAR:
        allowed = f"{100 * judged.claim.within:g}% is allowed"
        return f"{subject} is {effect(judged, part)} that of {_side(study, second)}; {allowed}"
    if second.number is None:
        other = f"that of {_side(study, second)}"
    else:
        other = f"{scale * second.number:.{digits}f}{unit}"
    if part.logs:
        return f"{subject} is {effect(judged, part)} {other} ({_runs(part)})"
    where = "above" if difference >= 0 else "below"
    return f"{subject} is {abs(difference):.{digits}f}{unit} {where} {other} ({_runs(part)})"


def _side(study: StoredGrid, side: Term) -> str:
    after = "" if side.epoch is None else f" after epoch {side.epoch}"
    return f"{study.cell(side.cell).label}{after}"


def _runs(part: Part) -> str:
    """10 pairs of seeds; 12 trainings clocked apart."""
    found = part.evidence
    assert found is not None
    return f"{found.n} {'trainings clocked apart' if part.logs else 'seeds'}"


def _reservation(judged: Judged, part: Part) -> str:
    """Why nothing is decided, where nothing is."""
    found = part.evidence
    assert found is not None
    if judged.verdict is not Verdict.UNRESOLVED:
        return ""
    if not found.test and part.logs:
        return "Each was clocked once, so nothing can be said of chance."
    if not found.test:
        return "One seed says nothing about others." if found.n == 1 else "The seeds do not differ."
    if found.high == math.inf:
        return "Where runs fail to learn, fewer than 6 seeds can decide nothing."
    alone = min(found.p_for, found.p_against) * 2
    if alone < LEVEL:
        return f"Alone that would do (p = {_p(alone)}); among so many conclusions it may be chance."
    if judged.claim.metric == SECONDS:
        return "Seeds trained as one stack share a clock, so times are few; more seeds would tell."
    return "These seeds do not decide it."


# --- reported values ---------------------------------------------------------------------------


def _predictions(study: StoredGrid) -> Section | None:
    """Whether one more run would be expected to give what was reported."""
    columns = [c for c in PREDICTED if any(_reports(cell, c) for cell in study.file.cells)]
    rows = [
        row
        for cell in study.file.cells
        for which in range(len(cell.reported))
        if (row := _prediction(study, cell, which, columns))
    ]
    if not rows:
        return None
    table = Table(
        headers=[("Model", 1), *((COLUMNS[column], 3) for column in columns), ("Seeds", 1)],
        subheaders=["", *["reported", "one more run", "reported is"] * len(columns), ""],
        rows=rows,
        caption=f"{stands_on(study)}. One more run: 95% prediction interval from the seeds "
        "(Student's t); where runs fail to learn, their range, which holds one more of n + 1 runs "
        "with probability (n − 1)/(n + 1).",
    )
    return Section(title="Would one more run give what was reported?", blocks=[table])


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
