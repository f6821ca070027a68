"""The report's section on claims: their verdicts, effects and intervals."""

import math
from collections.abc import Sequence

from hpo.analysis.claims import SECONDS, ClaimVerdict, Part, claim_verdicts
from hpo.analysis.hypothesis_tests import LEVEL, Verdict
from hpo.report.grid_tables import data_text
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
closest, weakest or clearest. Drawn: its 95% interval. The upright line is no difference, or half of
the runs for failing; a band is what counts as similar. Each row has a scale of its own, alike to
both sides, with its end at the right. p: two-sided, after Holm's correction over all conclusions. A
click on a conclusion shows its quotation and what the verdict rests on.
"""
CAVEATS = """
A conclusion holds if the seeds support it and chance alone is an unlikely reason. It is refuted if
the seeds contradict it as clearly, and unresolved otherwise. Cells are compared in pairs of seeds
by Student's t-test, or by random sign flips if runs of a cell fail to learn. Training times do not
depend on seeds: Student's t-test for two samples compares their logarithms, and seeds of a stack
count as one time. The exact binomial test compares failures to learn with one half. Holm's
correction keeps the chance of any false verdict at 5% or less. Intervals are 95% each, without
correction. The verdicts cover the randomness of split, initial weights and batch order in this
protocol, training times only this machine, and no other data.
"""


def sections(study: StoredGrid) -> list[Section]:
    """Returns the section on the study's claims, if it has any."""
    return [_verdicts(study)] if study.file.claims else []


def _verdicts(study: StoredGrid) -> Section:
    judged = claim_verdicts(study)
    table = Verdicts(
        rows=[_row(study, of) for of in judged],
        caption=f"{data_text(study)}. {' '.join(KEY.split())}",
    )
    blocks: list[Block] = [table, " ".join(CAVEATS.split())]
    return Section(title="Which conclusions hold", blocks=blocks)


def tally(judged: Sequence[ClaimVerdict]) -> str:
    """Of 20 conclusions 15 hold, 3 are unresolved, 2 are refuted."""
    counts = {verdict: sum(of.verdict is verdict for of in judged) for verdict in Verdict}
    held, refuted = counts[Verdict.HOLDS], counts[Verdict.REFUTED]
    parts = [f"{held} hold{'s' if held == 1 else ''}"]
    for count, word in ((counts[Verdict.UNRESOLVED], "unresolved"), (refuted, "refuted")):
        parts += [f"{count} {'is' if count == 1 else 'are'} {word}"] if count else []
    return f"Of {len(judged)} conclusion{'' if len(judged) == 1 else 's'} {', '.join(parts)}"


def _row(study: StoredGrid, judged: ClaimVerdict) -> VerdictRow:
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


def _forest(judged: ClaimVerdict, part: Part) -> str:
    """Returns the interval as a small SVG, on a scale of its own whose end is printed."""
    evidence = part.evidence
    assert evidence is not None
    values = [evidence.low, evidence.effect, evidence.high]
    if judged.claim.form is Form.FAILS:  # half of the runs is the middle
        low, middle, high = (2 * value - 1 for value in values)
        return interval_svg(low, middle, high, "100%")
    scale = WORDS[judged.claim.metric][1]
    values = [scale * value for value in values]
    margin = math.log1p(judged.claim.within) if judged.claim.form is Form.SIMILAR else 0.0
    finite = [abs(value) for value in (*values, margin) if math.isfinite(value)]
    end = _round_up(1.1 * max(finite))
    label = f"×{math.exp(end):.3g}" if part.logs else f"±{end:g}"
    low, middle, high = (value / end for value in values)
    return interval_svg(low, middle, high, label, margin / end)


def _round_up(value: float) -> float:
    """Returns the next of 1, 2, 5, 10, 20, … times a power of ten; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else "1" if p == 1 else f"{p:.3f}"


def effect(judged: ClaimVerdict, part: Part) -> str:
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


def sentence(study: StoredGrid, judged: ClaimVerdict) -> str:
    """Returns the conclusion in the publication's words, the verdict, and what it rests on."""
    claim = judged.claim
    text = f"“{claim.quote}”" if claim.quote else claim.says
    text += f" ({claim.where})" if claim.where else ""
    word = judged.verdict.value.capitalize()
    return f"{text} {word}: {_basis(study, judged)}"


def _basis(study: StoredGrid, judged: ClaimVerdict) -> str:
    part = judged.decisive
    if part.evidence is None:
        names = " and ".join(_labels(study, part))
        return f"{names} have no seed with finite figures in common, so this cannot be tested."
    text = _comparison(study, judged, part)
    if len(judged.parts) > 1:
        which = {Verdict.HOLDS: "the closest", Verdict.REFUTED: "the clearest"}
        text = f"{which.get(judged.verdict, 'the weakest')} of {len(judged.parts)}: {text}"
    if part.lost:
        text += f"; {part.lost} seed{'' if part.lost == 1 else 's'} left out, not finite"
    return f"{text}. {_reservation(judged, part)}".strip()


def _labels(study: StoredGrid, part: Part) -> list[str]:
    return list(dict.fromkeys(study.cell(side.cell).label for side in part.sides if side.cell))


def _comparison(study: StoredGrid, judged: ClaimVerdict, part: Part) -> str:
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
    return f"{evidence.n} {'trainings timed separately' if part.logs else 'seeds'}"


def _reservation(judged: ClaimVerdict, part: Part) -> str:
    """Says why nothing is decided; empty if something is."""
    evidence = part.evidence
    assert evidence is not None
    if judged.verdict is not Verdict.UNRESOLVED:
        return ""
    if not evidence.test and part.logs:
        return "Each was timed once, so chance cannot be estimated."
    if not evidence.test:
        return (
            "One seed does not tell what others would give."
            if evidence.n == 1
            else "The seeds do not differ."
        )
    if evidence.high == math.inf:
        return "Where runs fail to learn, fewer than 6 seeds cannot decide."
    alone = min(evidence.p_for, evidence.p_against) * 2
    if alone < LEVEL:
        return (
            f"Alone it would count (p = {_p(alone)}); among so many conclusions it may be chance."
        )
    if judged.claim.metric == SECONDS:
        return "Seeds of one stack share one time, so there are few times; more seeds would tell."
    return "These seeds do not decide it."
