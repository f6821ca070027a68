"""What a verdict rests on, in numbers and sentences."""

import math

from hpo.analysis.claims import ClaimVerdict, Part, why_open
from hpo.analysis.evidence import most_failures
from hpo.analysis.hypothesis_tests import Verdict
from hpo.language import marked, t
from hpo.results.study import StoredGrid
from hpo.study.claims import SECONDS, By, Form, Term
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


def effect(part: Part) -> str:
    """+0.76 points (0.61 to 0.91); ratios as × 1.03 (0.98 to 1.08); shares in percent."""
    ends = part.interval
    if part.test in SHARES:
        text = marked("{share}% of runs") if part.test == "runs" else marked("{share}% of seeds")
        value = t(text, share=f"{100 * part.effect:.0f}")
        low, high = (minus(f"{100 * end:.0f}") for end in ends)
    elif part.logs:
        value = f"× {ratio(part.effect):.2f}"
        low, high = (minus(f"{ratio(end):.2f}") for end in ends)
    else:
        metric = part.claim.metric
        value = _in_unit(minus(_digits(part.effect, metric, "+")), metric)
        low, high = (minus(_digits(end, metric)) for end in ends)
    if math.isnan(part.low):
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


def sentence(judged: ClaimVerdict) -> str:
    """Returns the conclusion in the publication's words, the verdict, and what it rests on."""
    claim = judged.claim
    text = f"“{t(claim.quote)}”" if claim.quote else t(claim.says)
    text += f" ({claim.where})" if claim.where else ""
    return f"{text} {t(judged.verdict.value).capitalize()}: {_basis(judged)}"


def _basis(judged: ClaimVerdict) -> str:
    if not judged.parts:
        return t(judged.claim.untestable)
    part = judged.decisive
    if not part.n:
        return f"{_nothing(part)} {_failures(part)}".strip()
    text = _comparison(part)
    if len(judged.parts) > 1:
        text = t(DECISIVE[judged.verdict], n=len(judged.parts), comparison=text)
    sentences = (f"{text}.", _failures(part), _images(part), _single_runs(part), _margins(judged))
    return " ".join(filter(None, (*sentences, _end(judged))))


def _nothing(part: Part) -> str:
    labels = dict.fromkeys(part.study.cell(c).label for side in part.sides for c in side.cells)
    text = marked("{names} have no seed in common, so this cannot be tested.")
    if part.left_out:
        text = marked("There is no seed with which {names} learn, so nothing is compared.")
    elif part.claim.metric == SECONDS:
        text = marked("The times were not measured yet, so this cannot be tested.")
    return t(text, names=t(" and ").join(labels))


def _comparison(part: Part) -> str:
    claim, n = part.claim, part.n
    if claim.form is Form.FAILS:
        network, k = part.study.cell(part.sides[0].cell).label, round(part.effect * n)
        return t("{network} fails to learn with {k} of {n} seeds", network=network, k=k, n=n)
    if claim.by is By.WINS:
        first, second = (_value(part, side) for side in part.sides)
        text = marked("{first} is above {second} with {k} of {n} seeds")
        return t(text, first=first, second=second, k=round(part.effect * n), n=n)
    compared = _difference(part)
    if claim.form is Form.SIMILAR:
        allowed = f"{100 * part.margin:g}%"
        if not part.logs:
            allowed = _in_unit(f"{WORDS[claim.metric][1] * part.margin:g}", claim.metric)
        return t("{comparison}; {allowed} is allowed", comparison=compared, allowed=allowed)
    text = marked("{comparison} ({n} seeds)")
    if part.logs:
        text = marked("{comparison} ({n} rounds of timing)")
    return t(text, comparison=compared, n=n)


def _difference(part: Part) -> str:
    """Compares the two sides by their difference, or by their ratio."""
    (first, second), difference, metric = part.sides, part.effect, part.claim.metric
    text = marked("{subject} is {ratio} {other}")
    if not part.logs:
        if first.cell is None:  # the cell is what a sentence is about
            first, second, difference = second, first, -difference
        text = marked("{subject} is {size} below {other}")
        if difference >= 0:
            text = marked("{subject} is {size} above {other}")
    return t(
        text,
        subject=_value(part, first),
        other=_value(part, second, marked("that of {side}")),
        ratio=effect(part),
        size=_in_unit(_digits(abs(difference), metric), metric),
    )


def _value(part: Part, side: Term, text: str = marked("the {metric} of {side}")) -> str:
    """the test accuracy of ReLU MLP; or the side's number."""
    metric = part.claim.metric
    if side.number is not None:
        return _number(side.number, metric)
    return t(text, metric=t(WORDS[metric][0]), side=_side(part.study, side))


def _number(number: float, metric: str) -> str:
    """1.00 points for a gap, 96.00% for an accuracy, 0.1000 for a loss."""
    value = _digits(number, metric)
    return f"{value}%" if metric.endswith("accuracy") else _in_unit(value, metric)


def _side(study: StoredGrid, side: Term) -> str:
    text = study.cell(side.cell).label
    if side.epoch is not None:
        text = t("{network} after epoch {epoch}", network=text, epoch=side.epoch)
    if side.minus is None:
        return text
    return t("{first} minus {second}", first=text, second=_side(study, side.minus))


# --- details -----------------------------------------------------------------------------------


def _failures(part: Part) -> str:
    """Says for each network of the part how often it fails to learn, and the bound."""
    study, texts = part.study, []
    for name in dict.fromkeys(name for side in part.sides for name in side.cells):
        cell = study.cell(name)
        n, k = len(study.of(cell)), int(study.failing(cell, part.claim.below).sum())
        text, share = (
            marked("{network} {k} of {n} (at most {share:.0f}%)"),
            100 * most_failures(k, n),
        )
        if 2 * k > n:
            text = marked("{network} {k} of {n} (at least {share:.0f}%)")
            share = 100 - 100 * most_failures(n - k, n)
        texts += [t(text, network=cell.label, k=k, n=n, share=share)] if n else []
    if not texts or part.claim.metric == SECONDS:
        return ""
    return t("Runs that fail to learn: {networks}.", networks=", ".join(texts))


def _images(part: Part) -> str:
    if part.interval_seeds_and_images is None:
        return ""
    low, high = (minus(f"{100 * bound:.2f}") for bound in part.interval_seeds_and_images)
    text = marked("For other seeds and other test {things}: {low} to {high} points (95% interval).")
    return t(text, things=t(part.study.things), low=low, high=high)


def _single_runs(part: Part) -> str:
    if part.single_runs is None:
        return ""
    share, low, high = (100 * value for value in part.single_runs)
    first, second = (_side(part.study, side) for side in part.sides)
    text = marked(
        "One run of {first} is above one run of {second} with {share:.0f}% ({low:.0f} to "
        "{high:.0f})."
    )
    return t(text, first=first, second=second, share=share, low=low, high=high)


def _margins(judged: ClaimVerdict) -> str:
    """Says with which margins the verdict would be another one; empty without a margin."""
    part = judged.decisive
    if part.at is None or not part.test:
        return ""
    limits = LIMITS[judged.claim.form][:: 1 if part.rising else -1]
    holds, refuted = (
        "" if at is None else t(limit, at=_margin(part, at))
        for at, limit in zip(judged.turns_at(), limits, strict=True)
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


def _margin(part: Part, at: float) -> str:
    metric = part.claim.metric
    if part.claim.form is Form.FAILS:
        return t("{at:.1f}% test accuracy", at=100 * at)
    if part.claim.form is Form.SIMILAR:
        return f"{100 * at:.1f}%" if part.logs else _in_unit(_digits(at, metric), metric)
    return _number(at, metric)


def _end(judged: ClaimVerdict) -> str:
    """Says with how many seeds the conclusion was decided, or why it is open."""
    at = judged.decided_at
    if at is None:
        return why_open(judged.decisive)
    text = marked("Decided with {n} seeds.")
    if judged.claim.metric == SECONDS:
        text = marked("Decided with {n} rounds.")
    return t(text, n=at) if at > 1 else ""
