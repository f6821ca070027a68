"""Tests the claims of a grid over its seeds."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo.analysis.hypothesis_tests import (
    Evidence,
    Verdict,
    combine,
    greater,
    greater_unpaired,
    judge,
    mostly_fails,
    within,
    within_unpaired,
)
from hpo.storage.results import StoredGrid
from hpo.study.claims import Claim, Form, Term
from hpo.study.file import Cell

SECONDS = "train_seconds"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One comparison of a claim.

    evidence: None if there is nothing to compare. lost: seeds without a finite figure. logs:
    whether the effect is a difference of logarithms, a ratio.
    """

    sides: tuple[Term, ...]
    evidence: Evidence | None
    lost: int = 0
    logs: bool = False


@dataclass(frozen=True, kw_only=True)
class ClaimVerdict:
    """A claim with its parts, verdict, and two-sided p-value after Holm's correction over all
    claims (1 if nothing can be tested)."""

    claim: Claim
    parts: tuple[Part, ...]
    verdict: Verdict
    p: float

    @property
    def decisive(self) -> Part:
        """Returns the part to show: the clearest contradiction of a refuted claim, the weakest part
        of an unresolved one, the closest part of one that holds."""
        for part in self.parts:
            if part.evidence is None:
                return part
        keys: dict[Verdict, Callable[[Evidence], float]] = {
            Verdict.REFUTED: lambda evidence: evidence.p_against,
            Verdict.UNRESOLVED: lambda evidence: -evidence.p_for,
            Verdict.HOLDS: lambda evidence: evidence.low,
        }
        key = keys[self.verdict]
        return min(self.parts, key=lambda part: key(part.evidence) if part.evidence else math.inf)


@lru_cache(maxsize=1)  # report, lead and terminal ask for the same study
def claim_verdicts(study: StoredGrid) -> list[ClaimVerdict]:
    """Tests the claims of the study's file, in their order. A claim with a part without trials is
    unresolved."""
    parts = [tuple(_parts(study, claim)) for claim in study.file.claims]
    verdicts = judge([_combined(of) for of in parts])
    return [
        ClaimVerdict(claim=claim, parts=of, verdict=verdict, p=p)
        for claim, of, (verdict, p) in zip(study.file.claims, parts, verdicts, strict=True)
    ]


def _combined(parts: Sequence[Part]) -> tuple[float, float]:
    there = [part.evidence for part in parts if part.evidence is not None]
    if len(there) < len(parts):
        return 1.0, 1.0
    return combine(there)


def _parts(study: StoredGrid, claim: Claim) -> Iterator[Part]:
    if claim.form is Form.FAILS:
        yield _failing(study, claim.terms[0])
    elif claim.form is Form.SIMILAR:
        for pair in combinations(claim.terms, 2):
            yield _similar(study, claim, *pair)
    elif claim.form is Form.BEST:
        for other in claim.terms[1:]:
            yield _greater(study, claim, claim.terms[0], other)
    else:
        for pair in pairwise(claim.terms):
            yield _greater(study, claim, *pair)


def _failing(study: StoredGrid, term: Term) -> Part:
    failing = study.failing(study.cell(term.cell))
    evidence = mostly_fails(int(failing.sum()), len(failing)) if len(failing) else None
    return Part(sides=(term,), evidence=evidence)


def _greater(study: StoredGrid, claim: Claim, a: Term, b: Term) -> Part:
    if claim.metric == SECONDS:
        return Part(sides=(a, b), evidence=_slower(study, a, b), logs=True)
    differences, lost = _pairs(study, claim, a, b)
    bimodal = any(study.fails(study.cell(term.cell)) for term in (a, b) if term.cell)
    evidence = greater(differences, bimodal=bimodal) if len(differences) else None
    return Part(sides=(a, b), evidence=evidence, lost=lost)


def _slower(study: StoredGrid, a: Term, b: Term) -> Evidence | None:
    """Compares training times. Seeds do not determine times, so they are not paired; logarithms,
    because a slower network's times vary more."""
    ours, theirs = (_log_times(study, term) for term in (a, b))
    if not ours.size or not theirs.size:
        return None
    if a.cell is None or b.cell is None:
        return greater(ours - theirs)
    return greater_unpaired(ours, theirs)


def _log_times(study: StoredGrid, term: Term) -> NDArray[np.float64]:
    if term.number is not None:
        return np.log([term.number])
    return np.asarray(np.log(separate_times(study, study.cell(term.cell))))


def _similar(study: StoredGrid, claim: Claim, a: Term, b: Term) -> Part:
    """Compares logarithms, because the claim is about ratios; values that are not positive are left
    out."""
    margin = math.log1p(claim.within)
    if claim.metric == SECONDS:
        ours, theirs = (_log_times(study, term) for term in (a, b))
        evidence = within_unpaired(ours, theirs, margin) if ours.size and theirs.size else None
        return Part(sides=(a, b), evidence=evidence, logs=True)
    differences, lost = _pairs(study, claim, a, b, logs=True)
    evidence = within(differences, margin) if len(differences) else None
    return Part(sides=(a, b), evidence=evidence, lost=lost, logs=True)


def _pairs(
    study: StoredGrid, claim: Claim, a: Term, b: Term, *, logs: bool = False
) -> tuple[list[float], int]:
    """Returns a - b, seed by seed, where both are finite, and how many pairs are not."""
    sides = [None if term.cell is None else _values(study, claim.metric, term) for term in (a, b)]
    seeds = set.intersection(*(set(side.index) for side in sides if side is not None))
    both = [
        pd.Series(term.number, index=sorted(seeds)) if side is None else side[sorted(seeds)]
        for term, side in zip((a, b), sides, strict=True)
    ]
    if logs:
        both = [np.log(side.where(side > 0)) for side in both]
    differences = (both[0] - both[1]).astype(float)
    finite = differences[np.isfinite(differences)]
    return finite.to_list(), len(differences) - len(finite)


def _values(study: StoredGrid, metric: str, term: Term) -> pd.Series:
    """Returns the metric by seed, in its own unit."""
    rows = study.of(study.cell(term.cell))
    if term.epoch is not None:
        at = study.curves[study.curves["epoch"] == term.epoch]
        rows = at[at["number"].isin(rows["number"])]
    rows = rows.set_index("seed")
    if metric == "gap":
        return rows["train_accuracy"] - rows["valid_accuracy"]
    return rows[metric]


def separate_times(study: StoredGrid, cell: Cell) -> list[float]:
    """Returns the cell's training times; seeds of one stack share one time."""
    rows = study.of(cell)
    stacked = rows["stack"].fillna(1) > 1
    apart = [*rows[~stacked][SECONDS], *rows[stacked][SECONDS].drop_duplicates()]
    return [float(seconds) for seconds in apart if math.isfinite(seconds)]
