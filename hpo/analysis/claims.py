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
    SHARE,
    Evidence,
    combine,
    e_above,
    e_mostly,
    mean_above,
    mean_within,
    mostly,
    mostly_above,
)
from hpo.analysis.hypothesis_tests import Judged, Verdict, greater, judge
from hpo.analysis.precision import beats, learning_images, precision
from hpo.analysis.statistics import LEVEL, boundary, guess_line
from hpo.language import nt, t
from hpo.results.study import StoredGrid
from hpo.study.claims import BY_WINS, GUESS, ROUNDS, SECONDS, By, Claim, Comparison, Form, Term
from hpo.study.file import Cell
from hpo.study.metrics import Metric
from hpo.text import count

REACH = 10  # times a margin: what a farther one would change is not looked for
MOST_SEEDS = 1_000
Z80 = 1.2815515655446004  # 80% of a normal distribution
LEAST_PLANNED = 5  # seeds: a test of fewer decides nothing, and would take half of the error
GREATER_IS_BETTER = ("test_accuracy", "valid_accuracy", "train_accuracy", "test_r2", "valid_r2")


@dataclass(frozen=True, kw_only=True, eq=False)
class Part(Evidence):
    """One comparison of two sides, or of a cell with a line, with its evidence: n = 0 if there is
    nothing to compare.

    left_out: seeds with which a side fails to learn.
    seeds: for each value, how many seeds or rounds of timing had been trained when it was there.
    at: the evidence at another margin, where the comparison has one.
    margin: the comparison's.
    """

    study: StoredGrid
    comparison: Comparison
    sides: tuple[Term, ...]
    left_out: int = 0
    seeds: Sequence[int] = ()
    at: Callable[[float], Evidence] | None = None
    margin: float = math.nan

    @property
    def form(self) -> Form:
        return self.comparison.form

    @property
    def metric(self) -> str:
        return self.study.result.name if self.form is Form.FAILS else self.comparison.metric

    @property
    def measure(self) -> Metric:
        """Returns the metric that is compared."""
        return self.study.named(self.metric)

    @property
    def by(self) -> By:
        return self.comparison.by

    @property
    def matters(self) -> float | None:
        return self.comparison.matters

    @property
    def is_margin(self) -> bool:
        """Whether the margin is the size of a difference, not a line for a metric's own value."""
        numbers = any(side.number is not None for side in self.sides)
        differences = any(side.minus for side in self.sides) or self.comparison.metric == "gap"
        return self.form is not Form.FAILS and (not numbers or differences)

    @property
    def most(self) -> float:
        """Returns the largest margin that makes sense."""
        return 1.0 if self.metric.endswith("accuracy") else math.inf

    @property
    def is_share(self) -> bool:
        """Whether the effect is a share of the seeds."""
        return self.form is Form.FAILS or (self.by is By.WINS and self.form is not Form.SIMILAR)

    @property
    def logs(self) -> bool:
        """Whether the effect is a difference of logarithms, a ratio."""
        return self.comparison.logs

    @cached_property
    def interval_seeds_and_images(self) -> tuple[float, float] | None:
        """The 95% interval over seeds and test images of a difference of two test accuracies, a
        fraction; None for other comparisons, or if the right images are not stored."""
        claim, cells = self.comparison, [self.study.cell(s.cell) for s in self.sides if s.cell]
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
        compared = self.comparison
        if compared.metric == SECONDS or compared.form not in (Form.GREATER, Form.BEST):
            return None
        if not self.n or any(side.cell is None or side.minus for side in self.sides):
            return None
        sides = (side_values(self.study, compared.metric, side) for side in self.sides)
        ours, theirs = (np.asarray(values, float) for values in sides)
        chance = beats(ours[~np.isnan(ours)], theirs[~np.isnan(theirs)])
        return None if math.isnan(chance[0]) else chance


@dataclass(frozen=True, kw_only=True)
class ClaimVerdict(Judged):
    """A claim with its parts and verdict. Holm's correction is over all claims that can be tested;
    p is 1 if nothing can. others: the p-values of the other claims, as `combine` gives them.
    dropped: how many more claims count, see judge."""

    claim: Claim
    parts: tuple[Part, ...]
    others: Sequence[tuple[float, ...]] = ()
    dropped: int = 0

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
    def decided_at(self) -> int | None:
        """The number of seeds with which the claim was decided; None if it is open.

        By the final correction: with fewer claims open then, it may have been counted later.
        """
        several = self.factor * len(self.parts)
        if self.verdict is Verdict.HOLDS:
            return max(_first(part, 0, self.factor) for part in self.parts)
        if self.verdict is Verdict.REFUTED:
            return min(_first(part, 1, several) for part in self.parts)
        if self.verdict is Verdict.TOO_SMALL:
            limited = [part for part in self.parts if part.path_too_small is not None]
            return min(_first(part, 2, several) for part in limited)
        return None

    @property
    def stopped(self) -> str:
        """Says why no more seeds were trained."""
        if self.verdict is Verdict.UNTESTABLE:
            return self.claim.untestable
        if self.verdict is not Verdict.UNRESOLVED:
            return "decided"
        return why_open(self.decisive) if self.decisive.n else "nothing to compare"

    def at_margin(self, part: Part, margin: float) -> Verdict:
        """Returns what the verdict would be with another margin of this part."""
        assert part.at is not None
        found = combine([part.at(margin) if each is part else each for each in self.parts])
        return judge([found, *self.others], more=self.dropped)[0].verdict

    @cached_property
    def turns(self) -> list[list[tuple[float, Verdict]]]:
        """Returns for each part the margins, below its own and above, from which on the verdict
        would be another one, and which; none beyond REACH times the margin."""
        return [self._turns(part) for part in self.parts]

    def _turns(self, part: Part) -> list[tuple[float, Verdict]]:
        if part.at is None:
            return []
        ends = part.margin / REACH, min(part.margin * REACH, part.most)
        return [turn for end in ends for turn in self._turns_towards(part, end)]

    def _turns_towards(self, part: Part, end: float) -> list[tuple[float, Verdict]]:
        """Returns the first other verdict on the way to this margin, and the last one."""
        last = self.at_margin(part, end)
        if last is self.verdict:
            return []

        def other(margin: float) -> bool:
            return self.at_margin(part, margin) is not self.verdict

        first = boundary(other, part.margin, end)
        found = [(first, self.at_margin(part, first))]
        if found[0][1] is not last:
            begins = boundary(lambda m: self.at_margin(part, m) is last, first, end)
            found.append((begins, last))
        return found

    @property
    def close(self) -> bool:
        """Whether twice a margin, or half of it, would give another verdict."""
        return any(
            part.is_margin and 0.5 <= margin / part.margin <= 2
            for part, turns in zip(self.parts, self.turns, strict=True)
            for margin, _ in turns
        )

    def seeds_to_decide(self) -> tuple[float, float, float] | None:
        """Returns with how many values the part that decides would probably decide the claim, if
        its effect is as seen, and the range for effects within 80% of the seen one's error; more
        than MOST_SEEDS count as infinite. None for a claim that is not open or has too few values.
        """
        part = self.decisive
        if self.verdict is not Verdict.UNRESOLVED or not part.test or part.n < LEAST_PLANNED:
            return None
        against = part.p_against < part.p_for
        factor = self.factor * (len(self.parts) if against else 1) / (LEVEL * part.kept)
        seen, error = _standardized(part, against)
        n = np.arange(part.n + 1, MOST_SEEDS + 1)
        needed = []
        for effect in (seen, seen + Z80 * error, seen - Z80 * error):
            if math.isnan(part.spread):
                counted = n * (1 - part.ties / part.n)  # as many ties as so far
                path = e_mostly(counted * min(max(effect, 0.0), 1.0), counted)
            else:
                path = e_above(n, effect, n - 1.0)
            reached = np.flatnonzero(path > factor)
            needed.append(float(n[reached[0]]) if reached.size else math.inf)
        return needed[0], needed[1], needed[2]


def _standardized(part: Part, against: bool) -> tuple[float, float]:
    """Returns the effect that leads, in standard deviations and from the margin on, or as a share
    of the seeds, and its standard error."""
    if math.isnan(part.spread):
        share, n = 1 - part.effect if against else part.effect, part.n - part.ties
        return share, math.sqrt(max(share * (1 - share), 1 / n) / n)
    effect = part.effect
    if part.comparison.form is Form.SIMILAR:
        margin = math.log1p(part.margin) if part.logs else part.margin
        effect = margin - abs(effect)
    effect = (-effect if against else effect) / part.spread
    return effect, math.sqrt(1 / part.n + effect**2 / (2 * part.n))


def _first(part: Part, which: int, factor: int) -> int:
    """Returns with how many seeds evidence for, against or too small (0, 1, 2) decides at a
    correction by this factor; all if it never does."""
    path = (part.path_for, part.path_against, part.path_too_small)[which]
    assert path is not None
    above = np.flatnonzero(path * part.kept * LEVEL > factor)
    first = part.seeds[above[0] if above.size else -1]
    if not part.planned or factor * part.looks[which] >= LEVEL * SHARE:
        return first
    timed = part.comparison.metric == SECONDS
    return min(first, ROUNDS if timed else part.study.planned_seeds or first)


@lru_cache(maxsize=1)  # report, lead and terminal ask for the same study
def claim_verdicts(study: StoredGrid) -> list[ClaimVerdict]:
    """Tests the claims of the study's file, in their order. A claim with a part without trials is
    unresolved."""
    claims = study.file.claims
    parts = [_parts(study, claim) for claim in claims]  # none where it is untestable
    dropped = sum(len(change["dropped"]) for change in study.claim_changes)
    found = [combine(each) for each in parts if each]
    judged = enumerate(judge(found, more=dropped))
    verdicts = []
    for claim, each in zip(claims, parts, strict=True):
        if not each:
            untestable = Judged(verdict=Verdict.UNTESTABLE, p=1.0, factor=1)
            verdicts.append(ClaimVerdict(claim=claim, parts=(), **vars(untestable)))
            continue
        place, own = next(judged)
        others = found[:place] + found[place + 1 :]
        verdict = ClaimVerdict(claim=claim, parts=each, others=others, dropped=dropped, **vars(own))
        verdicts.append(verdict)
    return verdicts


def times_open(study: StoredGrid) -> bool:
    """Whether more rounds of timing could decide a claim."""
    open_claims = (of.claim for of in claim_verdicts(study) if of.verdict is Verdict.UNRESOLVED)
    return any(claim.cells(SECONDS) for claim in open_claims)


def open_cells(study: StoredGrid) -> set[str]:
    """Returns the names of the cells of open claims, of those of their parts that do not hold yet:
    more seeds of these could decide."""
    return {
        cell
        for judged in claim_verdicts(study)
        if judged.verdict is Verdict.UNRESOLVED
        for part in judged.parts
        if judged.factor * part.p_for >= LEVEL and part.comparison.metric != SECONDS
        for side in part.sides
        for cell in side.cells
    }


def difference(study: StoredGrid, a: Cell, b: Cell) -> Evidence:
    """Returns the evidence that a's mean result, in its own unit, is above b's, over the seeds with
    which both learn, with the interval that a verdict on it has; in a study without claims by
    Student's t, for one look."""
    terms, metric = (Term(cell=a.name), Term(cell=b.name)), study.result.name
    comparison = Comparison(form=Form.GREATER, terms=terms, metric=metric, plain=True)
    found = _compared(study, comparison, *terms)
    if study.file.claims or not found.n:
        return found
    differences, _ = _learning(
        study, comparison.metric, _differences(study, comparison, *terms), *terms
    )
    return greater(differences.to_list())


def is_claimed(study: StoredGrid, a: Cell, b: Cell) -> bool:
    """Whether a claim compares the results of two cells."""
    names = {a.name, b.name}
    parts = (part for of in claim_verdicts(study) for part in of.parts)
    return any(
        part.comparison.metric == study.result.name and names == {side.cell for side in part.sides}
        for part in parts
    )


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
    of_all = {"verdicts": ", ".join(text for verdict, text in counted.items() if n[verdict])}
    return nt(
        "Of {n} conclusion {verdicts}", "Of {n} conclusions {verdicts}", len(judged), **of_all
    )


def why_open(part: Part) -> str:
    """Says why an unresolved claim is open, and why no more seeds were trained. part: decisive."""
    if not part.test:
        if part.n == 1:
            return t("One seed does not tell what others would give.")
        return t("The seeds do not differ, so chance cannot be estimated.")
    if part.n == 2:
        return t("Two seeds decide nothing.")
    if part.comparison.metric == SECONDS:
        return nt("This round does not decide it.", "These {n} rounds do not decide it.", part.n)
    rounds = part.study.until_resolved
    if rounds is None:
        return nt("This seed does not decide it.", "These {n} seeds do not decide it.", part.n)
    if rounds["end"] == "complete":
        return t(
            "Open after {seeds}, the most that the study file allows.",
            seeds=count(rounds["most"], "seed"),
        )
    if rounds["end"] == "stopped":
        return t("Open: the run was stopped after {seeds}.", seeds=count(part.n, "seed"))
    return t("Open: the run was out of time after {seeds}.", seeds=count(part.n, "seed"))


# --- comparisons -------------------------------------------------------------------------------


def _parts(study: StoredGrid, claim: Claim) -> tuple[Part, ...]:
    """Returns the comparisons of a claim, two sides each; none if it is untestable."""
    return tuple(part for each in claim.comparisons for part in _parts_of(study, each))


def _parts_of(study: StoredGrid, comparison: Comparison) -> Iterable[Part]:
    terms = comparison.terms
    if comparison.form is Form.FAILS:
        return [_failing(study, comparison)]
    pairs: Iterable[tuple[Term, Term]] = pairwise(terms)
    if comparison.form is Form.SIMILAR:
        pairs = combinations(terms, 2)
    elif comparison.form is Form.BEST:
        pairs = product(terms[:1], terms[1:])
    return [_compared(study, comparison, *pair) for pair in pairs]


def _planned(study: StoredGrid, terms: Sequence[Term], kept: pd.Index) -> int | None:
    """Returns how many of the values with these seeds belong to the planned look: 0 while a cell
    has not all its seeds; None without a plan."""
    seeds = study.planned_seeds or 0
    if seeds < LEAST_PLANNED:
        return None
    first = study.file.first
    names = {name for term in terms for name in term.cells}
    if not {*product(names, range(first, first + seeds))} <= study.ended_seeds:
        return 0
    return int((kept < first + seeds).sum())


def line_of(study: StoredGrid, comparison: Comparison) -> float:
    """Returns the test accuracy below which a run fails, a fraction; of a guess: guess_line. Of a
    regression the value of the result that is the line."""
    if comparison.below != GUESS:
        return study.line if comparison.below is None else float(comparison.below)
    return guess_line(int(study.data["test"]), study.largest_class)


def _failing(study: StoredGrid, comparison: Comparison) -> Part:
    cell, below = study.cell(comparison.terms[0].cell), line_of(study, comparison)
    seeds = _rows(study, cell.name).index
    planned = _planned(study, comparison.terms, seeds)

    def at(line: float) -> Evidence:
        return mostly(study.failing(cell, line)[seeds].to_list(), planned=planned)

    counts = [int(seed) - study.file.first + 1 for seed in seeds]
    part = partial(
        Part, study=study, comparison=comparison, sides=comparison.terms, margin=below, seeds=counts
    )
    if seeds.empty or (comparison.below == GUESS and below > 1):
        return part(**vars(NOTHING))
    return part(**vars(at(below)), at=at)


def _compared(study: StoredGrid, comparison: Comparison, a: Term, b: Term) -> Part:
    """Compares two sides: whether a is greater, or whether the two are similar."""
    differences = _differences(study, comparison, a, b)
    part = partial(Part, study=study, comparison=comparison, sides=(a, b))
    if differences.empty:
        return part(**vars(NOTHING))
    kept, left_out = differences, 0
    if comparison.by is By.MEANS:
        kept, left_out = _learning(study, comparison.metric, differences, a, b)
    part = partial(part, left_out=left_out)
    if kept.empty:
        return part(**vars(NOTHING))
    planned, begins = _planned(study, (a, b), kept.index), study.file.first
    if comparison.metric == SECONDS:
        begins, rounds = 0, ROUNDS if len(kept) >= ROUNDS else 0
        planned = None if planned is None else rounds
    part = partial(part, seeds=[int(seed) - begins + 1 for seed in kept.index])
    test = partial(_tested, comparison, kept.to_numpy(), planned, a, b)
    margin = next((s.number for s in (a, b) if s.number), comparison.matters)
    if comparison.form is Form.SIMILAR:
        margin = comparison.within
    if margin is None:
        return part(**vars(test(None)))
    return part(**vars(test(margin)), at=test, margin=margin)


def _tested(
    comparison: Comparison,
    values: np.ndarray,
    planned: int | None,
    a: Term,
    b: Term,
    margin: float | None,
) -> Evidence:
    """Returns the evidence of these differences of a and b at a margin: how similar the sides are,
    what matters, or the number that one of the sides is; None: there is none."""
    if comparison.form is Form.SIMILAR:
        assert margin is not None
        within = math.log1p(margin) if comparison.logs else margin
        return mean_within(values, within, planned=planned)
    number, sign = (b.number, -1.0) if a.number is None else (a.number, 1.0)
    if number and margin is not None:
        scale = math.log if comparison.logs else float
        values = values + sign * (scale(margin) - scale(number))
    if comparison.by is By.WINS:
        return mostly_above(values, planned=planned)
    return mean_above(values, matters=None if number else margin, planned=planned)


def _differences(study: StoredGrid, comparison: Comparison, a: Term, b: Term) -> pd.Series:
    """Returns a - b by seed, or by round for training times; of logarithms where these are
    compared. What a run that diverged lacks is the worst value."""
    sides = [side_values(study, comparison.metric, term) for term in (a, b)]
    there = [side.index for side in sides if isinstance(side, pd.Series)]
    common = reduce(lambda one, other: one.intersection(other), there).sort_values()
    aligned = [side[common] if isinstance(side, pd.Series) else side for side in sides]
    if comparison.logs:
        with np.errstate(divide="ignore", invalid="ignore"):
            aligned = [np.log(side) for side in aligned]
    return pd.Series(aligned[0] - aligned[1], index=common, dtype=float).fillna(0.0)


def _learning(
    study: StoredGrid, metric: str, differences: pd.Series, a: Term, b: Term
) -> tuple[pd.Series, int]:
    """Returns the differences of the seeds with which both sides learn, and how many are left out.
    Training times are those of all."""
    if metric == SECONDS:
        return differences, 0
    learns = np.isfinite(differences)
    for term in (a, b, a.minus, b.minus):
        if term is not None and term.cells:
            learns &= ~_fails(study, term).reindex(differences.index, fill_value=True)
    return differences[learns], int((~learns).sum())


def _fails(study: StoredGrid, term: Term) -> pd.Series:
    """Returns by seed whether the side's cell, or the one chosen of its group, fails to learn."""
    if term.cell is not None:
        return study.failing(study.cell(term.cell))
    by_cell = {name: study.failing(study.cell(name)) for name in term.group}
    return pd.Series({seed: by_cell[name][seed] for seed, name in chosen(study, term).items()})


def chosen(study: StoredGrid, term: Term) -> pd.Series:
    """Returns by seed the cell of the group with the best mean validation over the seeds before it;
    the first seed has none. So the choice knows nothing of the seed that it is for, and evidence
    from the differences stays valid."""
    metric = study.compared
    columns = {
        name: metric.sign * _rows(study, name)[metric.name].fillna(metric.worst)
        for name in term.group
    }
    frame = pd.concat(columns, axis=1, join="inner").sort_index()  # the seeds that all cells have
    before = frame.expanding().mean().shift(1).iloc[1:]
    return before.idxmax(axis=1)


def side_values(study: StoredGrid, metric: str, term: Term) -> pd.Series | float:
    """Returns a side's values by seed, in the metric's own unit, or its number."""
    if term.number is not None:
        return term.number
    if metric == SECONDS and term.cell:  # by round, see runs.grid.TimingPlan
        times = [times[term.cell] for times in study.timings if term.cell in times]
        values = pd.Series(times, index=range(len(times)), dtype=float)
    else:
        key = ("claim", metric, term.cell, term.group, term.epoch)
        values = study.once(key, lambda: _values(study, metric, term))
    if term.minus is None:
        return values
    other = side_values(study, metric, term.minus)
    if not isinstance(other, pd.Series):
        return values - other
    common = values.index.intersection(other.index)
    return values[common] - other[common]


def _rows(study: StoredGrid, name: str | None) -> pd.DataFrame:
    """Returns the trials of a cell that count, indexed by seed, see StoredGrid.settled."""
    return study.once(("rows", name), lambda: study.settled(study.cell(name)).set_index("seed"))


def _values(study: StoredGrid, metric: str, term: Term) -> pd.Series:
    if term.group:
        by_cell = {name: _values(study, metric, Term(cell=name)) for name in term.group}
        found = {seed: by_cell[name][seed] for seed, name in chosen(study, term).items()}
        return pd.Series(found, dtype=float)
    rows = _rows(study, term.cell)
    diverged = rows["diverged"].astype(bool)
    if metric in BY_WINS:
        values = _changes(study, rows, metric)
    else:
        if term.epoch is not None:
            at = study.curves[study.curves["epoch"] == term.epoch]
            rows = at[at["number"].isin(rows["number"])].set_index("seed")
        gap = metric == "gap"
        values = rows["train_accuracy"] - rows["valid_accuracy"] if gap else rows[metric]
    worst = -np.inf if metric in GREATER_IS_BETTER else np.inf
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
