"""Tests the claims of a grid over its seeds, validly at any number of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import combinations, pairwise

import numpy as np
import pandas as pd

from hpo.analysis.evidence import (
    Evidence,
    combine,
    mean_above,
    mean_within,
    mostly,
    mostly_above,
)
from hpo.analysis.hypothesis_tests import Judged, Verdict, judge
from hpo.analysis.statistics import LEVEL
from hpo.language import nt
from hpo.results.study import StoredGrid
from hpo.study.claims import RATIOS, SECONDS, By, Claim, Form, Term

GREATER_IS_BETTER = ("test_accuracy", "valid_accuracy", "train_accuracy")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One comparison of a claim.

    evidence: None if there is nothing to compare.
    left_out: seeds with which a side fails to learn.
    logs: whether the effect is a difference of logarithms, a ratio.
    at: the evidence at another margin, where the claim has one.
    margin: the claim's.
    """

    sides: tuple[Term, ...]
    evidence: Evidence | None
    left_out: int = 0
    logs: bool = False
    at: Callable[[float], Evidence] | None = None
    margin: float = math.nan


@dataclass(frozen=True, kw_only=True)
class ClaimVerdict:
    """A claim with its parts and verdict.

    p: two-sided, after Holm's correction over all claims that can be tested (1 if nothing can).
    factor: what the correction multiplies this claim's p-values by.
    """

    claim: Claim
    parts: tuple[Part, ...]
    verdict: Verdict
    p: float
    factor: int

    @property
    def decisive(self) -> Part:
        """Returns the part that decides: the one with the strongest evidence against, or of a
        difference too small to matter, if that is the verdict; else the one with the weakest
        evidence for the claim."""
        for part in self.parts:
            if part.evidence is None:
                return part
        keys: dict[Verdict, Callable[[Evidence], float]] = {
            Verdict.REFUTED: lambda evidence: evidence.p_against,
            Verdict.TOO_SMALL: lambda evidence: evidence.p_small,
        }
        key = keys.get(self.verdict, lambda evidence: -evidence.p_for)
        return min(self.parts, key=lambda part: key(part.evidence) if part.evidence else math.inf)

    @property
    def open(self) -> bool:
        """Whether more seeds could decide."""
        return self.verdict is Verdict.UNRESOLVED and self.claim.metric != SECONDS


@lru_cache(maxsize=1)  # report, lead and terminal ask for the same study
def claim_verdicts(study: StoredGrid) -> list[ClaimVerdict]:
    """Tests the claims of the study's file, in their order. A claim with a part without trials is
    unresolved."""
    claims = study.file.claims
    parts = [tuple(_parts(study, claim)) for claim in claims]  # none where it is untestable
    dropped = sum(len(change["dropped"]) for change in study.claim_changes)
    p_values = [combine([part.evidence for part in each]) for each in parts if each]
    judged = iter(judge(p_values, more=dropped))
    untestable = Judged(verdict=Verdict.UNTESTABLE, p=1.0, factor=1)
    return [
        ClaimVerdict(claim=claim, parts=each, **vars(next(judged) if each else untestable))
        for claim, each in zip(claims, parts, strict=True)
    ]


def tally(judged: Sequence[ClaimVerdict]) -> str:
    """Of 20 conclusions 15 hold, 3 are unresolved, 2 are refuted."""
    counts = {verdict: sum(each.verdict is verdict for each in judged) for verdict in Verdict}
    parts = [_counted(verdict, n) for verdict, n in counts.items() if n or verdict is Verdict.HOLDS]
    return nt(
        "Of {n} conclusion {verdicts}",
        "Of {n} conclusions {verdicts}",
        len(judged),
        verdicts=", ".join(parts),
    )


def _counted(verdict: Verdict, n: int) -> str:
    """15 hold; 1 is refuted."""
    if verdict is Verdict.HOLDS:
        return nt("{n} holds", "{n} hold", n)
    if verdict is Verdict.UNRESOLVED:
        return nt("{n} is unresolved", "{n} are unresolved", n)
    if verdict is Verdict.REFUTED:
        return nt("{n} is refuted", "{n} are refuted", n)
    if verdict is Verdict.TOO_SMALL:
        return nt("{n} is too small to matter", "{n} are too small to matter", n)
    return nt("{n} is not testable", "{n} are not testable", n)


def open_cells(study: StoredGrid) -> set[str]:
    """Returns the names of the cells of open claims, of those of their parts that do not hold yet:
    more seeds of these could decide."""
    return {
        cell
        for of in claim_verdicts(study)
        if of.open
        for part in of.parts
        if part.evidence is None or 2 * of.factor * part.evidence.p_for >= LEVEL
        for side in part.sides
        for cell in side.cells
    }


def resolved_at(judged: ClaimVerdict) -> int | None:
    """Returns the number of seeds with which the claim was decided; None if it is open.

    By the final correction: with fewer claims open then, it may have been counted later.
    """
    if judged.verdict not in (Verdict.HOLDS, Verdict.REFUTED, Verdict.TOO_SMALL):
        return None
    needed = 2 * judged.factor / LEVEL
    found = [evidence for part in judged.parts if (evidence := part.evidence)]
    if judged.verdict is Verdict.HOLDS:
        return max(_first(evidence.path_for, needed) for evidence in found)
    small = judged.verdict is Verdict.TOO_SMALL
    paths = [e.path_small if small else e.path_against for e in found]
    return min(_first(path, needed * len(found)) for path in paths if path is not None)


def _first(path: np.ndarray, needed: float) -> int:
    """Returns the first n at which the path exceeds `needed`; its length if it never does."""
    above = np.flatnonzero(path > needed)
    return int(above[0]) + 1 if above.size else len(path)


def _parts(study: StoredGrid, claim: Claim) -> Iterator[Part]:
    if claim.form is Form.FAILS:
        yield _failing(study, claim)
    elif claim.form is Form.SIMILAR:
        for pair in combinations(claim.terms, 2):
            yield _similar(study, claim, *pair)
    elif claim.form is Form.BEST:
        for other in claim.terms[1:]:
            yield _greater(study, claim, claim.terms[0], other)
    elif claim.form is Form.GREATER:
        for pair in pairwise(claim.terms):
            yield _greater(study, claim, *pair)


def _failing(study: StoredGrid, claim: Claim) -> Part:
    cell = study.cell(claim.terms[0].cell)

    def at(below: float) -> Evidence:
        return mostly(study.failing(cell, below).to_list())

    if study.of(cell).empty:
        return Part(sides=claim.terms, evidence=None, margin=claim.below)
    return Part(sides=claim.terms, evidence=at(claim.below), at=at, margin=claim.below)


def _greater(study: StoredGrid, claim: Claim, a: Term, b: Term) -> Part:
    logs = claim.metric == SECONDS
    differences = _differences(study, claim, a, b, logs=logs)
    if differences.empty:
        return Part(sides=(a, b), evidence=None, logs=logs)
    if claim.by is By.WINS:
        return Part(sides=(a, b), evidence=mostly_above(differences.to_numpy()))
    kept, left_out = _learning(study, claim, differences, a, b)
    number = a.number if a.number is not None else b.number
    at = None
    if number is not None and kept.size and not logs:
        sign = 1.0 if a.number is not None else -1.0

        def at(margin: float) -> Evidence:
            return mean_above(kept + sign * (margin - number))

    evidence = mean_above(kept, matters=claim.matters) if kept.size else None
    margin = math.nan if number is None else number
    return Part(sides=(a, b), evidence=evidence, left_out=left_out, logs=logs, at=at, margin=margin)


def _similar(study: StoredGrid, claim: Claim, a: Term, b: Term) -> Part:
    logs = claim.metric in RATIOS
    differences = _differences(study, claim, a, b, logs=logs)
    kept, left_out = _learning(study, claim, differences, a, b)
    if not kept.size:
        return Part(sides=(a, b), evidence=None, left_out=left_out, logs=logs)

    def at(margin: float) -> Evidence:
        return mean_within(kept, math.log1p(margin) if logs else margin)

    within = claim.within
    return Part(
        sides=(a, b), evidence=at(within), left_out=left_out, logs=logs, at=at, margin=within
    )


def _differences(study: StoredGrid, claim: Claim, a: Term, b: Term, *, logs: bool) -> pd.Series:
    """Returns a - b by seed, or by round for training times; of logarithms if asked. What a run
    that diverged lacks is the worst value."""
    sides = [side_values(study, claim.metric, term) for term in (a, b)]
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
    failing = [study.failing(study.cell(name)) for name in names]
    learns = pd.Series(True, index=differences.index)
    for failed in failing:
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
        values = _values(study, metric, term)
    if term.minus is None:
        return values
    other = side_values(study, metric, term.minus)
    if not isinstance(other, pd.Series):
        return values - other
    common = values.index.intersection(other.index)
    return values[common] - other[common]


def _values(study: StoredGrid, metric: str, term: Term) -> pd.Series:
    key = ("claim", metric, term.cell, term.epoch)
    return study.once(key, lambda: _computed_values(study, metric, term))


def _computed_values(study: StoredGrid, metric: str, term: Term) -> pd.Series:
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
