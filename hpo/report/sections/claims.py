"""The report's sections on claims: the table of verdicts, and how they were tested."""

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from hpo.analysis.claims import (
    LEAST_PLANNED,
    ClaimVerdict,
    Part,
    claim_verdicts,
    tally,
)
from hpo.analysis.hypothesis_tests import Verdict
from hpo.analysis.statistics import LEVEL
from hpo.language import marked, t
from hpo.report.blocks.grid_tables import data_text
from hpo.report.blocks.page import Block, Section, Verdicts, interval_svg, path_svg
from hpo.report.blocks.table import NOTHING, Column, Entry, Table
from hpo.report.blocks.words import p_text
from hpo.report.sections.basis import (
    effect,
    margin_text,
    ratio,
    sentence,
    turns_text,
)
from hpo.results.study import StoredGrid
from hpo.study.claims import Form
from hpo.text import count

TESTS = {
    "t": marked("t, n = {n}"),
    "signs": marked("signs, n = {n}"),
    "runs": marked("runs, n = {n}"),
    "": marked("none, n = {n}"),
}
KEY = marked(
    "Effect: the first side minus the second, of the part that decides. Drawn: its 95% interval, "
    "which is valid however often the study is looked at. The upright line is no difference, or "
    "half of the seeds; a band is what counts as similar. Each row has a scale of its own, alike "
    "to both sides, with its end at the right. p: after correction for the number of conclusions. "
    "A click on a conclusion shows what the verdict rests on, and the evidence seed "
    "by seed: for it (solid), against it (dashed), too small to matter (dotted), and what a "
    "verdict needs (grey)."
)
METHOD = (
    marked(
        "A conclusion holds if the seeds support it and chance alone is an unlikely reason. It "
        "is refuted if the seeds contradict it as clearly, too small to matter if the difference "
        "is clearly below what the study file calls of interest, and unresolved otherwise. A "
        "conclusion that this design cannot test is not counted."
    ),
    marked(
        "Two questions are kept apart. Does a network learn? A run fails if it diverges or ends "
        "{short_of}; the bound beside each count is "
        "one-sided, 95% (Clopper and Pearson 1934). How good is it where it learns? Networks are "
        "compared over the seeds with which all of them learn, in pairs of seeds. Where the "
        'study file says so (by = "wins"), the signs of all pairs are compared instead, and a '
        "run that diverged is the worst."
    ),
    marked(
        "The evidence is an e-process: a bet against the conclusion's opposite that starts at 1, "
        "is renewed with each seed, and in the long run cannot grow if the opposite is true. It "
        "exceeds 20 at any time with a chance of at most 5%, so p = 1 / (its maximum so far) is "
        "valid at any number of seeds, and a study may be continued or stopped at will. Means: "
        "the t-test with a right Haar prior for the standard deviation and a half-normal prior, "
        "of standard deviation 1, for mean / standard deviation (Lai 1976; Pérez-Ortiz et al. "
        "2024). Shares: a prior that is even from one half to 1."
    ),
    marked(
        "{ratios} Which metric is tested how was fixed before the data. The t-test assumes that "
        "differences are roughly normal; signs assume nothing."
    ),
    marked(
        "Holm's correction (1979) over all conclusions that can be tested keeps the chance of "
        "any wrong verdict at 5% or less: one that calls a false conclusion held, or a true one "
        "refuted. Two networks that are equal get a verdict on which is better, which is wrong "
        "whichever it is, with at most 5.1%. Intervals are 95% each, without correction. A "
        "conclusion of several parts holds if each part does, and is refuted if one part is "
        "(Berger 1982). The verdicts cover the randomness of split, initial weights and batch "
        "order in this protocol; training times only this machine; and no other data."
    ),
)
# What the metrics of a study have in the places of METHOD: of classes, of numbers.
OF_CLASSES = {
    "short_of": marked("below the test accuracy that counts as learning"),
    "ratios": marked(
        "Losses, which spread in proportion to their size, and times are compared by their "
        "logarithms, as ratios; the unevenness and the falls of validation accuracy, which are "
        "skewed, by signs."
    ),
}
OF_NUMBERS = {
    "short_of": marked("without a test that counts as learning"),
    "ratios": marked(
        "Losses, RMSE and MAE, which spread in proportion to their size, and times are compared by "
        "their logarithms, as ratios; R² by differences. A greater error is a worse one."
    ),
}
PLANNED = marked(
    "The study file planned {n} seeds before the first one was trained. So a second test looks at "
    "exactly these: Student's t with one degree of freedom fewer, because differences are a little "
    "skewed; the exact binomial test; two one-sided tests for similarity. Each of the two has half "
    "of the error: p is the smaller one, doubled."
)
STOPPED = marked(
    "Seeds were added where conclusions were open. A conclusion that is decided at such a moment "
    "shows an effect that is, on average, larger than the true one."
)


def sections(study: StoredGrid) -> list[Section]:
    """Returns the section on the study's claims, if it has any."""
    if not study.file.claims:
        return []
    judged = claim_verdicts(study)
    rows = [_row(each) for each in judged]
    table = Verdicts(rows=rows, caption=f"{data_text(study)}. {t(KEY)}")
    blocks: list[Block] = [table, *changes(study)]
    return [Section(title=t("Which conclusions hold"), blocks=blocks)]


def lead(study: StoredGrid, guess: str) -> list[str]:
    """Says how many conclusions have which verdict, and how many of these depend on a margin.
    guess: ends the first sentence."""
    if not study.file.claims:
        return []
    judged = claim_verdicts(study)
    decided = [of for of in judged if of.parts and of.verdict is not Verdict.UNRESOLVED]
    close = sum(of.close for of in decided)
    text = marked(
        "{tally}. With twice a margin of ours, or half of it, {k} of the {n} verdicts turn."
    )
    if not close:
        return [f"{tally(judged)}{guess}."]
    return [t(text, tally=f"{tally(judged)}{guess}", k=close, n=len(decided))]


def _margins(study: StoredGrid) -> list[Block]:
    """Returns the table of the lines and margins that can decide a verdict, and says how many of
    them change nothing."""
    every = [(of, part) for of in claim_verdicts(study) for part in of.parts if part.at]
    rows = list({_margin_row(*row): None for row in every if row[1].test})
    turning = [row for row in rows if row[-1]]
    if not rows:
        return []
    if not turning:
        text = marked(
            "{data}. Each of the {n} lines and margins gives the same verdict with these seeds "
            "from a tenth of its size to ten times."
        )
        return [t(text, data=data_text(study), n=len(rows))]
    columns = [
        Column("says", t("Conclusion"), itemgetter(0)),
        Column("metric", t("Metric"), itemgetter(1)),
        Column("margin", t("Line or margin"), itemgetter(2)),
        Column("verdict", t("Verdict"), itemgetter(3)),
        Column("turns", t("Another verdict"), itemgetter(4)),
    ]
    caption = marked(
        "{data}. The lines and margins that can decide a verdict, and the nearest ones that would "
        "give another verdict with these seeds. Left out, because they give the same verdict from "
        "a tenth of their size to ten times: {n}. Where the publication gives no number, they are "
        "the study file's."
    )
    caption = t(caption, data=data_text(study), n=len(rows) - len(turning))
    return [Table(columns=columns, rows=turning, caption=caption)]


def _margin_row(judged: ClaimVerdict, part: Part) -> tuple[str, ...]:
    texts = t(judged.claim.says), t(part.measure.words), margin_text(part, part.margin)
    return *texts, t(judged.verdict.value), turns_text(judged, part)


def changes(study: StoredGrid) -> list[str]:
    """Returns a sentence per change of the claims after the first trial."""
    text = marked(
        "The conclusions were changed after {trainings}, when results could be known. Dropped or "
        "changed: {dropped}. New or changed: {added}. Dropped ones still count in the correction."
    )
    return [
        t(
            text,
            trainings=count(each["trials"], "training"),
            dropped=_quoted(each["dropped"]),
            added=_quoted(each["added"]),
        )
        for each in study.claim_changes
    ]


def _quoted(sentences: Sequence[str]) -> str:
    return "; ".join(f"“{t(sentence)}”" for sentence in sentences) or t("none")


def method_sections(study: StoredGrid) -> list[Section]:
    """Returns the section on how the claims were tested."""
    if not study.file.claims:
        return []
    metrics = OF_NUMBERS if study.regression else OF_CLASSES
    places = {key: t(text) for key, text in metrics.items()}
    blocks: list[Block] = [t(text, **places) for text in METHOD]
    if (study.planned_seeds or 0) >= LEAST_PLANNED:
        blocks.insert(4, t(PLANNED, n=study.planned_seeds))
    if study.until_resolved is not None:
        blocks.append(t(STOPPED))
    found = [Section(title=t("How the conclusions were tested"), blocks=blocks)]
    if margins := _margins(study):
        found.append(Section(title=t("Which margins decide"), blocks=margins))
    return found


def _row(judged: ClaimVerdict) -> dict[str, Any]:
    row: dict[str, Any] = {"claim": t(judged.claim.says), "where": judged.claim.where or NOTHING}
    row |= {"verdict": judged.verdict.value, "drawing": "", "test": NOTHING}
    row |= {"effect": Entry(NOTHING), "p": Entry(NOTHING)}
    row |= {"basis": sentence(judged), "path": ""}
    if not judged.parts:
        return row
    part = judged.decisive
    if not part.n:
        return row | {"test": t("no runs")}
    row |= {"effect": Entry(effect(part), _effect_value(part)), "drawing": _forest(part)}
    row["test"] = t(TESTS[part.test], n=part.n)
    if part.test:
        row |= {"p": Entry(p_text(judged.p), judged.p), "path": _path(judged)}
    return row


def _path(judged: ClaimVerdict) -> str:
    """Draws the evidence on the part that decides, seed by seed."""
    part, parts = judged.decisive, len(judged.parts)
    lines = [("for", part.path_for.tolist()), ("against", (part.path_against / parts).tolist())]
    if part.path_too_small is not None:
        lines.append(("small", (part.path_too_small / parts).tolist()))
    return path_svg(lines, judged.factor / (LEVEL * part.kept))


def _effect_value(part: Part) -> float:
    """Returns the effect as it is printed: in percent, as a ratio, or in the metric's unit."""
    if part.is_share:
        return 100 * part.effect
    return ratio(part.effect) if part.logs else part.measure.scale * part.effect


def _forest(part: Part) -> str:
    """Returns the interval as a small SVG, on a scale of its own whose end is printed."""
    values = [part.low, part.effect, part.high]
    if part.is_share:  # half of the seeds is the middle
        low, middle, high = (2 * value - 1 for value in values)
        return interval_svg(low, middle, high, "100%")
    scale = 1.0 if part.logs else part.measure.scale
    margin = 0.0
    if part.comparison.form is Form.SIMILAR:
        margin = math.log1p(part.margin) if part.logs else scale * part.margin
    values = [*(scale * value for value in values), margin]
    finite = [abs(value) for value in values if math.isfinite(value)]
    end = _round_up(1.1 * max(finite, default=1.0))
    label = f"×{math.exp(end):.3g}" if part.logs else f"±{end:g}"
    low, middle, high, margin = (value / end for value in values)
    return interval_svg(low, middle, high, label, margin)


def _round_up(value: float) -> float:
    """Returns the next of 1, 2, 5, 10, 20, … times a power of ten; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)
