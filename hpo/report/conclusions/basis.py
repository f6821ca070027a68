"""What a verdict rests on, in numbers and sentences."""

import math

import numpy as np
import pandas as pd

from hpo.analysis.claims import ClaimVerdict, Part, resolved_at, side_values
from hpo.analysis.evidence import LEVEL, Evidence, most_failures
from hpo.analysis.hypothesis_tests import Verdict
from hpo.analysis.precision import beats, precision
from hpo.analysis.statistics import boundary
from hpo.storage.results import StoredGrid
from hpo.study.claims import SECONDS, By, Form, Term
from hpo.study.file import Cell

# metric: (its name in a sentence, what its values are multiplied by, digits, unit)
WORDS = {
    "test_accuracy": ("test accuracy", 100.0, 2, " points"),
    "valid_accuracy": ("validation accuracy", 100.0, 2, " points"),
    "train_accuracy": ("training accuracy", 100.0, 2, " points"),
    "gap": ("gap between training and validation accuracy", 100.0, 2, " points"),
    "valid_spread": ("epoch-to-epoch spread of validation accuracy", 100.0, 2, " points"),
    "valid_falls": ("mean fall of validation accuracy between epochs", 100.0, 2, " points"),
    "test_loss": ("test loss", 1.0, 4, ""),
    "valid_loss": ("validation loss", 1.0, 4, ""),
    "train_loss": ("training loss", 1.0, 4, ""),
    SECONDS: ("training time", 1.0, 2, " s"),
}  # fmt: skip
SHARES = ("runs", "signs")  # tests whose effect is a share of the seeds


def effect(judged: ClaimVerdict, part: Part) -> str:
    """+0.76 points (0.61 to 0.91); ratios as × 1.03 (0.98 to 1.08); shares in percent."""
    evidence = part.evidence
    assert evidence is not None
    if evidence.test in SHARES:
        low, high = (f"{100 * bound:.0f}" for bound in (evidence.low, evidence.high))
        counted = "runs" if evidence.test == "runs" else "seeds"
        return f"{100 * evidence.effect:.0f}% of {counted} ({low} to {high})"
    if part.logs:
        ratio, low, high = (
            f"{_exp(v):.2f}" for v in (evidence.effect, evidence.low, evidence.high)
        )
        shown = "" if math.isnan(evidence.low) else f" ({low} to {high})".replace("inf", "∞")
        return f"× {ratio}{shown}"
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
    if not judged.parts:
        return judged.claim.reason
    part = judged.decisive
    if part.evidence is None:
        return f"{_nothing(study, judged, part)} {_failures(study, judged)}".strip()
    text = _comparison(study, judged, part)
    if len(judged.parts) > 1:
        which = {Verdict.HOLDS: "the closest", Verdict.REFUTED: "the clearest"}
        text = f"{which.get(judged.verdict, 'the weakest')} of {len(judged.parts)}: {text}"
    parts = [f"{text}.", *_details(study, judged, part), _end(study, judged, part)]
    return " ".join(filter(None, parts))


def _nothing(study: StoredGrid, judged: ClaimVerdict, part: Part) -> str:
    names = list(dict.fromkeys(study.cell(c).label for side in part.sides for c in side.cells))
    if part.left_out:
        return f"There is no seed with which {' and '.join(names)} learn, so nothing is compared."
    if judged.claim.metric == SECONDS:
        return "The times were not measured yet, so this cannot be tested."
    return f"{' and '.join(names)} have no seed in common, so this cannot be tested."


def _comparison(study: StoredGrid, judged: ClaimVerdict, part: Part) -> str:
    evidence, claim = part.evidence, judged.claim
    assert evidence is not None
    if claim.form is Form.FAILS:
        label = study.cell(part.sides[0].cell).label
        failing = round(evidence.effect * evidence.n)
        return f"{label} fails to learn with {failing} of {evidence.n} seeds"
    name, scale, digits, unit = WORDS[claim.metric]
    first, second = part.sides
    if claim.by is By.WINS:
        wins = round(evidence.effect * evidence.n)
        subject, other = (_value(study, side, claim.metric) for side in (first, second))
        return f"{subject} is above {other} with {wins} of {evidence.n} seeds"
    difference = scale * evidence.effect
    if first.cell is None and not part.logs:  # the cell is what a sentence is about
        first, second, difference = second, first, -difference
    subject = f"the {name} of {_side(study, first)}"
    if claim.form is Form.SIMILAR:
        allowed = f"{100 * part.margin:g}%" if part.logs else f"{scale * part.margin:g}{unit}"
        found = f"{effect(judged, part)} that of" if part.logs else (
            f"{abs(difference):.{digits}f}{unit} {_where(difference)} that of"
        )  # fmt: skip
        return f"{subject} is {found} {_side(study, second)}; {allowed} is allowed"
    other = _number(second.number, claim.metric)
    if second.cell is not None:
        other = f"that of {_side(study, second)}"
    if part.logs:
        return f"{subject} is {effect(judged, part)} {other} ({evidence.n} rounds of timing)"
    return (
        f"{subject} is {abs(difference):.{digits}f}{unit} {_where(difference)} {other} "
        f"({evidence.n} seeds)"
    )


def _value(study: StoredGrid, side: Term, metric: str) -> str:
    """the test accuracy of ReLU MLP; or the side's number."""
    if side.cell is None:
        return _number(side.number, metric)
    return f"the {WORDS[metric][0]} of {_side(study, side)}"


def _where(difference: float) -> str:
    return "above" if difference >= 0 else "below"


def _number(number: float | None, metric: str) -> str:
    """1.00 points for a gap, 96.00% for an accuracy, 0.1000 for a loss."""
    _, scale, digits, unit = WORDS[metric]
    if number is None:
        return ""
    return f"{scale * number:.{digits}f}{'%' if metric.endswith('accuracy') else unit}"


def _side(study: StoredGrid, side: Term) -> str:
    after = "" if side.epoch is None else f" after epoch {side.epoch}"
    own = f"{study.cell(side.cell).label}{after}"
    return own if side.minus is None else f"{own} minus {_side(study, side.minus)}"


# --- details -----------------------------------------------------------------------------------


def _details(study: StoredGrid, judged: ClaimVerdict, part: Part) -> list[str]:
    """Returns sentences on failures, other test images, single runs and margins."""
    return [
        _failures(study, judged),
        _images_sentence(study, judged, part),
        _single_runs(study, judged, part),
        margins(judged, part),
    ]


def _failures(study: StoredGrid, judged: ClaimVerdict) -> str:
    """Says for each network of the decisive part how often it fails to learn, and the bound."""
    if judged.claim.metric == SECONDS:
        return ""
    names = dict.fromkeys(name for side in judged.decisive.sides for name in side.cells)
    parts = []
    for name in names:
        cell = study.cell(name)
        n, k = len(study.of(cell)), int(study.failing(cell, judged.claim.below).sum())
        if n:
            bound = f"at most {100 * most_failures(k, n):.0f}%"
            if 2 * k > n:
                bound = f"at least {100 - 100 * most_failures(n - k, n):.0f}%"
            parts.append(f"{cell.label} {k} of {n} ({bound})")
    return f"Runs that fail to learn: {', '.join(parts)}." if parts else ""


def images_interval(
    study: StoredGrid, judged: ClaimVerdict, part: Part
) -> tuple[float, float] | None:
    """Returns the 95% interval over seeds and test images of a difference of two test accuracies,
    a fraction; None for other comparisons, or if the right images are not stored."""
    claim, plain = judged.claim, all(s.cell and not s.minus and not s.epoch for s in part.sides)
    if claim.metric != "test_accuracy" or claim.by is By.WINS or claim.form is Form.FAILS:
        return None
    cells = [study.cell(side.cell) for side in part.sides if side.cell]
    if not plain or len(cells) != 2:
        return None
    ours, theirs = (learning_images(study, cell) for cell in cells)
    common = ours.index.intersection(theirs.index)
    if len(common) < 2:
        return None
    a, b = (of.loc[common].to_numpy(float) for of in (ours, theirs))
    return precision(a - b).both


def learning_images(study: StoredGrid, cell: Cell) -> pd.DataFrame:
    """Returns the test images that a cell's networks get right, of the seeds with which it learns;
    empty if they are not stored."""
    right, failing = study.right(cell), study.failing(cell)
    return right if right.empty else right[~failing.loc[right.index].to_numpy()]


def _images_sentence(study: StoredGrid, judged: ClaimVerdict, part: Part) -> str:
    interval = images_interval(study, judged, part)
    if interval is None:
        return ""
    low, high = (_bound(100 * bound, 2) for bound in interval)
    return f"For other seeds and other test images: {low} to {high} points (95% interval)."


def single_runs(
    study: StoredGrid, judged: ClaimVerdict, part: Part
) -> tuple[float, float, float] | None:
    """Returns the probability that one run of the first side is above one of the second, with its
    95% interval; None where a side is no run's metric."""
    if judged.claim.metric == SECONDS or judged.claim.form not in (Form.GREATER, Form.BEST):
        return None
    if any(side.cell is None or side.minus for side in part.sides):
        return None
    sides = [side_values(study, judged.claim.metric, side) for side in part.sides]
    ours, theirs = (np.asarray(of, float) for of in sides)
    return beats(ours[~np.isnan(ours)], theirs[~np.isnan(theirs)])


def _single_runs(study: StoredGrid, judged: ClaimVerdict, part: Part) -> str:
    found = single_runs(study, judged, part)
    if found is None or math.isnan(found[0]):
        return ""
    share, low, high = (f"{100 * value:.0f}" for value in found)
    first, second = (_side(study, side) for side in part.sides)
    return f"One run of {first} is above one run of {second} with {share}% ({low} to {high})."


def margins(judged: ClaimVerdict, part: Part) -> str:
    """Says with which margins the verdict would be another one; empty without a margin."""
    if part.at is None or part.evidence is None or not part.evidence.test:
        return ""
    holds, refuted = flips(judged, part)
    words = [f"would hold {holds}"] if holds else []
    words += [f"would be refuted {refuted}"] if refuted else []
    if not words:
        return "No other margin would decide it."
    return f"With these seeds the conclusion {' and '.join(words)}."


def flips(judged: ClaimVerdict, part: Part) -> tuple[str, str]:
    """Returns in words with which margins the conclusion would hold, and would be refuted."""
    claim = judged.claim
    rising = claim.form in (Form.SIMILAR, Form.FAILS) or (
        claim.form is Form.GREATER and part.sides[0].number is not None
    )
    ends = _ends(judged, part)
    ends = ends if rising else ends[::-1]  # from a margin that is hard to hold to an easy one
    hold, refute = flip_at(judged, part, *ends)
    way, other = ("or more", "or less") if rising else ("or less", "or more")
    words = {Form.FAILS: "a line of", Form.SIMILAR: "a margin of"}
    what = words.get(claim.form, "a limit of")

    def spelled(at: float | None, side: str) -> str:
        return "" if at is None else f"with {what} {_margin(judged, part, at)} {side}"

    return spelled(hold, way), spelled(refute, other)


def flip_at(
    judged: ClaimVerdict, part: Part, hard: float, easy: float
) -> tuple[float | None, float | None]:
    """Returns the margins between hard and easy at which the conclusion begins to hold, and to be
    refuted; None if it never does."""
    assert part.at is not None
    at, factor, parts = part.at, 2 * judged.factor, len(judged.parts)

    def holds(margin: float) -> bool:
        return factor * at(margin).p_for < LEVEL

    def is_refuted(margin: float) -> bool:
        return factor * parts * at(margin).p_against < LEVEL

    hold = boundary(holds, hard, easy) if holds(easy) else None
    refute = boundary(is_refuted, easy, hard) if is_refuted(hard) else None
    return hold, refute


def _ends(judged: ClaimVerdict, part: Part) -> tuple[float, float]:
    """Returns a small and a large margin between which all others lie."""
    evidence = part.evidence
    assert evidence is not None
    if judged.claim.form is Form.FAILS:
        return 0.0, 1.0
    if judged.claim.form is Form.SIMILAR:
        return 1e-9, 10.0
    reach = 10 * (abs(part.margin) + abs(evidence.effect)) + 1.0
    return part.margin - reach, part.margin + reach


def _margin(judged: ClaimVerdict, part: Part, at: float) -> str:
    if judged.claim.form is Form.FAILS:
        return f"{100 * at:.1f}% test accuracy"
    if judged.claim.form is Form.SIMILAR:
        _, scale, digits, unit = WORDS[judged.claim.metric]
        return f"{100 * at:.1f}%" if part.logs else f"{scale * at:.{digits}f}{unit}"
    return _number(at, judged.claim.metric)


def _end(study: StoredGrid, judged: ClaimVerdict, part: Part) -> str:
    """Says with how many seeds the conclusion was decided, or why it is open."""
    evidence = part.evidence
    assert evidence is not None
    counted = "rounds" if judged.claim.metric == SECONDS else "seeds"
    at = resolved_at(judged)
    if at is not None:
        return f"Decided with {at} {counted}." if at > 1 else ""
    return why_open(study, judged, part, evidence)


def why_open(study: StoredGrid, judged: ClaimVerdict, part: Part, evidence: Evidence) -> str:
    """Says why an unresolved conclusion is open, and why no more seeds were trained."""
    if not evidence.test:
        return (
            "One seed does not tell what others would give."
            if evidence.n == 1
            else "The seeds do not differ, so chance cannot be estimated."
        )
    if judged.claim.metric == SECONDS:
        return f"These {evidence.n} rounds do not decide it."
    rounds = study.until_resolved
    if rounds is None:
        return f"These {evidence.n} seeds do not decide it."
    if rounds["end"] == "complete":
        return f"Open after {rounds['most']} seeds, the most that the study file allows."
    return f"Open: the run was {rounds['end']} after {evidence.n} seeds."
