"""What a verdict rests on, in numbers and sentences."""

import math

import numpy as np
import pandas as pd

from hpo.analysis.claims import ClaimVerdict, Part, resolved_at, side_values
from hpo.analysis.evidence import Evidence, most_failures
from hpo.analysis.hypothesis_tests import Verdict
from hpo.analysis.precision import beats, precision
from hpo.analysis.statistics import LEVEL, boundary
from hpo.language import marked, t
from hpo.results.study import StoredGrid
from hpo.study.claims import SECONDS, By, Form, Term
from hpo.study.file import Cell
from hpo.text import minus

POINTS, SECONDS_UNIT, PLAIN = marked("{value} points"), marked("{value} s"), "{value}"
# metric: (its name in a sentence, what its values are multiplied by, digits, a value with its unit)
WORDS = {
    "test_accuracy": (marked("test accuracy"), 100.0, 2, POINTS),
    "valid_accuracy": (marked("validation accuracy"), 100.0, 2, POINTS),
    "train_accuracy": (marked("training accuracy"), 100.0, 2, POINTS),
    "gap": (marked("gap between training and validation accuracy"), 100.0, 2, POINTS),
    "valid_spread": (marked("epoch-to-epoch spread of validation accuracy"), 100.0, 2, POINTS),
    "valid_falls": (marked("mean fall of validation accuracy between epochs"), 100.0, 2, POINTS),
    "test_loss": (marked("test loss"), 1.0, 4, PLAIN),
    "valid_loss": (marked("validation loss"), 1.0, 4, PLAIN),
    "train_loss": (marked("training loss"), 1.0, 4, PLAIN),
    SECONDS: (marked("training time"), 1.0, 2, SECONDS_UNIT),
}
SHARES = ("runs", "signs")  # tests whose effect is a share of the seeds
# The values of Verdict, as they are shown.
SHOWN = {
    Verdict.HOLDS: marked("holds"),
    Verdict.UNRESOLVED: marked("unresolved"),
    Verdict.REFUTED: marked("refuted"),
    Verdict.TOO_SMALL: marked("too small to matter"),
    Verdict.UNTESTABLE: marked("not testable"),
}
# Of several parts the one that decides.
DECISIVE = {
    Verdict.HOLDS: marked("the closest of {n}: {comparison}"),
    Verdict.REFUTED: marked("the clearest of {n}: {comparison}"),
    Verdict.UNRESOLVED: marked("the weakest of {n}: {comparison}"),
    Verdict.TOO_SMALL: marked("the weakest of {n}: {comparison}"),
}
# Margins from one on, and up to one.
LIMITS = {
    Form.FAILS: (marked("with a line of {at} or more"), marked("with a line of {at} or less")),
    Form.SIMILAR: (
        marked("with a margin of {at} or more"),
        marked("with a margin of {at} or less"),
    ),
    Form.GREATER: (marked("with a limit of {at} or more"), marked("with a limit of {at} or less")),
}


def effect(judged: ClaimVerdict, part: Part) -> str:
    """+0.76 points (0.61 to 0.91); ratios as × 1.03 (0.98 to 1.08); shares in percent."""
    evidence = part.evidence
    assert evidence is not None
    ends = (evidence.low, evidence.high)
    if evidence.test in SHARES:
        text = marked("{share}% of seeds")
        if evidence.test == "runs":
            text = marked("{share}% of runs")
        value = t(text, share=f"{100 * evidence.effect:.0f}")
        low, high = (minus(f"{100 * end:.0f}") for end in ends)
    elif part.logs:
        value = f"× {ratio(evidence.effect):.2f}"
        low, high = (minus(f"{ratio(end):.2f}") for end in ends)
    else:
        metric = judged.claim.metric
        value = _in_unit(minus(_digits(evidence.effect, metric, "+")), metric)
        low, high = (minus(_digits(end, metric)) for end in ends)
    if math.isnan(evidence.low):
        return value
    return t("{value} ({low} to {high})", value=value, low=low, high=high)


def _digits(value: float, metric: str, sign: str = "") -> str:
    _, scale, digits, _ = WORDS[metric]
    return f"{scale * value:{sign}.{digits}f}"


def _in_unit(value: str, metric: str) -> str:
    return t(WORDS[metric][3], value=value)


def ratio(value: float) -> float:
    """Returns the ratio of a difference of logarithms."""
    return math.exp(value) if value < 700 else math.inf


# --- sentences ---------------------------------------------------------------------------------


def sentence(study: StoredGrid, judged: ClaimVerdict) -> str:
    """Returns the conclusion in the publication's words, the verdict, and what it rests on."""
    claim = judged.claim
    text = f"“{t(claim.quote)}”" if claim.quote else t(claim.says)
    text += f" ({claim.where})" if claim.where else ""
    word = t(SHOWN[judged.verdict]).capitalize()
    return f"{text} {word}: {_basis(study, judged)}"


def _basis(study: StoredGrid, judged: ClaimVerdict) -> str:
    if not judged.parts:
        return t(judged.claim.reason)
    part = judged.decisive
    if part.evidence is None:
        return f"{_nothing(study, judged, part)} {_failures(study, judged)}".strip()
    text = _comparison(study, judged, part)
    if len(judged.parts) > 1:
        text = t(DECISIVE[judged.verdict], n=len(judged.parts), comparison=text)
    sentences = [
        f"{text}.",
        _failures(study, judged),
        _images_sentence(study, judged, part),
        _single_runs(study, judged, part),
        margins(judged, part),
        _end(study, judged, part.evidence),
    ]
    return " ".join(filter(None, sentences))


def _nothing(study: StoredGrid, judged: ClaimVerdict, part: Part) -> str:
    labels = dict.fromkeys(study.cell(c).label for side in part.sides for c in side.cells)
    text = marked("{names} have no seed in common, so this cannot be tested.")
    if part.left_out:
        text = marked("There is no seed with which {names} learn, so nothing is compared.")
    elif judged.claim.metric == SECONDS:
        text = marked("The times were not measured yet, so this cannot be tested.")
    return t(text, names=t(" and ").join(labels))


def _comparison(study: StoredGrid, judged: ClaimVerdict, part: Part) -> str:
    evidence, claim = part.evidence, judged.claim
    assert evidence is not None
    n = evidence.n
    if claim.form is Form.FAILS:
        network, k = study.cell(part.sides[0].cell).label, round(evidence.effect * n)
        return t("{network} fails to learn with {k} of {n} seeds", network=network, k=k, n=n)
    if claim.by is By.WINS:
        first, second = (_value(study, side, claim.metric) for side in part.sides)
        text = marked("{first} is above {second} with {k} of {n} seeds")
        return t(text, first=first, second=second, k=round(evidence.effect * n), n=n)
    compared = _difference(study, judged, part)
    if claim.form is Form.SIMILAR:
        allowed = f"{100 * part.margin:g}%"
        if not part.logs:
            allowed = _in_unit(f"{WORDS[claim.metric][1] * part.margin:g}", claim.metric)
        return t("{comparison}; {allowed} is allowed", comparison=compared, allowed=allowed)
    text = marked("{comparison} ({n} seeds)")
    if part.logs:
        text = marked("{comparison} ({n} rounds of timing)")
    return t(text, comparison=compared, n=n)


def _difference(study: StoredGrid, judged: ClaimVerdict, part: Part) -> str:
    """Compares the two sides by their difference, or by their ratio."""
    evidence, metric = part.evidence, judged.claim.metric
    assert evidence is not None
    (first, second), difference = part.sides, evidence.effect
    text = marked("{subject} is {ratio} {other}")
    if not part.logs:
        if first.cell is None:  # the cell is what a sentence is about
            first, second, difference = second, first, -difference
        text = marked("{subject} is {size} below {other}")
        if difference >= 0:
            text = marked("{subject} is {size} above {other}")
    return t(
        text,
        subject=_value(study, first, metric),
        other=_value(study, second, metric, marked("that of {side}")),
        ratio=effect(judged, part),
        size=_in_unit(_digits(abs(difference), metric), metric),
    )


def _value(
    study: StoredGrid, side: Term, metric: str, text: str = marked("the {metric} of {side}")
) -> str:
    """the test accuracy of ReLU MLP; or the side's number."""
    if side.cell is None:
        return _number(side.number, metric)
    return t(text, metric=t(WORDS[metric][0]), side=_side(study, side))


def _number(number: float | None, metric: str) -> str:
    """1.00 points for a gap, 96.00% for an accuracy, 0.1000 for a loss."""
    if number is None:
        return ""
    value = _digits(number, metric)
    return f"{value}%" if metric.endswith("accuracy") else _in_unit(value, metric)


def _side(study: StoredGrid, side: Term) -> str:
    own = study.cell(side.cell).label
    if side.epoch is not None:
        own = t("{network} after epoch {epoch}", network=own, epoch=side.epoch)
    if side.minus is None:
        return own
    return t("{first} minus {second}", first=own, second=_side(study, side.minus))


# --- details -----------------------------------------------------------------------------------


def _failures(study: StoredGrid, judged: ClaimVerdict) -> str:
    """Says for each network of the decisive part how often it fails to learn, and the bound."""
    if judged.claim.metric == SECONDS:
        return ""
    names = dict.fromkeys(name for side in judged.decisive.sides for name in side.cells)
    cells = [cell for cell in map(study.cell, names) if len(study.of(cell))]
    networks = [_failures_of(study, cell, judged.claim.below) for cell in cells]
    if not networks:
        return ""
    return t("Runs that fail to learn: {networks}.", networks=", ".join(networks))


def _failures_of(study: StoredGrid, cell: Cell, below: float) -> str:
    n, k = len(study.of(cell)), int(study.failing(cell, below).sum())
    text, share = marked("{network} {k} of {n} (at most {share:.0f}%)"), 100 * most_failures(k, n)
    if 2 * k > n:
        text = marked("{network} {k} of {n} (at least {share:.0f}%)")
        share = 100 - 100 * most_failures(n - k, n)
    return t(text, network=cell.label, k=k, n=n, share=share)


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
    low, high = (minus(f"{100 * bound:.2f}") for bound in interval)
    text = marked("For other seeds and other test {things}: {low} to {high} points (95% interval).")
    return t(text, things=t(study.things), low=low, high=high)


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
    share, low, high = (100 * value for value in found)
    first, second = (_side(study, side) for side in part.sides)
    text = marked(
        "One run of {first} is above one run of {second} with {share:.0f}% ({low:.0f} to "
        "{high:.0f})."
    )
    return t(text, first=first, second=second, share=share, low=low, high=high)


def margins(judged: ClaimVerdict, part: Part) -> str:
    """Says with which margins the verdict would be another one; empty without a margin."""
    if part.at is None or part.evidence is None or not part.evidence.test:
        return ""
    claim = judged.claim
    rising = claim.form in (Form.SIMILAR, Form.FAILS) or (
        claim.form is Form.GREATER and part.sides[0].number is not None
    )
    order = slice(None, None, 1 if rising else -1)
    flip = flip_at(judged, part, *_ends(judged, part)[order])
    holds, refuted = (
        "" if at is None else t(limit, at=_margin(judged, part, at))
        for at, limit in zip(flip, LIMITS[claim.form][order], strict=True)
    )
    text = marked("No other margin would decide it.")
    if holds and refuted:
        text = marked(
            "With these seeds the conclusion would hold {holds} and would be refuted {refuted}."
        )
    elif holds:
        text = marked("With these seeds the conclusion would hold {holds}.")
    elif refuted:
        text = marked("With these seeds the conclusion would be refuted {refuted}.")
    return t(text, holds=holds, refuted=refuted)


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


def _ends(judged: ClaimVerdict, part: Part) -> tuple[float, ...]:
    """Returns a small and a large margin between which all others lie."""
    assert part.evidence is not None
    if judged.claim.form is Form.FAILS:
        return 0.0, 1.0
    if judged.claim.form is Form.SIMILAR:
        return 1e-9, 10.0
    reach = 10 * (abs(part.margin) + abs(part.evidence.effect)) + 1.0
    return part.margin - reach, part.margin + reach


def _margin(judged: ClaimVerdict, part: Part, at: float) -> str:
    metric = judged.claim.metric
    if judged.claim.form is Form.FAILS:
        return t("{at:.1f}% test accuracy", at=100 * at)
    if judged.claim.form is Form.SIMILAR:
        return f"{100 * at:.1f}%" if part.logs else _in_unit(_digits(at, metric), metric)
    return _number(at, metric)


def _end(study: StoredGrid, judged: ClaimVerdict, evidence: Evidence) -> str:
    """Says with how many seeds the conclusion was decided, or why it is open."""
    at = resolved_at(judged)
    if at is None:
        return why_open(study, judged, evidence)
    text = marked("Decided with {n} seeds.")
    if judged.claim.metric == SECONDS:
        text = marked("Decided with {n} rounds.")
    return t(text, n=at) if at > 1 else ""


def why_open(study: StoredGrid, judged: ClaimVerdict, evidence: Evidence) -> str:
    """Says why an unresolved conclusion is open, and why no more seeds were trained."""
    if not evidence.test:
        if evidence.n == 1:
            return t("One seed does not tell what others would give.")
        return t("The seeds do not differ, so chance cannot be estimated.")
    if judged.claim.metric == SECONDS:
        return t("These {n} rounds do not decide it.", n=evidence.n)
    rounds = study.until_resolved
    if rounds is None:
        return t("These {n} seeds do not decide it.", n=evidence.n)
    if rounds["end"] == "complete":
        return t("Open after {n} seeds, the most that the study file allows.", n=rounds["most"])
    if rounds["end"] == "stopped":
        return t("Open: the run was stopped after {n} seeds.", n=evidence.n)
    return t("Open: the run was out of time after {n} seeds.", n=evidence.n)
