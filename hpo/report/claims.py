"""The report's section on claims: their verdicts, effects and intervals."""

import math
from collections.abc import Sequence

from hpo.analysis.claims import SECONDS, Judged, Part, judge_all
from hpo.analysis.hypothesis_tests import LEVEL, Verdict
from hpo.report.grid_tables import stands_on
from hpo.report.page import Block, Section, VerdictRow, Verdicts, interval_svg
from hpo.storage.results import StoredGrid
from hpo.study.claims import Form, Term

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
KEY = """
Effect: the first side minus the second; of a conclusion with several parts, the part that is
closest, weakest or clearest. Drawn: its 95% interval. The upright line is no difference (half of
the runs, for failing); a band is what counts as similar. All rows of a unit share one scale, linear
near 0 and logarithmic farther out; an arrow leaves it. p: two-sided, after Holm's correction over
all conclusions. A click on a conclusion shows its quotation and what the verdict rests on.
"""
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
    """Returns the section on the study's claims, if it has any."""
    return [_verdicts(study)] if study.file.claims else []


def _verdicts(study: StoredGrid) -> Section:
    judged = judge_all(study)
    table = Verdicts(
        rows=[_row(study, of) for of in judged],
        caption=f"{stands_on(study)}. {' '.join(KEY.split())}",
    )
    blocks: list[Block] = [table, " ".join(CAVEATS.split())]
    return Section(title="Which conclusions hold", blocks=blocks)


def tally(judged: Sequence[Judged]) -> str:
    """Of 20 conclusions 15 hold, 3 are unresolved, 2 are refuted."""
    counts = {verdict: sum(of.verdict is verdict for of in judged) for verdict in Verdict}
    held, refuted = counts[Verdict.HOLDS], counts[Verdict.REFUTED]
    parts = [f"{held} hold{'s' if held == 1 else ''}"]
    for count, word in ((counts[Verdict.UNRESOLVED], "unresolved"), (refuted, "refuted")):
        parts += [f"{count} {'is' if count == 1 else 'are'} {word}"] if count else []
    return f"Of {len(judged)} conclusion{'' if len(judged) == 1 else 's'} {', '.join(parts)}"


def _row(study: StoredGrid, judged: Judged) -> VerdictRow:
    part = judged.decisive
    number, drawing, test, p = "–", "", "no runs", "–"
    if part.evidence is not None:
        number, drawing = effect(judged, part), _forest(judged, part)
        test = f"{part.evidence.test or 'none'}, n = {part.evidence.n}"
        p = _p(judged.p) if part.evidence.test else "–"
    return VerdictRow(
        verdict=judged.verdict.value,
        claim=judged.claim.says,
        where=judged.claim.where or "–",
        effect=number,
        drawing=drawing,
        test=test,
        p=p,
        basis=sentence(study, judged),
    )


# Where the scale of a drawn interval turns from linear to logarithmic, and where it ends.
SCALES = {" points": (0.1, 100.0), "": (0.005, 5.0), "ratio": (0.02, 3.0), "share": (10.0, 1.0)}


def _forest(judged: Judged, part: Part) -> str:
    """Returns the interval as a small SVG: a line from low to high with a dot at the effect."""
    evidence = part.evidence
    assert evidence is not None
    values, margin = [evidence.low, evidence.effect, evidence.high], 0.0
    unit, scale = WORDS[judged.claim.metric][3], WORDS[judged.claim.metric][1]
    if judged.claim.form is Form.FAILS:
        unit, scale, values = "share", 1.0, [2 * v - 1 for v in values]  # half is no effect
    elif part.logs:
        unit, scale = "ratio", 1.0
    linear, end = SCALES[unit]
    if judged.claim.form is Form.SIMILAR:
        margin = _place(math.log1p(judged.claim.within), linear, end)
    low, middle, high = (_place(scale * value, linear, end) for value in values)
    return interval_svg(low, middle, high, margin)


def _place(value: float, linear: float, end: float) -> float:
    """Returns the place from -1 to 1; beyond these for a value that leaves the scale."""
    if not math.isfinite(value):
        return value
    return math.asinh(value / linear) / math.asinh(end / linear)


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else "1" if p == 1 else f"{p:.3f}"


def effect(judged: Judged, part: Part) -> str:
    """+0.76 points (0.61 to 0.91); ratios as × 1.03 (0.98 to 1.08); shares in percent."""
    evidence = part.evidence
    assert evidence is not None
    if judged.claim.form is Form.FAILS:
        low, high = (f"{100 * bound:.0f}" for bound in (evidence.low, evidence.high))
        return f"{100 * evidence.effect:.0f}% of runs ({low} to {high})"
    if part.logs:
        ratio, low, high = (
            f"{_exp(v):.2f}" for v in (evidence.effect, evidence.low, evidence.high)
        )
        return f"× {ratio}" + ("" if math.isnan(evidence.low) else f" ({low} to {high})")
    _, scale, digits, unit = WORDS[judged.claim.metric]
    value = _signed(scale * evidence.effect, digits)
    if math.isnan(evidence.low):
        return f"{value}{unit}"
    low, high = (_bound(scale * bound, digits) for bound in (evidence.low, evidence.high))
    return f"{value}{unit} ({low} to {high})"


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _bound(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−").replace("inf", "∞")


# --- sentences ---------------------------------------------------------------------------------


def sentence(study: StoredGrid, judged: Judged) -> str:
    """Returns the conclusion in the publication's words, the verdict, and what it rests on."""
    claim = judged.claim
    text = f"“{claim.quote}”" if claim.quote else claim.says
    text += f" ({claim.where})" if claim.where else ""
    word = judged.verdict.value.capitalize()
    return f"{text} {word}: {_basis(study, judged)}"


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
    evidence, form = part.evidence, judged.claim.form
    assert evidence is not None
    if form is Form.FAILS:
        label = study.cell(part.sides[0].cell).label
        failing = round(evidence.effect * evidence.n)
        return f"{label} fails to learn with {failing} of {evidence.n} seeds"
    name, scale, digits, unit = WORDS[judged.claim.metric]
    first, second = part.sides
    difference = scale * evidence.effect
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
    """10 seeds; 12 trainings timed separately."""
    evidence = part.evidence
    assert evidence is not None
    return f"{evidence.n} {'trainings clocked apart' if part.logs else 'seeds'}"


def _reservation(judged: Judged, part: Part) -> str:
    """Says why nothing is decided; empty if something is."""
    evidence = part.evidence
    assert evidence is not None
    if judged.verdict is not Verdict.UNRESOLVED:
        return ""
    if not evidence.test and part.logs:
        return "Each was clocked once, so nothing can be said of chance."
    if not evidence.test:
        return (
            "One seed says nothing about others." if evidence.n == 1 else "The seeds do not differ."
        )
    if evidence.high == math.inf:
        return "Where runs fail to learn, fewer than 6 seeds can decide nothing."
    alone = min(evidence.p_for, evidence.p_against) * 2
    if alone < LEVEL:
        return f"Alone that would do (p = {_p(alone)}); among so many conclusions it may be chance."
    if judged.claim.metric == SECONDS:
        return "Seeds trained as one stack share a clock, so times are few; more seeds would tell."
    return "These seeds do not decide it."
