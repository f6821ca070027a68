"""Tests the claims of a grid over its seeds, validly at any number of them."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial, reduce
from itertools import combinations, pairwise, product

import numpy as np
import pandas as pd

from hpo.analysis.evidence import (
    NOTHING,
    Evidence,
    combine,
    mean_above,
    mean_within,
    mostly,
    mostly_above,
)
from hpo.analysis.hypothesis_tests import Judged, Verdict, judge
from hpo.analysis.precision import beats, learning_images, precision
from hpo.analysis.statistics import LEVEL, boundary
from hpo.language import nt, t
from hpo.results.study import StoredGrid
from hpo.study.claims import RATIOS, SECONDS, By, Claim, Form, Term

GREATER_IS_BETTER = ("test_accuracy", "valid_accuracy", "train_accuracy")


@dataclass(frozen=True, kw_only=True, eq=False)
class Part(Evidence):
    """One comparison of a claim, with its evidence: n = 0 if there is nothing to compare.

    left_out: seeds with which a side fails to learn.
    logs: whether the effect is a difference of logarithms, a ratio.
    at: the evidence at another margin, where the claim has one.
    margin: the claim's.
    """

    study: StoredGrid
    claim: Claim
    sides: tuple[Term, ...]
    left_out: int = 0
    logs: bool = False
    at: Callable[[float], Evidence] | None = None
    margin: float = math.nan

    @property
    def rising(self) -> bool:
        """Whether the claim is easier to hold with a larger margin."""
        return self.claim.form is not Form.GREATER or self.sides[0].number is not None

    @cached_property
    def interval_seeds_and_images(self) -> tuple[float, float] | None:
        """The 95% interval over seeds and test images of a difference of two test accuracies, a
        fraction; None for other comparisons, or if the right images are not stored."""
        claim, cells = self.claim, [self.study.cell(side.cell) for side in self.sides if side.cell]
        if claim.metric != "test_accuracy" or claim.by is By.WINS or claim.form is Form.FAILS:
            return None
        if not self.n or len(cells) != 2 or any(side.minus or side.epoch for side in self.sides):
            return None
        ours, theirs = (learning_images(self.study, cell) for cell in cells)
        common = ours.index.intersection(theirs.index)
        if len(common) < 2:
            return None
        a, b = (right.loc[common].to_numpy(float) for right in (ours, theirs))
        return precision(a - b).both

    @cached_property
    def single_runs(self) -> tuple[float, float, float] | None:
        """The probability that one run of the first side is above one of the second, with its 95%
        interval; None where a side is no run's metric."""
        if self.claim.metric == SECONDS or self.claim.form not in (Form.GREATER, Form.BEST):
            return None
        if not self.n or any(side.cell is None or side.minus for side in self.sides):
            return None
        sides = (side_values(self.study, self.claim.metric, side) for side in self.sides)
        ours, theirs = (np.asarray(values, float) for values in sides)
        chance = beats(ours[~np.isnan(ours)], theirs[~np.isnan(theirs)])
        return None if math.isnan(chance[0]) else chance


@dataclass(frozen=True, kw_only=True)
class ClaimVerdict(Judged):
    """A claim with its parts and verdict. Holm's correction is over all claims that can be tested;
    p is 1 if nothing can."""

    claim: Claim
    parts: tuple[Part, ...]

    @property
    def decisive(self) -> Part:
        """The part that decides: the one with the strongest evidence against, or of a difference
        too small to matter, if that is the verdict; else the one with the weakest evidence for the
        claim."""
        keys: dict[Verdict, Callable[[Part], float]] = {
            Verdict.REFUTED: lambda part: part.p_against,
            Verdict.TOO_SMALL: lambda part: part.p_small,
        }
        key = keys.get(self.verdict, lambda part: -part.p_for)
        return min(self.parts, key=lambda part: key(part) if part.n else -math.inf)

    @property
    def open(self) -> bool:
        """Whether more seeds could decide."""
        return self.verdict is Verdict.UNRESOLVED and self.claim.metric != SECONDS

    @property
    def decided_at(self) -> int | None:
        """The number of seeds with which the claim was decided; None if it is open.

        By the final correction: with fewer claims open then, it may have been counted later.
        """
        needed, several = 2 * self.factor / LEVEL, 2 * self.factor / LEVEL * len(self.parts)
        if self.verdict is Verdict.HOLDS:
            return max(_first(part.path_for, needed) for part in self.parts)
        if self.verdict is Verdict.REFUTED:
            return min(_first(part.path_against, several) for part in self.parts)
        if self.verdict is Verdict.TOO_SMALL:
            paths = [part.path_too_small for part in self.parts]
            return min(_first(path, several) for path in paths if path is not None)
        return None

    @property
    def stopped(self) -> str:
        """Says why no more seeds were trained."""
        if self.verdict is Verdict.UNTESTABLE:
            return self.claim.untestable
        if self.verdict is not Verdict.UNRESOLVED:
            return "decided"
        return why_open(self.decisive) if self.decisive.n else "nothing to compare"

    def turns_at(self) -> tuple[float | None, float | None]:
        """Returns the margins at which the claim begins to hold, and to be refuted; None if it
        never does."""
        part, at = self.decisive, self.decisive.at
        assert at is not None
        reach = 10 * (abs(part.margin) + abs(part.effect)) + 1.0
        # A small and a large margin between which all others lie.
        ends = {Form.FAILS: (0.0, 1.0), Form.SIMILAR: (1e-9, 10.0)}
        small, large = ends.get(self.claim.form, (part.margin - reach, part.margin + reach))
        hard, easy = (small, large) if part.rising else (large, small)

        def holds(margin: float) -> bool:
            return 2 * self.factor * at(margin).p_for < LEVEL

        def is_refuted(margin: float) -> bool:
            return 2 * self.factor * len(self.parts) * at(margin).p_against < LEVEL

        hold = boundary(holds, hard, easy) if holds(easy) else None
        refute = boundary(is_refuted, easy, hard) if is_refuted(hard) else None
        return hold, refute


def _first(path: np.ndarray, needed: float) -> int:
    """Returns the first n at which the path exceeds `needed`; its length if it never does."""
    above = np.flatnonzero(path > needed)
    return int(above[0]) + 1 if above.size else len(path)


@lru_cache(maxsize=1)  # report, lead and terminal ask for the same study
def claim_verdicts(study: StoredGrid) -> list[ClaimVerdict]:
    """Tests the claims of the study's file, in their order. A claim with a part without trials is
    unresolved."""
    claims = study.file.claims
    parts = [_parts(study, claim) for claim in claims]  # none where it is untestable
    dropped = sum(len(change["dropped"]) for change in study.claim_changes)
    judged = iter(judge([combine(each) for each in parts if each], more=dropped))
    untestable = Judged(verdict=Verdict.UNTESTABLE, p=1.0, factor=1)
    return [
        ClaimVerdict(claim=claim, parts=each, **vars(next(judged) if each else untestable))
        for claim, each in zip(claims, parts, strict=True)
    ]


def open_cells(study: StoredGrid) -> set[str]:
    """Returns the names of the cells of open claims, of those of their parts that do not hold yet:
    more seeds of these could decide."""
    return {
        cell
        for judged in claim_verdicts(study)
        if judged.open
        for part in judged.parts
        if 2 * judged.factor * part.p_for >= LEVEL
        for side in part.sides
        for cell in side.cells
    }


# --- words -------------------------------------------------------------------------------------


def tally(judged: Sequence[ClaimVerdict]) -> str:
    """Of 20 conclusions 15 hold, 3 are unresolved, 2 are refuted."""
    n = Counter(each.verdict for each in judged)
    small, untestable = n[Verdict.TOO_SMALL], n[Verdict.UNTESTABLE]
    counted = {
        Verdict.HOLDS: nt("{n} holds", "{n} hold", n[Verdict.HOLDS]),
        Verdict.UNRESOLVED: nt("{n} is unresolved", "{n} are unresolved", n[Verdict.UNRESOLVED]),
        Verdict.REFUTED: nt("{n} is refuted", "{n} are refuted", n[Verdict.REFUTED]),
        Verdict.TOO_SMALL: nt("{n} is too small to matter", "{n} are too small to matter", small),
        Verdict.UNTESTABLE: nt("{n} is not testable", "{n} are not testable", untestable),
    }
    shown = [text for verdict, text in counted.items() if n[verdict] or verdict is Verdict.HOLDS]
    of_all = {"verdicts": ", ".join(shown)}
    return nt(
        "Of {n} conclusion {verdicts}", "Of {n} conclusions {verdicts}", len(judged), **of_all
    )


def why_open(part: Part) -> str:
    """Says why an unresolved claim is open, and why no more seeds were trained. part: decisive."""
    if not part.test:
        if part.n == 1:
            return t("One seed does not tell what others would give.")
        return t("The seeds do not differ, so chance cannot be estimated.")
    if part.claim.metric == SECONDS:
        return t("These {n} rounds do not decide it.", n=part.n)
    rounds = part.study.until_resolved
    if rounds is None:
        return t("These {n} seeds do not decide it.", n=part.n)
    if rounds["end"] == "complete":
        return t("Open after {n} seeds, the most that the study file allows.", n=rounds["most"])
    if rounds["end"] == "stopped":
        return t("Open: the run was stopped after {n} seeds.", n=part.n)
    return t("Open: the run was out of time after {n} seeds.", n=part.n)


# --- comparisons -------------------------------------------------------------------------------


def _parts(study: StoredGrid, claim: Claim) -> tuple[Part, ...]:
    """Returns the comparisons of a claim; none if it is untestable."""
    if claim.form is Form.FAILS:
        return (_failing(study, claim),)
    pairs: Iterable[tuple[Term, Term]] = pairwise(claim.terms)
    if claim.form is Form.SIMILAR:
        pairs = combinations(claim.terms, 2)
    elif claim.form is Form.BEST:
        pairs = product(claim.terms[:1], claim.terms[1:])
    return tuple(_compared(study, claim, *pair) for pair in pairs)


def _failing(study: StoredGrid, claim: Claim) -> Part:
    cell = study.cell(claim.terms[0].cell)

    def at(below: float) -> Evidence:
        return mostly(study.failing(cell, below).to_list())

    part = partial(Part, study=study, claim=claim, sides=claim.terms, margin=claim.below)
    if study.of(cell).empty:
        return part(**vars(NOTHING))
    return part(**vars(at(claim.below)), at=at)


def _compared(study: StoredGrid, claim: Claim, a: Term, b: Term) -> Part:
    """Compares two sides: whether a is greater, or whether the two are similar."""
    similar = claim.form is Form.SIMILAR
    logs = claim.metric in RATIOS if similar else claim.metric == SECONDS
    differences = _differences(study, claim.metric, a, b, logs=logs)
    part = partial(Part, study=study, claim=claim, sides=(a, b), logs=logs)
    if differences.empty:
        return part(**vars(NOTHING))
    if claim.by is By.WINS:
        return part(**vars(mostly_above(differences.to_numpy())))
    kept, left_out = _learning(study, claim, differences, a, b)
    part = partial(part, left_out=left_out)
    if similar:

        def within(margin: float) -> Evidence:
            return mean_within(kept, math.log1p(margin) if logs else margin)

        if not kept.size:
            return part(**vars(NOTHING))
        return part(**vars(within(claim.within)), at=within, margin=claim.within)
    evidence = mean_above(kept, matters=claim.matters) if kept.size else NOTHING
    number, sign = (b.number, -1.0) if a.number is None else (a.number, 1.0)
    if number is None:
        return part(**vars(evidence))

    def above(margin: float) -> Evidence:
        return mean_above(kept + sign * (margin - number))

    return part(**vars(evidence), at=above if kept.size and not logs else None, margin=number)


def _differences(study: StoredGrid, metric: str, a: Term, b: Term, *, logs: bool) -> pd.Series:
    """Returns a - b by seed, or by round for training times; of logarithms if asked. What a run
    that diverged lacks is the worst value."""
    sides = [side_values(study, metric, term) for term in (a, b)]
    there = [side.index for side in sides if isinstance(side, pd.Series)]
    common = reduce(lambda one, other: one.intersection(other), there).sort_values()
    aligned = [side[common] if isinstance(side, pd.Series) else side for side in sides]
    if logs:
        with np.errstate(divide="ignore", invalid="ignore"):
            aligned = [np.log(side) for side in aligned]
    return pd.Series(aligned[0] - aligned[1], index=common, dtype=float).fillna(0.0)


def _learning(
    study: StoredGrid, claim: Claim, differences: pd.Series, a: Term, b: Term
) -> tuple[np.ndarray, int]:
    """Returns the differences of the seeds with which all cells learn, and how many are left out.
    Training times are those of all."""
    if claim.metric == SECONDS:
        return differences.to_numpy(), 0
    names = dict.fromkeys((*a.cells, *b.cells))
    learns = pd.Series(True, index=differences.index)
    for name in names:
        failed = study.failing(study.cell(name))
        learns &= ~failed.reindex(differences.index, fill_value=True)
    kept = differences[learns]
    kept = kept[np.isfinite(kept)]
    return kept.to_numpy(), len(differences) - len(kept)


def side_values(study: StoredGrid, metric: str, term: Term) -> pd.Series | float:
    """Returns a side's values by seed, in the metric's own unit, or its number."""
    if term.number is not None:
        return term.number
    assert term.cell is not None
    if metric == SECONDS:  # by round, see runs.extra
        times = [times[term.cell] for times in study.timings if term.cell in times]
        values = pd.Series(times, index=range(len(times)), dtype=float)
    else:
        key = ("claim", metric, term.cell, term.epoch)
        values = study.once(key, lambda: _values(study, metric, term))
    if term.minus is None:
        return values
    other = side_values(study, metric, term.minus)
    if not isinstance(other, pd.Series):
        return values - other
    common = values.index.intersection(other.index)
    return values[common] - other[common]


def _values(study: StoredGrid, metric: str, term: Term) -> pd.Series:
    cell = study.cell(term.cell)
    rows = study.by_seed(cell)
    if metric in ("valid_spread", "valid_falls"):
        values = _changes(study, rows, metric)
    else:
        if term.epoch is not None:
            at = study.curves[study.curves["epoch"] == term.epoch]
            rows = at[at["number"].isin(rows["number"])].set_index("seed")
        gap = metric == "gap"
        values = rows["train_accuracy"] - rows["valid_accuracy"] if gap else rows[metric]
    worst = -np.inf if metric in GREATER_IS_BETTER else np.inf
    diverged = study.by_seed(cell)["diverged"].astype(bool)
    lost = values.isna() & diverged.reindex(values.index, fill_value=False)
    return values.astype(float).mask(lost, worst)


def _changes(study: StoredGrid, rows: pd.DataFrame, metric: str) -> pd.Series:
    """Returns how validation accuracy changes from epoch to epoch, by seed: the changes' standard
    deviation, or the mean fall."""
    curves = study.curves[study.curves["number"].isin(rows["number"])]
    wide = curves.pivot(index="seed", columns="epoch", values="valid_accuracy")
    changes = pd.DataFrame(np.diff(wide.to_numpy(float), axis=1), index=wide.index)
    if metric == "valid_spread":
        return changes.std(axis=1, ddof=1)
    return (-changes).clip(lower=0).mean(axis=1)
