"""Importance of hyperparameters in a search, by two evaluators, with bootstrap intervals.

PED-ANOVA is Optuna's (Watanabe, Bansal & Hutter, arXiv 2304.10255). fANOVA (Hutter, Hoos & Leyton-
Brown, ICML 2014) gives Optuna's numbers to rounding, fast enough to be resampled. optuna.importance
takes 1 to 3 s to import (scikit-learn), so it is imported when used.
"""

import math
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.analysis.fanova import Estimate, Floats, Forests, Pair, Rows, normalized
from hpo.language import marked, nt, t
from hpo.text import listed

# PED-ANOVA needs 5 trials or more in its best part, and the best part should be at most half of all
# trials. So fewer than 10 trials get no interval.
BEST, FEWEST = 5, 10
# Simulated: 30 TPE searches over depth, width, activation, optimizer and lr. PED-ANOVA put the same
# hyperparameter first in 50% of the searches with 15 trials, 67% with 30 and 73% with 60. In random
# searches over four inputs, one three times as strong as the next: 93% and more from 15 trials on.
FEW = 30
# All of it takes 1 to 2 s of a core with 400 trials, about 10 s with 5,000. A resample's forest has
# 8 trees: the standard deviation of a share is about a tenth larger than with 16.
RESAMPLES, TREES, RESAMPLED_TREES = 100, 64, 8


@dataclass(frozen=True, kw_only=True)
class Share:
    """A hyperparameter's share of a total importance of 1, with its 95% bootstrap interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of one evaluator: a share per hyperparameter, the largest first.

    lead: the 95% bootstrap interval of the first share minus the second; None without resamples.
    """

    evaluator: str
    shares: Mapping[str, Share]
    resamples: int
    lead: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Importances:
    """The evaluations of PED-ANOVA on the trials that ended, and of fANOVA on the COMPLETE ones.

    pair: the two that interact most by fANOVA, None if only one varies. notes: sentences that a
    reader needs.
    """

    evaluations: tuple[Evaluation, ...]
    pair: Pair | None
    notes: tuple[str, ...]


def evaluate(
    trials: Sequence[FrozenTrial],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    log_scale: bool = False,
    sign: int = 1,
) -> Importances | None:
    """Evaluates importances from a search's trials. sign: -1 if their value is minimized.

    PED-ANOVA compares the best trials with all that ended; pruned trials are never among the best.
    fANOVA explains the ranks of the complete trials, so that one very bad value does not outweigh
    all others. None for fewer than 2 COMPLETE trials, and if no hyperparameter has two values.

    resamples: of the trials with replacement, for PED-ANOVA; fANOVA takes two fifths as many. An
    interval is widened to hold its share. log_scale: whether fANOVA sees log ranges in logarithms;
    Optuna's does not, and gives 0.1 to 1 nine times the weight of 0.01 to 0.1.
    """
    ended, n = _ended(trials, sign)
    complete, values = ended[:n], np.array([trial.value for trial in ended], float)
    domains = [item for trial in complete for item in trial.distributions.items()]
    names = sorted({name for name, domain in domains if not domain.single()})
    if n < 2 or not names:
        return None
    count, rng = resamples if n >= FEWEST else 0, np.random.default_rng(seed)
    rows = rng.integers(len(ended), size=(count, len(ended)))
    ped_anova = _ped_anova(ended, names, target_quantile(len(ended)))
    evaluations = [_evaluation("PED-ANOVA", names, ped_anova, rows, seed)]
    space = {n: d for n, d in intersection_search_space(complete).items() if n in names}
    pair = None
    if space:
        from scipy.stats import rankdata

        forests = Forests(complete, rankdata(values[:n]), space, log_scale=log_scale)
        rows = rng.integers(n, size=(math.ceil(count * 0.4), n))
        evaluations.append(_evaluation("fANOVA", list(space), forests.shares, rows, seed))
        pair = forests.strongest_pair(seed)
    logs = [] if log_scale else [n for n, d in space.items() if getattr(d, "log", False)]
    notes = (
        *_basis(trials, values, evaluations, n),
        *_undecided(values[:n], evaluations),
        *_forests(pair, [name for name in names if name not in space], logs),
    )
    return Importances(evaluations=tuple(evaluations), pair=pair, notes=notes)


def target_quantile(trials: int) -> float:
    """Returns PED-ANOVA's best part: a tenth of the trials, at least BEST of them, at most half."""
    return min(max(0.1, BEST / trials), 0.5)


def ranked(importances: Importances) -> tuple[str, ...]:
    """Returns the hyperparameters in the first evaluator's order, the most important first."""
    return tuple(importances.evaluations[0].shares)


def most_important_pair(importances: Importances) -> tuple[str, str] | None:
    """Returns the two that interact most, the first evaluator's first two where that is not known;
    None if only one hyperparameter varies."""
    if importances.pair:
        return importances.pair.names
    first, *others = ranked(importances)
    return (first, others[0]) if others else None


def _ended(trials: Sequence[FrozenTrial], sign: int) -> tuple[list[FrozenTrial], int]:
    """Returns copies of the COMPLETE trials and of the pruned ones, whose value is below all
    others, and how many are COMPLETE. Values are multiplied by `sign`.

    Each copy is a COMPLETE trial with what evaluators need: an id of its own, by which PED-ANOVA
    finds the best, and one object per equal distribution, which is faster to compare.
    """
    known = [(t, sign * t.values[0]) for t in trials if t.state is TrialState.COMPLETE]
    known = [(trial, float(value)) for trial, value in known if math.isfinite(value)]
    below_all = min((value for _, value in known), default=0.0) - 1.0
    pruned = [(trial, below_all) for trial in trials if trial.state is TrialState.PRUNED]
    one: dict[BaseDistribution, BaseDistribution] = {}
    copies = []
    for i, (trial, value) in enumerate([*known, *pruned]):
        times = (trial.datetime_start, trial.datetime_complete)
        domains = {name: one.setdefault(d, d) for name, d in trial.distributions.items()}
        given = (TrialState.COMPLETE, value, *times, trial.params, domains)
        copies.append(FrozenTrial(i, *given, {}, {}, {}, trial_id=i))
    return copies, len(known)


def _evaluation(
    evaluator: str, names: Sequence[str], estimate: Estimate, rows: Rows, seed: int
) -> Evaluation:
    """Returns the estimate on all trials, and the middle 95% of the estimates on resamples."""
    estimates = estimate(np.arange(rows.shape[1]), TREES, seed)
    order = sorted(range(len(names)), key=lambda i: (-estimates[i], names[i]))
    low, high, lead = np.zeros(len(names)), np.ones(len(names)), None
    if len(rows):
        drawn = np.array([estimate(r, RESAMPLED_TREES, seed + i) for i, r in enumerate(rows, 1)])
        low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
        if len(names) > 1:
            ends = np.percentile(drawn[:, order[0]] - drawn[:, order[1]], (2.5, 97.5))
            lead = float(ends[0]), float(ends[1])
    low, high = np.minimum(low, estimates), np.maximum(high, estimates)
    shares = {
        names[i]: Share(share=float(estimates[i]), low=float(low[i]), high=float(high[i]))
        for i in order
    }
    return Evaluation(evaluator=evaluator, shares=shares, resamples=len(rows), lead=lead)


class _Resampled(Study):
    """A study to be maximized, without a storage: what PED-ANOVA asks a study for."""

    directions = (StudyDirection.MAXIMIZE,)  # type: ignore[assignment]

    def __init__(self, drawn: list[FrozenTrial]) -> None:
        self.drawn = drawn

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self.drawn


def _ped_anova(trials: list[FrozenTrial], names: Sequence[str], quantile: float) -> Estimate:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)

    def estimate(rows: Rows, _trees: int, _seed: int) -> Floats:
        with warnings.catch_warnings():  # the notes say as much
            warnings.filterwarnings("ignore", "Target and region quantiles select the same set")
            warnings.filterwarnings("ignore", "Some regimes for parameter")
            study = _Resampled([trials[row] for row in rows])
            importances = get_param_importances(study, evaluator=evaluator)
        return normalized(np.array([importances.get(name, 0.0) for name in names]))

    return estimate


# --- notes -------------------------------------------------------------------------------------


def _basis(
    trials: Sequence[FrozenTrial], values: Floats, evaluations: Sequence[Evaluation], n: int
) -> Iterator[str]:
    """Describes the trials that the shares and intervals are based on, and what the evaluators ask
    of them. values: of those that ended, the n COMPLETE ones first."""
    worst_of_best = np.sort(values)[-math.ceil(target_quantile(len(values)) * len(values))]
    text = marked(
        "PED-ANOVA asks what sets the best {best} of {of} trials apart from all; fANOVA asks "
        "what explains the ranks of the {n} complete ones."
    )
    if len(values) > n:
        text = marked(
            "PED-ANOVA asks what sets the best {best} of {of} trials apart from all, those stopped "
            "early included; fANOVA asks what explains the ranks of the {n} complete ones, and "
            "does not see what made the others bad."
        )
    yield t(text, best=int((values >= worst_of_best).sum()), of=len(values), n=n)
    yield t(
        "Both judge each hyperparameter by itself, so what matters only together with another is "
        "partly missed; the shares add up to 1, whatever stays unexplained."
    )
    yield from _certainty(n, evaluations)
    if failed := [trial.state for trial in trials].count(TrialState.FAIL):
        yield nt(
            "{n} failed trial is invisible to both.",
            "{n} failed trials are invisible to both.",
            failed,
        )


def _certainty(n: int, evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Says how far the shares of n COMPLETE trials can be trusted."""
    if n < FEWEST:
        text = marked(
            "With fewer than {n} complete trials the shares mean nothing yet; their intervals are "
            "set to 0 to 1."
        )
        yield t(text, n=FEWEST)
        return
    if n < FEW:
        text = marked(
            "With fewer than {n} complete trials the ranking is weak: more may well change it."
        )
        yield t(text, n=FEW)
    counts = [t("{n} for {evaluator}", n=e.resamples, evaluator=e.evaluator) for e in evaluations]
    text = marked(
        "The intervals hold 95% of the shares from resamples of these trials ({counts}); another "
        "search, whose sampler would take another way, may differ by more."
    )
    yield t(text, counts=listed(counts))


def _undecided(values: Floats, evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Says where an order is not settled. values: of the COMPLETE trials."""
    if len(set(values)) == 1:
        yield t("All complete trials have the same value, so no hyperparameter can be ranked.")
    for evaluation in evaluations:
        (first, a), *others = evaluation.shares.items()
        known = {"evaluator": evaluation.evaluator, "first": first}
        if not others:
            text = marked("For {evaluator} only {first} varies, so its share is 1 in any case.")
            yield t(text, **known)
        elif a.share == others[-1][1].share:
            text = marked("{evaluator} finds no difference: equal shares stand in for its own.")
            yield t(text, **known)
        elif evaluation.lead and evaluation.lead[0] <= 0:
            low, high = (100 * value for value in evaluation.lead)
            text = marked(
                "By {evaluator} it is not settled whether {first} or {second} matters more: their "
                "difference is {low:.0f} to {high:.0f} points of share in the resamples."
            )
            yield t(text, **known, second=others[0][0], low=low, high=high)


def _forests(pair: Pair | None, left: Sequence[str], logs: Sequence[str]) -> Iterator[str]:
    """Says which two hyperparameters act together most by fANOVA, and where it sees another space
    than the search."""
    if pair and pair.share > 0:
        text = marked(
            "The strongest pair is {a} × {b}: by fANOVA, what the two do only together explains "
            "{both:.0f}% of the variance of the ranks; {a} alone explains {alone_a:.0f}% and {b} "
            "alone {alone_b:.0f}%."
        )
        (a, b), (alone_a, alone_b) = pair.names, (100 * share for share in pair.alone)
        yield t(text, a=a, b=b, both=100 * pair.share, alone_a=alone_a, alone_b=alone_b)
    if left:
        text = marked(
            "fANOVA leaves out {names}, which not every trial has, or not with one range."
        )
        yield t(text, names=listed(left))
    if logs:
        text = marked(
            "fANOVA weighs {names} evenly on the plain scale, though searched on a logarithmic "
            "one, so it hardly sees anything but the upper end."
        )
        yield t(text, names=listed(logs))
