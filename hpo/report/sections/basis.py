"""What a verdict rests on, in numbers and sentences."""

import math

from hpo.analysis.claims import MOST_SEEDS, ClaimVerdict, Part, why_open
from hpo.analysis.evidence import most_failures
from hpo.analysis.hypothesis_tests import Verdict
from hpo.language import marked, nt, printed, t
from hpo.results.study import StoredGrid
from hpo.study.claims import GUESS, SECONDS, By, Form, Term
from hpo.study.metrics import Metric
from hpo.text import count, listed

RUNNING = ("train_accuracy", "train_loss")  # means over an epoch, not values after it
THAT = marked("that of {side}")
# How two values compare: accuracies and losses are below or above, SIZED ones smaller or greater.
SIZED = ("gap", "valid_spread", "valid_falls", SECONDS)
DIFFERS = (marked("{subject} is {size} below {other}"), marked("{subject} is {size} above {other}"))
SIZE_DIFFERS = (
    marked("{subject} is {size} smaller than {other}"),
    marked("{subject} is {size} greater than {other}"),
)
WINS = (
    marked("{first} is below {second} with {k} of {n} seeds"),
    marked("{first} is above {second} with {k} of {n} seeds"),
)
SIZE_WINS = (
    marked("{first} is smaller than {second} with {k} of {n} seeds"),
    marked("{first} is greater than {second} with {k} of {n} seeds"),
)
# Of several parts the one that decides.
DECISIVE = {
    Verdict.HOLDS: marked("the closest of {n}: {comparison}"),
    Verdict.REFUTED: marked("the clearest of {n}: {comparison}"),
    Verdict.UNRESOLVED: marked("the weakest of {n}: {comparison}"),
    Verdict.TOO_SMALL: marked("the weakest of {n}: {comparison}"),
}


def effect(part: Part) -> str:
    """+0.76 points (0.61 to 0.91); ratios as × 1.03 (0.98 to 1.08); shares in percent."""
    ends = part.interval
    if part.is_share:
        fails = part.form is Form.FAILS
        text = marked("{share}% of runs") if fails else marked("{share}% of seeds")
        value = t(text, share=f"{100 * part.effect:.0f}")
        low, high = (f"{100 * end:.0f}" for end in ends)
    elif part.logs:
        value = t("× {ratio:.2f}", ratio=ratio(part.effect))
        low, high = (f"{ratio(end):.2f}" for end in ends)
    else:
        metric = part.measure
        value = metric.in_unit(_digits(part.effect, metric, "+"))
        low, high = (_digits(end, metric) for end in ends)
    if not math.isfinite(part.low) or not math.isfinite(part.high):
        return value
    return t("{value} ({low} to {high})", value=value, low=low, high=high)


def _digits(value: float, metric: Metric, sign: str = "") -> str:
    return printed(f"{{:{sign}.{metric.digits}f}}", metric.scale * value)


def ratio(value: float) -> float:
    """Returns the ratio of a difference of logarithms."""
    return math.exp(value) if value < 700 else math.inf


def interval_kind(study: StoredGrid) -> str:
    """Says what kind the intervals of differences in this study's report are."""
    if study.file.claims:
        return t("that of the conclusions, valid at any number of seeds")
    return t("Student's t, for one look")


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
    details = (_failures(part), _images(part), _single_runs(part), _margins(judged))
    return " ".join(filter(None, (f"{text}.", *details, _end(judged))))


def _nothing(part: Part) -> str:
    labels = dict.fromkeys(part.study.cell(c).label for side in part.sides for c in side.cells)
    text = marked("{names} have no seed in common, so this cannot be tested.")
    if part.comparison.below == GUESS and part.margin > 1:
        text = marked("The test part is too small to tell what {names} learn from a guess.")
    if part.left_out:
        text = marked("There is no seed with which {names} learn, so nothing is compared.")
    elif part.comparison.metric == SECONDS:
        text = marked("The times were not measured yet, so this cannot be tested.")
    return t(text, names=t(" and ").join(labels))


def _comparison(part: Part) -> str:
    compared, n = part.comparison, part.n
    if compared.form is Form.FAILS:
        network, k = part.study.cell(part.sides[0].cell).label, round(part.effect * n)
        text = marked("{network} fails to learn ({metric} {beyond}) with {k} of {n} seeds")
        if compared.below == GUESS:
            text = marked(
                "{network} learns nothing ({metric} {beyond}, not above that of a constant "
                "answer) with {k} of {n} seeds"
            )
        metric = part.measure
        known = {"metric": t(metric.words), "beyond": metric.beyond(metric.gain(part.margin))}
        return t(text, network=network, k=k, n=n, **known)
    if compared.by is By.WINS:
        return _wins(part)
    difference = _difference(part)
    if compared.form is Form.SIMILAR:
        allowed = margin_text(part, part.margin)
        return t("{comparison}; {allowed} is allowed", comparison=difference, allowed=allowed)
    basis = count(n, "seed")
    if compared.metric == SECONDS:
        basis = nt("{n} round of timing", "{n} rounds of timing", n)
    return t("{comparison} ({basis})", comparison=difference, basis=basis)


def _wins(part: Part) -> str:
    """Says with how many seeds the first side is above the second; the cell comes first."""
    (first, second), n = part.sides, part.n
    texts, is_above = SIZE_WINS if _sized(part) else WINS, first.number is None
    if not is_above:
        first, second = second, first
    values = {"first": _value(part, first), "second": _value(part, second, THAT)}
    said = t(texts[is_above], **values, k=round(part.effect * (n - part.ties)), n=n)
    return f"{said}{t(', equal with {n}', n=part.ties)}" if part.ties else said


def _sized(part: Part) -> bool:
    return part.comparison.metric in SIZED or any(side.minus for side in part.sides)


def _difference(part: Part) -> str:
    """Compares the two sides by their difference, or by their ratio."""
    (first, second), difference, metric = part.sides, part.effect, part.measure
    text = marked("{subject} is {ratio} {other}")
    if not part.logs:
        if first.number is not None:  # the cell is what a sentence is about
            first, second, difference = second, first, -difference
        text = (SIZE_DIFFERS if _sized(part) else DIFFERS)[difference >= 0]
    return t(
        text,
        subject=_value(part, first),
        other=_value(part, second, THAT),
        ratio=effect(part),
        size=metric.in_unit(_digits(abs(difference), metric)),
    )


def _value(part: Part, side: Term, text: str = marked("the {metric} of {side}")) -> str:
    """the test accuracy of ReLU MLP; or the side's number: 96.00%, 1.00 points, 0.1000."""
    metric = part.measure
    if side.number is not None:
        value = _digits(side.number, metric)
        line = metric.name.endswith("accuracy") and not part.is_margin
        return f"{value}%" if line else metric.in_unit(value)
    return t(text, metric=t(metric.words), side=_side(part.study, side, metric.name))


def _side(study: StoredGrid, side: Term, metric: str) -> str:
    text = study.cell(side.cell).label if side.cell else _group(study, side)
    if side.epoch is not None:
        when = marked("{network} after epoch {epoch}")
        if metric in RUNNING:
            when = marked("{network} during epoch {epoch}")
        text = t(when, network=text, epoch=side.epoch)
    if side.minus is None:
        return text
    other = _side(study, side.minus, metric)
    return t("{first} minus {second}", first=text, second=other)


def _group(study: StoredGrid, side: Term) -> str:
    labels = listed([study.cell(name).label for name in side.group])
    if study.regression:
        return t("the best by {metric} of {names}", metric=t(study.metric.words), names=labels)
    return t("the best by validation of {names}", names=labels)


# --- details -----------------------------------------------------------------------------------


def _failures(part: Part) -> str:
    """Says for each network of the part that fails to learn how often it does, and the bound."""
    study, texts = part.study, []
    if part.comparison.metric == SECONDS or part.comparison.form is Form.FAILS:
        return ""
    for name in dict.fromkeys(name for side in part.sides for name in side.cells):
        cell = study.cell(name)
        n, k = len(study.of(cell)), int(study.failing(cell).sum())
        text = marked("{network} {k} of {n} (at most {share:.0f}%)")
        share = 100 * most_failures(k, n) if n else 0.0
        if 2 * k > n:
            text = marked("{network} {k} of {n} (at least {share:.0f}%)")
            share = 100 - 100 * most_failures(n - k, n)
        texts += [t(text, network=cell.label, k=k, n=n, share=share)] if k else []
    return t("Runs that fail to learn: {networks}.", networks=", ".join(texts)) if texts else ""


def _images(part: Part) -> str:
    if part.interval_seeds_and_images is None:
        return ""
    low, high = (100 * bound for bound in part.interval_seeds_and_images)
    text = marked(
        "For other seeds and other test {things}: {low:.2f} to {high:.2f} points (95%, "
        "for one look)."
    )
    return t(text, things=t(part.study.things), low=low, high=high)


def _single_runs(part: Part) -> str:
    if part.single_runs is None:
        return ""
    share, low, high = (100 * value for value in part.single_runs)
    first, second = (_side(part.study, side, part.comparison.metric) for side in part.sides)
    text = marked(
        "One run of {first} is above one run of {second} with {share:.0f}% ({low:.0f} to "
        "{high:.0f})."
    )
    return t(text, first=first, second=second, share=share, low=low, high=high)


def _margins(judged: ClaimVerdict) -> str:
    """Says with which margins the verdict would be another one; empty without a near one."""
    part = judged.decisive
    turns = turns_text(judged, part)
    if not turns:
        return ""
    text = marked("Margin {margin}: {turns}.")
    if not part.is_margin:
        text = marked("Line {margin}: {turns}.")
    others = [verdict for _, verdict in judged.turns[judged.parts.index(part)]]
    if judged.verdict is Verdict.REFUTED and Verdict.HOLDS in others:
        text = marked("This depends on our margin, {margin}: {turns}.")
    return t(text, margin=margin_text(part, part.margin), turns=turns)


def turns_text(judged: ClaimVerdict, part: Part) -> str:
    """below 1.59 points unresolved, above 12 points refuted; empty if no near margin turns it."""
    texts = []
    for margin, verdict in judged.turns[judged.parts.index(part)]:
        text = marked("below {at} {verdict}")
        if margin > part.margin:
            text = marked("above {at} {verdict}")
        at = margin_text(part, margin, part.measure.digits)
        texts.append(t(text, at=at, verdict=t(verdict.value)))
    return ", ".join(texts)


def margin_text(part: Part, at: float, digits: int | None = None) -> str:
    """10%, 2 points, 12%, 2.3: a margin or a line. digits: of a computed one."""
    metric, percent = part.measure, part.logs and part.form is Form.SIMILAR
    shown = metric.digits if part.form is Form.FAILS else 2 if digits and percent else digits
    scale = 100.0 if percent else metric.scale
    text = f"{scale * at:g}" if shown is None else f"{scale * at:.{shown}f}"
    if percent or (metric.name.endswith("accuracy") and not part.is_margin):
        return f"{text}%"
    return metric.in_unit(text)


def _end(judged: ClaimVerdict) -> str:
    """Says with how many seeds the conclusion was decided, or why it is open and what it needs."""
    at, part = judged.decided_at, judged.decisive
    if at is None:
        return " ".join(filter(None, (why_open(part), _needed(judged))))
    text = marked("Decided with {n} seeds.")
    if part.comparison.metric == SECONDS:
        text = marked("Decided with {n} rounds.")
    return t(text, n=at) if at > 1 else ""


def _needed(judged: ClaimVerdict) -> str:
    """Says how many seeds would probably decide an open conclusion."""
    found = judged.seeds_to_decide()
    if found is None:
        return ""
    seen, low, high = found
    if math.isinf(low):
        return t("With the effect seen, {n:,} of them would not decide it.", n=MOST_SEEDS)
    if math.isinf(seen):
        text = marked("With the effect seen, more than {n:,} would decide it ({low:.0f} or more).")
        return t(text, n=MOST_SEEDS, low=low)
    text = marked("With the effect seen, about {n:.0f} would decide it ({low:.0f} to {high:.0f}).")
    if math.isinf(high):
        text = marked("With the effect seen, about {n:.0f} would decide it ({low:.0f} or more).")
    return t(text, n=seen, low=low, high=high)
